//! Ordinary frames, and what is done to them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use weft_wire::mac_for_ip;

use crate::common::{VIP, VIP6, inside};

/// Bytes before the IP header.
pub(super) const ETH: usize = 14;

/// An endpoint of the overlay, by the last number of its addresses.
pub(super) fn v4(host: u8) -> Ipv4Addr {
    match inside(VIP, host) {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => unreachable!("{ip}"),
    }
}

pub(super) fn v6(host: u8) -> Ipv6Addr {
    match inside(VIP6, host) {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(ip) => unreachable!("{ip}"),
    }
}

pub(super) fn mac(host: u8) -> [u8; 6] {
    mac_for_ip(inside(VIP, host)).0
}

fn built<T>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), T>) -> Vec<u8>
where
    T: std::fmt::Debug,
{
    let mut frame = Vec::new();
    write(&mut frame).expect("it fits");
    frame
}

pub(super) fn udp4(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(mac(from), mac(to))
        .ipv4(v4(from).octets(), v4(to).octets(), 64)
        .udp(4000, 4001);
    built(|frame| packet.write(frame, payload))
}

pub(super) fn udp6(from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(mac(from), mac(to))
        .ipv6(v6(from).octets(), v6(to).octets(), 64)
        .udp(4000, 4001);
    built(|frame| packet.write(frame, payload))
}

pub(super) fn tcp4(from: u8, to: u8) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(mac(from), mac(to))
        .ipv4(v4(from).octets(), v4(to).octets(), 64)
        .tcp(4000, 4001, 1, 1000)
        .syn();
    built(|frame| packet.write(frame, &[]))
}

/// An answer to a ping that nobody sent: kernels take it in silence.
pub(super) fn pong4(from: u8, to: u8, seq: u16) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(mac(from), mac(to))
        .ipv4(v4(from).octets(), v4(to).octets(), 64)
        .icmpv4_echo_reply(0x7765, seq);
    built(|frame| packet.write(frame, b"fence"))
}

/// ARP with that operation.
pub(super) fn arp(operation: u8, from: u8, sender: u8, target: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac(from));
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(mac(from));
    frame.extend(v4(sender).octets());
    frame.extend([0; 6]);
    frame.extend(v4(target).octets());
    frame
}

/// A message of neighbor discovery about `target`, to `to` alone.
pub(super) fn discovery(kind: u8, from: u8, to: u8, target: u8) -> Vec<u8> {
    // Room for a redirect, which names two addresses.
    let mut body = [0; 32];
    body[..16].copy_from_slice(&v6(target).octets());
    let packet = PacketBuilder::ethernet2(mac(from), mac(to))
        .ipv6(v6(from).octets(), v6(to).octets(), 255)
        .icmpv6_raw(kind, 0, [0; 4]);
    built(|frame| packet.write(frame, &body))
}

/// Writes bytes over others.
pub(super) fn put(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// Puts bytes between others.
pub(super) fn insert(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame.splice(at..at, bytes.iter().copied());
    frame
}

/// Ends a frame early.
pub(super) fn cut(mut frame: Vec<u8>, len: usize) -> Vec<u8> {
    frame.truncate(len);
    frame
}

/// Makes the IP header's length field say what is there, and the header checksum right.
pub(super) fn settle(mut frame: Vec<u8>) -> Vec<u8> {
    let len = frame.len() - ETH;
    if frame[ETH] >> 4 == 6 {
        let len = u16::try_from(len - 40).expect("short");
        return put(frame, ETH + 4, &len.to_be_bytes());
    }
    let total = u16::try_from(len).expect("short").to_be_bytes();
    frame[ETH + 2..ETH + 4].copy_from_slice(&total);
    frame[ETH + 10..ETH + 12].fill(0);
    let header = ETH + usize::from(frame[ETH] & 15) * 4;
    let sum: u32 = frame[ETH..header.min(frame.len())]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !u16::try_from(folded).expect("folded");
    put(frame, ETH + 10, &checksum.to_be_bytes())
}

/// The same packet with `payload` as what follows an IPv4 header that says it is a fragment of
/// datagram `id` at `offset` (bytes).
pub(super) fn fragment4(frame: &[u8], id: u16, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut out = frame[..ETH + 20].to_vec();
    out.extend_from_slice(payload);
    let out = put(out, ETH + 4, &id.to_be_bytes());
    let bits = (offset / 8) | if more { 0x2000 } else { 0 };
    settle(put(out, ETH + 6, &bits.to_be_bytes()))
}

/// The same for IPv6, where a header says so.
pub(super) fn fragment6(frame: &[u8], id: u32, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let proto = frame[ETH + 6];
    let mut out = put(frame[..ETH + 40].to_vec(), ETH + 6, &[44]);
    out.extend([proto, 0]);
    out.extend((offset | u16::from(more)).to_be_bytes());
    out.extend(id.to_be_bytes());
    out.extend_from_slice(payload);
    settle(out)
}

/// In a VXLAN header with those flags.
pub(super) fn encapsulated(flags: u8, vni: u32, frame: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let mut datagram = vec![flags, 0, 0, 0, a, b, c, 0];
    datagram.extend_from_slice(frame);
    datagram
}
