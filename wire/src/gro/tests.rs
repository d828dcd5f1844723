use proptest::prelude::*;

use super::*;
use crate::frame::{TCP_FIN, TCP_SYN, TCP_URG};
use crate::gso;
use crate::samples::{Packet, info};
use crate::vnet::{F_DATA_VALID, GSO_TCPV4, GSO_UDP_L4};

/// Frames one behind the other, as a receive arena holds them.
#[derive(Default)]
struct Arena {
    bytes: Vec<u8>,
    frames: Vec<Range<usize>>,
}

impl Arena {
    fn of(frames: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut arena = Self::default();
        for frame in frames {
            let start = arena.bytes.len();
            arena.bytes.extend_from_slice(&frame);
            arena.frames.push(start..arena.bytes.len());
        }
        arena
    }

    fn offer(&self, to: &mut Coalescer, i: usize) -> Offer {
        self.offer_with(to, i, 7, true)
    }

    fn offer_with(&self, to: &mut Coalescer, i: usize, key: u64, trusted: bool) -> Offer {
        let frame = self.frames[i].clone();
        let at = info(&self.bytes[frame.clone()]);
        to.offer(&self.bytes, frame, &at, key, trusted)
    }

    /// Runs all frames through a coalescer, as a receiver does.
    fn coalesce(&mut self, trusted: bool) -> Vec<(VnetHdr, Vec<u8>)> {
        let (mut to, mut out) = (Coalescer::default(), Vec::new());
        for i in 0..self.frames.len() {
            if self.offer_with(&mut to, i, 7, trusted) == Offer::Refused {
                out.extend(taken(&mut to, &mut self.bytes));
                assert_eq!(self.offer_with(&mut to, i, 7, trusted), Offer::Started);
            }
        }
        out.extend(taken(&mut to, &mut self.bytes));
        out
    }
}

fn taken(from: &mut Coalescer, arena: &mut [u8]) -> Option<(VnetHdr, Vec<u8>)> {
    let run = from.take(arena)?;
    let (vnet, len) = (run.vnet, run.len);
    assert_eq!(run.key, 7);
    let parts = [run.head.clone()]
        .into_iter()
        .chain(run.tails.iter().cloned());
    let frame: Vec<u8> = parts.flat_map(|range| arena[range].to_vec()).collect();
    assert_eq!(frame.len(), len);
    Some((vnet, frame))
}

/// What two frames come to: merged or not.
fn second(first: &Packet, change: impl Fn(&mut Packet)) -> Offer {
    let mut next = Packet {
        seq: first.seq.wrapping_add(first.payload.len() as u32),
        id: first.id.wrapping_add(1),
        ..first.clone()
    };
    change(&mut next);
    let arena = Arena::of([first.build(), next.build()]);
    let mut to = Coalescer::default();
    assert_eq!(arena.offer(&mut to, 0), Offer::Started);
    arena.offer(&mut to, 1)
}

#[test]
fn consecutive_segments_are_merged() {
    for packet in [
        Packet::tcp(1000),
        Packet::tcp(1000).over_v6(),
        Packet::udp(1000),
        Packet::udp(1000).over_v6(),
    ] {
        assert_eq!(second(&packet, |_| {}), Offer::Merged, "{packet:?}");
        assert_eq!(second(&packet, |p| p.payload.truncate(1)), Offer::Merged);
        assert_eq!(second(&packet, |p| p.payload.push(1)), Offer::Refused);
        assert_eq!(second(&packet, |p| p.payload.clear()), Offer::Refused);
        assert_eq!(second(&packet, |p| p.sport += 1), Offer::Refused);
        assert_eq!(second(&packet, |p| p.dport += 1), Offer::Refused);
        assert_eq!(second(&packet, |p| p.v6 = !p.v6), Offer::Refused);
    }
}

