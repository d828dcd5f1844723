//! What a machine on the underlay may send to the VXLAN port: one that is no node, and one that
//! is, or says so.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use ipnet::IpNet;
use weft_sys::netlink::Netlink;
use weft_vxlan::NetworkEntry;
use weft_wire::DropReason::{self, *};
use weft_wire::{Mac, Vni};

use super::frames::{
    ETH, arp, cut, discovery, encapsulated, fragment4, insert, mac, pong4, put, settle, tcp4, udp4,
    udp6, v4,
};
use super::from_port::from_node;
use super::{Raw, all, one_more, silent_sandbox};
use crate::common::{Node, Sandbox, VIP, VXLAN, inside, nodes, publish_with, vni};

/// An endpoint here, its neighbour, one behind the VTEP that speaks, one behind another VTEP.
const HERE: u8 = 2;
const NEAR: u8 = 3;
const THERE: u8 = 4;
const ELSEWHERE: u8 = 5;
const GATEWAY: u8 = 1;

/// "The I flag": RFC 7348 section 5.
const VALID: u8 = 0x08;
const VNI: u32 = 4097;
const L4: usize = ETH + 20;

/// Addresses of the machine on the underlay. The second is that of another node, the third nobody's.
const KNOWN: [u8; 4] = [10, 77, 0, 2];
const OTHER: [u8; 4] = [10, 77, 0, 3];
const STRANGER: [u8; 4] = [10, 77, 0, 9];

