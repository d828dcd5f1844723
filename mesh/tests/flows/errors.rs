//! ICMP errors about packets of flows: as if there had been no rewrite.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use weft_mesh::{FlowState, Forward, Origin, Reverse};
use weft_wire::reply::{MAX_LEN, icmp_unreachable, packet_too_big};
use weft_wire::{DropReason, FiveTuple, Mac, checksum};

use crate::bench::*;
use crate::workers::{bench as local_bench, other_worker, reverse};

const ROUTER_MAC: Mac = Mac([2, 0x42, 10, 0, 0, 1]);

/// What somebody with address `ip` says about a frame: that it is too big, or its port is closed.
fn error_by(ip: IpAddr, frame: &[u8], too_big: bool) -> Vec<u8> {
    let about = info(frame);
    let mut out = [0; MAX_LEN];
    let len = if too_big {
        packet_too_big(frame, &about, ROUTER_MAC, ip, 1280, &mut out)
    } else {
        icmp_unreachable(frame, &about, ROUTER_MAC, ip, &mut out)
    };
    assert!(len > 0, "no error was made");
    out[..len].to_vec()
}

/// The same, with the hardware addresses that it should arrive with.
fn expected(ip: IpAddr, frame: &[u8], too_big: bool, (src, dst): (Mac, Mac)) -> Vec<u8> {
    let mut error = error_by(ip, frame, too_big);
    error[..6].copy_from_slice(&dst.0);
    error[6..12].copy_from_slice(&src.0);
    error
}

fn assert_error(got: &[u8], want: &[u8]) {
    assert!(checksum::verify_transport(got, &info(got)));
    assert_eq!(got, want);
}

/// Client, service and port: over a VIP of both families, and a published port.
fn ways() -> [(Bench, Origin, IpAddr, IpAddr, u16); 3] {
    let mut v6_bench = Bench::new(1);
    v6_bench.replicas[0].ip = v6(11);
    v6_bench.publish();
    [
        (Bench::new(1), port(), client(), vip(), 53),
        (Bench::new(1), mesh(), host_ip(), mesh_ip(), 8000),
        (v6_bench, port(), v6(5), v6(2), 53),
    ]
}

fn datagram(t: FiveTuple, len: usize) -> Vec<u8> {
    udp((CLIENT, VIP_MAC), t, &vec![0x5a; len])
}

#[test]
fn the_replicas_errors_reach_the_client_as_the_services() {
    for (mut b, origin, client, service, dport) in ways() {
        for (too_big, len) in [(false, 8), (true, 1400)] {
            let t = tuple(client, 40_000, service, dport, 17);
            let sent = datagram(t, len);
            let got = b.forwarded(&origin, sent.clone());
            let mut error = error_by(info(&got).dst, &got, too_big);
            let verdict = b.reverse(&mut error);
            assert!(
                matches!(verdict, Reverse::Rewritten { to } if to == origin.target()),
                "{verdict:?}"
            );
            let want = expected(service, &sent, too_big, (VIP_MAC, CLIENT));
            assert_error(&error, &want);
        }
    }
}

#[test]
fn the_clients_errors_reach_the_replica_as_those_of_who_it_knows() {
    for (mut b, origin, client, service, dport) in ways() {
        let t = tuple(client, 40_000, service, dport, 17);
        let seen = info(&b.forwarded(&origin, datagram(t, 8))).five_tuple();
        for (too_big, len) in [(false, 8), (true, 1400)] {
            let replied = udp((Mac([9; 6]), Mac([8; 6])), seen.reversed(), &vec![7; len]);
            let got = b.returned(&origin, replied.clone());
            let mut error = error_by(client, &got, too_big);
            let verdict = b.forward(&origin, &mut error);
            let Forward::Rewritten { dst_mac, .. } = verdict else {
                panic!("not forwarded: {verdict:?}");
            };
            assert_eq!(dst_mac, b.replicas[0].mac);
            let from = match origin {
                Origin::Mesh { node_mac, .. } => node_mac,
                Origin::Port { .. } => CLIENT,
            };
            let want = expected(seen.src, &replied, too_big, (from, dst_mac));
            assert_error(&error, &want);
        }
    }
}

#[test]
fn a_routers_error_keeps_its_sender_but_towards_the_host() {
    for (mut b, origin, client, service, dport) in ways() {
        let router = if client.is_ipv4() { v4(1) } else { v6(1) };
        let t = tuple(client, 40_000, service, dport, 17);
        let sent = datagram(t, 1400);
        let got = b.forwarded(&origin, sent.clone());
        let mut error = error_by(router, &got, true);
        assert!(matches!(b.reverse(&mut error), Reverse::Rewritten { .. }));
        let from = if origin == mesh() { mesh_ip() } else { router };
        let want = expected(from, &sent, true, (VIP_MAC, CLIENT));
        assert_error(&error, &want);
    }
}

#[test]
fn path_mtu_discovery_works_through_another_port_too() {
    // Two services of one replica and one client port: the second flow has another port.
    let mut b = Bench::new(1);
    b.half_open(40_000);
    let t = tuple(client(), 40_000, v4(3), 80, 6);
    let macs = (CLIENT, VIP_MAC);
    let seen = info(&b.forwarded(&port(), tcp(macs, t, (SYN, 1, 0), b""))).five_tuple();
    assert_ne!(seen.sport, 40_000);
    b.returned(&port(), answer(seen, SYN | ACK, 1, 2, b""));
    let sent = tcp(macs, t, (ACK, 2, 2), &[1; 1400]);
    let got = b.forwarded(&port(), sent.clone());
    let mut error = error_by(v4(11), &got, true);
    assert!(matches!(b.reverse(&mut error), Reverse::Rewritten { .. }));
    assert_error(&error, &expected(v4(3), &sent, true, (VIP_MAC, CLIENT)));
}

