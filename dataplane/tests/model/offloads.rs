//! Any virtio header in front of any frame: what leaves a port, finished by whoever finishes it, says
//! who sent it, byte for byte.

use proptest::prelude::*;
use weft_wire::frame::{self, TCP, TCP_ACK, UDP};
use weft_wire::{FiveTuple, GsoKind, VnetHdr, checksum, gso, offload, vnet};

use crate::fast::{Fast, Outcome, info, make_super};
use crate::packet::Packet;
use crate::world::{ENDPOINTS, Place, World, v4, v6, vip, vip_mac};

/// What the other node gets (a finished frame, or segments), or the kernel of a sandbox makes, which
/// believes the header's own offsets.
fn finished(place: Place, frame: &[u8], vnet: &VnetHdr) -> Vec<Vec<u8>> {
    let at = info(frame);
    let mut whole = frame.to_vec();
    if vnet.gso() == GsoKind::None {
        if let Place::Vtep(_) = place {
            gso::finish_single(&mut whole, vnet, Some(&at)).unwrap();
        } else if vnet.needs_csum() {
            let (start, offset) = (vnet.csum_start.into(), vnet.csum_offset.into());
            checksum::complete(&mut whole, start, offset).unwrap();
        }
        return vec![whole];
    }
    let mut arena = vec![0; gso::arena_len(0)];
    let mut out = vec![gso::Segment::default(); gso::MAX_SEGMENTS];
    let split = gso::split(frame, vnet, &at, &[], &mut arena, &mut out);
    let count = split.map_or(0, |split| split.count);
    out[..count]
        .iter()
        .map(|s| {
            let header = s.header.start as usize..s.header.end as usize;
            let payload = s.payload.start as usize..s.payload.end as usize;
            [&arena[header], &frame[payload]].concat()
        })
        .collect()
}

fn near() -> impl Strategy<Value = u16> {
    prop_oneof![
        4 => 0_u16..100,
        2 => prop::sample::select(vec![0_u16, 2, 4, 6, 8, 16, 26, 28, 34, 42, 54, 62]),
        1 => any::<u16>(),
    ]
}

fn header() -> impl Strategy<Value = VnetHdr> {
    let flags = prop::sample::select(vec![vnet::F_NEEDS_CSUM, vnet::F_NEEDS_CSUM, 0, 0xff]);
    let kinds = prop::sample::select(vec![0_u8, 0, 0, 1, 4, 5, 0x81, 0x84, 0x85, 0x80, 3, 0x21]);
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

    #[test]
    fn what_leaves_a_port_has_its_addresses_byte_for_byte(
        (ipv6, udp) in any::<(bool, bool)>(),
        to in 0..ENDPOINTS + 1,
        len in 0_usize..600,
        honest in prop::option::weighted(0.3, 20_usize..400),
        bent in prop::option::of((0_usize..6, near())),
        asked in header(),
        // As if the payload were headers, too.
        filler: u8,
        seed: u64,
    ) {
        let world = World::new();
        let mut fast = Fast::new(&world, seed);
        let sender = &world.endpoints[0];
        let family = usize::from(ipv6);
        let (dst_mac, dst) = match world.endpoints.get(usize::from(to)) {
            Some(e) => (e.mac, e.ips[family]),
            None => (vip_mac(0, ipv6), vip(0, ipv6)),
        };
        let packet = Packet {
            src_mac: sender.mac,
            dst_mac,
            tuple: FiveTuple {
                src: sender.ips[family],
                dst,
                sport: 4000,
                dport: 80,
                proto: if udp { UDP } else { TCP },
            },
            seq: 1,
            ack: if udp { 0 } else { 7 },
            flags: if udp { 0 } else { TCP_ACK },
            id: if ipv6 { 0 } else { 5 },
            payload: vec![filler; len],
        };
        let mut frame = packet.build();
        // A header that is in order, perhaps with one field bent; or any.
        let mut vnet = asked;
        if let Some(size) = honest {
            vnet = make_super(&mut frame, size);
            match bent {
                Some((0, value)) => vnet.csum_start = value,
                Some((1, value)) => vnet.csum_offset = value,
                Some((2, value)) => vnet.gso_size = value,
                Some((3, value)) => vnet.hdr_len = value,
                Some((4, value)) => vnet.gso_type = value.to_le_bytes()[0],
                Some((_, value)) => vnet.flags = value.to_le_bytes()[0],
                None => {}
            }
        }
        let parsed = frame::parse(&frame).unwrap();
        let Ok(settled) = offload::settle(&mut frame, &vnet, &parsed) else { return Ok(()) };
        let Outcome::Sent(place) = fast.egress(&world, 0, &mut frame, settled.needs_csum()) else {
            return Ok(());
        };
        for got in finished(place, &frame, &settled) {
            let mac = frame::src_mac(&got);
            let now = info(&got);
            prop_assert_eq!((mac, now.src), (sender.mac, sender.ips[family]));
            prop_assert_eq!((now.sport, now.proto), (4000, packet.tuple.proto));
            // It would leave again, to where it went: the source is still the port's own.
            if usize::from(to) < world.endpoints.len() {
                let again = fast.egress(&world, 0, &mut got.clone(), false);
                prop_assert_eq!(again, Outcome::Sent(place));
            }
        }
    }
}

#[test]
fn the_attack_itself() {
    let world = World::new();
    for (src, dst, start) in [(v4(10), v4(11), 28), (v6(10), v6(11), 36)] {
        let packet = Packet {
            src_mac: world.endpoints[0].mac,
            dst_mac: world.endpoints[1].mac,
            tuple: FiveTuple {
                src,
                dst,
                sport: 1,
                dport: 2,
                proto: UDP,
            },
            seq: 0,
            ack: 0,
            flags: 0,
            id: 0,
            payload: vec![1; 9],
        };
        let mut frame = packet.build();
        let vnet = VnetHdr {
            flags: vnet::F_NEEDS_CSUM,
            csum_start: start,
            csum_offset: 0,
            ..VnetHdr::NONE
        };
        let parsed = frame::parse(&frame).unwrap();
        let refused = offload::settle(&mut frame, &vnet, &parsed);
        assert_eq!(refused, Err(weft_wire::DropReason::BadOffload));
    }
}