#[test]
fn tcp_rules() {
    let packet = Packet::tcp(1000);
    assert_eq!(second(&packet, |p| p.seq += 1), Offer::Refused);
    assert_eq!(second(&packet, |p| p.seq -= 1000), Offer::Refused);
    assert_eq!(second(&packet, |p| p.ack += 1), Offer::Refused);
    assert_eq!(second(&packet, |p| p.options[11] += 1), Offer::Refused);
    assert_eq!(second(&packet, |p| p.options.truncate(4)), Offer::Refused);
    for flag in [
        TCP_SYN,
        TCP_FIN,
        crate::frame::TCP_RST,
        TCP_URG,
        TCP_CWR,
        TCP_ECE,
    ] {
        assert_eq!(second(&packet, |p| p.flags |= flag), Offer::Refused);
    }
    assert_eq!(second(&packet, |p| p.flags |= TCP_PSH), Offer::Merged);
    let congested = Packet {
        flags: TCP_ACK | TCP_ECE,
        ..Packet::tcp(1000)
    };
    assert_eq!(second(&congested, |_| {}), Offer::Merged);
    let pushed = Packet {
        flags: TCP_ACK | TCP_PSH,
        ..Packet::tcp(1000)
    };
    assert_eq!(second(&pushed, |_| {}), Offer::Refused);
}

#[test]
fn ipv4_headers_must_agree() {
    let (first, mut next) = (Packet::tcp(100), Packet::tcp(100));
    next.seq = next.seq.wrapping_add(100);
    next.id = next.id.wrapping_add(1);
    // TOS, DF, TTL, protocol, source, destination; then both MACs.
    for at in [15, 20, 22, 26, 29, 30, 33, 0, 6] {
        let mut frame = next.build();
        frame[at] ^= 0x40;
        let arena = Arena::of([first.build(), frame]);
        let mut to = Coalescer::default();
        assert_eq!(arena.offer(&mut to, 0), Offer::Started);
        assert_eq!(arena.offer(&mut to, 1), Offer::Refused, "byte {at}");
    }
}

#[test]
fn identifications_count_up_or_stand_still() {
    let frame = |n: u32, id: u16| {
        Packet {
            seq: n * 100,
            id,
            ..Packet::tcp(100)
        }
        .build()
    };
    let offers = |ids: [u16; 3]| {
        let arena = Arena::of((0..3).map(|n| frame(n, ids[n as usize])));
        let mut to = Coalescer::default();
        [0, 1, 2].map(|i| arena.offer(&mut to, i))
    };
    use Offer::{Merged, Refused, Started};
    assert_eq!(offers([65535, 0, 1]), [Started, Merged, Merged]);
    assert_eq!(offers([5, 5, 5]), [Started, Merged, Merged]);
    assert_eq!(offers([5, 6, 6]), [Started, Merged, Refused]);
    assert_eq!(offers([5, 5, 6]), [Started, Merged, Refused]);
    assert_eq!(offers([5, 7, 9]), [Started, Refused, Refused]);
}

#[test]
fn a_short_segment_or_a_push_closes_the_run() {
    let frame = |n: u32, payload: usize, flags: u8| {
        Packet {
            seq: n * 100,
            id: n as u16,
            flags,
            ..Packet::tcp(payload)
        }
        .build()
    };
    for middle in [frame(1, 99, TCP_ACK), frame(1, 100, TCP_ACK | TCP_PSH)] {
        let arena = Arena::of([frame(0, 100, TCP_ACK), middle, frame(2, 100, TCP_ACK)]);
        let mut to = Coalescer::default();
        let offers = [0, 1, 2].map(|i| arena.offer(&mut to, i));
        assert_eq!(offers, [Offer::Started, Offer::Merged, Offer::Refused]);
    }
}

