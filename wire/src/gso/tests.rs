use proptest::prelude::*;

use super::*;
use crate::frame::{TCP_ACK, TCP_ECE, TCP_SYN};
use crate::samples::{Packet, assert_same, info};
use crate::vnet;

const PREFIX: [u8; 8] = [8, 0, 0, 0, 0, 0x10, 0, 0];

/// The segments as frames, after a look at their prefixes.
fn segments(frame: &[u8], vnet: &VnetHdr) -> Result<Vec<Vec<u8>>, DropReason> {
    let mut arena = vec![0xaa; arena_len(PREFIX.len())];
    let mut out = vec![Segment::default(); MAX_SEGMENTS];
    let done = split(frame, vnet, &info(frame), &PREFIX, &mut arena, &mut out)?;
    let parts: Vec<_> = out[..done.count]
        .iter()
        .map(|s| {
            let header = &arena[s.header.start as usize..s.header.end as usize];
            let payload = &frame[s.payload.start as usize..s.payload.end as usize];
            assert_eq!(header[..8], PREFIX);
            [&header[8..], payload].concat()
        })
        .collect();
    let (last, full) = parts.split_last().unwrap();
    assert!(full.iter().all(|p| p.len() + 8 == done.segment_len));
    assert!(last.len() + 8 <= done.segment_len);
    Ok(parts)
}

/// The same segments, each built from nothing.
fn expected(packet: &Packet, gso_size: usize) -> Vec<Vec<u8>> {
    let chunks: Vec<_> = packet.payload.chunks(gso_size).collect();
    let last = chunks.len() - 1;
    (chunks.iter().enumerate())
        .map(|(i, chunk)| {
            let mut part = Packet {
                payload: chunk.to_vec(),
                seq: packet.seq.wrapping_add((i * gso_size) as u32),
                id: packet.id.wrapping_add(i as u16),
                ..packet.clone()
            };
            if i != last {
                part.flags &= !(TCP_FIN | TCP_PSH);
            }
            if i != 0 {
                part.flags &= !TCP_CWR;
            }
            part.build()
        })
        .collect()
}

#[test]
fn a_full_tcp_super_frame_at_a_small_mss_fits() {
    // 64 KiB at the default MSS of IPv4: 122 segments.
    let packet = Packet::tcp(65_000);
    let (frame, vnet) = packet.build_super(536);
    let parts = segments(&frame, &vnet).unwrap();
    assert_eq!(parts.len(), 122);
    for (part, expected) in parts.iter().zip(expected(&packet, 536)) {
        assert_same(part, &expected);
    }
}

#[test]
fn flags_of_the_first_and_the_last() {
    let packet = Packet {
        flags: TCP_ACK | TCP_PSH | TCP_FIN | TCP_CWR | TCP_ECE,
        ..Packet::tcp(2500)
    };
    let (frame, vnet) = packet.build_super(1000);
    let flags: Vec<_> = segments(&frame, &vnet)
        .unwrap()
        .iter()
        .map(|part| info(part).tcp_flags)
        .collect();
    assert_eq!(
        flags,
        [
            TCP_ACK | TCP_ECE | TCP_CWR,
            TCP_ACK | TCP_ECE,
            TCP_ACK | TCP_ECE | TCP_PSH | TCP_FIN
        ]
    );
}

#[test]
fn the_kernels_header_length_is_not_believed() {
    let packet = Packet::tcp(3000);
    let (frame, mut vnet) = packet.build_super(1400);
    let expected = segments(&frame, &vnet).unwrap();
    for hdr_len in [0, 20, 1000, 0xffff] {
        vnet.hdr_len = hdr_len;
        vnet.csum_start = hdr_len;
        assert_eq!(segments(&frame, &vnet).unwrap(), expected);
    }
}

#[test]
fn padding_is_not_payload() {
    let (mut frame, vnet) = Packet::udp(10).build_super(8);
    frame.resize(frame.len() + 20, 0xee);
    let parts = segments(&frame, &vnet).unwrap();
    assert_eq!(parts.len(), 2);
    assert_eq!(info(&parts[1]).payload_len(), 2);
}

