//! Clients of another node's published port, on the node of their replica.
//!
//! The node that a client connected to sends its packets on with the client's own address
//! ([`crate::Origin::Mesh`]). A replica answers that address by way of its gateway, and this table
//! remembers which node the client came through, as the answers have to pass it on their way back.

use weft_wire::frame::{Fragment, TCP, TCP_RST, TCP_SYN, UDP};
use weft_wire::rewrite::Side;
use weft_wire::{FiveTuple, IpInfo, Mac, Vni, quoted};

use crate::context::Context;
use crate::flow::{Flow, FlowKind, Macs, Origin};
use crate::key::{Key, Scope};
use crate::packet::Packet;
use crate::seen_port::seen_port;
use crate::state::FlowState;
use crate::store::FlowId;
use crate::table::FlowTable;

impl FlowTable {
    /// Takes note of a client's frame, from the underlay and on network `vni`, for a replica of this
    /// node, and gives it the source port at which the replica sees clients of the node that sent it:
    /// a client may use one port towards two nodes. Its source address is none of the network's; its
    /// source Ethernet address is that of that node. Any packet of a connection will do, not the first
    /// alone: a restarted agent learns anew what it needs. An ICMP error about an answer of the replica
    /// gets that port too. Returns what the replica sends in answer, where a flow is known now. O(1).
    pub fn arrived(
        &mut self,
        cx: &Context<'_>,
        vni: Vni,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Option<FiveTuple> {
        let packet = &mut Packet {
            frame,
            info,
            partial_csum,
        };
        if quoted::is_error(info) {
            self.arrived_error(packet);
            return None;
        }
        let has_ports = info.proto == TCP || info.proto == UDP;
        if !has_ports || info.fragment == Fragment::Later || packet.frame.len() < info.len {
            return None;
        }
        let forward = Key::of(Scope::behind(packet.src_mac()), info);
        let at = match self.store.find_forward(&forward) {
            Some(at) => self.next_arrived(cx, at, packet),
            None => self.first_arrived(cx, vni, forward, packet),
        };
        // Without room the answers are dropped and counted, and the client tries again.
        let answer = at.and_then(|at| self.store.get(at));
        let answer = answer.map(|flow| flow.reverse.tuple);
        let port = match answer {
            Some(answer) => answer.dport,
            // A reset of a connection that an earlier process knew still finds it.
            None => seen_port(packet.src_mac(), info.sport),
        };
        if port != info.sport {
            packet.set(Side::Source, info.src, Some(port));
        }
        answer
    }

    /// What the replica sends in answer to a client's frame that node `via` has sent on, where such a
    /// connection is known. O(1).
    #[must_use]
    pub fn answer_to(&self, via: Mac, info: &IpInfo) -> Option<FiveTuple> {
        let at = self
            .store
            .find_forward(&Key::of(Scope::behind(via), info))?;
        self.store.get(at).map(|flow| flow.reverse.tuple)
    }

    fn next_arrived(
        &mut self,
        cx: &Context<'_>,
        at: FlowId,
        packet: &Packet<'_>,
    ) -> Option<FlowId> {
        let info = packet.info;
        let flow = self.store.get_mut(at)?;
        if info.proto == UDP {
            flow.last_seen = cx.now;
            return Some(at);
        }
        // The client uses its port again, as only it may know that it can.
        let begins = packet.is_syn() && flow.state.is_over();
        if info.tcp_flags & TCP_RST != 0 && !flow.believes_reset(packet) {
            // The replica is asked; nothing of it counts here.
            return Some(at);
        }
        let state = if begins {
            (flow.client_ack, flow.replica_ack, flow.behind) = (0, 0, false);
            FlowState::SynSent
        } else {
            flow.state.after_client(info.tcp_flags)
        };
        flow.track_client(packet);
        flow.last_seen = cx.now;
        self.set_state(at, state);
        Some(at)
    }

    fn first_arrived(
        &mut self,
        cx: &Context<'_>,
        vni: Vni,
        forward: Key,
        packet: &Packet<'_>,
    ) -> Option<FlowId> {
        let info = packet.info;
        if info.proto == TCP && info.tcp_flags & TCP_RST != 0 {
            return None;
        }
        let via = packet.src_mac();
        let mut tuple = forward.tuple.reversed();
        tuple.dport = seen_port(via, tuple.dport);
        let wanted = Key {
            scope: Scope::network(vni),
            tuple,
        };
        // Of one that is over the replica's kernel may know more: its port is not given to another.
        let reverse = self.free_reverse(wanted, true)?;
        let state = match info.proto {
            UDP => FlowState::Datagrams,
            _ if info.tcp_flags & TCP_SYN != 0 => FlowState::SynSent,
            _ => FlowState::Established.after_client(info.tcp_flags),
        };
        let replica_mac = packet.dst_mac();
        let origin = Origin::Mesh {
            vni,
            node_ip: forward.tuple.dst,
            node_mac: via,
            keeps_client: true,
        };
        let macs = Macs {
            client: via,
            service: replica_mac,
            replica: replica_mac,
        };
        let mut flow = Flow::new(FlowKind::Return, origin, forward, reverse, macs, cx.now);
        flow.state = state;
        flow.track_client(packet);
        flow.serial = self.next_serial();
        flow.epoch = cx.epoch;
        self.insert(flow)
    }
}
