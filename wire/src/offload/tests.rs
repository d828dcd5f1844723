use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::settle;
use crate::frame::{self, Frame};
use crate::samples::{DST_MAC, DST4, Packet, SRC_MAC, SRC4, assert_same, info, make_partial};
use crate::{DropReason, VnetHdr, checksum, gso, vnet};

/// What the header lets through, and as what.
fn settled(frame: &mut [u8], vnet: &VnetHdr) -> Result<VnetHdr, DropReason> {
    let parsed = frame::parse(frame).unwrap();
    settle(frame, vnet, &parsed)
}

const fn needs(csum_start: u16, csum_offset: u16) -> VnetHdr {
    VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        csum_start,
        csum_offset,
        ..VnetHdr::NONE
    }
}

#[test]
fn what_kernels_send_passes_unchanged() {
    for packet in [
        Packet::tcp(100),
        Packet::udp(100),
        Packet::tcp(0).over_v6(),
        Packet::udp(1).over_v6(),
        Packet::ping(10).over_v6(),
    ] {
        let mut frame = packet.build();
        let vnet = make_partial(&mut frame);
        let before = frame.clone();
        assert_eq!(settled(&mut frame, &vnet), Ok(vnet));
        assert_eq!(settled(&mut frame, &VnetHdr::NONE), Ok(VnetHdr::NONE));
        assert_eq!(frame, before);
    }
    for packet in [Packet::tcp(3000), Packet::udp(3000)] {
        for packet in [packet.clone(), packet.over_v6()] {
            let (mut frame, vnet) = packet.build_super(1000);
            assert_eq!(settled(&mut frame, &vnet), Ok(vnet));
        }
    }
}

/// The attack: the sum of what follows lands on the source address after that was looked at.
#[test]
fn a_checksum_over_the_headers_is_refused() {
    for packet in [Packet::udp(30), Packet::tcp(30).over_v6()] {
        let mut frame = packet.build();
        let before = frame.clone();
        let at = info(&frame);
        for start in 0..at.payload {
            for offset in 0..at.payload {
                let proper = start == at.l4 && Some(offset) == at.checksum_offset();
                let vnet = needs(start as u16, offset as u16);
                if !proper {
                    let refused = Err(DropReason::BadOffload);
                    assert_eq!(settled(&mut frame, &vnet), refused, "{start} + {offset}");
                }
            }
        }
        for (start, offset) in [(u16::MAX, u16::MAX), (0, u16::MAX), (u16::MAX, 0)] {
            let vnet = needs(start, offset);
            assert_eq!(settled(&mut frame, &vnet), Err(DropReason::BadOffload));
        }
        assert_eq!(frame, before);
    }
}

#[test]
fn options_and_extensions_move_the_only_place() {
    // Four bytes of IPv4 options; eight of a destination header.
    let mut v4 = Packet::udp(30).build();
    v4.splice(34..34, [1; 4]);
    (v4[14], v4[17]) = (0x46, v4[17] + 4);
    let mut v6 = Packet::udp(30).over_v6().build();
    v6.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    (v6[20], v6[19]) = (60, v6[19] + 8);
    for (mut frame, plain, moved) in [(v4, 34, 38), (v6, 54, 62)] {
        assert_eq!(info(&frame).l4, usize::from(moved));
        let refused = settled(&mut frame, &needs(plain, 6));
        assert_eq!(refused, Err(DropReason::BadOffload));
        let vnet = needs(moved, 6);
        assert_eq!(settled(&mut frame, &vnet), Ok(vnet));
    }
}

#[test]
fn fragments_leave_nothing_to_be_finished() {
    for bits in [0x20, 0x01] {
        let mut frame = Packet::udp(64).build();
        frame[20] = bits;
        for vnet in [needs(34, 6), needs(50, 6), super_of(vnet::GSO_UDP_L4)] {
            assert_eq!(settled(&mut frame, &vnet), Err(DropReason::BadOffload));
        }
        assert_eq!(settled(&mut frame, &VnetHdr::NONE), Ok(VnetHdr::NONE));
    }
}

