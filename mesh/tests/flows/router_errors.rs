//! ICMP errors of routers between a client outside and the node that it connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weft_mesh::{Context, Forward, Origin, Reverse};
use weft_wire::reply::{MAX_LEN, icmp_unreachable, packet_too_big};
use weft_wire::{DropReason, FiveTuple, Mac, checksum};

use crate::bench::*;

const ROUTER_MAC: Mac = Mac([2, 0x42, 10, 0, 0, 1]);
/// Where the replica's answers begin.
const SEQUENCE: u32 = 500;

/// A client outside, a router on its way, the mesh address that the client's packets have, and the
/// node's own address.
#[derive(Clone, Copy)]
struct Way {
    client: IpAddr,
    router: IpAddr,
    mesh: IpAddr,
    node: IpAddr,
}

const WAY: Way = Way {
    client: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    router: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    mesh: IpAddr::V4(Ipv4Addr::new(169, 254, 77, 2)),
    node: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 200)),
};
const WAY_V6: Way = Way {
    client: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
    router: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
    mesh: IpAddr::V6(Ipv6Addr::new(
        0xfd57, 0x4546, 0x5400, 0, 0, 0, 0xa9fe, 0x4d02,
    )),
    node: IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 200)),
};

impl Way {
    fn origin(self, keeps_client: bool) -> Origin {
        Origin::Mesh {
            vni: vni(),
            node_ip: self.node,
            node_mac: NODE_MAC,
            keeps_client,
        }
    }

    fn to_mesh(self, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        let t = tuple(self.client, 40_000, self.mesh, 8000, 6);
        tcp((CLIENT, VIP_MAC), t, (flags, seq, ack), b"")
    }

    /// A replica of the client's family, and the client's SYN.
    fn asked(self) -> (Bench, FiveTuple) {
        let mut b = Bench::new(1);
        if self.client.is_ipv6() {
            b.replicas[0].ip = v6(11);
            b.publish();
        }
        let syn = self.to_mesh(SYN, 100, 0);
        let seen = info(&b.forwarded(&self.origin(true), syn)).five_tuple();
        (b, seen)
    }

    /// An open connection.
    fn opened(self) -> (Bench, FiveTuple) {
        let (mut b, seen) = self.asked();
        let syn_ack = answer(seen, SYN | ACK, SEQUENCE, 101, b"");
        b.returned(&self.origin(true), syn_ack);
        let ack = self.to_mesh(ACK, 101, SEQUENCE + 1);
        b.forwarded(&self.origin(true), ack);
        (b, seen)
    }
}

