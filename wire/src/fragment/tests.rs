use proptest::prelude::*;

use super::*;
use crate::frame;
use crate::samples::{Packet, info};
use crate::{Frame, flow, put16, put32};

/// An IPv4 frame made a fragment: offset in units of eight octets.
fn ipv4(payload: usize, bits: u16) -> Vec<u8> {
    let mut frame = Packet::udp(payload).build();
    put16(&mut frame, 14 + 6, bits);
    frame
}

/// An IPv6 frame with a fragment header.
fn ipv6(payload: usize, bits: u16, id: u32) -> Vec<u8> {
    let whole = Packet::udp(payload).over_v6().build();
    let mut header = [whole[14 + 6], 0, 0, 0, 0, 0, 0, 0];
    put16(&mut header, 2, bits);
    put32(&mut header, 4, id);
    let mut out = [&whole[..54], &header, &whole[54..]].concat();
    out[14 + 6] = 44;
    let len = u16::try_from(out.len() - 54).unwrap();
    put16(&mut out, 14 + 4, len);
    out
}

fn header(frame: &[u8]) -> Result<FragmentHeader, DropReason> {
    fragment_header(frame, &info(frame))
}

#[test]
fn rfc791_s3_2_first_and_later_fragments_say_where_they_belong() {
    for (frame, id) in [
        (ipv4(16, 0x2000), 0xfffe),
        (ipv6(16, 1, 0xdead_beef), 0xdead_beef),
    ] {
        let want = FragmentHeader {
            id,
            offset: 0,
            len: 24,
            more: true,
        };
        assert_eq!(header(&frame), Ok(want));
    }
    for frame in [ipv4(13, 3), ipv6(13, 3 << 3, 7)] {
        let found = header(&frame).unwrap();
        assert_eq!((found.offset, found.len, found.more), (24, 21, false));
    }
}

#[test]
fn rfc8200_s4_5_an_extension_header_before_the_fragment_header_is_stepped_over() {
    let frame = ipv6(16, 9 << 3, 5);
    let hop_by_hop = [44, 0, 1, 4, 0, 0, 0, 0];
    let mut frame = [&frame[..54], &hop_by_hop, &frame[54..]].concat();
    frame[14 + 6] = 0;
    put16(&mut frame, 14 + 4, 8 + 8 + 24);
    let found = header(&frame).unwrap();
    assert_eq!((found.id, found.offset, found.len), (5, 72, 24));
}

#[test]
fn what_no_sender_makes_is_refused() {
    let bad = Err(DropReason::BadFragment);
    assert_eq!(header(&Packet::udp(8).build()), bad, "no fragment");
    assert_eq!(header(&ipv4(13, 0x2000)), bad, "an uneven inner fragment");
    assert_eq!(header(&ipv6(13, 1, 1)), bad);
    assert_eq!(header(&ipv4(100, 0x1fff)), bad, "ends behind 65,535");
    assert_eq!(header(&ipv6(100, 0xfff8, 1)), bad);
    assert_eq!(header(&ipv4(0, 1)).unwrap().len, 8);
}

#[test]
fn fragments_of_a_datagram_share_one_path() {
    let first = ipv4(1400, 0x2000);
    let later = ipv4(100, 180);
    let (first, later) = (info(&first), info(&later));
    assert_ne!(first.five_tuple(), later.five_tuple());
    assert_eq!(flow::path_tuple(&first), flow::path_tuple(&later));
    let whole = info(&Packet::udp(9).build());
    assert_eq!(flow::path_tuple(&whole), whole.five_tuple());
}

proptest! {
    #[test]
    fn no_frame_panics(
        v6 in any::<bool>(),
        bits: u16,
        changes in prop::collection::vec((12_usize..90, any::<u8>()), 0..6),
    ) {
        let mut frame = if v6 { ipv6(40, bits, 1) } else { ipv4(40, bits) };
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        let Ok(Frame::Ip(at)) = frame::parse(&frame) else { return Ok(()) };
        if let Ok(header) = fragment_header(&frame, &at) {
            prop_assert!(header.offset + header.len <= 65_535);
            prop_assert_eq!(header.offset == 0, at.fragment == Fragment::First);
        }
    }
}