const fn super_of(gso_type: u8) -> VnetHdr {
    VnetHdr {
        gso_type,
        gso_size: 10,
        ..needs(34, 16)
    }
}

#[test]
fn super_frames_are_what_their_headers_say() {
    let (good, vnet) = Packet::tcp(3000).build_super(1000);
    let with = |change: fn(&mut VnetHdr)| {
        let mut vnet = vnet;
        change(&mut vnet);
        settled(&mut good.clone(), &vnet)
    };
    let ecn = |vnet: &mut VnetHdr| vnet.gso_type |= vnet::GSO_ECN;
    assert!(with(ecn).is_ok());
    for change in [
        (|vnet| vnet.gso_type = vnet::GSO_TCPV6) as fn(&mut VnetHdr),
        |vnet| vnet.gso_type = vnet::GSO_UDP_L4,
        |vnet| vnet.gso_type = vnet::GSO_ECN,
        // Tunnels in the header, the old kind of UDP, nothing known.
        |vnet| vnet.gso_type |= 0x20,
        |vnet| vnet.gso_type = 3,
        |vnet| vnet.gso_type = 0x7f,
        |vnet| vnet.gso_size = 0,
        |vnet| vnet.flags = 0,
        |vnet| vnet.csum_start = 26,
        |vnet| vnet.csum_offset = 6,
        |vnet| vnet.hdr_len = u16::MAX,
    ] {
        assert_eq!(with(change), Err(DropReason::BadOffload));
    }
    let (mut frame, vnet) = Packet::udp(3000).build_super(1000);
    let ecn = VnetHdr {
        gso_type: vnet.gso_type | vnet::GSO_ECN,
        ..vnet
    };
    assert_eq!(settled(&mut frame, &ecn), Err(DropReason::BadOffload));
}

#[test]
fn arp_asks_for_nothing() {
    let mut frame = vec![0xff; 6];
    frame.extend(SRC_MAC);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([0; 20]);
    let parsed = frame::parse(&frame).unwrap();
    assert!(matches!(parsed, Frame::Arp(_)));
    assert!(settle(&mut frame, &VnetHdr::NONE, &parsed).is_ok());
    for vnet in [needs(14, 0), super_of(vnet::GSO_TCPV4)] {
        let refused = settle(&mut frame, &vnet, &parsed);
        assert_eq!(refused, Err(DropReason::BadOffload));
    }
}

/// A tunnel of the sandbox's own: the kernel leaves the checksum of the packet inside to the
/// device.
#[test]
fn a_tunnels_inner_checksum_is_finished_in_place() {
    let inner = Packet::tcp(50).build();
    let outer = |inner: &[u8]| {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(SRC_MAC, DST_MAC)
            .ipv4(SRC4, DST4, 64)
            .udp(4789, 4789)
            .write(&mut frame, inner)
            .unwrap();
        frame[40..42].fill(0);
        frame
    };
    let mut partial = inner.clone();
    let vnet = make_partial(&mut partial);
    let mut frame = outer(&partial);
    let moved = needs(vnet.csum_start + 42, vnet.csum_offset);
    assert_eq!(settled(&mut frame, &moved), Ok(VnetHdr::NONE));
    assert_same(&frame[42..], &inner);
    assert_eq!(frame[..42], outer(&inner)[..42]);
    // Up to the last byte, and not beyond it into Ethernet's padding.
    let end = frame.len() as u16;
    frame.extend([0; 8]);
    assert!(settled(&mut frame, &needs(end - 4, 2)).is_ok());
    let refused = settled(&mut frame, &needs(end - 4, 3));
    assert_eq!(refused, Err(DropReason::BadOffload));
}

