//! Frames of a flow, rewritten for the one who gets them.

use weft_wire::frame::TCP_SYN;
use weft_wire::rewrite::{Side, clamp_mss, rewrite_endpoint, set_macs};
use weft_wire::{DropReason, IpInfo};

use crate::context::Context;
use crate::flow::{Flow, Origin};
use crate::verdict::Reverse;

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

/// Applies the inverse of a flow's rewrite to a frame of the replica.
pub(crate) fn rewrite_reverse(
    flow: &Flow,
    frame: &mut [u8],
    info: &IpInfo,
    partial_csum: bool,
) -> bool {
    let client = flow.forward.tuple;
    let seen_as = flow.reverse.tuple;
    if !rewrite_endpoint(
        frame,
        info,
        Side::Source,
        client.dst,
        Some(client.dport),
        partial_csum,
    ) {
        return false;
    }
    if (seen_as.dst, seen_as.dport) != (client.src, client.sport)
        && !rewrite_endpoint(
            frame,
            info,
            Side::Destination,
            client.src,
            Some(client.sport),
            partial_csum,
        )
    {
        return false;
    }
    set_macs(frame, flow.service_mac, flow.client_mac);
    true
}

/// Sends an answer to the node that its client came through.
pub(crate) fn rewrite_return(
    flow: &Flow,
    frame: &mut [u8],
    info: &IpInfo,
    partial_csum: bool,
) -> Reverse {
    let client = flow.forward.tuple;
    if flow.reverse.tuple.dport != client.sport
        && !rewrite_endpoint(
            frame,
            info,
            Side::Destination,
            client.src,
            Some(client.sport),
            partial_csum,
        )
    {
        return Reverse::Drop(DropReason::BadIpHeader);
    }
    set_macs(frame, flow.replica_mac, flow.client_mac);
    Reverse::Return {
        dst_mac: flow.client_mac,
    }
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
