//! ICMP errors about packets whose addresses a flow has rewritten.
//!
//! The receiver believes an error only about a packet that it sent itself, so the packet that the
//! error quotes is rewritten back with the error's own addresses. Path MTU discovery, refused
//! datagrams and traceroute then work through a service as they do without it.
//!
//! Routers on the way send errors too, in their own name, and so does the host where it forwards.
//! What is asked of an error is therefore not who sends it, but that it quotes a packet which the
//! flow it names can have sent: in that direction, and with a sequence number of its window. The
//! end that gets it asks the same once more, exactly (RFC 5927 section 4.1).
//!
//! An error finds its flow, and changes nothing in it: who can send errors without being part of
//! the flow could otherwise end it. It does not keep the flow alive either. But for one thing: what
//! a link on the way to the client carries is noted, for super-frames that arrive from other nodes
//! without the length of their segments.

use std::net::IpAddr;

use weft_wire::frame::TCP;
use weft_wire::quoted::{Quoted, path_mtu, quoted};
use weft_wire::rewrite::{Side, set_macs};
use weft_wire::{DropReason, FiveTuple, IpInfo, Vni};

use crate::context::Context;
use crate::flow::{Flow, FlowKind, Origin};
use crate::key::{Key, Scope};
use crate::packet::Packet;
use crate::reverse::returned;
use crate::rewrite;
use crate::sequence::is_of_window;
use crate::state::FlowState;
use crate::table::{FlowTable, Found};
use crate::verdict::{Forward, Reverse};

impl FlowTable {
    /// An error about a packet of the replica, from the client or from a router before it.
    pub(crate) fn forward_error(
        &mut self,
        cx: &Context<'_>,
        origin: &Origin,
        packet: &mut Packet<'_>,
    ) -> Forward {
        let info = packet.info;
        let stray = Forward::Drop(DropReason::NotAFlow);
        let Some(quoted) = quoted(packet.frame, info) else {
            return stray;
        };
        // To who seemed to have sent the packet. A sandbox speaks for nobody but itself.
        let is_client = quoted.tuple.dst == info.src;
        let may_be_router = matches!(origin, Origin::Mesh { .. });
        if quoted.tuple.src != info.dst || !(is_client || may_be_router) {
            return stray;
        }
        let key = Key {
            scope: origin.scope(),
            tuple: quoted.tuple.reversed(),
        };
        let Some(Found { at, alive }) = self.lookup(cx, &key) else {
            return stray;
        };
        if !alive {
            return Forward::Drop(DropReason::NoReplica);
        }
        let Some(flow) = self
            .store
            .get_mut(at)
            .filter(|f| replica_sent(f, packet.frame, &quoted))
        else {
            return stray;
        };
        let rewritten = rewrite_quoted(packet, &flow.reverse.tuple)
            && if is_client {
                rewrite::to_replica(flow, packet)
            } else {
                rewrite_routers(flow, origin, packet)
            };
        if !rewritten {
            return Forward::Drop(DropReason::BadIpHeader);
        }
        let (vni, dst_mac) = (flow.origin.vni(), flow.replica_mac);
        if let Some(mtu) = path_mtu(packet.frame, info)
            && (flow.path_mtu == 0 || mtu < flow.path_mtu)
        {
            flow.path_mtu = mtu;
            self.ended.note(flow);
            self.narrow = true;
        }
        Forward::Rewritten {
            vni,
            dst_mac,
            install: None,
        }
    }

    /// An error about a packet of the client, from the replica or from a router before it.
    pub(crate) fn reverse_error(&self, vni: Vni, packet: &mut Packet<'_>) -> Reverse {
        let info = packet.info;
        let found = quoted(packet.frame, info)
            // To who seemed to have sent the packet.
            .filter(|quoted| quoted.tuple.src == info.dst)
            .and_then(|quoted| {
                let at = self.store.find_reverse(&Key {
                    scope: Scope::network(vni),
                    tuple: quoted.tuple.reversed(),
                })?;
                self.store
                    .get(at)
                    .filter(|f| client_sent(f, packet.frame, &quoted))
            });
        let Some(flow) = found else {
            return Reverse::NotAFlow;
        };
        if flow.kind == FlowKind::Return {
            let rewritten = rewrite_quoted(packet, &flow.forward.tuple);
            if rewritten {
                set_macs(packet.frame, flow.replica_mac, flow.client_mac);
            }
            return returned(flow, rewritten);
        }
        let rewritten = rewrite_quoted(packet, &flow.forward.tuple) && rewrite_outer(flow, packet);
        if !rewritten {
            return Reverse::Drop(DropReason::BadIpHeader);
        }
        set_macs(packet.frame, flow.service_mac, flow.client_mac);
        Reverse::Rewritten {
            to: flow.origin.target(),
        }
    }