#[test]
fn impossible_requests_are_refused() {
    let refused = |packet: Packet, change: fn(&mut VnetHdr)| {
        let (frame, mut vnet) = packet.build_super(100);
        change(&mut vnet);
        assert_eq!(segments(&frame, &vnet), Err(DropReason::BadOffload));
    };
    refused(Packet::tcp(500), |v| v.gso_size = 0);
    refused(Packet::tcp(500), |v| v.gso_type = vnet::GSO_NONE);
    refused(Packet::tcp(500), |v| v.gso_type = vnet::GSO_TCPV6);
    refused(Packet::tcp(500), |v| v.gso_type = vnet::GSO_UDP_L4);
    refused(Packet::tcp(500), |v| v.gso_type = 3);
    refused(Packet::udp(500), |v| v.gso_type = vnet::GSO_TCPV4);
    refused(Packet::tcp(500).over_v6(), |v| v.gso_type = vnet::GSO_TCPV4);
    refused(Packet::tcp(60_000), |_| {});
}

#[test]
fn the_callers_memory_bounds_the_segments() {
    let (frame, vnet) = Packet::tcp(500).build_super(100);
    let at = info(&frame);
    let mut arena = vec![0; 5 * (8 + at.payload)];
    let mut out = vec![Segment::default(); 5];
    assert!(split(&frame, &vnet, &at, &PREFIX, &mut arena, &mut out).is_ok());
    let short = arena.len() - 1;
    assert_eq!(
        split(&frame, &vnet, &at, &PREFIX, &mut arena[..short], &mut out),
        Err(DropReason::BadOffload)
    );
    assert_eq!(
        split(&frame, &vnet, &at, &PREFIX, &mut arena, &mut out[..4]),
        Err(DropReason::BadOffload)
    );
}

#[test]
fn fragments_are_no_super_frames() {
    let (mut frame, vnet) = Packet::tcp(500).build_super(100);
    frame[20] = 0x20;
    assert_eq!(segments(&frame, &vnet), Err(DropReason::BadOffload));
}

#[test]
fn finishing_a_single_frame() {
    let packet = Packet {
        flags: TCP_SYN,
        ..Packet::tcp(0)
    };
    let mut frame = packet.build();
    let vnet = crate::samples::make_partial(&mut frame);
    let at = info(&frame);
    // Where the checksum is, the frame says.
    let elsewhere = VnetHdr {
        csum_start: 28,
        csum_offset: 0,
        ..vnet
    };
    finish_single(&mut frame, &elsewhere, Some(&at)).unwrap();
    assert_same(&frame, &packet.build());
    finish_single(&mut frame, &VnetHdr::NONE, None).unwrap();
    assert_same(&frame, &packet.build());
    let refused = finish_single(&mut frame, &vnet, None);
    assert_eq!(refused, Err(DropReason::BadOffload));
    let (mut frame, vnet) = packet.build_super(100);
    let refused = finish_single(&mut frame, &vnet, Some(&at));
    assert_eq!(refused, Err(DropReason::BadOffload));
}

proptest! {
    #[test]
    fn splitting_equals_building_each_segment(
        v6 in any::<bool>(),
        tcp in any::<bool>(),
        payload in 1_usize..6000,
        gso_size in 48_u16..2000,
        flags in any::<u8>(),
        seq in any::<u32>(),
        id in any::<u16>(),
    ) {
        let base = if tcp { Packet::tcp(payload) } else { Packet::udp(payload) };
        let base = if v6 { base.over_v6() } else { base };
        let packet = Packet { flags, seq, id, ..base };
        let (frame, vnet) = packet.build_super(gso_size);
        let parts = segments(&frame, &vnet).unwrap();
        let expected = expected(&packet, gso_size.into());
        prop_assert_eq!(parts.len(), expected.len());
        for (part, expected) in parts.iter().zip(&expected) {
            assert_same(part, expected);
        }
    }
}
