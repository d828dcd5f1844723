use proptest::prelude::*;

use super::*;
use crate::frame;
use crate::samples::{Packet, assert_same, info, make_partial};

/// RFC 1071 section 4.1, word by word.
fn slow_sum(data: &[u8]) -> u16 {
    let mut total = 0_u32;
    for pair in data.chunks(2) {
        total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[test]
fn rfc1071_s3_example() {
    assert_eq!(
        sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
        0xddf2
    );
}

#[test]
fn rfc1624_s4_example() {
    // "old data 0x5555 → 0x3285 with checksum 0xdd2f": equation 3 gives 0x0000, not 0xffff.
    assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn the_longest_frame_does_not_overflow() {
    let data = vec![0xff; 65_549];
    assert_eq!(sum(&data), slow_sum(&data));
}

#[test]
fn complete_refuses_a_field_outside_the_frame() {
    let mut frame = [0; 40];
    for (start, offset) in [(39, 0), (40, 0), (38, 1), (usize::MAX, 2), (2, usize::MAX)] {
        assert_eq!(
            complete(&mut frame, start, offset),
            Err(DropReason::BadOffload)
        );
    }
    assert_eq!(frame, [0; 40]);
    assert_eq!(complete(&mut frame, 38, 0), Ok(()));
}

#[test]
fn partial_checksums_are_told_from_complete_and_wrong_ones() {
    for packet in [
        Packet::tcp(500),
        Packet::udp(500),
        Packet::tcp(501).over_v6(),
        Packet::udp(3).over_v6(),
    ] {
        let mut frame = packet.build();
        let whole = frame.clone();
        let at = info(&frame);
        assert!(verify_transport(&frame, &at));
        assert!(!is_partial(&frame, &at));
        let vnet = make_partial(&mut frame);
        assert!(is_partial(&frame, &at));
        assert!(!verify_transport(&frame, &at));
        complete(&mut frame, vnet.csum_start.into(), vnet.csum_offset.into()).unwrap();
        assert_same(&frame, &whole);
        let last = frame.len() - 1;
        frame[last] ^= 1;
        assert!(!verify_transport(&frame, &at));
    }
}

#[test]
fn rfc768_rfc8200_s8_1_zero_means_no_checksum_over_ipv4_only() {
    let mut frame = Packet::udp(10).build();
    let at = info(&frame);
    put16(&mut frame, at.l4 + 6, 0);
    assert!(verify_transport(&frame, &at));
    let mut frame = Packet::udp(10).over_v6().build();
    let at = info(&frame);
    put16(&mut frame, at.l4 + 6, 0);
    assert!(!verify_transport(&frame, &at));
}

#[test]
fn icmp_has_no_pseudo_header_and_icmpv6_has_one() {
    for packet in [Packet::ping(56), Packet::ping(56).over_v6()] {
        let mut frame = packet.build();
        let at = info(&frame);
        assert!(verify_transport(&frame, &at));
        frame[at.l4 + 8] ^= 0x10;
        assert!(!verify_transport(&frame, &at));
    }
}

#[test]
fn fragments_have_nothing_to_verify() {
    let mut frame = Packet::udp(10).build();
    frame[frame::ETHERNET_LEN + 6] = 0x20;
    let at = info(&frame);
    assert_eq!(at.fragment, Fragment::First);
    frame[at.payload] ^= 1;
    assert!(verify_transport(&frame, &at));
    assert!(!is_partial(&frame, &at));
}

proptest! {
    #[test]
    fn sum_equals_the_definition(data in proptest::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert_eq!(sum(&data), slow_sum(&data));
    }

    #[test]
    fn incremental_equals_full(
        mut data in proptest::collection::vec(any::<u8>(), 8..64),
        at in 0_usize..3,
        new in any::<u16>(),
    ) {
        let at = at * 2;
        data.truncate(data.len() & !1);
        // All zeros have two sums; headers never are.
        data[7] |= 1;
        let before = !sum(&data);
        let old = be16(&data, at);
        put16(&mut data, at, new);
        prop_assert_eq!(update_u16(before, old, new), !sum(&data));
    }
}
