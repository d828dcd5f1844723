//! Loopback messages with other nodes (`weft_wire::loopback`): questions of this node, answers to
//! theirs. A worker finds one only where it has found no network, and answers nodes alone, each a
//! bounded number in a second, and never with more than it was asked with.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use weft_sys::clock::monotonic_nanos;
use weft_wire::loopback::{self, Loopback};
use weft_wire::{DropReason, Instant, VnetHdr, vxlan};

use crate::egress::Slot;
use crate::snapshot::Snapshot;
use crate::start::Dataplane;
use crate::worker::Worker;

/// Messages that wait in one direction, at most.
pub(crate) const LOOPBACKS: usize = 256;

/// Senders that are told apart; several may share one of these.
const SENDERS: usize = 64;
/// Messages that are taken of a sender at once.
const BURST: u16 = 64;
/// And one more after each such time: 200 in a second.
const EACH: Duration = Duration::from_millis(5);

/// A question of this node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    vtep: IpAddr,
    said: Loopback,
}

/// A message from another node: an answer, or a question that is to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeardLoopback {
    /// The other node's end of the data path.
    pub from: IpAddr,
    /// What it said.
    pub said: Loopback,
    /// When the worker read it.
    pub at: Instant,
}

/// What each sender may still say. Those that flood use up their own part.
#[derive(Debug)]
pub(crate) struct LoopbackBudget([(u16, Instant); SENDERS]);

impl Default for LoopbackBudget {
    fn default() -> Self {
        Self([(BURST, Instant(0)); SENDERS])
    }
}

impl LoopbackBudget {
    /// Whether one more message from there may be looked at.
    fn take(&mut self, now: Instant, from: IpAddr) -> bool {
        let bytes = match from.to_canonical() {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        };
        let (left, since) = &mut self.0[(bytes % SENDERS as u128) as usize];
        let gained = now.since(*since).as_nanos() / EACH.as_nanos();
        if gained > 0 {
            *left = u16::try_from(gained).map_or(BURST, |n| left.saturating_add(n).min(BURST));
            *since = now;
        }
        let taken = *left > 0;
        *left = left.saturating_sub(1);
        taken
    }
}

impl Worker {
    /// A datagram of a network that this node does not have: perhaps a loopback message.
    #[cold]
    pub(crate) fn of_no_network(
        &mut self,
        snapshot: &Snapshot,
        from: SocketAddr,
        packet: Range<usize>,
    ) -> Result<(), DropReason> {
        let bytes = self.recv.arena().get(packet).unwrap_or_default();
        if vxlan::parse(bytes)? != loopback::VNI {
            return Err(DropReason::UnknownVni);
        }
        if !snapshot.switch.is_node(from.ip()) {
            return Err(DropReason::OtherPeer);
        }
        let frame = bytes.get(vxlan::HEADER_LEN..).unwrap_or_default();
        let said = Loopback::parse(frame)?;
        // The round may have begun a while ago, and somebody measures.
        let at = Instant(monotonic_nanos());
        if !self.loopbacks.take(at, from.ip()) {
            return Err(DropReason::LoopbackLimit);
        }
        if said.answer || said.tell {
            let heard = HeardLoopback {
                from: from.ip().to_canonical(),
                said,
                at,
            };
            let kept = self.shared.heard.push(heard);
            kept.map_err(|_| DropReason::LoopbackLimit)?;
        }
        if !said.answer {
            self.send_loopback(from, said.answered())?;
            let answered = &self.counters().loopbacks_answered;
            answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sends what this node asks others.
    pub(crate) fn send_loopbacks(&mut self) {
        while let Some(Question { vtep, said }) = self.shared.inboxes[self.index].loopbacks.pop() {
            let vtep = SocketAddr::new(vtep, self.vxlan_port);
            if let Err(reason) = self.send_loopback(vtep, said) {
                self.counters().underlay.add(reason);
            }
        }
    }

    fn send_loopback(&mut self, vtep: SocketAddr, said: Loopback) -> Result<(), DropReason> {
        let counters = &self.shared.counters[self.index];
        let slot = self.queue.free_slot(counters);
        let start = slot.start + VnetHdr::LEN;
        let len = said.write(self.queue.bytes(start..slot.end))?;
        let frame = start..start + len;
        let vnet = &VnetHdr::NONE;
        let kept = self
            .queue
            .push(loopback::VNI, vtep, vnet, None, frame, counters)?;
        if kept == Slot::Kept {
            self.queue.keep_slot(start + len);
        }
        Ok(())
    }
}

impl Dataplane {
    /// Sends a loopback message to the node behind `vtep`, by the socket and in the form of all
    /// frames to it. False when there is no room.
    pub fn send_loopback(&self, vtep: IpAddr, said: Loopback) -> bool {
        let Some(inbox) = self.shared.inboxes.first() else {
            return false;
        };
        let sent = inbox.loopbacks.push(Question { vtep, said }).is_ok();
        inbox.wakeup.notify();
        sent
    }

    /// The next message of another node that is kept for the agent.
    pub fn receive_loopback(&self) -> Option<HeardLoopback> {
        self.shared.heard.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_floods_takes_its_own_part_only() {
        let mut budget = LoopbackBudget::default();
        let [greedy, quiet]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let start = Instant(1_000_000_000_000);
        let taken = (0..1000).filter(|_| budget.take(start, greedy)).count();
        assert_eq!(taken, usize::from(BURST));
        assert!(budget.take(start, quiet));
        let second = (1..=1000).map(|ms| start.after(Duration::from_millis(ms)));
        let taken = second.filter(|now| budget.take(*now, greedy)).count();
        assert_eq!(taken, 200);
        let later = start.after(Duration::from_secs(3600));
        let taken = (0..1000).filter(|_| budget.take(later, greedy)).count();
        assert_eq!(taken, usize::from(BURST));
    }
}
