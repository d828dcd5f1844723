//! What a sandbox may send, as root of its own kernel, and gets nowhere.

use std::net::{SocketAddr, UdpSocket};

use weft_sys::netlink::Netlink;
use weft_wire::DropReason::{self, *};

use super::frames::{
    ETH, arp, cut, discovery, fragment4, insert, mac, pong4, put, settle, tcp4, udp4, udp6, v4, v6,
};
use super::{Raw, all, one_more, quiet_sandbox, silent_sandbox};
use crate::common::{Node, Sandbox, VIP, VXLAN, inside, nodes, publish_with, vni};

/// The sender, a neighbour on its node, an endpoint on the other node.
const ME: u8 = 2;
const NEAR: u8 = 3;
const FAR: u8 = 4;
const GATEWAY: u8 = 1;

/// A name, the reason, and the frame to one of the two.
type Case = (&'static str, DropReason, fn(u8) -> Vec<u8>);

/// Offset of what follows an IPv4 header without options, and of what follows one of IPv6.
const L4: usize = ETH + 20;
const L4_V6: usize = ETH + 40;

const IDENTITY: &[Case] = &[
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

const DISCOVERY: &[Case] = &[
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

const LENGTHS: &[Case] = &[
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

const CHAINS: &[Case] = &[
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

const KINDS: &[Case] = &[
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
fn chain(to: u8, headers: &[u8], first: u8) -> Vec<u8> {
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

/// A sandbox, its neighbour, and somebody who listens in the place of another node.
struct Stage {
    node: Node,
    me: Sandbox,
    _near: Sandbox,
    sender: Raw,
    neighbour: Raw,
    underlay: Raw,
    /// Takes what arrives, so that the kernel there does not refuse it.
    _vtep: UdpSocket,
    fences: u16,
}

impl Stage {
    fn new() -> Self {
        let [node, peer] = nodes(1);
        let (me, near) = (
            quiet_sandbox(&node, VIP, ME),
            silent_sandbox(&node, VIP, NEAR),
        );
        drop(peer.plane);
        let vtep = SocketAddr::new(peer.underlay, VXLAN);
        publish_with(&node, 1, &[&me, &near], |switch| {
            for s in [&me, &near] {
                switch.local(vni(), s.port.mac, &s.port.ips, s.port.id);
            }
            let far = [inside(VIP, FAR), v6(FAR).into()];
            switch.remote(vni(), weft_wire::Mac(mac(FAR)), &far, vtep);
        });
        let bind = || UdpSocket::bind(vtep).expect("bind");
        let mut stage = Self {
            sender: Raw::speaking(&me),
            neighbour: Raw::open(&near.ns),
            underlay: Raw::open(&peer.ns),
            _vtep: peer.ns.run_in(bind).expect("thread"),
            node,
            me,
            _near: near,
            fences: 0,
        };
        stage.fence("at first");
        stage
    }

    /// Reads at both what they got until now: nothing but the fences.
    fn fence(&mut self, what: &str) {
        self.fences += 1;
        let [near, far] = [NEAR, FAR].map(|to| pong4(ME, to, self.fences));
        self.sender.send(&near).expect("send");
        self.sender.send(&far).expect("send");
        let foreign = |frame: &[u8]| frame[6..12] != mac(NEAR) || frame[..6] == mac(NEAR);
        self.neighbour.nothing_before(&near, foreign, what);
        self.underlay.nothing_before(&far, from_node, what);
    }

    fn run(mut self, cases: &[Case]) {
        for (name, reason, frame) in cases {
            for to in [NEAR, FAR] {
                let drops = &self.me.port.counters.drops;
                let before = all(drops);
                let frame = frame(to);
                self.sender.send(&frame).expect(name);
                one_more(drops, &before, *reason, name);
                self.fence(name);
            }
        }
        assert!(self.node.plane.alive());
    }
}

/// UDP of the node, as its peer sees it.
pub(super) fn from_node(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[ETH + 9] == 17 && frame[ETH + 12..ETH + 16] == [10, 77, 0, 1]
}

#[test]
fn nobody_speaks_in_the_name_of_another() {
    Stage::new().run(IDENTITY);
}

#[test]
fn nobody_lies_about_neighbours() {
    Stage::new().run(DISCOVERY);
}

#[test]
fn lengths_that_do_not_add_up_end_at_the_port() {
    Stage::new().run(LENGTHS);
}

#[test]
fn chains_of_headers_end() {
    Stage::new().run(CHAINS);
}

#[test]
fn what_weft_does_not_carry_ends_at_the_port() {
    Stage::new().run(KINDS);
}

#[test]
fn the_kernel_sends_no_frame_without_an_ethernet_header() {
    let stage = Stage::new();
    for len in [0, 1, 13] {
        let sent = stage.sender.send(&cut(udp4(ME, NEAR, b"x"), len));
        assert!(sent.is_err(), "{len} bytes were sent");
    }
}

#[test]
fn a_jumbo_frame_does_not_reach_the_other_node() {
    let mut stage = Stage::new();
    Netlink::open_in(&stage.me.ns)
        .expect("netlink")
        .set_mtu("eth0", 60_000)
        .expect("mtu");
    let drops = &stage.me.port.counters.drops;
    for len in [1451 - 28, 9000, 50_000] {
        for frame in [
            udp4(ME, FAR, &vec![7; len]),
            udp6(ME, FAR, &vec![7; len]),
            fragment4(
                &udp4(ME, FAR, b""),
                3,
                0,
                true,
                &vec![7; len.next_multiple_of(8) + 8],
            ),
        ] {
            let before = all(drops);
            stage.sender.send(&frame).expect("send");
            one_more(drops, &before, Oversized, "a jumbo frame");
        }
    }
    stage.fence("a jumbo frame");
}

/// Odd, but allowed: what is strict above must not be stricter than the rules.
#[test]
fn odd_frames_that_are_in_order_arrive_as_they_were() {
    let mut stage = Stage::new();
    let mut seven = [60, 0, 1, 4, 0, 0, 0, 0].repeat(7);
    seven[6 * 8] = 17;
    for (name, frame) in [
        (
            "forty bytes of IPv4 options",
            settle(put(
                insert(udp4(ME, NEAR, b"x"), L4, &[1; 40]),
                ETH,
                &[0x4f],
            )),
        ),
        ("seven IPv6 extension headers", chain(NEAR, &seven, 60)),
        ("no payload", udp4(ME, NEAR, b"")),
        (
            "an unknown protocol",
            settle(put(udp4(ME, NEAR, b"x"), ETH + 9, &[253])),
        ),
        (
            "a TTL of 0",
            settle(put(udp4(ME, NEAR, b"x"), ETH + 8, &[0])),
        ),
    ] {
        let before = all(&stage.me.port.counters.drops);
        stage.sender.send(&frame).expect(name);
        let foreign = |frame: &[u8]| frame[6..12] == mac(ME);
        stage.neighbour.nothing_before(&frame, foreign, name);
        assert_eq!(all(&stage.me.port.counters.drops), before, "{name}");
    }
}
