//! Client to replica.

use weft_wire::fragment::fragment_header;
use weft_wire::frame::{Fragment, TCP, TCP_RST, UDP};
use weft_wire::{DropReason, IpInfo, quoted};

use crate::context::{Context, port_load, service_of};
use crate::flow::{Flow, FlowKind, Macs, Origin};
use crate::fragments::{Datagram, Follow};
use crate::install::Install;
use crate::key::Key;
use crate::packet::Packet;
use crate::rewrite;
use crate::state::FlowState;
use crate::store::FlowId;
use crate::syn_ring::SynRef;
use crate::table::{FlowTable, Found};
use crate::verdict::{Forward, Refusal};

impl FlowTable {
    /// Rewrites a client's frame to its replica; chooses one for a new connection.
    ///
    /// Give it frames from a port whose destination is a VIP, and frames from `weft0` whose
    /// destination is the mesh address. The sender's addresses were verified by the caller.
    /// Fragments and ICMP errors go with the flow that they belong to.
    /// `partial_csum` says that the frame's checksum is still to be completed by a device.
    /// O(1) for a known flow, O(replicas) for a new one.
    pub fn forward(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        if frame.len() < info.len {
            return Forward::Drop(DropReason::Truncated);
        }
        let packet = &mut Packet {
            frame,
            info,
            partial_csum,
        };
        if info.fragment != Fragment::None {
            return self.forward_fragment(cx, origin, packet);
        }
        if info.is_echo_request() {
            return Forward::AnswerEcho;
        }
        if quoted::is_error(info) {
            return self.forward_error(cx, origin, packet);
        }
        if info.proto != TCP && info.proto != UDP {
            return Forward::Drop(DropReason::NotAFlow);
        }
        self.forward_packet(cx, origin, packet)
    }

    /// A TCP or UDP packet, or the first fragment of one.
    pub(crate) fn forward_packet(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        packet: &mut Packet<'_>,
    ) -> Forward {
        let key = Key::of(origin.scope(), packet.info);
        let Some(found) = self.lookup(cx, &key) else {
            return self.forward_new(cx, origin, key, packet);
        };
        if packet.info.proto == UDP {
            if found.alive {
                return self.forward_known(cx, found.at, None, packet);
            }
            self.remove(found.at);
            return self.forward_new(cx, origin, key, packet);
        }
        self.forward_segment(cx, origin, found, packet)
    }

    /// A client's fragment.
    fn forward_fragment(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        packet: &mut Packet<'_>,
    ) -> Forward {
        let info = packet.info;
        let header = match fragment_header(packet.frame, info) {
            Ok(header) => header,
            Err(reason) => return Forward::Drop(reason),
        };
        let datagram = Datagram::new(origin.scope(), info, &header, false);
        if info.fragment == Fragment::Later {
            let follow = match self.fragments.later(cx.now, &datagram, &header) {
                Ok(follow) => follow,
                Err(reason) => return Forward::Drop(reason),
            };
            let flow = self.store.get(follow.at);
            if !flow.is_some_and(|flow| follow.is(flow)) || !self.is_alive(cx, follow.at) {
                return Forward::Drop(DropReason::NoReplica);
            }
            return self.forward_known(cx, follow.at, None, packet);
        }
        if info.proto != TCP && info.proto != UDP {
            return Forward::Drop(DropReason::Fragment);
        }
        if let Err(reason) = self.fragments.may_begin(cx.now, &datagram, info) {
            return Forward::Drop(reason);
        }
        let verdict = self.forward_packet(cx, origin, packet);
        if let Forward::Rewritten { .. } = verdict
            && let Some(at) = self.store.find_forward(&Key::of(origin.scope(), info))
            && let Some(flow) = self.store.get(at)
        {
            let follow = Follow::new(at, flow, false);
            self.fragments
                .begin(cx.now, datagram, info, &header, follow);
        }
        verdict
    }

    /// A TCP segment of a known flow.
    fn forward_segment(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        Found { at, alive }: Found,
        packet: &mut Packet<'_>,
    ) -> Forward {
        let Some(state) = self.store.get(at).map(|flow| flow.state) else {
            return Forward::Drop(DropReason::NotAFlow);
        };
        let info = packet.info;
        let mut install = None;
        if packet.is_syn() {
            if state.is_over() || (!alive && !state.is_unanswered()) {
                // The client uses its port again; what was there is over, or lost its replica.
                let forward = self.remove(at).map(|flow| flow.forward);
                let key = forward.unwrap_or_else(|| Key::of(origin.scope(), info));
                return self.forward_new(cx, origin, key, packet);
            }
            if state.is_unanswered() {
                self.note_silence(cx.now, at);
                match self.retry(cx, at) {
                    Some(moved) => install = moved,
                    None if alive => {}
                    None => {
                        self.remove(at);
                        let key = Key::of(origin.scope(), info);
                        if self.hold(cx, origin, &key, packet) {
                            return Forward::Held;
                        }
                        self.counters.refused += 1;
                        if let Some(port) = port_load(cx, origin, &key) {
                            port.tally().count_refused();
                        }
                        return Forward::Refuse(Refusal::Reset(DropReason::NoReplica));
                    }
                }
            } else if state == FlowState::SynAnswered {
                self.ask_again(at, packet);
            }
        } else if !alive {
            self.remove(at);
            self.counters.lost_replica += 1;
            return refuse_stranger(info);
        }
        let state = self.store.get(at).map_or(state, |flow| flow.state);
        let next = state.after_client(info.tcp_flags);
        if let Some(flow) = self.store.get_mut(at) {
            let forged = next == FlowState::Reset && !flow.believes_reset(packet);
            if forged {
                return self.forward_known(cx, at, install, packet);
            }
            flow.track_client(packet);
            flow.last_seen = cx.now;
        }
        self.set_state(at, next);
        self.forward_known(cx, at, install, packet)
    }

