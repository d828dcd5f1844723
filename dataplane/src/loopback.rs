//! Loopback messages with other nodes (`weft_wire::loopback`): questions of this node, answers to
//! theirs. A worker finds one only where it has found no network, and answers nodes alone, each a
//! bounded number in a second, and never with more than it was asked with.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;

use weft_sys::clock::monotonic_nanos;
use weft_wire::loopback::{self, Loopback};
use weft_wire::{DropReason, Instant, VnetHdr, vxlan};

use crate::frame_slot::Slot;
use crate::handover::{HeardLoopback, LoopbackQuestion};
use crate::snapshot::Snapshot;
use crate::worker::Worker;

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
        while let Some(LoopbackQuestion { vtep, port, said }) =
            self.shared.inboxes[self.index].loopbacks.pop()
        {
            let vtep = SocketAddr::new(vtep, port.unwrap_or(self.vxlan_port));
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
