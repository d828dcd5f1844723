//! Rewrites there and back.

use std::net::IpAddr;

use weft_mesh::{Context, Forward, Refusal, Reverse};
use weft_wire::frame::{dst_mac, src_mac};
use weft_wire::{DropReason, checksum};

use crate::bench::*;

#[test]
fn a_vip_connection_keeps_the_clients_address_and_the_reply_comes_from_the_vip() {
    let mut b = Bench::new(1);
    let sent = b.forwarded(&port(), to_vip(40_000, SYN, 100, 0, b""));
    let seen = info(&sent).five_tuple();
    assert_eq!(seen, tuple(client(), 40_000, v4(11), 80, 6));
    assert_eq!(
        (src_mac(&sent), dst_mac(&sent)),
        (CLIENT, b.replicas[0].mac)
    );
    let back = b.returned(&port(), answer(seen, SYN | ACK, 1, 101, b""));
    assert_eq!(
        info(&back).five_tuple(),
        tuple(vip(), 80, client(), 40_000, 6)
    );
    assert_eq!((src_mac(&back), dst_mac(&back)), (VIP_MAC, CLIENT));
}

#[test]
fn a_mesh_connection_comes_from_the_node_and_goes_to_the_target_port() {
    let mut b = Bench::new(1);
    let sent = b.forwarded(&mesh(), to_mesh(40_000, 8000, SYN, 100));
    let seen = info(&sent).five_tuple();
    assert_eq!(seen, tuple(v4(200), 40_000, v4(11), 80, 6));
    assert_eq!(
        (src_mac(&sent), dst_mac(&sent)),
        (NODE_MAC, b.replicas[0].mac)
    );
    let back = b.returned(&mesh(), answer(seen, SYN | ACK, 1, 101, b""));
    assert_eq!(
        info(&back).five_tuple(),
        tuple(mesh_ip(), 8000, host_ip(), 40_000, 6)
    );
    assert_eq!((src_mac(&back), dst_mac(&back)), (VIP_MAC, CLIENT));
}

#[test]
fn two_published_ports_of_one_replica_do_not_collide() {
    let mut b = Bench::new(1);
    let first = info(&b.forwarded(&mesh(), to_mesh(40_000, 8000, SYN, 1))).five_tuple();
    let second = info(&b.forwarded(&mesh(), to_mesh(40_000, 8001, SYN, 1))).five_tuple();
    assert_eq!(first.sport, 40_000);
    assert_ne!(second.sport, 40_000);
    for (seen, published) in [(first, 8000), (second, 8001)] {
        let back = info(&b.returned(&mesh(), answer(seen, SYN | ACK, 1, 2, b"")));
        assert_eq!((back.sport, back.dport), (published, 40_000));
    }
}

#[test]
fn two_vips_of_one_replica_do_not_collide() {
    let mut b = Bench::new(1);
    let first = b.half_open(40_000);
    let other = tcp(
        (CLIENT, VIP_MAC),
        tuple(client(), 40_000, v4(3), 80, 6),
        (SYN, 1, 0),
        b"",
    );
    let second = info(&b.forwarded(&port(), other)).five_tuple();
    assert_ne!(first, second);
    let back = info(&b.returned(&port(), answer(second, SYN | ACK, 1, 2, b"")));
    assert_eq!(back.five_tuple(), tuple(v4(3), 80, client(), 40_000, 6));
}

#[test]
fn datagrams_go_to_the_target_port_and_back() {
    let mut b = Bench::new(2);
    let t = tuple(host_ip(), 5000, mesh_ip(), 8000, 17);
    let seen = info(&b.forwarded(&mesh(), udp((CLIENT, VIP_MAC), t, b"question"))).five_tuple();
    assert_eq!(seen.dport, 53);
    let again = info(&b.forwarded(&mesh(), udp((CLIENT, VIP_MAC), t, b"more"))).five_tuple();
    assert_eq!(seen, again);
    let reply = udp((NODE_MAC, VIP_MAC), seen.reversed(), b"answer");
    let back = info(&b.returned(&mesh(), reply));
    assert_eq!(back.five_tuple(), t.reversed());
}

