//! Clients that come in a gap, in which their service has no replica that takes connections though
//! some are wanted: between the end of its only one and the start of the next. They wait.

use weft_wire::frame::{self, Fragment, Frame, TCP};
use weft_wire::{DropReason, Mac, Vni, checksum, reply};

use crate::context::{Context, port_load, service_of};
use crate::flow::{Origin, Target};
use crate::install::Install;
use crate::key::Key;
use crate::packet::Packet;
use crate::store::FlowId;
use crate::sweep::RESET_BYTES;
use crate::syn_ring::SYN_BYTES;
use crate::table::FlowTable;
use crate::verdict::Forward;
use crate::waiting::Waiting;

/// What becomes of a client that has waited.
#[derive(Debug, Clone, Copy)]
pub enum Admission {
    /// Deliver its opening segment on network `vni` to `dst_mac`.
    Forward {
        /// Network of the replica.
        vni: Vni,
        /// The replica's Ethernet address, already in the frame.
        dst_mac: Mac,
        /// Hand this to the worker that reads the replica's frames, before the frame itself.
        install: Option<Install>,
    },
    /// Send it a reset.
    Refuse {
        /// Where it is.
        to: Target,
        /// What to count.
        reason: DropReason,
    },
}

impl FlowTable {
    /// Whether clients wait for a replica.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends on who waited for a replica that is there now, and refuses who has waited long enough,
    /// or whose service wants no replica any more.
    ///
    /// Call it in each round while [`FlowTable::has_waiting`], until it returns true; looks at
    /// `budget` clients at most each time. `out` is given the frame to send, with complete checksums.
    pub fn admit(
        &mut self,
        cx: &Context<'_>,
        budget: usize,
        mut out: impl FnMut(Admission, &[u8]),
    ) -> bool {
        for _ in 0..budget {
            if let Some(waiting) = self.waiting.pop_over(cx.now) {
                self.refuse_waiting(cx, &waiting, &mut out);
                continue;
            }
            let Some((number, waiting)) = self.waiting.look(cx.epoch) else {
                return true;
            };
            let service = service_of(cx, &waiting.origin, &waiting.key);
            if service.is_some_and(|(service, _)| service.in_gap) {
                continue;
            }
            if let Some(waiting) = self.waiting.take(number) {
                self.let_in(cx, &waiting, &mut out);
            }
        }
        false
    }

    /// Keeps a client's opening segment where its service is in a gap; false where it is not, or the
    /// packet opens nothing.
    pub(crate) fn hold(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        key: &Key,
        packet: &Packet<'_>,
    ) -> bool {
        let info = packet.info;
        if info.proto != TCP || !packet.is_syn() || info.fragment != Fragment::None {
            return false;
        }
        let service = service_of(cx, origin, key).filter(|(service, _)| service.in_gap);
        let Some((service, _)) = service else {
            return false;
        };
        let mut bytes = [0; SYN_BYTES];
        let (Some(frame), Some(copy)) = (packet.frame.get(..info.len), bytes.get_mut(..info.len))
        else {
            return false;
        };
        copy.copy_from_slice(frame);
        if packet.partial_csum
            && let Some(offset) = info.checksum_offset()
            && checksum::complete(copy, info.l4, offset).is_err()
        {
            return false;
        }
        if self.waiting.keep(cx.now, origin, key, &service.id, copy) {
            self.counters.held += 1;
        }
        true
    }

    /// Keeps a connection that its replica has refused, whose opening segment is in the scratch,
    /// where the service is in a gap: that replica has ended.
    pub(crate) fn hold_refused(
        &mut self,
        cx: &Context<'_>,
        at: FlowId,
        partial_csum: bool,
    ) -> bool {
        let Some((flow, scratch)) = self.flow_and_scratch(at) else {
            return false;
        };
        let (origin, key) = (flow.origin, flow.forward);
        let mut bytes = [0; SYN_BYTES];
        let Some(frame) = bytes.get_mut(..scratch.len()) else {
            return false;
        };
        frame.copy_from_slice(scratch);
        let Ok(Frame::Ip(info)) = frame::parse(frame) else {
            return false;
        };
        let packet = Packet {
            frame,
            info: &info,
            partial_csum,
        };
        let held = self.hold(cx, &origin, &key, &packet);
        if held {
            self.remove(at);
        }
        held
    }

    /// The service of one that waited is in no gap any more.
    fn let_in(
        &mut self,
        cx: &Context<'_>,
        waiting: &Waiting,
        out: &mut impl FnMut(Admission, &[u8]),
    ) {
        let found = self.store.find_forward(&waiting.key);
        let flow = found.and_then(|at| self.store.get(at));
        if flow.is_some_and(|flow| !flow.state.is_over()) {
            // It has asked again meanwhile.
            return;
        }
        let mut bytes = [0; SYN_BYTES];
        let Some(frame) = bytes.get_mut(..waiting.frame().len()) else {
            return;
        };
        frame.copy_from_slice(waiting.frame());
        let Ok(Frame::Ip(info)) = frame::parse(frame) else {
            return;
        };
        let mut packet = Packet {
            frame,
            info: &info,
            partial_csum: false,
        };
        match self.forward_packet(cx, &waiting.origin, &mut packet) {
            Forward::Rewritten {
                vni,
                dst_mac,
                install,
            } => {
                let admission = Admission::Forward {
                    vni,
                    dst_mac,
                    install,
                };
                out(admission, &*packet.frame);
            }
            Forward::Refuse(refusal) => reset(waiting, refusal.reason(), out),
            // Without room for its flow: it asks again.
            Forward::Drop(_) | Forward::Held | Forward::AnswerEcho => {}
        }
    }

    fn refuse_waiting(
        &mut self,
        cx: &Context<'_>,
        waiting: &Waiting,
        out: &mut impl FnMut(Admission, &[u8]),
    ) {
        self.counters.refused += 1;
        self.counters.held_refused += 1;
        if let Some(port) = port_load(cx, &waiting.origin, &waiting.key) {
            port.tally().count_refused();
        }
        reset(waiting, DropReason::NoReplica, out);
    }
}

fn reset(waiting: &Waiting, reason: DropReason, out: &mut impl FnMut(Admission, &[u8])) {
    let frame = waiting.frame();
    let Ok(Frame::Ip(info)) = frame::parse(frame) else {
        return;
    };
    let mut bytes = [0; RESET_BYTES];
    let len = reply::tcp_reset_for(frame, &info, &mut bytes);
    let to = waiting.origin.target();
    if let Some(frame) = bytes.get(..len).filter(|frame| !frame.is_empty()) {
        out(Admission::Refuse { to, reason }, frame);
    }
}