/// A name, the reason, where from, and the datagram.
type Case = (&'static str, DropReason, [u8; 4], fn() -> Vec<u8>);

fn good() -> Vec<u8> {
    udp4(THERE, HERE, b"in order")
}

fn wrapped(frame: &[u8]) -> Vec<u8> {
    encapsulated(VALID, VNI, frame)
}

const HEADERS: &[Case] = &[
    ("a VTEP that nobody knows", UnknownVtep, STRANGER, || {
        wrapped(&good())
    }),
    ("nothing from a stranger", UnknownVtep, STRANGER, Vec::new),
    ("no bytes", Truncated, KNOWN, Vec::new),
    ("half a VXLAN header", Truncated, KNOWN, || {
        cut(wrapped(&good()), 4)
    }),
    ("a VXLAN header but for one byte", Truncated, KNOWN, || {
        cut(wrapped(&good()), 7)
    }),
    ("a VXLAN header, nothing in it", Truncated, KNOWN, || {
        cut(wrapped(&good()), 8)
    }),
    ("inner Ethernet but for one byte", Truncated, KNOWN, || {
        cut(wrapped(&good()), 8 + ETH - 1)
    }),
    ("I flag not set", BadVxlanHeader, KNOWN, || {
        encapsulated(0, VNI, &good())
    }),
    ("every flag but I", BadVxlanHeader, KNOWN, || {
        encapsulated(!VALID, VNI, &good())
    }),
    ("a VNI that nobody knows", UnknownVni, KNOWN, || {
        encapsulated(VALID, VNI + 1, &good())
    }),
    ("VNI 0", UnknownVni, KNOWN, || {
        encapsulated(VALID, 0, &good())
    }),
    // Of loopback messages, which are for nodes.
    ("the highest VNI", OtherPeer, KNOWN, || {
        encapsulated(VALID, 0xff_ffff, &good())
    }),
];

const INSIDE: &[Case] = &[
    ("inner Ethernet, nothing in it", Truncated, KNOWN, || {
        wrapped(&cut(good(), ETH))
    }),
    ("inner IPv4 cut short", Truncated, KNOWN, || {
        wrapped(&cut(good(), ETH + 19))
    }),
    ("inner IPv4 longer than its frame", Truncated, KNOWN, || {
        wrapped(&put(good(), ETH + 2, &[255, 255]))
    }),
    ("inner IHL of 4", BadIpHeader, KNOWN, || {
        wrapped(&put(good(), ETH, &[0x44]))
    }),
    (
        "inner TCP data offset behind the end",
        BadTransportHeader,
        KNOWN,
        || wrapped(&put(tcp4(THERE, HERE), L4 + 12, &[0xf0])),
    ),
    ("inner VLAN tag", BadEthertype, KNOWN, || {
        wrapped(&insert(good(), 12, &[0x81, 0, 0, 5]))
    }),
    ("inner QinQ", BadEthertype, KNOWN, || {
        wrapped(&insert(good(), 12, &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]))
    }),
    ("inner noise", BadEthertype, KNOWN, || wrapped(&[0xa5; 200])),
    (
        "inner datagram longer than the network's MTU",
        Oversized,
        KNOWN,
        || wrapped(&udp4(THERE, HERE, &[7; 3000])),
    ),
    (
        "inner super-frame with a wrong checksum",
        BadChecksum,
        KNOWN,
        || {
            let frame = tcp4(THERE, HERE);
            let frame = put(frame, L4 + 13, &[0x10]);
            let len = frame.len();
            wrapped(&settle(insert(frame, len, &[7; 3000])))
        },
    ),
    ("to an endpoint behind the sender", Hairpin, KNOWN, || {
        wrapped(&udp4(HERE, THERE, b"back"))
    }),
    ("to an endpoint behind another node", Hairpin, KNOWN, || {
        wrapped(&udp4(THERE, ELSEWHERE, b"on"))
    }),
    (
        "IPv6 to an endpoint behind another node",
        Hairpin,
        KNOWN,
        || wrapped(&udp6(THERE, ELSEWHERE, b"on")),
    ),
    ("to a MAC that nobody has", UnknownMac, KNOWN, || {
        wrapped(&udp4(THERE, 99, b"x"))
    }),
    ("to everybody", Multicast, KNOWN, || {
        wrapped(&put(good(), 0, &[255; 6]))
    }),
    ("to an IPv4 group", Multicast, KNOWN, || {
        let frame = put(good(), 0, &[1, 0, 0x5e, 0, 0, 251]);
        wrapped(&settle(put(frame, ETH + 16, &[224, 0, 0, 251])))
    }),
    ("to an IPv6 group", Multicast, KNOWN, || {
        wrapped(&put(udp6(THERE, HERE, b"x"), 0, &[0x33, 0x33, 0, 0, 0, 1]))
    }),
    ("gratuitous ARP in a local name", Multicast, KNOWN, || {
        wrapped(&arp(2, THERE, HERE, HERE))
    }),
    ("ARP reply that nobody asked for", Multicast, KNOWN, || {
        wrapped(&put(arp(2, THERE, NEAR, HERE), 0, &mac(HERE)))
    }),
    ("ARP for what is elsewhere", Multicast, KNOWN, || {
        wrapped(&arp(1, THERE, THERE, ELSEWHERE))
    }),
    ("neighbor advertisement", Multicast, KNOWN, || {
        wrapped(&discovery(136, THERE, HERE, NEAR))
    }),
    ("router advertisement", Multicast, KNOWN, || {
        wrapped(&discovery(134, THERE, HERE, THERE))
    }),
    (
        "through the gateway to the node",
        OtherNetwork,
        KNOWN,
        || {
            let frame = udp4(THERE, GATEWAY, b"x");
            wrapped(&settle(put(frame, ETH + 16, &[10, 77, 0, 1])))
        },
    ),
    ("to a virtual address", NoService, KNOWN, || {
        let frame = put(good(), 0, &weft_wire::mac_for_ip(VIP).0);
        wrapped(&settle(put(frame, ETH + 16, &[10, 0, 1, 200])))
    }),
    ("to an endpoint whose port is gone", PortGone, KNOWN, || {
        wrapped(&udp4(THERE, 6, b"x"))
    }),
];

const NAMES: &[Case] = &[
    ("the neighbour's", ForeignSource, KNOWN, || {
        wrapped(&udp4(NEAR, HERE, b"x"))
    }),
    ("the receiver's own", ForeignSource, KNOWN, || {
        wrapped(&udp4(HERE, HERE, b"x"))
    }),
    (
        "an endpoint's behind another VTEP",
        ForeignSource,
        KNOWN,
        || wrapped(&udp4(ELSEWHERE, HERE, b"x")),
    ),
    (
        "the known one's, from another VTEP",
        ForeignSource,
        OTHER,
        || wrapped(&good()),
    ),
    (
        "the neighbour's address, own MAC",
        ForeignSource,
        KNOWN,
        || {
            let frame = put(good(), ETH + 12, &v4(NEAR).octets());
            wrapped(&settle(frame))
        },
    ),
    (
        "the neighbour's MAC, own address",
        ForeignSource,
        KNOWN,
        || wrapped(&put(good(), 6, &mac(NEAR))),
    ),
    (
        "a stranger's address, the neighbour's MAC",
        ForeignSource,
        KNOWN,
        || {
            let frame = put(good(), 6, &mac(NEAR));
            wrapped(&settle(put(frame, ETH + 12, &[203, 0, 113, 9])))
        },
    ),
    ("the gateway's", ForeignSource, KNOWN, || {
        wrapped(&udp4(GATEWAY, HERE, b"x"))
    }),
    ("a service's", ForeignSource, KNOWN, || {
        wrapped(&udp4(200, HERE, b"x"))
    }),
    (
        "a link-local one's of the neighbour",
        ForeignSource,
        KNOWN,
        || {
            let [a, b, c, d, e, f] = mac(NEAR);
            let ip = [
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
            ];
            wrapped(&put(udp6(THERE, HERE, b"x"), ETH + 8, &ip))
        },
    ),
    (
        "a later fragment in the neighbour's",
        ForeignSource,
        KNOWN,
        || wrapped(&fragment4(&udp4(NEAR, HERE, b"x"), 9, 64, false, &[7; 64])),
    ),
    // A network of its own, where the second is a peer and the first is not.
    ("a static peer on another network", OtherPeer, KNOWN, || {
        encapsulated(VALID, VNI + 2, &good())
    }),
];

