use super::*;
use crate::frame::{TCP_ACK, TCP_CWR};
use crate::gso;
use crate::samples::{Packet, info, make_partial};
use crate::vnet::{F_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_TCPV6};

const MTU: usize = 1450;

#[test]
fn a_super_datagram_becomes_a_super_frame() {
    for (packet, gso_type, headers) in [
        (Packet::tcp(20_000), GSO_TCPV4, 52),
        (Packet::tcp(20_000).over_v6(), GSO_TCPV6, 72),
    ] {
        let mut frame = packet.build();
        let expected_vnet = make_partial(&mut frame);
        let whole = frame.clone();
        let at = info(&frame);
        let vnet = fixup(&mut frame, &at, MTU).unwrap();
        assert_eq!(frame, whole, "headers were right already");
        assert_eq!(vnet.gso_type, gso_type);
        assert_eq!(usize::from(vnet.gso_size), MTU - headers);
        assert_eq!(usize::from(vnet.hdr_len), at.payload);
        assert_eq!(vnet.csum_start, expected_vnet.csum_start);
        assert_eq!(vnet.flags, F_NEEDS_CSUM);
        // Every segment fills the MTU and no more.
        let mut arena = vec![0; gso::arena_len(0)];
        let mut out = vec![gso::Segment::default(); gso::MAX_SEGMENTS];
        let split = gso::split(&frame, &vnet, &at, &[], &mut arena, &mut out).unwrap();
        assert_eq!(split.segment_len, 14 + MTU);
    }
}

#[test]
fn a_complete_checksum_is_verified_before_it_is_replaced() {
    let mut frame = Packet::tcp(5000).build();
    let at = info(&frame);
    let mut wrong = frame.clone();
    wrong[3000] ^= 4;
    assert_eq!(fixup(&mut wrong, &at, MTU), Err(DropReason::BadChecksum));
    let vnet = fixup(&mut frame, &at, MTU).unwrap();
    assert!(checksum::is_partial(&frame, &at));
    assert!(vnet.needs_csum());
}

#[test]
fn congestion_window_reduced_is_told() {
    let mut frame = Packet {
        flags: TCP_ACK | TCP_CWR,
        ..Packet::tcp(5000)
    }
    .build();
    let at = info(&frame);
    let vnet = fixup(&mut frame, &at, MTU).unwrap();
    assert_eq!(vnet.gso_type, GSO_TCPV4 | GSO_ECN);
}

#[test]
fn small_frames_keep_their_checksums() {
    for packet in [
        Packet::tcp(500),
        Packet::udp(500),
        Packet::udp(500).over_v6(),
    ] {
        let mut frame = packet.build();
        let at = info(&frame);
        assert_eq!(fixup(&mut frame, &at, MTU), Ok(VnetHdr::NONE));
        assert_eq!(frame, packet.build());
        let expected = make_partial(&mut frame);
        let vnet = fixup(&mut frame, &at, MTU).unwrap();
        assert_eq!(
            (vnet.flags, vnet.csum_start, vnet.csum_offset),
            (F_NEEDS_CSUM, expected.csum_start, expected.csum_offset)
        );
        assert_eq!(vnet.gso_type, 0);
    }
    let mut ping = Packet::ping(100).build();
    let at = info(&ping);
    assert_eq!(fixup(&mut ping, &at, MTU), Ok(VnetHdr::NONE));
}

#[test]
fn exactly_the_mtu_is_not_too_much() {
    let mut frame = Packet::udp(MTU - 28).build();
    let at = info(&frame);
    assert_eq!(fixup(&mut frame, &at, MTU), Ok(VnetHdr::NONE));
    let mut frame = Packet::udp(MTU - 27).build();
    let at = info(&frame);
    assert_eq!(fixup(&mut frame, &at, MTU), Err(DropReason::Oversized));
}

#[test]
fn what_cannot_be_divided_is_oversized() {
    for packet in [Packet::udp(3000), Packet::ping(3000)] {
        let mut frame = packet.build();
        let at = info(&frame);
        assert_eq!(fixup(&mut frame, &at, MTU), Err(DropReason::Oversized));
    }
    let mut fragment = Packet::tcp(3000).build();
    fragment[20] = 0x20;
    let at = info(&fragment);
    assert_eq!(fixup(&mut fragment, &at, MTU), Err(DropReason::Oversized));
    let mut tiny = Packet::tcp(3000).build();
    let at = info(&tiny);
    assert_eq!(fixup(&mut tiny, &at, 52), Err(DropReason::Oversized));
    assert_eq!(
        fixup(&mut tiny[..100], &at, MTU),
        Err(DropReason::Truncated)
    );
}
