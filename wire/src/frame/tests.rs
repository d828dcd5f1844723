use proptest::prelude::*;

use super::*;
use crate::put16;
use crate::samples::{DST_MAC, DST4, DST6, Packet, SRC_MAC, SRC4, SRC6, info};

#[test]
fn tcp_over_ipv4() {
    let frame = Packet::tcp(100).build();
    let at = info(&frame);
    assert_eq!((at.l3, at.l4, at.payload, at.len), (14, 34, 66, 166));
    assert_eq!((at.src, at.dst), (SRC4.into(), DST4.into()));
    assert_eq!((at.proto, at.sport, at.dport), (TCP, 40000, 80));
    assert_eq!(at.tcp_flags, TCP_ACK);
    assert_eq!((at.fragment, at.dont_fragment), (Fragment::None, true));
    assert_eq!((at.ip_len(), at.payload_len()), (152, 100));
    assert_eq!(src_mac(&frame), Mac(SRC_MAC));
    assert_eq!(dst_mac(&frame), Mac(DST_MAC));
    assert_eq!(at.five_tuple().reversed().dst, at.src);
}

#[test]
fn udp_and_ping_over_ipv6() {
    let frame = Packet::udp(9).over_v6().build();
    let at = info(&frame);
    assert_eq!((at.l3, at.l4, at.payload, at.len), (14, 54, 62, 71));
    assert_eq!((at.src, at.dst), (SRC6.into(), DST6.into()));
    let at = info(&Packet::ping(4).over_v6().build());
    assert_eq!((at.proto, at.sport, at.dport), (ICMPV6, 40000, 40000));
    assert!(at.is_echo_request());
    assert!(info(&Packet::ping(4).build()).is_echo_request());
}

#[test]
fn ethernet_padding_is_not_part_of_the_packet() {
    let mut frame = Packet::udp(1).build();
    let len = frame.len();
    frame.resize(60, 0xee);
    assert_eq!(info(&frame).len, len);
}

#[test]
fn ipv4_options_are_skipped() {
    let mut frame = Packet::udp(4).build();
    frame.splice(34..34, [1, 1, 1, 0]);
    frame[14] = 0x46;
    let total = frame.len() - 14;
    put16(&mut frame, 16, total as u16);
    let at = info(&frame);
    assert_eq!((at.l4, at.sport, at.payload_len()), (38, 40000, 4));
}

#[test]
fn rfc8200_s4_extension_headers_are_walked() {
    let mut frame = Packet::udp(4).over_v6().build();
    // Hop-by-hop of 16 bytes, then a fragment header, then UDP.
    let hop = [44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let fragment = [UDP, 0, 0, 1, 0, 0, 0, 9];
    frame.splice(54..54, hop.into_iter().chain(fragment));
    frame[20] = 0;
    let payload = frame.len() - 54;
    put16(&mut frame, 18, payload as u16);
    let at = info(&frame);
    assert_eq!((at.proto, at.l4, at.sport), (UDP, 78, 40000));
    assert_eq!(at.fragment, Fragment::First);
    // A later fragment has no ports.
    put16(&mut frame, 72, 8);
    let at = info(&frame);
    assert_eq!((at.proto, at.sport, at.fragment), (UDP, 0, Fragment::Later));
    assert_eq!(at.checksum_offset(), None);
}

#[test]
fn endless_extension_headers_end() {
    let mut frame = Packet::udp(0).over_v6().build();
    frame.truncate(54);
    frame[20] = 60;
    for _ in 0..64 {
        frame.extend_from_slice(&[60, 0, 0, 0, 0, 0, 0, 0]);
    }
    let payload = frame.len() - 54;
    put16(&mut frame, 18, payload as u16);
    assert_eq!(parse(&frame), Err(DropReason::BadIpHeader));
}

#[test]
fn fragments_of_ipv4() {
    let mut frame = Packet::udp(64).build();
    put16(&mut frame, 20, 0x2000);
    // The datagram's length counts all fragments.
    put16(&mut frame, 38, 9000);
    let at = info(&frame);
    assert_eq!((at.fragment, at.sport), (Fragment::First, 40000));
    put16(&mut frame, 20, 0x2001);
    let at = info(&frame);
    assert_eq!((at.fragment, at.sport), (Fragment::Later, 0));
    assert_eq!(at.payload, at.l4);
    assert!(!at.dont_fragment);
}

#[test]
fn a_full_super_packet_is_accepted_and_more_is_not() {
    let mut frame = Packet::udp(65_507).build();
    assert_eq!(frame.len(), MAX_FRAME_LEN);
    assert_eq!(info(&frame).ip_len(), 65_535);
    frame.push(0);
    assert_eq!(parse(&frame), Err(DropReason::Oversized));
}

#[test]
fn arp_request() {
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&SRC_MAC);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&SRC_MAC);
    frame.extend_from_slice(&SRC4);
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&DST4);
    let expected = ArpInfo {
        request: true,
        sender_mac: Mac(SRC_MAC),
        sender_ip: SRC4.into(),
        target_ip: DST4.into(),
    };
    assert_eq!(parse(&frame), Ok(Frame::Arp(expected)));
    let mut tokens = frame.clone();
    tokens[15] = 6;
    assert_eq!(parse(&tokens), Err(DropReason::BadArp));
    assert_eq!(parse(&frame[..41]), Err(DropReason::Truncated));
}

