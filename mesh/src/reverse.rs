//! Replica to client.

use weft_wire::fragment::fragment_header;
use weft_wire::frame::{self, Fragment, Frame, TCP, TCP_FIN, TCP_RST, TCP_SYN, UDP};
use weft_wire::{DropReason, IpInfo, Vni, checksum, quoted};

use crate::context::{Context, port_load};
use crate::flow::{Flow, FlowKind};
use crate::fragments::{Datagram, Follow};
use crate::key::{Key, Scope};
use crate::packet::Packet;
use crate::rewrite;
use crate::state::FlowState;
use crate::store::FlowId;
use crate::table::FlowTable;
use crate::verdict::Reverse;

impl FlowTable {
    /// Undoes the rewrite in a replica's frame on network `vni`.
    ///
    /// Give it every frame that might answer a flow: those that arrive for a local port or for the
    /// node's own ingress address. O(1); nothing but a comparison while there are no flows.
    pub fn reverse(
        &mut self,
        cx: &Context<'_>,
        vni: Vni,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Reverse {
        if self.is_empty() || frame.len() < info.len {
            return Reverse::NotAFlow;
        }
        let packet = &mut Packet {
            frame,
            info,
            partial_csum,
        };
        if info.fragment != Fragment::None {
            return self.reverse_fragment(cx, vni, packet);
        }
        if quoted::is_error(info) {
            return self.reverse_error(vni, packet);
        }
        if info.proto != TCP && info.proto != UDP {
            return Reverse::NotAFlow;
        }
        self.reverse_packet(cx, vni, packet)
    }

    /// A TCP or UDP packet, or the first fragment of one.
    fn reverse_packet(&mut self, cx: &Context<'_>, vni: Vni, packet: &mut Packet<'_>) -> Reverse {
        let info = packet.info;
        let Some(at) = self.store.find_reverse(&Key::of(Scope::network(vni), info)) else {
            return Reverse::NotAFlow;
        };
        let Some(flow) = self.store.get_mut(at) else {
            return Reverse::NotAFlow;
        };
        flow.last_seen = cx.now;
        if let FlowKind::Guest { owner } = flow.kind {
            return self.reverse_guest(cx, at, owner, packet);
        }
        let is_owner = flow.kind == FlowKind::Owned;
        if info.proto == TCP {
            flow.track_replica(packet);
        }
        if info.proto == UDP {
            self.set_state(at, FlowState::DatagramsAnswered);
        } else if is_owner && flow.state.is_unanswered() && info.tcp_flags & TCP_RST != 0 {
            if !flow.refuses_syn(packet) {
                return Reverse::Drop(DropReason::NotAFlow);
            }
            if let Some(retry) = self.reverse_refused(cx, at) {
                return retry;
            }
        } else if info.tcp_flags & TCP_RST == 0 || flow.may_reset(packet) {
            let state = flow.state.after_replica(info.tcp_flags);
            self.set_state(at, state);
        }
        self.reverse_known(cx, at, packet)
    }

    /// A fragment that may come from a replica.
    fn reverse_fragment(&mut self, cx: &Context<'_>, vni: Vni, packet: &mut Packet<'_>) -> Reverse {
        let info = packet.info;
        let Ok(header) = fragment_header(packet.frame, info) else {
            return Reverse::NotAFlow;
        };
        let datagram = Datagram::new(Scope::network(vni), info, &header, true);
        if info.fragment == Fragment::Later {
            let follow = match self.fragments.later(cx.now, &datagram, &header) {
                Ok(follow) => follow,
                // Replicas also speak for themselves.
                Err(DropReason::FragmentEarly) => return Reverse::NotAFlow,
                Err(reason) => return Reverse::Drop(reason),
            };
            let flow = self.store.get(follow.at);
            if !flow.is_some_and(|flow| follow.is(flow)) {
                return Reverse::Drop(DropReason::NotAFlow);
            }
            return match follow.kind {
                FlowKind::Guest { owner } if follow.to_owner => Reverse::ToOwner { worker: owner },
                _ => self.reverse_known(cx, follow.at, packet),
            };
        }
        if info.proto != TCP && info.proto != UDP {
            return Reverse::NotAFlow;
        }
        let Some(at) = self.store.find_reverse(&Key::of(Scope::network(vni), info)) else {
            return Reverse::NotAFlow;
        };
        if let Err(reason) = self.fragments.may_begin(cx.now, &datagram, info) {
            return Reverse::Drop(reason);
        }
        let verdict = self.reverse_packet(cx, vni, packet);
        let to_owner = matches!(verdict, Reverse::ToOwner { .. });
        let passed = matches!(verdict, Reverse::Rewritten { .. } | Reverse::Return { .. });
        if (passed || to_owner)
            && let Some(flow) = self.store.get(at)
        {
            let follow = Follow::new(at, flow, to_owner);
            self.fragments
                .begin(cx.now, datagram, info, &header, follow);
        }
        verdict
    }

    /// The frame that [`Reverse::Retry`] spoke of: complete checksums, no offload asked for.
    #[must_use]
    pub fn retry_frame(&self) -> &[u8] {
        self.scratch.get(..self.scratch_len).unwrap_or_default()
    }

    fn reverse_known(&self, cx: &Context<'_>, at: FlowId, packet: &mut Packet<'_>) -> Reverse {
        let Some(flow) = self.store.get(at) else {
            return Reverse::NotAFlow;
        };
        if flow.kind == FlowKind::Return {
            return returned(flow, rewrite::to_node(flow, packet));
        }
        if !rewrite::to_client(flow, packet) {
            return Reverse::Drop(DropReason::BadIpHeader);
        }
        rewrite::clamp(cx, flow, packet);
        let (worker, bytes) = (self.config.worker, packet.payload_bytes());
        // What belongs to a flow of another worker is looked up.
        let (port, load) = match &flow.open {
            Some(open) => (open.port(), Some(open.load())),
            None => {
                let replica = cx.services.replica(flow.origin.vni(), flow.replica_key);
                let port = port_load(cx, &flow.origin, &flow.forward);
                (port, replica.map(|replica| &*replica.load))
            }
        };
        if let Some(port) = port {
            port.tally().count_tx(worker, bytes);
        }
        if let Some(load) = load {
            load.tally().count_tx(worker, bytes);
        }
        Reverse::Rewritten {
            to: flow.origin.target(),
        }
    }

    /// A frame of a flow that another worker owns. That one has to see what changes its state.
    fn reverse_guest(
        &mut self,
        cx: &Context<'_>,
        at: FlowId,
        owner: u16,
        packet: &mut Packet<'_>,
    ) -> Reverse {
        let to_owner = Reverse::ToOwner { worker: owner };
        let info = packet.info;
        if info.proto == UDP {
            let first = self
                .store
                .get(at)
                .is_some_and(|flow| flow.state == FlowState::Datagrams);
            if first {
                self.set_state(at, FlowState::DatagramsAnswered);
                return to_owner;
            }
        } else if info.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            if info.tcp_flags & TCP_FIN != 0 {
                self.set_state(at, FlowState::FinReplica);
            }
            return to_owner;
        }
        self.reverse_known(cx, at, packet)
    }

