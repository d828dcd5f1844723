//! Frames of a flow, rewritten for the one who gets them. Each call says whether it could be done.

use weft_wire::frame::TCP_SYN;
use weft_wire::rewrite::{Side, clamp_mss, set_macs};

use crate::context::Context;
use crate::flow::{Flow, Origin};
use crate::packet::Packet;

/// A frame of the client, for the replica.
pub(crate) fn to_replica(flow: &Flow, packet: &mut Packet<'_>) -> bool {
    let to = flow.reverse.tuple;
    let seen_as = flow.forward.tuple;
    if !packet.set(Side::Destination, to.src, Some(to.sport)) {
        return false;
    }
    if (to.dst, to.dport) != (seen_as.src, seen_as.sport)
        && !packet.set(Side::Source, to.dst, Some(to.dport))
    {
        return false;
    }
    let src_mac = match flow.origin {
        Origin::Port { .. } if to.dst == seen_as.dst => flow.service_mac,
        Origin::Port { .. } => flow.client_mac,
        Origin::Mesh { node_mac, .. } => node_mac,
    };
    set_macs(packet.frame, src_mac, flow.replica_mac);
    true
}

/// A frame of the replica, for the client: the inverse.
pub(crate) fn to_client(flow: &Flow, packet: &mut Packet<'_>) -> bool {
    let client = flow.forward.tuple;
    let seen_as = flow.reverse.tuple;
    if !packet.set(Side::Source, client.dst, Some(client.dport)) {
        return false;
    }
    if (seen_as.dst, seen_as.dport) != (client.src, client.sport)
        && !packet.set(Side::Destination, client.src, Some(client.sport))
    {
        return false;
    }
    set_macs(packet.frame, flow.service_mac, flow.client_mac);
    true
}

/// A frame of the replica, for the node that its client came through.
pub(crate) fn to_node(flow: &Flow, packet: &mut Packet<'_>) -> bool {
    let client = flow.forward.tuple;
    if flow.reverse.tuple.dport != client.sport
        && !packet.set(Side::Destination, client.src, Some(client.sport))
    {
        return false;
    }
    set_macs(packet.frame, flow.replica_mac, flow.client_mac);
    true
}

/// Keeps the segments of a new connection within the MTU of the replica's network, whatever the
/// interface of an end believes: a SYN says how long the segments of the other direction may be.
pub(crate) fn clamp(cx: &Context<'_>, flow: &Flow, packet: &mut Packet<'_>) {
    let info = packet.info;
    if info.tcp_flags & TCP_SYN != 0
        && let Some(mss) = cx.services.mss(flow.origin.vni(), info.is_ipv4())
    {
        clamp_mss(packet.frame, info, mss, packet.partial_csum);
    }
}
