//! Client to replica.

use std::sync::Arc;

use weft_wire::frame::{self, Fragment, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, UDP};
use weft_wire::rewrite::{Side, clamp_mss, rewrite_endpoint, set_macs};
use weft_wire::{DropReason, IpInfo, Mac, Vni, quoted};

use crate::balancer::Choice;
use crate::flow::{Flow, FlowState, Install, Key, Origin, Role};
use crate::load::PortLoad;
use crate::services::{Protocol, Published, Replica, Service};
use crate::syn_ring::SynRef;
use crate::table::{Context, FlowTable};

/// Source ports tried, at most, when the client's own is taken on the way to a replica.
const PORT_PROBES: u16 = 128;
/// Turned over in a client's port on the way to a replica of this node. The same client may come to
/// that replica by another node, from the same port; that the two differ from the start spares the
/// replica's kernel the port of a connection that it has just closed.
const LOCAL_PORT: u16 = 0x8000;
/// Source ports that may stand in for the client's own: above what services listen on.
const FIRST_PORT: u16 = 16_384;

/// Addresses and ports of a connection as its replica sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplicaSide {
    pub(crate) key: Key,
    /// In [`crate::Claims`].
    pub(crate) claimed: bool,
}

/// What becomes of a client's frame.
#[derive(Debug, Clone, Copy)]
pub enum Forward {
    /// Rewritten in place; deliver it on network `vni` to `dst_mac`.
    Rewritten {
        /// Network of the replica.
        vni: Vni,
        /// The replica's Ethernet address, already in the frame.
        dst_mac: Mac,
        /// Hand this to the worker that reads the replica's frames, before the frame itself.
        install: Option<Install>,
    },
    /// A ping of a virtual address: answer it in its name.
    AnswerEcho,
    /// Unchanged; tell the client that there is nobody.
    Refuse(Refusal),
    /// Unchanged; drop it.
    Drop(DropReason),
}

/// How to tell a client that there is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// With a TCP reset.
    Reset(DropReason),
    /// With ICMP port unreachable.
    PortUnreachable(DropReason),
}

