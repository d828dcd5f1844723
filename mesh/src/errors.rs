//! ICMP errors about packets whose addresses a flow has rewritten.
//!
//! The receiver believes an error only about a packet that it sent itself, so the packet that the
//! error quotes is rewritten back with the error's own addresses. Path MTU discovery, refused
//! datagrams and traceroute then work through a service as they do without it.
//!
//! An error finds its flow, and changes nothing in it: who can send errors without being part of
//! the flow could otherwise end it. It does not keep the flow alive either.

use weft_wire::quoted::quoted;
use weft_wire::rewrite::{Side, rewrite_endpoint, set_macs};
use weft_wire::{DropReason, FiveTuple, IpInfo, Vni};

use crate::flow::{Flow, Key, Origin, Role};
use crate::forward::{Forward, rewrite_forward};
use crate::reverse::Reverse;
use crate::table::{Context, FlowTable};

impl FlowTable {
    /// An error from a client about a packet of the replica.
    pub(crate) fn forward_error(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Forward {
        let stray = Forward::Drop(DropReason::NotAFlow);
        let Some(quoted) = quoted(frame, info) else {
            return stray;
        };
        // From who got the packet to who seemed to have sent it.
        if quoted.tuple.src != info.dst || quoted.tuple.dst != info.src {
            return stray;
        }
        let key = Key {
            scope: origin.scope(),
            tuple: quoted.tuple.reversed(),
        };
        let Some(at) = self.find_forward(&key) else {
            return stray;
        };
        if !self.is_alive(cx, at) {
            return Forward::Drop(DropReason::NoReplica);
        }
        let Some(flow) = self.get(at) else {
            return stray;
        };
        let rewritten = rewrite_quoted(frame, info, &flow.reverse.tuple, partial_csum)
            && rewrite_forward(flow, frame, info, partial_csum);
        if !rewritten {
            return Forward::Drop(DropReason::BadIpHeader);
        }
        Forward::Rewritten {
            vni: flow.origin.vni(),
            dst_mac: flow.replica_mac,
            install: None,
        }
    }

    /// An error about a packet of the client, from the replica or from a router before it.
    pub(crate) fn reverse_error(
        &self,
        vni: Vni,
        frame: &mut [u8],
        info: &IpInfo,
        partial_csum: bool,
    ) -> Reverse {
        let found = quoted(frame, info)
            // To who seemed to have sent the packet.
            .filter(|quoted| quoted.tuple.src == info.dst)
            .and_then(|quoted| {
                self.find_reverse(&Key {
                    scope: vni.get(),
                    tuple: quoted.tuple.reversed(),
                })
            })
            .and_then(|at| self.get(at));
        let Some(flow) = found else {
            return Reverse::NotAFlow;
        };
        if flow.role == Role::Return {
            if !rewrite_quoted(frame, info, &flow.forward.tuple, partial_csum) {
                return Reverse::Drop(DropReason::BadIpHeader);
            }
            set_macs(frame, flow.replica_mac, flow.client_mac);
            return Reverse::Return {
                dst_mac: flow.client_mac,
            };
        }
        let rewritten = rewrite_quoted(frame, info, &flow.forward.tuple, partial_csum)
            && rewrite_outer(flow, frame, info, partial_csum);
        if !rewritten {
            return Reverse::Drop(DropReason::BadIpHeader);
        }
        set_macs(frame, flow.service_mac, flow.client_mac);
        Reverse::Rewritten {
            to: flow.origin.target(),
        }
    }
}

/// Makes the quoted packet the one that its sender sent.
fn rewrite_quoted(frame: &mut [u8], info: &IpInfo, sent: &FiveTuple, partial_csum: bool) -> bool {
    let Some(quoted) = quoted(frame, info) else {
        return false;
    };
    let mut set = |side, ip, port| quoted.rewrite(frame, info, side, ip, port, partial_csum);
    set(Side::Source, sent.src, sent.sport) && set(Side::Destination, sent.dst, sent.dport)
}

/// The error's own addresses: to the client's own, and from the service where the replica speaks.
/// Another sender keeps its address, but for the host, which knows none of the overlay's.
fn rewrite_outer(flow: &Flow, frame: &mut [u8], info: &IpInfo, partial_csum: bool) -> bool {
    let (client, seen_as) = (flow.forward.tuple, flow.reverse.tuple);
    let mut set = |side, ip| rewrite_endpoint(frame, info, side, ip, None, partial_csum);
    let in_its_name = info.src == seen_as.src || matches!(flow.origin, Origin::Mesh { .. });
    (!in_its_name || set(Side::Source, client.dst))
        && (client.src == info.dst || set(Side::Destination, client.src))
}
