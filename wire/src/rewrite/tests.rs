use proptest::prelude::*;

use super::*;
use crate::checksum::verify_transport;
use crate::frame::{self, ICMPV6};
use crate::samples::{Packet, assert_canonical, assert_same, canonical, info, make_partial};

fn packet(v6: bool, proto: u8, payload: usize, seed: u16) -> Packet {
    let packet = Packet {
        proto,
        sport: seed,
        seq: u32::from(seed) << 7,
        ..Packet::tcp(payload)
    };
    if v6 { packet.over_v6() } else { packet }
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut frame = Packet::udp(5).build();
    let at = info(&frame);
    put16(&mut frame, at.l4 + 6, 0);
    let ip = IpAddr::from([192, 168, 1, 1]);
    assert!(rewrite_endpoint(
        &mut frame,
        &at,
        Side::Source,
        ip,
        Some(9),
        false
    ));
    assert_eq!(be16(&frame, at.l4 + 6), 0);
    assert_eq!(info(&frame).src, ip);
    assert_eq!(info(&frame).sport, 9);
}

#[test]
fn rfc768_a_computed_zero_is_sent_as_ones() {
    // Choose the port that makes the checksum zero: the sum of all else, complemented.
    let mut frame = Packet::udp(6).build();
    let at = info(&frame);
    let without_port = !checksum::update_u16(be16(&frame, at.l4 + 6), at.dport, 0);
    let port = !without_port;
    let same = at.dst;
    assert!(rewrite_endpoint(
        &mut frame,
        &at,
        Side::Destination,
        same,
        Some(port),
        false
    ));
    assert_eq!(be16(&frame, at.l4 + 6), 0xffff);
    assert!(verify_transport(&frame, &info(&frame)));
}

#[test]
fn the_other_family_or_a_short_frame_changes_nothing() {
    let mut frame = Packet::tcp(5).build();
    let before = frame.clone();
    let at = info(&frame);
    let v6 = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]);
    assert!(!rewrite_endpoint(
        &mut frame,
        &at,
        Side::Source,
        v6,
        Some(9),
        false
    ));
    let short = at.len - 1;
    assert!(!rewrite_endpoint(
        &mut frame[..short],
        &at,
        Side::Source,
        at.dst,
        None,
        false
    ));
    assert_eq!(frame, before);
}

#[test]
fn later_fragments_change_their_address_only() {
    let mut frame = Packet::udp(64).build();
    put16(&mut frame, 20, 0x0005);
    let at = info(&frame);
    let payload = frame[at.l4..].to_vec();
    let ip = IpAddr::from([172, 16, 0, 1]);
    assert!(rewrite_endpoint(
        &mut frame,
        &at,
        Side::Destination,
        ip,
        Some(9),
        false
    ));
    assert_eq!(frame[at.l4..], payload);
    assert_eq!(info(&frame).dst, ip);
}

#[test]
fn macs() {
    let mut frame = Packet::udp(0).build();
    set_macs(&mut frame, Mac([1; 6]), Mac([2; 6]));
    assert_eq!(frame::src_mac(&frame), Mac([1; 6]));
    assert_eq!(frame::dst_mac(&frame), Mac([2; 6]));
    assert_eq!(frame[12..14], [8, 0]);
    set_macs(&mut frame[..11], Mac([3; 6]), Mac([3; 6]));
    assert_eq!(frame::src_mac(&frame), Mac([1; 6]));
}

fn syn(options: Vec<u8>) -> Vec<u8> {
    let flags = TCP_SYN;
    Packet {
        flags,
        options,
        ..Packet::tcp(0)
    }
    .build()
}

#[test]
fn rfc9293_s3_7_1_mss_is_lowered_at_even_and_odd_offsets() {
    for options in [vec![2, 4, 5, 0xb4], vec![1, 2, 4, 5, 0xb4, 1, 1, 0]] {
        let mut frame = syn(options);
        let at = info(&frame);
        assert!(
            !clamp_mss(&mut frame, &at, 1460, false),
            "already that small"
        );
        assert!(clamp_mss(&mut frame, &at, 1201, false));
        assert_canonical(&frame);
        assert!(!clamp_mss(&mut frame, &at, 1201, false));
    }
}