#[test]
fn another_port_is_another_run() {
    let first = Packet::udp(100);
    let next = Packet {
        id: first.id.wrapping_add(1),
        ..first.clone()
    };
    let arena = Arena::of([first.build(), next.build()]);
    let mut to = Coalescer::default();
    assert_eq!(arena.offer_with(&mut to, 0, 1, true), Offer::Started);
    assert_eq!(arena.offer_with(&mut to, 1, 2, true), Offer::Refused);
    assert_eq!(arena.offer_with(&mut to, 1, 1, true), Offer::Merged);
}

#[test]
fn runs_end_at_64_segments_and_at_64_kib() {
    let count_in_first_run = |payload: usize| {
        let frames = (0..70_u16).map(|n| {
            Packet {
                seq: u32::from(n) * payload as u32,
                id: n,
                ..Packet::tcp(payload)
            }
            .build()
        });
        let mut arena = Arena::of(frames);
        let runs = arena.coalesce(true);
        let at = info(&runs[0].1);
        assert!(at.ip_len() <= 65_535);
        at.payload_len() / payload
    };
    assert_eq!(count_in_first_run(10), 64);
    // 52 bytes of headers.
    assert_eq!(count_in_first_run(1448), (65_535 - 52) / 1448);
}

#[test]
fn a_single_frame_is_left_alone() {
    let ping = Packet::ping(30).build();
    let tcp = Packet::tcp(30).build();
    let mut bare = Packet::udp(30).build();
    bare[40..42].fill(0);
    for (frame, trusted, flags) in [
        (&ping, true, 0),
        (&tcp, false, 0),
        (&tcp, true, F_DATA_VALID),
        (&bare, false, 0),
    ] {
        let mut arena = Arena::of([frame.clone()]);
        let runs = arena.coalesce(trusted);
        let vnet = VnetHdr {
            flags,
            ..VnetHdr::NONE
        };
        assert_eq!(runs, [(vnet, frame.clone())]);
    }
}

#[test]
fn a_partial_checksum_is_passed_on_as_such() {
    let mut frame = Packet::tcp(30).build();
    crate::samples::make_partial(&mut frame);
    let mut arena = Arena::of([frame.clone()]);
    let runs = arena.coalesce(true);
    assert_eq!(runs[0].1, frame);
    assert!(runs[0].0.needs_csum());
    assert_eq!((runs[0].0.csum_start, runs[0].0.csum_offset), (34, 16));
}

#[test]
fn untrusted_segments_with_wrong_checksums_stay_alone() {
    for broken in 0..3 {
        let frames = (0..3_u16).map(|n| {
            let mut frame = Packet {
                seq: u32::from(n) * 100,
                id: n,
                ..Packet::tcp(100)
            }
            .build();
            if n == broken {
                frame[120] ^= 1;
            }
            frame
        });
        let mut arena = Arena::of(frames);
        let broken_frame = arena.bytes[arena.frames[usize::from(broken)].clone()].to_vec();
        let runs = arena.coalesce(false);
        assert_eq!(runs.len(), if broken == 1 { 3 } else { 2 });
        assert!(runs.contains(&(VnetHdr::NONE, broken_frame)), "{broken}");
    }
}

#[test]
fn udp_without_a_checksum_or_with_a_trailer_is_not_merged() {
    let packet = Packet::udp(100);
    let mut bare = packet.build();
    bare[40..42].fill(0);
    let mut trailer = packet.build();
    trailer[38..40].copy_from_slice(&90_u16.to_be_bytes());
    for frame in [bare, trailer] {
        let arena = Arena::of([frame.clone(), frame]);
        let mut to = Coalescer::default();
        assert_eq!(arena.offer(&mut to, 0), Offer::Started);
        assert_eq!(arena.offer(&mut to, 1), Offer::Refused);
    }
    let arena = Arena::of([packet.build(), packet.build()]);
    let mut to = Coalescer::new(false);
    assert_eq!(arena.offer(&mut to, 0), Offer::Started);
    assert_eq!(arena.offer(&mut to, 1), Offer::Refused);
}