    /// The replica refused the connection. `None` when no other can be asked unseen: the refusal
    /// then goes on to the client.
    fn reverse_refused(&mut self, cx: &Context<'_>, at: FlowId) -> Option<Reverse> {
        self.note_refusal(cx.now, at);
        let syn = self.store.get(at)?.syn;
        let kept = syn.and_then(|syn| self.syns.get_mut(syn));
        let partial = kept.map(|kept| {
            let (frame, partial_csum) = (kept.frame(), kept.partial_csum());
            self.scratch_len = 0;
            if let Some(place) = self.scratch.get_mut(..frame.len()) {
                place.copy_from_slice(frame);
                self.scratch_len = frame.len();
            }
            partial_csum
        });
        let moved = partial.and_then(|partial_csum| Some((self.retry(cx, at)?, partial_csum)));
        let Some((install, partial_csum)) = moved else {
            if partial.is_some_and(|partial_csum| self.hold_refused(cx, at, partial_csum)) {
                return Some(Reverse::Drop(DropReason::Retried));
            }
            self.counters.refused += 1;
            if let Some(open) = self.store.get(at).and_then(|flow| flow.open.as_ref()) {
                open.count_failed();
            }
            self.set_state(at, FlowState::Reset);
            return None;
        };
        let (flow, scratch) = self.flow_and_scratch(at)?;
        let Ok(Frame::Ip(info)) = frame::parse(scratch) else {
            return Some(Reverse::Drop(DropReason::Retried));
        };
        let mut packet = Packet {
            frame: scratch,
            info: &info,
            partial_csum,
        };
        rewrite::to_replica(flow, &mut packet);
        if partial_csum
            && let Some(offset) = info.checksum_offset()
            && checksum::complete(packet.frame, info.l4, offset).is_err()
        {
            return Some(Reverse::Drop(DropReason::Retried));
        }
        packet.partial_csum = false;
        rewrite::clamp(cx, flow, &mut packet);
        Some(Reverse::Retry {
            vni: flow.origin.vni(),
            dst_mac: flow.replica_mac,
            install,
        })
    }
}

/// What becomes of a frame to the node that its client came through, which was `rewritten` or not.
pub(crate) fn returned(flow: &Flow, rewritten: bool) -> Reverse {
    if !rewritten {
        return Reverse::Drop(DropReason::BadIpHeader);
    }
    Reverse::Return {
        dst_mac: flow.client_mac,
    }
}
