//! Hostile frames of a sandbox: what each is called, and what becomes of it.

use weft_wire::DropReason::{self, *};

use super::frames::{
    ETH, arp, cut, discovery, fragment4, insert, mac, pong4, put, settle, tcp4, udp4, udp6, v4, v6,
};
use crate::common::VXLAN;

/// The sender, a neighbour on its node, an endpoint on the other node.
pub(super) const ME: u8 = 2;
pub(super) const NEAR: u8 = 3;
pub(super) const FAR: u8 = 4;
pub(super) const GATEWAY: u8 = 1;

/// A name, the reason, and the frame to one of the two.
pub(super) type Case = (&'static str, DropReason, fn(u8) -> Vec<u8>);

/// Offset of what follows an IPv4 header without options, and of what follows one of IPv6.
pub(super) const L4: usize = ETH + 20;
pub(super) const L4_V6: usize = ETH + 40;

pub(super) const IDENTITY: &[Case] = &[
    ("source MAC of a neighbour", SpoofedMac, |to| {
        put(udp4(ME, to, b"x"), 6, &mac(NEAR))
    }),
    ("source MAC of the destination", SpoofedMac, |to| {
        put(udp4(ME, to, b"x"), 6, &mac(to))
    }),
    ("source MAC of the gateway", SpoofedMac, |to| {
        put(udp4(ME, to, b"x"), 6, &mac(GATEWAY))
    }),
    ("source MAC of a group", SpoofedMac, |to| {
        put(udp4(ME, to, b"x"), 6, &[1, 0, 0x5e, 0, 0, 1])
    }),
    ("source MAC of nobody", SpoofedMac, |to| {
        put(udp4(ME, to, b"x"), 6, &[0; 6])
    }),
    ("IPv4 source of a neighbour", SpoofedIp, |to| {
        settle(put(udp4(ME, to, b"x"), ETH + 12, &v4(NEAR).octets()))
    }),
    ("IPv4 source of the gateway", SpoofedIp, |to| {
        settle(put(udp4(ME, to, b"x"), ETH + 12, &v4(GATEWAY).octets()))
    }),
    ("IPv4 source outside the subnet", SpoofedIp, |to| {
        settle(put(udp4(ME, to, b"x"), ETH + 12, &[8, 8, 8, 8]))
    }),
    ("IPv4 source of loopback", SpoofedIp, |to| {
        settle(put(udp4(ME, to, b"x"), ETH + 12, &[127, 0, 0, 1]))
    }),
    ("no IPv4 source, to one", SpoofedIp, |to| {
        settle(put(udp4(ME, to, b"x"), ETH + 12, &[0; 4]))
    }),
    ("IPv4 source of broadcast", SpoofedIp, |to| {
        settle(put(udp4(ME, to, b"x"), ETH + 12, &[255; 4]))
    }),
    ("IPv6 source of a neighbour", SpoofedIp, |to| {
        put(udp6(ME, to, b"x"), ETH + 8, &v6(NEAR).octets())
    }),
    ("IPv6 link-local source of another", SpoofedIp, |to| {
        put(udp6(ME, to, b"x"), ETH + 8, &link_local(9))
    }),
    ("IPv4 in the source of IPv6", SpoofedIp, |to| {
        put(
            udp6(ME, to, b"x"),
            ETH + 8,
            &v4(ME).to_ipv6_mapped().octets(),
        )
    }),
    ("no IPv6 source, to one", SpoofedIp, |to| {
        put(udp6(ME, to, b"x"), ETH + 8, &[0; 16])
    }),
    ("spoofed later fragment", SpoofedIp, |to| {
        let frame = put(udp4(ME, to, b"x"), ETH + 12, &v4(NEAR).octets());
        fragment4(&frame, 9, 64, false, &[7; 64])
    }),
];

pub(super) const DISCOVERY: &[Case] = &[
    ("ARP in the name of another address", SpoofedIp, |to| {
        arp(1, ME, NEAR, to)
    }),
    ("ARP reply in the name of another", SpoofedIp, |to| {
        put(arp(2, ME, GATEWAY, to), 0, &mac(to))
    }),
    ("ARP in the name of another MAC", SpoofedMac, |to| {
        put(arp(1, ME, ME, to), 22, &mac(NEAR))
    }),
    ("ARP reply that nobody asked for", Multicast, |to| {
        put(arp(2, ME, ME, to), 0, &mac(to))
    }),
    ("gratuitous ARP", Multicast, |_| arp(1, ME, ME, ME)),
    ("ARP for what nobody has", UnknownNeighbor, |_| {
        arp(1, ME, ME, 99)
    }),
    ("ARP of token ring", BadArp, |to| {
        put(arp(1, ME, ME, to), ETH, &[0, 6])
    }),
    ("ARP with long addresses", BadArp, |to| {
        let long = insert(arp(1, ME, ME, to), 42, &[0; 64]);
        put(long, ETH + 4, &[16])
    }),
    ("ARP cut short", Truncated, |to| cut(arp(1, ME, ME, to), 41)),
    ("neighbor advertisement", Multicast, |to| {
        discovery(136, ME, to, NEAR)
    }),
    ("router advertisement", Multicast, |to| {
        discovery(134, ME, to, ME)
    }),
    ("router solicitation", Multicast, |to| {
        discovery(133, ME, to, ME)
    }),
    ("redirect", Multicast, |to| discovery(137, ME, to, FAR)),
    ("solicitation of another", SpoofedIp, |to| {
        put(discovery(135, ME, to, NEAR), ETH + 8, &v6(NEAR).octets())
    }),
];

pub(super) const LENGTHS: &[Case] = &[
    ("an Ethernet header, IPv4 follows not", Truncated, |to| {
        cut(udp4(ME, to, b"x"), ETH)
    }),
    ("IPv4 header cut short", Truncated, |to| {
        cut(udp4(ME, to, b"x"), ETH + 19)
    }),
    ("IPv6 header cut short", Truncated, |to| {
        cut(udp6(ME, to, b"x"), ETH + 39)
    }),
    ("IPv4 longer than its frame", Truncated, |to| {
        put(udp4(ME, to, b"x"), ETH + 2, &[0, 30])
    }),
    ("IPv4 of 65,535 bytes in a short frame", Truncated, |to| {
        put(udp4(ME, to, b"x"), ETH + 2, &[255, 255])
    }),
    ("IPv4 shorter than its header", BadIpHeader, |to| {
        put(udp4(ME, to, b"x"), ETH + 2, &[0, 19])
    }),
    ("IPv4 of no bytes", BadIpHeader, |to| {
        put(udp4(ME, to, b"x"), ETH + 2, &[0, 0])
    }),
    ("IHL of 4", BadIpHeader, |to| {
        put(udp4(ME, to, b"x"), ETH, &[0x44])
    }),
    ("IHL of 0", BadIpHeader, |to| {
        put(udp4(ME, to, b"x"), ETH, &[0x40])
    }),
    ("options longer than the packet", BadIpHeader, |to| {
        put(udp4(ME, to, b"x"), ETH, &[0x4f])
    }),
    (
        "options that leave no room for UDP",
        BadTransportHeader,
        |to| settle(put(udp4(ME, to, &[1; 36]), ETH, &[0x4f])),
    ),
    ("version 6 where IPv4 was said", BadIpHeader, |to| {
        put(udp4(ME, to, b"x"), ETH, &[0x65])
    }),
    ("version 4 where IPv6 was said", BadIpHeader, |to| {
        put(udp6(ME, to, b"x"), ETH, &[0x45])
    }),
    ("IPv6 longer than its frame", Truncated, |to| {
        put(udp6(ME, to, b"x"), ETH + 4, &[0, 200])
    }),
    ("IPv6 jumbogram", BadIpHeader, |to| {
        let jumbo = [17, 0, 0xc2, 4, 0, 1, 0, 0];
        let frame = insert(udp6(ME, to, &[7; 64]), L4_V6, &jumbo);
        put(put(frame, ETH + 4, &[0, 0]), ETH + 6, &[0])
    }),
    ("TCP data offset behind the end", BadTransportHeader, |to| {
        put(tcp4(ME, to), L4 + 12, &[0xf0])
    }),
    ("TCP data offset of 4", BadTransportHeader, |to| {
        put(tcp4(ME, to), L4 + 12, &[0x40])
    }),
    ("TCP header cut short", BadTransportHeader, |to| {
        settle(cut(tcp4(ME, to), L4 + 19))
    }),
    (
        "first fragment too small for TCP",
        BadTransportHeader,
        |to| fragment4(&tcp4(ME, to), 5, 0, true, &tcp4(ME, to)[L4..L4 + 8]),
    ),
    ("UDP longer than its packet", BadTransportHeader, |to| {
        put(udp4(ME, to, b"x"), L4 + 4, &[0, 10])
    }),
    ("UDP shorter than its header", BadTransportHeader, |to| {
        put(udp4(ME, to, b"x"), L4 + 4, &[0, 7])
    }),
    ("UDP header cut short", BadTransportHeader, |to| {
        settle(cut(udp4(ME, to, b"x"), L4 + 7))
    }),
    ("ICMP cut short", BadTransportHeader, |to| {
        settle(cut(pong4(ME, to, 0), L4 + 3))
    }),
];

pub(super) const CHAINS: &[Case] = &[
    ("IPv6 extension headers without end", BadIpHeader, |to| {
        chain(to, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(150), 60)
    }),
    ("nine IPv6 extension headers", BadIpHeader, |to| {
        let mut headers = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
        headers[8 * 8] = 17;
        chain(to, &headers, 60)
    }),
    ("IPv6 extension header behind the end", BadIpHeader, |to| {
        chain(to, &[17, 255, 1, 4, 0, 0, 0, 0], 0)
    }),
    ("IPv6 header chain cut short", BadIpHeader, |to| {
        settle(cut(chain(to, &[17, 0, 1, 4, 0, 0, 0, 0], 0), L4_V6 + 7))
    }),
    (
        "routing header that leaves no room for UDP",
        BadTransportHeader,
        |to| chain(to, &[17, 1, 0, 0, 0, 0, 0, 0], 43),
    ),
];

pub(super) const KINDS: &[Case] = &[
    ("802.1Q tag", BadEthertype, |to| {
        insert(udp4(ME, to, b"x"), 12, &[0x81, 0, 0, 5])
    }),
    ("802.1Q tag for priority only", BadEthertype, |to| {
        insert(udp4(ME, to, b"x"), 12, &[0x81, 0, 0xe0, 0])
    }),
    ("QinQ", BadEthertype, |to| {
        insert(udp4(ME, to, b"x"), 12, &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6])
    }),
    ("MPLS", BadEthertype, |to| {
        insert(udp4(ME, to, b"x"), 12, &[0x88, 0x47, 0, 0, 0x11, 64])
    }),
    ("PPPoE", BadEthertype, |to| {
        put(udp4(ME, to, b"x"), 12, &[0x88, 0x64])
    }),
    ("802.3 length in place of a type", BadEthertype, |to| {
        put(udp4(ME, to, b"x"), 12, &[0, 29])
    }),
    ("spanning tree", BadEthertype, |_| {
        let frame = put(udp4(ME, NEAR, &[0; 24]), 0, &[1, 0x80, 0xc2, 0, 0, 0]);
        put(frame, 12, &[0, 38, 0x42, 0x42, 3])
    }),
    ("LLDP", BadEthertype, |_| {
        let frame = put(udp4(ME, NEAR, &[0; 24]), 0, &[1, 0x80, 0xc2, 0, 0, 0x0e]);
        put(frame, 12, &[0x88, 0xcc])
    }),
    ("IPv4 broadcast", Multicast, |_| {
        settle(put(
            put(udp4(ME, NEAR, b"x"), 0, &[255; 6]),
            ETH + 16,
            &[255; 4],
        ))
    }),
    ("one address, all machines", Multicast, |to| {
        put(udp4(ME, to, b"x"), 0, &[255; 6])
    }),
    ("IPv4 multicast", Multicast, |_| {
        let frame = put(udp4(ME, NEAR, b"x"), 0, &[1, 0, 0x5e, 0, 0, 251]);
        settle(put(frame, ETH + 16, &[224, 0, 0, 251]))
    }),
    ("IPv6 multicast", Multicast, |_| {
        put(udp6(ME, NEAR, b"x"), 0, &[0x33, 0x33, 0, 0, 0, 1])
    }),
    ("DHCP", Multicast, |_| {
        let frame = put(udp4(ME, NEAR, b"x"), 0, &[255; 6]);
        let frame = put(frame, ETH + 12, &[0, 0, 0, 0, 255, 255, 255, 255]);
        settle(put(frame, L4, &[0, 68, 0, 67]))
    }),
    ("to a MAC that nobody has", UnknownMac, |to| {
        put(udp4(ME, to, b"x"), 0, &mac(99))
    }),
    ("through the gateway to a node", OtherNetwork, |_| {
        let frame = put(udp4(ME, GATEWAY, &[8; 64]), L4 + 2, &VXLAN.to_be_bytes());
        settle(put(frame, ETH + 16, &[10, 77, 0, 2]))
    }),
    ("through the gateway to a neighbour", OtherNetwork, |to| {
        put(udp4(ME, to, b"x"), 0, &mac(GATEWAY))
    }),
    ("ping of the gateway in fragments", Fragment, |_| {
        let ping = put(pong4(ME, GATEWAY, 0), L4, &[8]);
        fragment4(&ping, 5, 0, true, &ping[L4..L4 + 8])
    }),
];

/// UDP behind those extension headers, the first of which is of that kind.
pub(super) fn chain(to: u8, headers: &[u8], first: u8) -> Vec<u8> {
    let frame = insert(udp6(ME, to, b""), L4_V6, headers);
    settle(put(frame, ETH + 6, &[first]))
}

/// The link-local address that follows from the MAC of an endpoint.
fn link_local(host: u8) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac(host);
    [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ]
}