    /// What a link on the client's side carries, in bytes, for a frame of the replica as it arrived;
    /// nothing where no router has said so. A kernel that hands tunnelled super-frames from node to
    /// node says nothing of their segments, and those that have to be assumed may be too large for a
    /// link of which the sender knows. No look-up until there is such a link.
    #[must_use]
    pub fn path_mtu(&self, vni: Vni, info: &IpInfo) -> Option<u16> {
        if !self.narrow {
            return None;
        }
        let at = self
            .store
            .find_reverse(&Key::of(Scope::network(vni), info))?;
        Some(self.store.get(at)?.path_mtu).filter(|mtu| *mtu > 0)
    }

    /// An error from another node about a packet of a replica here, which has the client at another
    /// port than the error says. Anything else stays as it is.
    pub(crate) fn arrived_error(&self, packet: &mut Packet<'_>) {
        let Some(quoted) = quoted(packet.frame, packet.info) else {
            return;
        };
        let found = self.store.find_forward(&Key {
            scope: Scope::behind(packet.src_mac()),
            tuple: quoted.tuple.reversed(),
        });
        let Some(flow) = found.and_then(|at| self.store.get(at)) else {
            return;
        };
        let sent = flow.reverse.tuple;
        if sent.dport != quoted.tuple.dport {
            let (ip, port) = (sent.dst, sent.dport);
            set_quoted(packet, &quoted, Side::Destination, (ip, port));
        }
    }
}

/// Whether the replica of a flow can have sent the quoted packet.
fn replica_sent(flow: &Flow, frame: &[u8], quoted: &Quoted) -> bool {
    let is_answered = !matches!(flow.state, FlowState::SynSent | FlowState::Datagrams);
    is_answered && is_of_stream(frame, quoted, flow.client_ack)
}

/// Whether the client of a flow can have sent it.
fn client_sent(flow: &Flow, frame: &[u8], quoted: &Quoted) -> bool {
    is_of_stream(frame, quoted, flow.client_end)
}

/// `known` is a sequence number of the stream; zero while none is.
fn is_of_stream(frame: &[u8], quoted: &Quoted, known: u32) -> bool {
    quoted.tuple.proto != TCP
        || known == 0
        || quoted
            .sequence(frame)
            .is_some_and(|sequence| is_of_window(sequence, known))
}

/// An error of a router goes on in its own name, and one of the host, of which the overlay knows no
/// other address, in that of the node.
fn rewrite_routers(flow: &Flow, origin: &Origin, packet: &mut Packet<'_>) -> bool {
    let mut rewritten = packet.set(Side::Destination, flow.reverse.tuple.src, None);
    if let Origin::Mesh {
        node_ip,
        node_mac,
        keeps_client,
        ..
    } = origin
    {
        // Neither a client nor a router outside: see `keeps_client`.
        rewritten &= *keeps_client || packet.set(Side::Source, *node_ip, None);
        set_macs(packet.frame, *node_mac, flow.replica_mac);
    }
    rewritten
}

/// Makes the quoted packet the one that its sender sent.
fn rewrite_quoted(packet: &mut Packet<'_>, sent: &FiveTuple) -> bool {
    let Some(quoted) = quoted(packet.frame, packet.info) else {
        return false;
    };
    set_quoted(packet, &quoted, Side::Source, (sent.src, sent.sport))
        && set_quoted(packet, &quoted, Side::Destination, (sent.dst, sent.dport))
}

/// Gives one end of the quoted packet another address and port.
fn set_quoted(
    packet: &mut Packet<'_>,
    quoted: &Quoted,
    side: Side,
    (ip, port): (IpAddr, u16),
) -> bool {
    let (info, partial_csum) = (packet.info, packet.partial_csum);
    quoted.rewrite(packet.frame, info, side, ip, port, partial_csum)
}

/// The error's own addresses: to the client's own, and from the service where the replica speaks.
/// Another sender keeps its address, but for the host, which knows none of the overlay's.
fn rewrite_outer(flow: &Flow, packet: &mut Packet<'_>) -> bool {
    let (client, seen_as) = (flow.forward.tuple, flow.reverse.tuple);
    let info = packet.info;
    let in_its_name = info.src == seen_as.src || matches!(flow.origin, Origin::Mesh { .. });
    (!in_its_name || packet.set(Side::Source, client.dst, None))
        && (client.src == info.dst || packet.set(Side::Destination, client.src, None))
}