/// What the receiver's kernel does with a frame and its header: `skb_checksum_help`, which believes
/// both offsets, or segmentation.
fn received(frame: &[u8], vnet: &VnetHdr) -> Vec<Vec<u8>> {
    let mut whole = frame.to_vec();
    if vnet.gso_type != vnet::GSO_NONE {
        let mut arena = vec![0; gso::arena_len(0)];
        let mut out = vec![gso::Segment::default(); gso::MAX_SEGMENTS];
        // More segments than anybody takes are refused when they are made.
        let Ok(split) = gso::split(frame, vnet, &info(frame), &[], &mut arena, &mut out) else {
            return Vec::new();
        };
        return out[..split.count]
            .iter()
            .map(|s| {
                let header = s.header.start as usize..s.header.end as usize;
                let payload = s.payload.start as usize..s.payload.end as usize;
                [&arena[header], &frame[payload]].concat()
            })
            .collect();
    }
    if vnet.needs_csum() {
        let (start, offset) = (vnet.csum_start.into(), vnet.csum_offset.into());
        checksum::complete(&mut whole, start, offset).unwrap();
    }
    vec![whole]
}

/// Numbers that are near something in the frame, and any other.
fn near() -> impl Strategy<Value = u16> {
    prop_oneof![
        3 => 0_u16..80,
        2 => prop::sample::select(vec![0_u16, 2, 6, 8, 14, 16, 26, 28, 34, 42, 54, 62]),
        1 => any::<u16>(),
    ]
}

fn any_header() -> impl Strategy<Value = VnetHdr> {
    let kinds = prop::sample::select(vec![0_u8, 0, 0, 1, 4, 5, 0x81, 0x84, 0x85, 0x80, 3, 0x21]);
    let flags = prop::sample::select(vec![1_u8, 1, 1, 0, 2, 3, 0xff]);
    (flags, kinds, near(), near(), near(), near()).prop_map(
        |(flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)| VnetHdr {
            flags,
            gso_type,
            hdr_len,
            gso_size,
            csum_start,
            csum_offset,
            num_buffers: 0,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What leaves has the addresses, ports and flags that were looked at, byte for byte, whatever
    /// the header asks for.
    #[test]
    fn nothing_that_was_looked_at_changes(
        v6 in any::<bool>(),
        proto in 0..3,
        len in 0_usize..300,
        options in 0_usize..4,
        fragment in prop::sample::select(vec![0_u8, 0, 0, 0, 0x20, 1]),
        vnet in any_header(),
    ) {
        let packet = match proto {
            0 => Packet::tcp(len),
            1 => Packet::udp(len),
            _ => Packet::ping(len),
        };
        let packet = if v6 { packet.over_v6() } else { packet };
        let mut frame = packet.build();
        if v6 {
            for _ in 0..options {
                let next = frame[20];
                frame.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
                frame[20] = 60;
            }
            let len = (frame.len() - 54) as u16;
            frame[18..20].copy_from_slice(&len.to_be_bytes());
        } else {
            frame.splice(34..34, vec![1; options * 4]);
            frame[14] += options as u8;
            let len = (frame.len() - 14) as u16;
            frame[16..18].copy_from_slice(&len.to_be_bytes());
            frame[20] |= fragment;
        }
        let before = frame.clone();
        let at = info(&frame);
        match settled(&mut frame, &vnet) {
            Err(reason) => {
                prop_assert_eq!(reason, DropReason::BadOffload);
                prop_assert_eq!(frame, before);
            }
            Ok(settled) => {
                for got in received(&frame, &settled) {
                    let now = info(&got);
                    prop_assert_eq!(&got[..14], &before[..14], "Ethernet");
                    prop_assert_eq!(now.five_tuple(), at.five_tuple());
                    prop_assert_eq!((now.l4, now.fragment), (at.l4, at.fragment));
                    prop_assert_eq!(now.icmp_type, at.icmp_type);
                    let addresses = if v6 { 22..54 } else { 26..34 };
                    prop_assert_eq!(&got[addresses.clone()], &before[addresses]);
                }
                // A second look changes nothing any more.
                let again = frame.clone();
                prop_assert_eq!(self::settled(&mut frame, &settled), Ok(settled));
                prop_assert_eq!(frame, again);
            }
        }
    }
}