#[test]
fn every_mss_option_is_lowered_as_receivers_believe_the_last() {
    let mut frame = syn(vec![2, 4, 4, 0, 1, 2, 4, 5, 0xb4, 2, 4, 0x23, 0]);
    let at = info(&frame);
    assert!(clamp_mss(&mut frame, &at, 1201, false));
    assert_canonical(&frame);
    let values: Vec<u16> = [22, 27, 31].map(|o| be16(&frame, at.l4 + o)).to_vec();
    assert_eq!(values, [1024, 1201, 1201]);
}

#[test]
fn hostile_options_end_the_search() {
    for options in [
        vec![3, 0, 0, 0],
        vec![3, 200, 0, 0],
        vec![0, 2, 4, 9],
        vec![1, 1, 1, 2],
        vec![2, 3, 9, 9],
    ] {
        let mut frame = syn(options);
        let before = frame.clone();
        let at = info(&frame);
        assert!(!clamp_mss(&mut frame, &at, 100, false));
        assert_eq!(frame, before);
    }
    let mut data = Packet::tcp(0).build();
    let at = info(&data);
    assert!(!clamp_mss(&mut data, &at, 100, false), "not a SYN");
}

proptest! {
    #[test]
    fn rewriting_equals_recomputing(
        v6 in any::<bool>(),
        proto in prop_oneof![Just(TCP), Just(UDP), Just(ICMP)],
        payload in 0_usize..300,
        seed in any::<u16>(),
        source in any::<bool>(),
        ip4 in any::<[u8; 4]>(),
        ip6 in any::<[u8; 16]>(),
        port in any::<Option<u16>>(),
    ) {
        let mut frame = packet(v6, proto, payload, seed).build();
        let at = info(&frame);
        let ip = if v6 { IpAddr::from(ip6) } else { IpAddr::from(ip4) };
        let side = if source { Side::Source } else { Side::Destination };
        prop_assert!(rewrite_endpoint(&mut frame, &at, side, ip, port, false));
        assert_canonical(&frame);
        let now = info(&frame);
        prop_assert_eq!(if source { now.src } else { now.dst }, ip);
        if let Some(port) = port && !matches!(at.proto, ICMP | ICMPV6) {
            prop_assert_eq!(if source { now.sport } else { now.dport }, port);
        }
    }

    #[test]
    fn rewriting_a_partial_checksum_then_finishing_equals_recomputing(
        v6 in any::<bool>(),
        tcp in any::<bool>(),
        payload in 0_usize..300,
        seed in any::<u16>(),
        ip4 in any::<[u8; 4]>(),
        ip6 in any::<[u8; 16]>(),
        port in any::<u16>(),
    ) {
        let mut frame = packet(v6, if tcp { TCP } else { UDP }, payload, seed).build();
        let vnet = make_partial(&mut frame);
        let at = info(&frame);
        let ip = if v6 { IpAddr::from(ip6) } else { IpAddr::from(ip4) };
        prop_assert!(rewrite_endpoint(&mut frame, &at, Side::Destination, ip, Some(port), true));
        crate::gso::finish_single(&mut frame, &vnet, Some(&at)).unwrap();
        assert_canonical(&frame);
    }

    #[test]
    fn a_nat_round_trip_restores_every_byte(
        v6 in any::<bool>(),
        tcp in any::<bool>(),
        payload in 1_usize..300,
        seed in any::<u16>(),
        ip4 in any::<[u8; 4]>(),
        ip6 in any::<[u8; 16]>(),
        port in any::<u16>(),
    ) {
        let mut frame = packet(v6, if tcp { TCP } else { UDP }, payload, seed).build();
        let before = frame.clone();
        let at = info(&frame);
        let ip = if v6 { IpAddr::from(ip6) } else { IpAddr::from(ip4) };
        rewrite_endpoint(&mut frame, &at, Side::Destination, ip, Some(port), false);
        let there = info(&frame);
        rewrite_endpoint(&mut frame, &there, Side::Destination, at.dst, Some(at.dport), false);
        assert_same(&frame, &before);
        prop_assert_eq!(canonical(&frame).len(), before.len());
    }
}