#[test]
fn errors_about_nothing_here_are_left_alone_or_dropped() {
    let mut b = Bench::new(1);
    let seen = b.open(1);
    // From a replica about a packet that no flow sent: as any other frame.
    let macs = (CLIENT, VIP_MAC);
    let stranger = tcp(macs, tuple(client(), 2, v4(11), 80, 6), (ACK, 1, 1), b"");
    let mut error = error_by(v4(11), &stranger, false);
    let before = error.clone();
    assert!(matches!(b.reverse(&mut error), Reverse::NotAFlow));
    // To somebody else than who sent the packet.
    let mut sent = tcp(macs, seen, (ACK, 1, 1), b"");
    sent[14 + 15] = 77;
    let mut misled = error_by(v4(11), &sent, false);
    assert!(matches!(b.reverse(&mut misled), Reverse::NotAFlow));
    assert_eq!(error, before);
    // From a client about a packet that it never got, or that another client got.
    for t in [
        tuple(vip(), 80, client(), 2, 6),
        tuple(vip(), 80, v4(6), 1, 6),
    ] {
        let got = tcp((VIP_MAC, CLIENT), t, (ACK, 1, 1), b"");
        let mut error = error_by(client(), &got, false);
        let verdict = b.forward(&port(), &mut error);
        assert!(
            matches!(verdict, Forward::Drop(DropReason::NotAFlow)),
            "{verdict:?}"
        );
    }
    // A redirect.
    let mut error = error_by(client(), &answer(seen, ACK, 1, 1, b""), false);
    error[34] = 5;
    assert!(matches!(
        b.forward(&port(), &mut error),
        Forward::Drop(DropReason::NotAFlow)
    ));
}

#[test]
fn an_error_neither_ends_a_flow_nor_keeps_it_alive() {
    let mut b = Bench::new(1);
    let seen = b.open(1);
    let t = tuple(client(), 9, vip(), 53, 17);
    let asked = b.forwarded(&port(), datagram(t, 8));
    for _ in 0..40 {
        b.pass(Duration::from_secs(1));
        b.reverse(&mut error_by(v4(11), &asked, false));
        let sent = tcp((CLIENT, VIP_MAC), seen, (ACK, 101, 501), b"x");
        assert!(matches!(
            b.reverse(&mut error_by(v4(11), &sent, false)),
            Reverse::Rewritten { .. }
        ));
        b.table.expire(b.now, 10);
    }
    assert_eq!(b.table.state_of(vni(), t), None);
    let opened = tuple(client(), 1, vip(), 80, 6);
    let state = b.table.state_of(vni(), opened);
    assert_eq!((state, b.own()), (Some(FlowState::Established), vec![1]));
}

#[test]
fn a_client_is_not_told_of_a_replica_that_is_gone() {
    let mut b = Bench::new(1);
    let t = tuple(client(), 9, vip(), 53, 17);
    let seen = info(&b.forwarded(&port(), datagram(t, 8))).five_tuple();
    let got = b.returned(&port(), udp((VIP_MAC, CLIENT), seen.reversed(), b"a"));
    b.replicas.clear();
    b.publish();
    assert!(matches!(
        b.forward(&port(), &mut error_by(client(), &got, false)),
        Forward::Drop(DropReason::NoReplica)
    ));
}

#[test]
fn the_worker_of_a_local_replica_translates_its_errors_itself() {
    let mut b = local_bench(1);
    let mut other = other_worker();
    let t = tuple(client(), 9, vip(), 53, 17);
    let sent = datagram(t, 8);
    let mut got = sent.clone();
    let Forward::Rewritten {
        install: Some(install),
        ..
    } = b.forward(&port(), &mut got)
    else {
        panic!("no install");
    };
    assert!(other.install(b.now, install));
    let mut error = error_by(v4(11), &got, false);
    assert!(matches!(
        reverse(&mut other, &b, &mut error),
        Reverse::Rewritten { to } if to == port().target()
    ));
    assert_error(&error, &expected(vip(), &sent, false, (VIP_MAC, CLIENT)));
}

proptest! {
    #[test]
    fn hostile_errors_are_counted_or_stay_right(
        changes in prop::collection::vec((14_usize..120, any::<u8>()), 1..5),
        from_client: bool,
    ) {
        let mut b = Bench::new(1);
        let seen = b.open(1);
        let sent = tcp((CLIENT, VIP_MAC), seen, (ACK, 101, 501), b"data");
        let got = tcp((VIP_MAC, CLIENT), tuple(vip(), 80, client(), 1, 6), (ACK, 501, 105), b"x");
        let mut error = if from_client {
            error_by(client(), &got, false)
        } else {
            error_by(v4(11), &sent, true)
        };
        for (at, value) in changes {
            if let Some(byte) = error.get_mut(at) {
                *byte = value;
            }
        }
        let Ok(weft_wire::Frame::Ip(at)) = weft_wire::frame::parse(&error) else { return Ok(()) };
        let right = checksum::verify_transport(&error, &at);
        if from_client {
            b.forward(&port(), &mut error);
        } else {
            b.reverse(&mut error);
        }
        prop_assert_eq!(checksum::verify_transport(&error, &info(&error)), right);
        prop_assert_eq!(b.table.len(), b.table.active());
    }
}