/// Every kind of error that a router may send about a frame.
fn errors_by(ip: IpAddr, frame: &[u8]) -> Vec<Vec<u8>> {
    let about = info(frame);
    let mut out = [0; MAX_LEN];
    let len = packet_too_big(frame, &about, ROUTER_MAC, ip, 1280, &mut out);
    let too_big = out[..len].to_vec();
    let len = icmp_unreachable(frame, &about, ROUTER_MAC, ip, &mut out);
    let unreachable = out[..len].to_vec();
    let kinds: &[u8] = if ip.is_ipv4() { &[4, 11, 12] } else { &[3, 4] };
    let others = kinds.iter().map(|kind| {
        let mut error = unreachable.clone();
        let at = info(&error).l4;
        let old = u16::from_be_bytes([error[at], error[at + 1]]);
        error[at] = *kind;
        let new = u16::from_be_bytes([error[at], error[at + 1]]);
        let sum = u16::from_be_bytes([error[at + 2], error[at + 3]]);
        let sum = checksum::update_u16(sum, old, new);
        error[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
        error
    });
    let others: Vec<_> = others.collect();
    [vec![too_big, unreachable], others].concat()
}

/// A segment of the replica, and the same as it leaves the node.
fn sent(b: &mut Bench, way: Way, seen: FiveTuple, sequence: u32) -> (Vec<u8>, Vec<u8>) {
    let segment = answer(seen, ACK, sequence, 101, &[7; 1400]);
    let left = b.returned(&way.origin(true), segment.clone());
    (segment, left)
}

/// Errors as they should arrive from `sender` at the replica.
fn expected(sender: IpAddr, segment: &[u8], replica: Mac) -> Vec<Vec<u8>> {
    let mut errors = errors_by(sender, segment);
    for error in &mut errors {
        error[..6].copy_from_slice(&replica.0);
        error[6..12].copy_from_slice(&NODE_MAC.0);
    }
    errors
}

#[test]
fn a_routers_errors_reach_the_replica_in_the_routers_name() {
    for way in [WAY, WAY_V6] {
        let (mut b, seen) = way.opened();
        let (segment, left) = sent(&mut b, way, seen, SEQUENCE + 1);
        let wanted = expected(way.router, &segment, b.replicas[0].mac);
        for (mut error, want) in errors_by(way.router, &left).into_iter().zip(wanted) {
            let verdict = b.forward(&way.origin(true), &mut error);
            assert!(matches!(verdict, Forward::Rewritten { .. }), "{verdict:?}");
            assert!(checksum::verify_transport(&error, &info(&error)));
            assert_eq!(error, want);
        }
    }
}

#[test]
fn the_narrowest_link_on_the_way_to_a_client_is_known_of_its_flow_alone() {
    for way in [WAY, WAY_V6] {
        let (mut b, seen) = way.opened();
        let origin = way.origin(true);
        let other = info(&b.forwarded(&origin, {
            let t = tuple(way.client, 40_001, way.mesh, 8000, 6);
            tcp((CLIENT, VIP_MAC), t, (SYN, 7, 0), b"")
        }));
        let of_replica = |t| info(&answer(t, ACK, SEQUENCE + 1, 101, b"data"));
        let known = |b: &Bench, t| b.table.path_mtu(vni(), &of_replica(t));
        let (_, left) = sent(&mut b, way, seen, SEQUENCE + 1);
        assert_eq!(known(&b, seen), None);
        // An MTU that no link has is believed as far as a link may go.
        let least = if way.client.is_ipv4() { 552 } else { 1280 };
        for (said, expected) in [(1400, 1400), (1300, 1300), (1450, 1300), (100, least)] {
            let mut out = [0; MAX_LEN];
            let about = info(&left);
            let len = packet_too_big(&left, &about, ROUTER_MAC, way.router, said, &mut out);
            let mut error = out[..len].to_vec();
            let verdict = b.forward(&origin, &mut error);
            assert!(matches!(verdict, Forward::Rewritten { .. }), "{verdict:?}");
            assert_eq!(known(&b, seen), Some(expected));
        }
        assert_eq!(known(&b, other.five_tuple()), None);
    }
}

#[test]
fn the_hosts_own_errors_reach_the_replica_in_the_name_of_the_node() {
    let (mut b, seen) = WAY.opened();
    let (segment, left) = sent(&mut b, WAY, seen, SEQUENCE + 1);
    let wanted = expected(WAY.node, &segment, b.replicas[0].mac);
    for (mut error, want) in errors_by(host_ip(), &left).into_iter().zip(wanted) {
        let verdict = b.forward(&WAY.origin(false), &mut error);
        assert!(matches!(verdict, Forward::Rewritten { .. }), "{verdict:?}");
        assert_eq!(error, want);
    }
}

fn assert_strays(b: &mut Bench, origin: &Origin, router: IpAddr, about: &[u8]) {
    for mut error in errors_by(router, about) {
        let before = error.clone();
        let verdict = b.forward(origin, &mut error);
        let stray = matches!(verdict, Forward::Drop(DropReason::NotAFlow));
        assert!(stray, "{verdict:?}");
        assert_eq!(error, before);
    }
}

#[test]
fn an_error_about_what_the_flow_cannot_have_sent_goes_nowhere() {
    let origin = WAY.origin(true);
    let (mut b, seen) = WAY.opened();
    let t = tuple(WAY.mesh, 8000, WAY.client, 40_000, 6);
    let quote = |t, seq| tcp((VIP_MAC, CLIENT), t, (ACK, seq, 101), b"");
    // Far from all that the client has acknowledged.
    assert_strays(&mut b, &origin, WAY.router, &quote(t, 1 << 31));
    // Of no flow, and in the direction of the client's packets.
    let other = FiveTuple { dport: 40_001, ..t };
    assert_strays(&mut b, &origin, WAY.router, &quote(other, SEQUENCE));
    assert_strays(&mut b, &origin, WAY.router, &quote(t.reversed(), SEQUENCE));
    // Before anything has answered.
    let (mut asked, _) = WAY.asked();
    assert_strays(&mut asked, &origin, WAY.router, &quote(t, SEQUENCE));
    // A sandbox in a router's name.
    b.open(7);
    let got = tuple(vip(), 80, client(), 7, 6);
    assert_strays(&mut b, &port(), WAY.router, &quote(got, SEQUENCE));
    // What the replica did send passes all of this.
    let (_, left) = sent(&mut b, WAY, seen, SEQUENCE + 1);
    let mut error = errors_by(WAY.router, &left).remove(0);
    let verdict = b.forward(&origin, &mut error);
    assert!(matches!(verdict, Forward::Rewritten { .. }), "{verdict:?}");
}

#[test]
fn a_client_is_told_of_its_own_packets_only() {
    let mut b = Bench::new(1);
    let seen = b.open(1);
    for (sequence, is_its_own) in [(101, true), (101 + (1 << 31), false)] {
        let about = tcp((CLIENT, VIP_MAC), seen, (ACK, sequence, 501), b"data");
        for mut error in errors_by(v4(1), &about) {
            let verdict = b.reverse(&mut error);
            let told = matches!(verdict, Reverse::Rewritten { .. });
            assert_eq!(told, is_its_own, "{verdict:?}");
        }
    }
}

#[test]
fn the_replicas_node_puts_in_the_port_that_its_replica_knows() {
    // Two nodes by which the client came from one port: the second connection has another.
    let mut b = Bench::new(1);
    let replica = b.replicas[0].clone();
    let vias = [201, 202].map(|last| Mac([2, 0x42, 10, 0, 0, last]));
    let ports = vias.map(|via| {
        let t = tuple(WAY.client, 40_000, replica.ip, 80, 6);
        let mut syn = tcp((via, replica.mac), t, (SYN, 1, 0), b"");
        arrive(&mut b, &mut syn);
        info(&syn).sport
    });
    assert_ne!(ports[0], ports[1]);
    for (via, port) in vias.into_iter().zip(ports) {
        let segment = |dport| {
            let t = tuple(replica.ip, 80, WAY.client, dport, 6);
            tcp((replica.mac, via), t, (ACK, SEQUENCE, 2), &[7; 1400])
        };
        for router in [WAY.router, WAY.node] {
            let wanted = errors_by(router, &segment(port));
            let errors = errors_by(router, &segment(40_000));
            for (mut error, mut want) in errors.into_iter().zip(wanted) {
                error[6..12].copy_from_slice(&via.0);
                want[6..12].copy_from_slice(&via.0);
                arrive(&mut b, &mut error);
                assert!(checksum::verify_transport(&error, &info(&error)));
                assert_eq!(error, want);
            }
        }
    }
}

fn arrive(b: &mut Bench, frame: &mut [u8]) {
    let parsed = info(frame);
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    b.table.arrived(&cx, vni(), frame, &parsed, false);
}