#[test]
fn padding_does_not_get_between_payloads() {
    let frame = |n: u16| {
        let mut frame = Packet {
            id: n,
            ..Packet::udp(4)
        }
        .build();
        frame.resize(60, 0xee);
        frame
    };
    let mut arena = Arena::of([frame(1), frame(2)]);
    let runs = arena.coalesce(true);
    assert_eq!(runs.len(), 1);
    let at = info(&runs[0].1);
    assert_eq!(at.len, runs[0].1.len());
    let payload = Packet::udp(4).payload;
    assert_eq!(runs[0].1[at.payload..], [&payload[..], &payload].concat());
}

#[test]
fn taking_from_nothing_gives_nothing() {
    let mut to = Coalescer::default();
    assert!(to.is_empty());
    assert!(to.take(&mut []).is_none());
}

proptest! {
    #[test]
    fn merging_the_parts_of_a_super_frame_gives_it_back(
        v6 in any::<bool>(),
        tcp in any::<bool>(),
        gso_size in 1_u16..1500,
        whole in 1_usize..64,
        rest in 0_usize..1500,
        push in any::<bool>(),
        id in any::<u16>(),
        trusted in any::<bool>(),
    ) {
        let payload = (whole * usize::from(gso_size) + rest % usize::from(gso_size)).min(65_000);
        let base = if tcp { Packet::tcp(payload) } else { Packet::udp(payload) };
        let base = if v6 { base.over_v6() } else { base };
        let flags = if push { TCP_ACK | TCP_PSH } else { TCP_ACK };
        let packet = Packet { id, flags, ..base };
        let (frame, vnet) = packet.build_super(gso_size);
        let at = info(&frame);
        let mut headers = vec![0; gso::arena_len(0)];
        let mut out = vec![gso::Segment::default(); gso::MAX_SEGMENTS];
        let count = gso::split(&frame, &vnet, &at, &[], &mut headers, &mut out).unwrap().count;
        let mut arena = Arena::of(out[..count].iter().map(|s| {
            let header = &headers[s.header.start as usize..s.header.end as usize];
            [header, &frame[s.payload.start as usize..s.payload.end as usize]].concat()
        }));
        let runs = arena.coalesce(trusted);
        prop_assert_eq!(runs.len(), 1);
        if count == 1 {
            crate::samples::assert_same(&runs[0].1, &packet.build());
        } else {
            let expected = VnetHdr { hdr_len: at.payload as u16, ..vnet };
            prop_assert_eq!(runs[0].0, expected);
            prop_assert_eq!(&runs[0].1, &frame);
        }
    }

    #[test]
    fn no_byte_is_lost_or_reordered(
        lens in proptest::collection::vec(0_usize..40, 1..30),
        breaks in proptest::collection::vec(0_u8..4, 30),
    ) {
        // One TCP stream whose sender pushes, loses and resizes at will.
        let mut seq = 0_u32;
        let mut expected = Vec::new();
        let frames: Vec<_> = lens.iter().enumerate().map(|(n, len)| {
            let flags = if breaks[n] == 1 { TCP_ACK | TCP_PSH } else { TCP_ACK };
            seq += u32::from(breaks[n] == 2);
            let mut packet = Packet { seq, flags, id: n as u16, ..Packet::tcp(*len) };
            packet.payload.fill(n as u8);
            seq += *len as u32;
            expected.extend_from_slice(&packet.payload);
            packet.build()
        }).collect();
        let mut arena = Arena::of(frames);
        let runs = arena.coalesce(true);
        let payloads = runs.iter().flat_map(|(_, f)| f[info(f).payload..].to_vec());
        prop_assert_eq!(payloads.collect::<Vec<_>>(), expected);
        for (vnet, frame) in &runs {
            let kind = vnet.gso_type;
            prop_assert!(kind == 0 || kind == GSO_TCPV4 || kind == GSO_UDP_L4);
            prop_assert_eq!(info(frame).len, frame.len());
        }
    }
}
