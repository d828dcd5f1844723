//! Client to replica.

use weft_wire::fragment::fragment_header;
use weft_wire::frame::{self, Fragment, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, UDP};
use weft_wire::{DropReason, IpInfo, quoted};

use crate::context::{Context, port_load, service_of};
use crate::flow::{Flow, Install, Origin, Role};
use crate::fragments::{Datagram, Follow};
use crate::key::Key;
use crate::rewrite::{clamp, payload_of, rewrite_forward};
use crate::state::FlowState;
use crate::store::FlowId;
use crate::syn_ring::SynRef;
use crate::table::FlowTable;
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
        if info.fragment != Fragment::None {
            return self.forward_fragment(cx, origin, frame, info, partial_csum);
        }
        if info.is_echo_request() {
            return Forward::AnswerEcho;
        }
        if quoted::is_error(info) {
            return self.forward_error(cx, origin, frame, info, partial_csum);
        }
        if info.proto != TCP && info.proto != UDP {
            return Forward::Drop(DropReason::NotAFlow);
        }
        self.forward_packet(cx, origin, frame, info, partial_csum)
    }

    /// A TCP or UDP packet, or the first fragment of one.
    fn forward_packet(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        let key = Self::key_of(origin.scope(), info);
        let Some(at) = self.store.find_forward(&key) else {
            return self.forward_new(cx, origin, key, frame, info, partial_csum);
        };
        let alive = self.is_alive(cx, at);
        if info.proto == UDP {
            if alive {
                return self.forward_known(cx, at, None, frame, info, partial_csum);
            }
            self.remove(at);
            return self.forward_new(cx, origin, key, frame, info, partial_csum);
        }
        self.forward_segment(cx, at, alive, origin, frame, info, partial_csum)
    }

    /// A client's fragment.
    fn forward_fragment(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        let header = match fragment_header(frame, info) {
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
            return self.forward_known(cx, follow.at, None, frame, info, partial_csum);
        }
        if info.proto != TCP && info.proto != UDP {
            return Forward::Drop(DropReason::Fragment);
        }
        if let Err(reason) = self.fragments.may_begin(cx.now, &datagram, info) {
            return Forward::Drop(reason);
        }
        let verdict = self.forward_packet(cx, origin, frame, info, partial_csum);
        if let Forward::Rewritten { .. } = verdict
            && let Some(at) = self.store.find_forward(&Self::key_of(origin.scope(), info))
            && let Some(flow) = self.store.get(at)
        {
            let follow = Follow::new(at, flow, false);
            self.fragments
                .begin(cx.now, datagram, info, &header, follow);
        }
        verdict
    }

    /// A TCP segment of a known flow.
    #[expect(
        clippy::too_many_arguments,
        clippy::fn_params_excessive_bools,
        reason = "the frame and all that is known of it"
    )]
    fn forward_segment(
        &mut self,
        cx: &Context<'_>,
        at: FlowId,
        alive: bool,
        origin: &Origin,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        let Some(state) = self.store.get(at).map(|flow| flow.state) else {
            return Forward::Drop(DropReason::NotAFlow);
        };
        let mut install = None;
        if is_syn(info) {
            if state.is_over() || (!alive && !state.is_unanswered()) {
                // The client uses its port again; what was there is over, or lost its replica.
                let forward = self.remove(at).map(|flow| flow.forward);
                let key = forward.unwrap_or_else(|| Self::key_of(origin.scope(), info));
                return self.forward_new(cx, origin, key, frame, info, partial_csum);
            }
            if state.is_unanswered() {
                self.note_silence(cx.now, at);
                match self.retry(cx, at) {
                    Some(moved) => install = moved,
                    None if alive => {}
                    None => {
                        self.remove(at);
                        self.counters.refused += 1;
                        let key = Self::key_of(origin.scope(), info);
                        if let Some(port) = port_load(cx, origin, &key) {
                            port.count_refused();
                        }
                        return Forward::Refuse(Refusal::Reset(DropReason::NoReplica));
                    }
                }
            } else if state == FlowState::SynAnswered {
                self.ask_again(at, frame, info, partial_csum);
            }
        } else if !alive {
            self.remove(at);
            self.counters.lost_replica += 1;
            return refuse_stranger(info);
        }
        let state = self.store.get(at).map_or(state, |flow| flow.state);
        let next = state.after_client(info.tcp_flags);
        if let Some(flow) = self.store.get_mut(at) {
            let forged = next == FlowState::Reset && !flow.believes_reset(frame, info);
            if forged {
                return self.forward_known(cx, at, install, frame, info, partial_csum);
            }
            flow.track_client(frame, info);
            flow.last_seen = cx.now;
        }
        self.set_state(at, next);
        self.forward_known(cx, at, install, frame, info, partial_csum)
    }

    /// The client repeats its SYN: it did not see the answer. The replica may have ended since, and
    /// then refuses; with a copy to send elsewhere the connection is unanswered again.
    fn ask_again(&mut self, at: FlowId, frame: &[u8], info: &IpInfo, partial_csum: bool) {
        let owned = self.store.get(at).filter(|flow| flow.role == Role::Owner);
        let Some(replica) = owned.map(|flow| flow.replica_key) else {
            return;
        };
        let Some(kept) = self.keep_syn(frame, info, replica, partial_csum) else {
            return;
        };
        self.set_state(at, FlowState::SynSent);
        if let Some(flow) = self.store.get_mut(at) {
            flow.syn = Some(kept);
        }
    }

    /// Copies an opening segment that goes to `replica`.
    fn keep_syn(
        &mut self,
        frame: &[u8],
        info: &IpInfo,
        replica: u64,
        partial_csum: bool,
    ) -> Option<SynRef> {
        if info.proto != TCP || info.fragment != Fragment::None {
            return None;
        }
        self.syns
            .keep(frame.get(..info.len)?, replica, partial_csum)
    }

    /// Rewrites a frame as its flow says.
    fn forward_known(
        &mut self,
        cx: &Context<'_>,
        at: FlowId,
        install: Option<Install>,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        let worker = self.config.worker;
        let Some(flow) = self.store.get_mut(at) else {
            return Forward::Drop(DropReason::NotAFlow);
        };
        flow.last_seen = cx.now;
        if !rewrite_forward(flow, frame, info, partial_csum) {
            return Forward::Drop(DropReason::BadIpHeader);
        }
        clamp(cx, flow, frame, info, partial_csum);
        if let Some(open) = &flow.open {
            open.count_rx(worker, payload_of(frame, info));
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
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        if info.proto == TCP && !is_syn(info) {
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
            Err(reason) => {
                self.counters.refused += 1;
                if let Some(port) = port_load(cx, origin, &key) {
                    port.count_refused();
                }
                return refuse(info, reason);
            }
        };
        let syn = self.keep_syn(frame, info, replica.key, partial_csum);
        let mut flow = Flow {
            forward: key,
            reverse: reverse.key,
            role: Role::Owner,
            origin: *origin,
            state: if info.proto == TCP {
                FlowState::SynSent
            } else {
                FlowState::Datagrams
            },
            client_mac: frame::src_mac(frame),
            service_mac: frame::dst_mac(frame),
            replica_mac: replica.mac,
            replica_key: replica.key,
            replica_local: replica.local,
            claimed: reverse.claimed,
            serial: self.next_serial(),
            epoch: cx.epoch,
            last_seen: cx.now,
            client_end: 0,
            client_ack: 0,
            path_mtu: 0,
            syn,
            open: Some(
                replica
                    .load
                    .open_at(&service.balancer.load, cx.now)
                    .at_port(port_load(cx, origin, &key)),
            ),
            limited: self.clients.limited(origin, service),
        };
        flow.track_client(frame, info);
        let install = flow.install(self.config.worker);
        match self.insert(flow) {
            Some(at) => self.forward_known(cx, at, install, frame, info, partial_csum),
            None => Forward::Drop(DropReason::FlowTableFull),
        }
    }
}

fn is_syn(info: &IpInfo) -> bool {
    info.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
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