    /// The client repeats its SYN: it did not see the answer. The replica may have ended since, and
    /// then refuses; with a copy to send elsewhere the connection is unanswered again.
    fn ask_again(&mut self, at: FlowId, packet: &Packet<'_>) {
        let owned = self
            .store
            .get(at)
            .filter(|flow| flow.kind == FlowKind::Owned);
        let Some(replica) = owned.map(|flow| flow.replica_key) else {
            return;
        };
        let Some(kept) = self.keep_syn(packet, replica) else {
            return;
        };
        self.set_state(at, FlowState::SynSent);
        if let Some(flow) = self.store.get_mut(at) {
            flow.syn = Some(kept);
        }
    }

    /// Copies an opening segment that goes to `replica`.
    fn keep_syn(&mut self, packet: &Packet<'_>, replica: u64) -> Option<SynRef> {
        let info = packet.info;
        if info.proto != TCP || info.fragment != Fragment::None {
            return None;
        }
        let frame = packet.frame.get(..info.len)?;
        self.syns.keep(frame, replica, packet.partial_csum)
    }

    /// Rewrites a frame as its flow says.
    fn forward_known(
        &mut self,
        cx: &Context<'_>,
        at: FlowId,
        install: Option<Install>,
        packet: &mut Packet<'_>,
    ) -> Forward {
        let worker = self.config.worker;
        let Some(flow) = self.store.get_mut(at) else {
            return Forward::Drop(DropReason::NotAFlow);
        };
        flow.last_seen = cx.now;
        if !rewrite::to_replica(flow, packet) {
            return Forward::Drop(DropReason::BadIpHeader);
        }
        rewrite::clamp(cx, flow, packet);
        if let Some(open) = &flow.open {
            open.count_rx(worker, packet.payload_bytes());
        }
        Forward::Rewritten {
            vni: flow.origin.vni(),
            dst_mac: flow.replica_mac,
            install,
        }
    }

    /// The first frame of a flow, or one that belongs to none.
    fn forward_new(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        key: Key,
        packet: &mut Packet<'_>,
    ) -> Forward {
        let info = packet.info;
        if info.proto == TCP && !packet.is_syn() {
            return refuse_stranger(info);
        }
        let admitted = match service_of(cx, origin, &key) {
            Some((service, _)) if !self.clients.admits(origin, &key, service) => {
                Err(DropReason::ConnectionLimit)
            }
            _ => self.choose(cx, origin, &key, &[]),
        };
        let (reverse, replica, service) = match admitted {
            Ok(chosen) => chosen,
            Err(DropReason::FlowTableFull) => {
                self.counters.full += 1;
                return Forward::Drop(DropReason::FlowTableFull);
            }
            Err(DropReason::NoReplica) if self.hold(cx, origin, &key, packet) => {
                return Forward::Held;
            }
            Err(reason) => {
                self.counters.refused += 1;
                if let Some(port) = port_load(cx, origin, &key) {
                    port.tally().count_refused();
                }
                return refuse(info, reason);
            }
        };
        let syn = self.keep_syn(packet, replica.key);
        let macs = Macs {
            client: packet.src_mac(),
            service: packet.dst_mac(),
            replica: replica.mac,
        };
        let mut flow = Flow::new(FlowKind::Owned, *origin, key, reverse, macs, cx.now);
        flow.replica_key = replica.key;
        flow.replica_local = replica.local;
        flow.serial = self.next_serial();
        flow.epoch = cx.epoch;
        flow.syn = syn;
        let open = replica.load.open_at(&service.balancer.load, cx.now);
        flow.open = Some(open.at_port(port_load(cx, origin, &key)));
        flow.limited = self.clients.limited(origin, service);
        flow.track_client(packet);
        let install = Install::of(&flow, self.config.worker);
        match self.insert(flow) {
            Some(at) => self.forward_known(cx, at, install, packet),
            None => Forward::Drop(DropReason::FlowTableFull),
        }
    }
}

/// Answer to a TCP segment of no known connection. A reset is never answered (RFC 9293 section
/// 3.5.2).
fn refuse_stranger(info: &IpInfo) -> Forward {
    if info.tcp_flags & TCP_RST != 0 {
        Forward::Drop(DropReason::NotAFlow)
    } else {
        Forward::Refuse(Refusal::Reset(DropReason::NotAFlow))
    }
}

fn refuse(info: &IpInfo, reason: DropReason) -> Forward {
    Forward::Refuse(if info.proto == TCP {
        Refusal::Reset(reason)
    } else {
        Refusal::PortUnreachable(reason)
    })
}