/// A node with two endpoints, and a machine that sends to it by hand and hears all it sends.
struct Stage {
    node: Node,
    here: Sandbox,
    _near: Sandbox,
    endpoint: Raw,
    neighbour: Raw,
    underlay: Raw,
    senders: Vec<(IpAddr, UdpSocket)>,
    fences: u16,
}

impl Stage {
    fn new() -> Self {
        let [node, peer] = nodes(1);
        drop(peer.plane);
        let senders = [KNOWN, OTHER, STRANGER].map(IpAddr::from);
        let open = || {
            let mut netlink = Netlink::open().expect("netlink");
            for ip in &senders[1..] {
                let net = IpNet::new(*ip, 24).expect("prefix");
                netlink.add_address("up0", net).expect("address");
            }
            senders.map(|ip| (ip, UdpSocket::bind((ip, VXLAN)).expect("bind")))
        };
        let sockets = peer.ns.run_in(open).expect("thread");
        let here = silent_sandbox(&node, VIP, HERE);
        let near = silent_sandbox(&node, VIP, NEAR);
        publish_with(&node, 1, &[&here, &near], |switch| {
            for s in [&here, &near] {
                switch.local(vni(), s.port.mac, &s.port.ips, s.port.id);
            }
            for (host, vtep) in [(THERE, senders[0]), (ELSEWHERE, senders[1])] {
                let vtep = SocketAddr::new(vtep, VXLAN);
                switch.remote(vni(), Mac(mac(host)), &[v4(host).into()], vtep);
            }
            switch.local(vni(), Mac(mac(6)), &[inside(VIP, 6)], weft_wire::PortId(6));
            switch.virtual_ip(vni(), VIP);
            let other = Vni::new(VNI + 2).expect("24 bits");
            switch.network(NetworkEntry {
                vni: other,
                mtu: 1450,
                gateways: Vec::new(),
            });
            let vtep = SocketAddr::new(senders[1], VXLAN);
            switch.remote(other, Mac(mac(ELSEWHERE)), &[v4(ELSEWHERE).into()], vtep);
        });
        let mut stage = Self {
            endpoint: Raw::open(&here.ns),
            neighbour: Raw::open(&near.ns),
            underlay: Raw::open(&peer.ns),
            senders: sockets.into(),
            node,
            here,
            _near: near,
            fences: 0,
        };
        stage.send(KNOWN, &wrapped(&pong4(THERE, HERE, 0)));
        while !stage.endpoint.next().ends_with(&pong4(THERE, HERE, 0)) {}
        stage.fence("at first");
        stage
    }

    fn send(&self, from: [u8; 4], datagram: &[u8]) {
        let (_, socket) = self
            .senders
            .iter()
            .find(|(ip, _)| *ip == IpAddr::from(from))
            .expect("a sender");
        let to = SocketAddr::new(self.node.underlay, VXLAN);
        let sent = socket.send_to(datagram, to).expect("send");
        assert_eq!(sent, datagram.len());
    }

    /// Reads at both endpoints and on the underlay what they got until now: nothing but fences.
    fn fence(&mut self, what: &str) {
        self.fences += 1;
        let [here, near, back] = [(THERE, HERE), (THERE, NEAR), (HERE, THERE)]
            .map(|(from, to)| pong4(from, to, self.fences));
        self.send(KNOWN, &wrapped(&here));
        self.send(KNOWN, &wrapped(&near));
        let foreign = |own: u8| move |frame: &[u8]| frame[6..12] != mac(own);
        self.endpoint.nothing_before(&here, foreign(HERE), what);
        self.neighbour.nothing_before(&near, foreign(NEAR), what);
        self.endpoint.send(&back).expect("send");
        self.underlay.nothing_before(&back, from_node, what);
    }