impl Refusal {
    /// What to count.
    #[must_use]
    pub const fn reason(&self) -> DropReason {
        match self {
            Self::Reset(reason) | Self::PortUnreachable(reason) => *reason,
        }
    }
}

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
    pub(crate) fn forward_packet(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        let key = Self::key_of(origin.scope(), info);
        let Some(at) = self.find_forward(&key) else {
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

    /// A TCP segment of a known flow.
    #[expect(
        clippy::too_many_arguments,
        clippy::fn_params_excessive_bools,
        reason = "the frame and all that is known of it"
    )]
    fn forward_segment(
        &mut self,
        cx: &Context<'_>,
        at: u32,
        alive: bool,
        origin: &Origin,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        let Some(state) = self.get(at).map(|flow| flow.state) else {
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
        let state = self.get(at).map_or(state, |flow| flow.state);
        let next = state.after_client(info.tcp_flags);
        if let Some(flow) = self.get_mut(at) {
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
    fn ask_again(&mut self, at: u32, frame: &[u8], info: &IpInfo, partial_csum: bool) {
        let owned = self.get(at).filter(|flow| flow.role == Role::Owner);
        let Some(replica) = owned.map(|flow| flow.replica_key) else {
            return;
        };
        let Some(kept) = self.keep_syn(frame, info, replica, partial_csum) else {
            return;
        };
        self.set_state(at, FlowState::SynSent);
        if let Some(flow) = self.get_mut(at) {
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
    pub(crate) fn forward_known(
        &mut self,
        cx: &Context<'_>,
        at: u32,
        install: Option<Install>,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        let worker = self.config.worker;
        let Some(flow) = self.get_mut(at) else {
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
            Some((service, _)) if !self.is_admitted(origin, &key, service) => {
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
            limited: self.limited(origin, Role::Owner, service),
        };
        flow.track_client(frame, info);
        let install = flow.install(self.config.worker);
        match self.insert(flow) {
            Some(at) => self.forward_known(cx, at, install, frame, info, partial_csum),
            None => Forward::Drop(DropReason::FlowTableFull),
        }
    }

    /// Chooses a replica, and the addresses under which it sees the client.
    fn choose<'a>(
        &mut self,
        cx: &Context<'a>,
        origin: &Origin,
        key: &Key,
        tried: &[u64],
    ) -> Result<(ReplicaSide, &'a Replica, &'a Service), DropReason> {
        let (service, target_port) = service_of(cx, origin, key).ok_or(DropReason::NoService)?;
        let client_ip = match origin {
            Origin::Port { .. } => key.tuple.src,
            Origin::Mesh {
                keeps_client: true, ..
            } => key.tuple.src,
            Origin::Mesh { node_ip, .. } => *node_ip,
        };
        let choice = Choice {
            now: cx.now,
            client: Some(key.tuple.src),
            ipv6: client_ip.is_ipv6(),
            local_first: service.local_first,
            tried,
        };
        if client_ip.is_ipv6() != key.tuple.src.is_ipv6() {
            return Err(DropReason::NoService);
        }
        let replica = service
            .balancer
            .pick(&service.replicas, choice, &mut self.rng)
            .and_then(|at| service.replicas.get(at))
            .ok_or(DropReason::NoReplica)?;
        let mut tuple = key.tuple.reversed();
        tuple.src = replica.ip;
        tuple.sport = target_port;
        // A replica that is chosen for its own request would drop a packet from its own address:
        // it sees the service instead.
        tuple.dst = if replica.ip == client_ip {
            key.tuple.dst
        } else {
            client_ip
        };
        let kept = matches!(
            origin,
            Origin::Mesh {
                keeps_client: true,
                ..
            }
        );
        let shared = kept && replica.local;
        if shared && tuple.dport ^ LOCAL_PORT >= 1024 {
            tuple.dport ^= LOCAL_PORT;
        }
        let wanted = Key {
            scope: origin.vni().get(),
            tuple,
        };
        let reverse = self
            .free_reverse(wanted, shared)
            .ok_or(DropReason::FlowTableFull)?;
        Ok((reverse, replica, service))
    }

    /// The key itself, or one with another client port when a flow has it already: two services
    /// may lead to one replica, and the client may use one port towards both. `shared` is a client
    /// outside at a replica of this node, whose connections other workers may keep as well.
    /// [`FlowTable::insert`] or [`FlowTable::move_reverse`] must follow.
    pub(crate) fn free_reverse(&mut self, mut key: Key, shared: bool) -> Option<ReplicaSide> {
        if let Some(side) = self.take(key, shared) {
            return Some(side);
        }
        let range = u16::MAX - FIRST_PORT;
        #[expect(clippy::cast_possible_truncation, reason = "below a 16-bit bound")]
        let start = self.rng.below(u32::from(range)) as u16;
        for i in 0..PORT_PROBES {
            let offset = (u32::from(start) + u32::from(i)) % u32::from(range);
            #[expect(clippy::cast_possible_truncation, reason = "below a 16-bit bound")]
            let port = FIRST_PORT + offset as u16;
            key.tuple.dport = port;
            if let Some(side) = self.take(key, shared) {
                return Some(side);
            }
        }
        None
    }

    /// The key, when nobody has it.
    fn take(&self, key: Key, shared: bool) -> Option<ReplicaSide> {
        let free = self.find_reverse(&key).is_none() && (!shared || self.config.claims.claim(&key));
        free.then_some(ReplicaSide {
            key,
            claimed: shared,
        })
    }

    /// Moves an unanswered connection to a replica that was not tried yet. `None` when there is
    /// none; else what the worker of the new replica needs.
    pub(crate) fn retry(&mut self, cx: &Context<'_>, at: u32) -> Option<Option<Install>> {
        let flow = self.get(at)?;
        let (origin, key, current, syn) = (flow.origin, flow.forward, flow.replica_key, flow.syn);
        let mut tried = [current; crate::syn_ring::MAX_TRIES];
        let mut tried_len = 1;
        if let Some(kept) = syn.and_then(|syn| self.syns.get_mut(syn)) {
            let before = kept.tried();
            tried_len = before.len().min(tried.len());
            tried.get_mut(..tried_len)?.copy_from_slice(before);
        }
        if tried_len >= tried.len() {
            return None;
        }
        let (reverse, replica, service) = self
            .choose(cx, &origin, &key, tried.get(..tried_len)?)
            .ok()?;
        if let Some(kept) = syn.and_then(|syn| self.syns.get_mut(syn)) {
            kept.add_tried(replica.key);
        }
        self.move_reverse(at, reverse);
        let worker = self.config.worker;
        let flow = self.get_mut(at)?;
        if let Some(open) = flow.open.take() {
            open.load().count_retried();
        }
        if let Some(published) = published(cx, &origin, &key) {
            published.load.count_retried();
        }
        let port = port_load(cx, &origin, &key);
        let open = replica.load.open_at(&service.balancer.load, cx.now);
        flow.open = Some(open.at_port(port));
        flow.replica_key = replica.key;
        flow.replica_mac = replica.mac;
        flow.replica_local = replica.local;
        flow.epoch = cx.epoch;
        flow.last_seen = cx.now;
        let install = flow.install(worker);
        self.counters.retried += 1;
        Some(install)
    }

    /// Whether the flow's replica is still there; looked up once for each snapshot.
    pub(crate) fn is_alive(&mut self, cx: &Context<'_>, at: u32) -> bool {
        let Some(flow) = self.get_mut(at) else {
            return false;
        };
        if flow.epoch == cx.epoch || flow.state.is_over() {
            return true;
        }
        if flow.role == Role::Return {
            let (vni, replica) = (flow.origin.vni(), flow.reverse.tuple.src);
            return cx.services.is_replica(vni, replica);
        }
        match cx.services.replica(flow.origin.vni(), flow.replica_key) {
            Some(replica) if replica.ip == flow.reverse.tuple.src => {
                flow.epoch = cx.epoch;
                flow.replica_mac = replica.mac;
                true
            }
            _ => false,
        }
    }
}

/// Applies a flow's rewrite to a frame of the client.
pub(crate) fn rewrite_forward(
    flow: &Flow,
    frame: &mut [u8],
    info: &IpInfo,
    partial_csum: bool,
) -> bool {
    let to = flow.reverse.tuple;
    let seen_as = flow.forward.tuple;
    if !rewrite_endpoint(
        frame,
        info,
        Side::Destination,
        to.src,
        Some(to.sport),
        partial_csum,
    ) {
        return false;
    }
    if (to.dst, to.dport) != (seen_as.src, seen_as.sport)
        && !rewrite_endpoint(
            frame,
            info,
            Side::Source,
            to.dst,
            Some(to.dport),
            partial_csum,
        )
    {
        return false;
    }
    let src_mac = match flow.origin {
        Origin::Port { .. } if to.dst == seen_as.dst => flow.service_mac,
        Origin::Port { .. } => flow.client_mac,
        Origin::Mesh { node_mac, .. } => node_mac,
    };
    set_macs(frame, src_mac, flow.replica_mac);
    true
}

/// Keeps the segments of a new connection within the MTU of the replica's network, whatever the
/// interface of an end believes: a SYN says how long the segments of the other direction may be.
pub(crate) fn clamp(
    cx: &Context<'_>,
    flow: &Flow,
    frame: &mut [u8],
    info: &IpInfo,
    partial_csum: bool,
) {
    if info.tcp_flags & TCP_SYN != 0
        && let Some(mss) = cx.services.mss(flow.origin.vni(), info.is_ipv4())
    {
        clamp_mss(frame, info, mss, partial_csum);
    }
}

/// Where a connection is counted besides its replica: at its published port, unless a listener of the
/// agent counted it already.
pub(crate) fn port_load<'a>(
    cx: &Context<'a>,
    origin: &Origin,
    key: &Key,
) -> Option<&'a Arc<PortLoad>> {
    match origin {
        Origin::Mesh {
            keeps_client: true, ..
        } => Some(published(cx, origin, key)?.load),
        _ => None,
    }
}

/// The published port that a connection came by.
fn published<'a>(cx: &Context<'a>, origin: &Origin, key: &Key) -> Option<Published<'a>> {
    match origin {
        Origin::Mesh { .. } => cx.services.published(protocol_of(key), key.tuple.dport),
        Origin::Port { .. } => None,
    }
}

/// Bytes of data in a packet. A run of segments has the length of all in its header, and `info`
/// that of the first.
pub(crate) fn payload_of(frame: &[u8], info: &IpInfo) -> u64 {
    // RFC 791: the length of all; RFC 8200: of what follows the fixed header.
    let (at, fixed) = if info.is_ipv4() { (2, 0) } else { (4, 40) };
    let total = frame
        .get(info.l3 + at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| fixed + u64::from(u16::from_be_bytes(*bytes)));
    total.saturating_sub((info.payload - info.l3) as u64)
}

const fn protocol_of(key: &Key) -> Protocol {
    if key.tuple.proto == TCP {
        Protocol::Tcp
    } else {
        Protocol::Udp
    }
}

/// The service that a client means, and the port to give to its replica.
fn service_of<'a>(cx: &Context<'a>, origin: &Origin, key: &Key) -> Option<(&'a Service, u16)> {
    match origin {
        Origin::Port { vni, .. } => Some((cx.services.vip(*vni, key.tuple.dst)?, key.tuple.dport)),
        Origin::Mesh { .. } => {
            let published = published(cx, origin, key)?;
            Some((published.service, published.target_port))
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