#[test]
fn ipv6_has_its_own_replicas() {
    let mut b = Bench::new(1);
    let t = tuple(v6(5), 40_000, v6(2), 80, 6);
    let mut syn = tcp((CLIENT, VIP_MAC), t, (SYN, 1, 0), b"");
    assert!(matches!(
        b.forward(&port(), &mut syn),
        Forward::Refuse(Refusal::Reset(DropReason::NoReplica))
    ));
    b.replicas[0].ip = v6(11);
    b.publish();
    let seen = info(&b.forwarded(&port(), syn)).five_tuple();
    assert_eq!(seen, tuple(v6(5), 40_000, v6(11), 80, 6));
    let back = info(&b.returned(&port(), answer(seen, SYN | ACK, 1, 2, b"")));
    assert_eq!(back.five_tuple(), t.reversed());
    // This node has an IPv4 address on the ingress network only: nobody to stand in for the client.
    let mut syn = tcp(
        (CLIENT, VIP_MAC),
        tuple(v6(7), 1, v6(8), 8000, 6),
        (SYN, 1, 0),
        b"",
    );
    assert!(matches!(
        b.forward(&mesh(), &mut syn),
        Forward::Refuse(Refusal::Reset(DropReason::NoService))
    ));
}

#[test]
fn a_super_frame_that_a_device_will_finish_keeps_a_right_pseudo_header() {
    let mut b = Bench::new(1);
    let seen = b.open(40_000);
    let mut frame = to_vip(40_000, ACK, 101, 501, &vec![7; 60_000]);
    let before = info(&frame);
    let field = before.l4 + 16;
    let pseudo = checksum::pseudo_header(before.src, before.dst, 6, before.len - before.l4);
    frame[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    let verdict = b.table.forward(&cx, &port(), &mut frame, &before, true);
    assert!(matches!(verdict, Forward::Rewritten { .. }));
    let after = info(&frame);
    assert_eq!(after.five_tuple(), seen);
    assert!(checksum::is_partial(&frame, &after));
    checksum::complete(&mut frame, after.l4, 16).unwrap();
    check(&frame);
}

#[test]
fn what_is_no_flow_is_answered_or_passed_on() {
    let mut b = Bench::new(1);
    for (flags, want_reset) in [
        (ACK, true),
        (FIN | ACK, true),
        (SYN | ACK, true),
        (RST, false),
    ] {
        let mut frame = to_vip(1, flags, 1, 1, b"");
        let before = frame.clone();
        let verdict = b.forward(&port(), &mut frame);
        assert_eq!(frame, before);
        match verdict {
            Forward::Refuse(Refusal::Reset(DropReason::NotAFlow)) => assert!(want_reset),
            Forward::Drop(DropReason::NotAFlow) => assert!(!want_reset),
            other => panic!("{other:?}"),
        }
    }
    let mut stray = answer(tuple(client(), 1, v4(11), 80, 6), ACK, 1, 1, b"");
    assert!(matches!(b.reverse(&mut stray), Reverse::NotAFlow));
    b.open(2);
    assert!(matches!(b.reverse(&mut stray), Reverse::NotAFlow));
}

#[test]
fn an_unknown_service_is_refused_by_the_protocols_own_means() {
    let mut b = Bench::new(1);
    assert!(matches!(
        b.forward(&mesh(), &mut to_mesh(1, 9999, SYN, 1)),
        Forward::Refuse(Refusal::Reset(DropReason::NoService))
    ));
    let t = tuple(host_ip(), 1, mesh_ip(), 9999, 17);
    assert!(matches!(
        b.forward(&mesh(), &mut udp((CLIENT, VIP_MAC), t, b"x")),
        Forward::Refuse(Refusal::PortUnreachable(DropReason::NoService))
    ));
    assert!(b.table.is_empty());
}

#[test]
fn pings_are_answered_but_not_in_fragments() {
    let mut b = Bench::new(1);
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (client(), vip()) else {
        panic!("v4");
    };
    let mut ping = Vec::new();
    etherparse::PacketBuilder::ethernet2(CLIENT.0, VIP_MAC.0)
        .ipv4(src.octets(), dst.octets(), 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut ping, b"hello")
        .unwrap();
    assert!(matches!(b.forward(&port(), &mut ping), Forward::AnswerEcho));
    ping.truncate(14 + 20 + 8);
    ping[14 + 3] = 28;
    ping[14 + 6] |= 0x20;
    assert!(matches!(
        b.forward(&port(), &mut ping),
        Forward::Drop(DropReason::Fragment)
    ));
}

/// A segment with the MSS option, behind a NOP that puts it at an odd offset.
fn with_mss(mut frame: Vec<u8>, mss: u16) -> Vec<u8> {
    let before = info(&frame);
    let [high, low] = mss.to_be_bytes();
    frame.truncate(before.payload);
    frame.extend([1, 2, 4, high, low, 1, 1, 0]);
    frame[before.l4 + 12] = 7 << 4;
    if before.is_ipv4() {
        frame[14 + 3] += 8;
        let header = !checksum::sum(&[&frame[14..24], &[0, 0], &frame[26..34]].concat());
        frame[24..26].copy_from_slice(&header.to_be_bytes());
    } else {
        frame[14 + 5] += 8;
    }
    let now = info(&frame);
    let pseudo = checksum::pseudo_header(now.src, now.dst, 6, now.len - now.l4);
    frame[now.l4 + 16..now.l4 + 18].copy_from_slice(&pseudo.to_be_bytes());
    checksum::complete(&mut frame, now.l4, 16).unwrap();
    frame
}

fn mss_of(frame: &[u8]) -> u16 {
    let at = info(frame).l4 + 23;
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

#[test]
fn both_ends_are_told_the_segment_size_of_the_replicas_network() {
    for (v6_flow, published) in [(false, false), (false, true), (true, false)] {
        let mut b = Bench::new(1);
        b.mtu = Some(1400);
        if v6_flow {
            b.replicas[0].ip = v6(11);
        }
        b.publish();
        let (t, origin) = match (v6_flow, published) {
            (true, _) => (tuple(v6(5), 9, v6(2), 80, 6), port()),
            (_, true) => (tuple(host_ip(), 9, mesh_ip(), 8000, 6), mesh()),
            _ => (tuple(client(), 9, vip(), 80, 6), port()),
        };
        let want = if v6_flow { 1340 } else { 1360 };
        let syn = with_mss(tcp((CLIENT, VIP_MAC), t, (SYN, 100, 0), b""), 8960);
        let sent = b.forwarded(&origin, syn);
        assert_eq!(mss_of(&sent), want);
        let seen = info(&sent).five_tuple();
        let back = with_mss(answer(seen, SYN | ACK, 1, 101, b""), 1460);
        assert_eq!(mss_of(&b.returned(&origin, back)), want);
        // A smaller one is left alone.
        let syn = with_mss(tcp((CLIENT, VIP_MAC), t, (SYN, 100, 0), b""), 536);
        assert_eq!(mss_of(&b.forwarded(&origin, syn)), 536);
    }
}

#[test]
fn a_connection_that_goes_to_the_next_replica_keeps_the_limit() {
    let mut b = Bench::new(2);
    b.mtu = Some(1400);
    b.publish();
    let syn = with_mss(to_vip(9, SYN, 100, 0, b""), 1460);
    let seen = info(&b.forwarded(&port(), syn)).five_tuple();
    let verdict = b.reverse(&mut answer(seen, RST | ACK, 0, 101, b""));
    assert!(matches!(verdict, Reverse::Retry { .. }));
    check(b.table.retry_frame());
    assert_eq!(mss_of(b.table.retry_frame()), 1360);
}