    fn run(mut self, cases: &[Case]) {
        let at_port = all(&self.here.port.counters.drops);
        for (name, reason, from, datagram) in cases {
            let drops = &self.node.plane.counters()[0].underlay;
            let before = all(drops);
            self.send(*from, &datagram());
            one_more(drops, &before, *reason, name);
            self.fence(name);
        }
        assert!(self.node.plane.alive());
        assert_eq!(all(&self.here.port.counters.drops), at_port);
    }

    /// Sends a datagram that is in order, and reads its frame at the endpoint, unchanged.
    fn delivers(&mut self, name: &str, datagram: &[u8], frame: &[u8]) {
        let before = all(&self.node.plane.counters()[0].underlay);
        self.send(KNOWN, datagram);
        let foreign = |frame: &[u8]| frame[6..12] != mac(HERE);
        self.endpoint.nothing_before(frame, foreign, name);
        self.fence(name);
        assert_eq!(
            all(&self.node.plane.counters()[0].underlay),
            before,
            "{name}"
        );
    }
}

#[test]
fn headers_that_are_not_in_order_end_at_the_underlay() {
    Stage::new().run(HEADERS);
}

#[test]
fn what_is_inside_is_not_believed_either() {
    Stage::new().run(INSIDE);
}

#[test]
fn rfc7348_s5_reserved_bits_do_not_matter() {
    let mut stage = Stage::new();
    for at in [0, 1, 2, 3, 7] {
        let mut datagram = wrapped(&good());
        datagram[at] = 0xff;
        stage.delivers("reserved bits", &datagram, &good());
    }
}

/// The kernel decapsulates once; who runs a tunnel of its own gets its packets whole.
#[test]
fn a_tunnel_in_the_tunnel_is_payload() {
    let mut stage = Stage::new();
    // Its innermost frame would reach the neighbour if anybody looked for it.
    let innermost = wrapped(&udp4(THERE, NEAR, b"innermost"));
    let mut outer = udp4(THERE, HERE, &innermost);
    outer[L4..L4 + 4].copy_from_slice(&[0x12, 0xb5, 0x12, 0xb5]);
    outer[L4 + 6..L4 + 8].fill(0);
    stage.delivers("VXLAN in VXLAN", &wrapped(&outer), &outer);
}

/// As with the kernel's vxlan: datagrams may come twice, and whoever minds has a sequence number.
#[test]
fn a_datagram_that_comes_again_is_delivered_again() {
    let mut stage = Stage::new();
    for _ in 0..3 {
        stage.delivers("a replay", &wrapped(&good()), &good());
    }
}

/// Whoever speaks in the name of somebody that the tables place elsewhere is not heard.
#[test]
fn nobody_behind_a_vtep_speaks_in_the_name_of_another() {
    Stage::new().run(NAMES);
}

/// A node vouches for what nobody has told of: an endpoint that is new there, a client of a published
/// port. Nothing is learnt from it.
#[test]
fn what_nobody_knows_may_come_from_any_node() {
    let mut stage = Stage::new();
    let new = udp4(77, HERE, b"not told of yet");
    stage.delivers("a new endpoint", &wrapped(&new), &new);
    let client = settle(put(good(), ETH + 12, &[203, 0, 113, 9]));
    stage.delivers("a client's own address", &wrapped(&client), &client);
}

/// One datagram of a flow from the VTEP that has it, the next from another: they are not merged, and
/// the second ends.
#[test]
fn a_run_is_of_one_sender() {
    let mut stage = Stage::new();
    let segment = |at: u8, from: u8| {
        let frame = put(tcp4(from, HERE), L4 + 4, &[0, 0, 0, at]);
        let frame = put(frame, L4 + 13, &[0x10]);
        let len = frame.len();
        settle(insert(frame, len, &[7; 16]))
    };
    for round in 0..20 {
        let before = all(&stage.node.plane.counters()[0].underlay);
        stage.send(KNOWN, &wrapped(&segment(round * 8, THERE)));
        stage.send(OTHER, &wrapped(&segment(round * 8 + 16, THERE)));
        let drops = &stage.node.plane.counters()[0].underlay;
        one_more(drops, &before, ForeignSource, "the second sender");
        let own = |frame: &[u8]| frame.len() > L4 + 20 + 16 && frame[6..12] == mac(THERE);
        let fence = pong4(THERE, HERE, 2000 + u16::from(round));
        stage.send(KNOWN, &wrapped(&fence));
        stage.endpoint.nothing_before(&fence, own, "a merged run");
    }
}
