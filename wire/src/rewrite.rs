//! Changes to a frame's addresses and ports that keep its checksums right without reading the
//! payload: O(1), also for super-frames.

use std::net::IpAddr;

use crate::frame::{Fragment, ICMP, TCP, TCP_SYN, UDP};
use crate::{IpInfo, Mac, be16, checksum, put16};

/// One end of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// Changes address and port of one side, and the IPv4 header, TCP, UDP and ICMPv6 checksums with
/// them (RFC 1624). `port` is ignored where there are no ports (ICMP, later fragments).
///
/// `partial_csum` says that the frame's vnet header asks for its checksum: the field then holds
/// the pseudo-header's sum, which ports are no part of.
///
/// `info` keeps the old addresses: parse again, or set the fields, where the new ones matter.
/// Returns false, and changes nothing, when `ip` is of the other family or `info` is of a longer
/// frame.
pub fn rewrite_endpoint(
    frame: &mut [u8],
    info: &IpInfo,
    which: Side,
    ip: IpAddr,
    port: Option<u16>,
    partial_csum: bool,
) -> bool {
    if frame.len() < info.len || ip.is_ipv4() != info.is_ipv4() {
        return false;
    }
    let (old_ip, new_ip) = replace_address(frame, info, which, ip);
    if info.is_ipv4() {
        let field = info.l3 + 10;
        let header = checksum::update_u16(be16(frame, field), old_ip, new_ip);
        put16(frame, field, header);
    }
    let Some(offset) = info.checksum_offset() else {
        return true;
    };
    let ports = if matches!(info.proto, TCP | UDP) {
        port.map(|port| replace_port(frame, info, which, port))
    } else {
        None
    };
    let field = info.l4 + offset;
    let old = be16(frame, field);
    if info.proto == ICMP || (info.proto == UDP && info.is_ipv4() && !partial_csum && old == 0) {
        // No pseudo-header in ICMP; no checksum stays no checksum (RFC 768).
        return true;
    }
    let new = if partial_csum {
        checksum::add(checksum::add(old, !old_ip), new_ip)
    } else {
        let mut new = checksum::update_u16(old, old_ip, new_ip);
        if let Some((old_port, new_port)) = ports {
            new = checksum::update_u16(new, old_port, new_port);
        }
        if info.proto == UDP {
            new = checksum::nonzero(new);
        }
        new
    };
    put16(frame, field, new);
    true
}

/// Writes the address; returns the sums of the old and the new one.
fn replace_address(frame: &mut [u8], info: &IpInfo, which: Side, ip: IpAddr) -> (u16, u16) {
    let mut replace = |at: usize, new: &[u8]| {
        let field = &mut frame[info.l3 + at..][..new.len()];
        let old = checksum::sum(field);
        field.copy_from_slice(new);
        (old, checksum::sum(new))
    };
    match (ip, which) {
        (IpAddr::V4(ip), Side::Source) => replace(12, &ip.octets()),
        (IpAddr::V4(ip), Side::Destination) => replace(16, &ip.octets()),
        (IpAddr::V6(ip), Side::Source) => replace(8, &ip.octets()),
        (IpAddr::V6(ip), Side::Destination) => replace(24, &ip.octets()),
    }
}

fn replace_port(frame: &mut [u8], info: &IpInfo, which: Side, port: u16) -> (u16, u16) {
    let at = match which {
        Side::Source => info.l4,
        Side::Destination => info.l4 + 2,
    };
    let old = be16(frame, at);
    put16(frame, at, port);
    (old, port)
}

/// Sets both hardware addresses. Does nothing to a frame without an Ethernet header.
pub fn set_macs(frame: &mut [u8], src: Mac, dst: Mac) {
    if let Some(header) = frame.first_chunk_mut::<12>() {
        header[..6].copy_from_slice(&dst.0);
        header[6..].copy_from_slice(&src.0);
    }
}

/// Lowers the maximum segment size in a TCP SYN to `mss` bytes (RFC 9293 section 3.7.1), and
/// keeps the checksum right. Returns whether the option was there and larger.
///
/// Every option of the kind is lowered, because a receiver believes the last one. A list with a
/// wrong length is left alone from there on, as receivers stop there too. At most 40 steps.
pub fn clamp_mss(frame: &mut [u8], info: &IpInfo, mss: u16, partial_csum: bool) -> bool {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const MSS: u8 = 2;

    if info.proto != TCP
        || info.fragment != Fragment::None
        || info.tcp_flags & TCP_SYN == 0
        || frame.len() < info.len
    {
        return false;
    }
    let mut lowered = false;
    let mut at = info.l4 + 20;
    while at < info.payload {
        let len = match frame[at] {
            END => break,
            NOP => 1,
            _ if at + 1 < info.payload => usize::from(frame[at + 1]),
            _ => break,
        };
        if len == 0 || at + len > info.payload {
            break;
        }
        if frame[at] == MSS && len == 4 && be16(frame, at + 2) > mss {
            lower_mss(frame, info, at, mss, partial_csum);
            lowered = true;
        }
        at += len;
    }
    lowered
}

/// Writes the option at `at`.
fn lower_mss(frame: &mut [u8], info: &IpInfo, at: usize, mss: u16, partial_csum: bool) {
    let old = be16(frame, at + 2);
    put16(frame, at + 2, mss);
    if partial_csum {
        return;
    }
    // An option may start at an odd offset: its bytes then are the halves of two words, which a
    // byte swap of both values accounts for.
    let (old, new) = if (at - info.l4).is_multiple_of(2) {
        (old, mss)
    } else {
        (old.swap_bytes(), mss.swap_bytes())
    };
    let field = info.l4 + 16;
    let sum = checksum::update_u16(be16(frame, field), old, new);
    put16(frame, field, sum);
}

#[cfg(test)]
mod tests;
