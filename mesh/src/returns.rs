//! Clients of another node's published port, on the node of their replica.
//!
//! The node that a client connected to sends its packets on with the client's own address
//! ([`crate::Origin::Mesh`]). A replica answers that address by way of its gateway, and this table
//! remembers which node the client came through, as the answers have to pass it on their way back.

use weft_wire::frame::{self, Fragment, TCP, TCP_ACK, TCP_RST, TCP_SYN, UDP};
use weft_wire::{IpInfo, Mac, Vni};

use crate::flow::{Flow, FlowState, Key, Origin, Role};
use crate::table::{Context, FlowTable};

impl FlowTable {
    /// Takes note of a client's frame, from the underlay and on network `vni`, for a replica of this
    /// node. Its source address is none of the network's; its source Ethernet address is that of
    /// the node which sent it. Any packet of a connection will do, not the first alone: a restarted
    /// agent learns anew what it needs. O(1).
    pub fn arrived(&mut self, cx: &Context<'_>, vni: Vni, frame: &[u8], info: &IpInfo) {
        let has_ports = info.proto == TCP || info.proto == UDP;
        if !has_ports || info.fragment == Fragment::Later || frame.len() < info.len {
            return;
        }
        let via = frame::src_mac(frame);
        let key = Self::key_of(vni.get(), info);
        let reverse = Key {
            scope: key.scope,
            tuple: key.tuple.reversed(),
        };
        let Some(at) = self.find_reverse(&reverse) else {
            self.first_arrived(cx, vni, via, (key, reverse), frame, info);
            return;
        };
        let Some(flow) = self.get_mut(at).filter(|flow| flow.role == Role::Return) else {
            return;
        };
        let is_syn = info.proto == TCP && info.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
        let begins = is_syn && (flow.state.is_over() || flow.state.is_unanswered());
        flow.last_seen = cx.now;
        // A second connection of the same ports by another node may not take the first one over.
        if (begins || !is_syn) && flow.client_mac != via {
            flow.client_mac = via;
            self.record(at, false);
        }
        let Some(flow) = self.get(at) else { return };
        let state = if info.proto == UDP {
            flow.state
        } else if begins {
            FlowState::SynSent
        } else {
            flow.state.after_client(info.tcp_flags)
        };
        self.set_state(at, state);
    }

    fn first_arrived(
        &mut self,
        cx: &Context<'_>,
        vni: Vni,
        via: Mac,
        (forward, reverse): (Key, Key),
        frame: &[u8],
        info: &IpInfo,
    ) {
        if info.proto == TCP && info.tcp_flags & TCP_RST != 0 {
            return;
        }
        let state = match info.proto {
            UDP => FlowState::Datagrams,
            _ if info.tcp_flags & TCP_SYN != 0 => FlowState::SynSent,
            _ => FlowState::Established.after_client(info.tcp_flags),
        };
        let replica_mac = frame::dst_mac(frame);
        let flow = Flow {
            forward,
            reverse,
            role: Role::Return,
            origin: Origin::Mesh {
                vni,
                node_ip: forward.tuple.dst,
                node_mac: via,
                keeps_client: true,
            },
            state,
            client_mac: via,
            service_mac: replica_mac,
            replica_mac,
            replica_key: 0,
            replica_local: false,
            serial: self.next_serial(),
            epoch: cx.epoch,
            last_seen: cx.now,
            client_end: 0,
            client_ack: 0,
            syn: None,
            open: None,
        };
        // Without room the answers are dropped and counted, and the client tries again.
        self.insert(flow);
    }
}