#[test]
fn every_malformed_frame_has_its_reason() {
    let good = Packet::tcp(10).build();
    let bad = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        parse(&frame)
    };
    assert_eq!(parse(&good[..13]), Err(DropReason::Truncated));
    assert_eq!(parse(&good[..33]), Err(DropReason::Truncated));
    assert_eq!(parse(&good[..good.len() - 1]), Err(DropReason::Truncated));
    assert_eq!(bad(12, 0x81), Err(DropReason::BadEthertype));
    assert_eq!(bad(14, 0x65), Err(DropReason::BadIpHeader), "version");
    assert_eq!(bad(14, 0x44), Err(DropReason::BadIpHeader), "header length");
    assert_eq!(bad(17, 19), Err(DropReason::BadIpHeader), "total length");
    assert_eq!(bad(17, 30), Err(DropReason::BadTransportHeader), "no room");
    assert_eq!(bad(46, 0x40), Err(DropReason::BadTransportHeader), "offset");
    assert_eq!(bad(46, 0xf0), Err(DropReason::BadTransportHeader), "offset");
    let mut udp = Packet::udp(10).build();
    put16(&mut udp, 38, 7);
    assert_eq!(parse(&udp), Err(DropReason::BadTransportHeader));
    put16(&mut udp, 38, 19);
    assert_eq!(parse(&udp), Err(DropReason::BadTransportHeader));
    let mut v6 = Packet::udp(10).over_v6().build();
    v6[14] = 0x45;
    assert_eq!(parse(&v6), Err(DropReason::BadIpHeader));
    assert_eq!(parse(&v6[..53]), Err(DropReason::Truncated));
    let mut ping = Packet::ping(0).build();
    put16(&mut ping, 16, 23);
    assert_eq!(parse(&ping), Err(DropReason::BadTransportHeader));
}

/// Every offset that the rest of the crate indexes with is proved here.
fn check(frame: &[u8]) {
    if let Ok(Frame::Ip(at)) = parse(frame) {
        assert!(at.l3 < at.l4 && at.l4 <= at.payload && at.payload <= at.len);
        assert!(at.len <= frame.len());
        if let Some(offset) = at.checksum_offset() {
            assert!(at.l4 + offset + 2 <= at.len);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_within_bounds(
        frame in proptest::collection::vec(any::<u8>(), 0..200),
        ethertype in prop_oneof![Just([8_u8, 0]), Just([8, 6]), Just([0x86, 0xdd])],
    ) {
        let mut frame = frame;
        check(&frame);
        if frame.len() > 14 {
            frame[12..14].copy_from_slice(&ethertype);
            frame[14] = if ethertype[0] == 8 { 0x45 } else { 0x60 };
            check(&frame);
        }
    }

    #[test]
    fn damaged_frames_are_parsed_within_bounds(
        v6 in any::<bool>(),
        proto in prop_oneof![Just(TCP), Just(UDP), Just(ICMP)],
        damage in proptest::collection::vec((0_usize..80, any::<u8>()), 1..4),
        cut in 0_usize..80,
    ) {
        let packet = Packet { proto, ..Packet::tcp(20) };
        let mut frame = if v6 { packet.over_v6() } else { packet }.build();
        for (at, value) in damage {
            let at = at % frame.len();
            frame[at] = value;
        }
        check(&frame);
        let len = frame.len().saturating_sub(cut);
        check(&frame[..len]);
    }
}
