//! Frames as sandboxes and peers send them.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use etherparse::PacketBuilder;
use weft_wire::{Frame, IpInfo, VnetHdr, checksum, frame, gso, mac_for_ip, vnet};

/// Segment size of the super-frames here: MTU 1450 less 40 bytes of headers.
pub const MSS: u16 = 1410;

/// Address number `n` of the test network.
#[must_use]
pub fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + n)
}

/// A TCP segment between two addresses, with a complete checksum.
#[must_use]
pub fn tcp(src: u32, dst: u32, payload: usize) -> Vec<u8> {
    let mac = |n| mac_for_ip(IpAddr::V4(address(n))).0;
    let mut out = Vec::new();
    PacketBuilder::ethernet2(mac(src), mac(dst))
        .ipv4(address(src).octets(), address(dst).octets(), 64)
        .tcp(40000, 80, 1, 501)
        .ack(1)
        .write(&mut out, &vec![0x5a; payload])
        .expect("a vector takes every byte, and the payload fits in a packet");
    out
}

/// Datagrams of one flow, one behind the other, as `UDP_GRO` delivers them (without their VXLAN
/// headers).
///
/// # Panics
/// Never: a vector takes every byte.
#[must_use]
pub fn datagrams(count: usize, payload: usize) -> (Vec<u8>, Vec<Range<usize>>) {
    let mac = |n| mac_for_ip(IpAddr::V4(address(n))).0;
    let (mut arena, mut ranges) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let start = arena.len();
        PacketBuilder::ethernet2(mac(1), mac(2))
            .ipv4(address(1).octets(), address(2).octets(), 64)
            .udp(40000, 53)
            .write(&mut arena, &vec![0x5a; payload])
            .expect("a vector takes every byte, and the payload fits in a packet");
        ranges.push(start..arena.len());
    }
    (arena, ranges)
}

/// The offsets in a frame.
///
/// # Panics
/// When it is no IP packet.
#[must_use]
pub fn info(bytes: &[u8]) -> IpInfo {
    match frame::parse(bytes) {
        Ok(Frame::Ip(info)) => info,
        other => unreachable!("frames here are IP packets, not {other:?}"),
    }
}

/// A TCP super-frame as a kernel hands it over.
#[must_use]
pub fn tcp_super(payload: usize) -> (Vec<u8>, VnetHdr) {
    let mut bytes = tcp(1, 2, payload);
    let at = info(&bytes);
    let pseudo = checksum::pseudo_header(at.src, at.dst, at.proto, at.len - at.l4);
    bytes[at.l4 + 16..at.l4 + 18].copy_from_slice(&pseudo.to_be_bytes());
    let vnet = VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        gso_type: vnet::GSO_TCPV4,
        gso_size: MSS,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHdr::NONE
    };
    (bytes, vnet)
}

/// The segments of a super-frame, one behind the other, as `UDP_GRO` delivers them (without their
/// VXLAN headers).
///
/// # Panics
/// When the super-frame cannot be split.
#[must_use]
pub fn segments(bytes: &[u8], vnet: &VnetHdr) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut headers = vec![0; gso::arena_len(0)];
    let mut out = vec![gso::Segment::default(); gso::MAX_SEGMENTS];
    let split = gso::split(bytes, vnet, &info(bytes), &[], &mut headers, &mut out)
        .expect("super-frames here can be split");
    let (mut arena, mut ranges) = (Vec::new(), Vec::new());
    for part in &out[..split.count] {
        let start = arena.len();
        arena.extend_from_slice(&headers[part.header.start as usize..part.header.end as usize]);
        arena.extend_from_slice(&bytes[part.payload.start as usize..part.payload.end as usize]);
        ranges.push(start..arena.len());
    }
    (arena, ranges)
}
