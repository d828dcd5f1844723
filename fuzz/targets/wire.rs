//! Frames with their virtio header, as a sandbox or a peer may send them: parsed, split, merged,
//! rewritten, answered. Input: 12 bytes of virtio header, then the frame.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use weft_wire::ecn::{self, Dscp};
use weft_wire::gro::{Coalescer, Offer};
use weft_wire::loopback::Loopback;
use weft_wire::rewrite::{self, Side};
use weft_wire::{
    DropReason, Frame, GsoKind, IpInfo, Mac, VnetHdr, checksum, flow, frame, gso, offload, reply,
    superframe,
};

const MAC: Mac = Mac([2, 0x42, 10, 0, 0, 1]);
const IP4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

fuzz_target!(|data: &[u8]| {
    let Some((header, bytes)) = data.split_first_chunk::<{ VnetHdr::LEN }>() else {
        return;
    };
    let vnet = VnetHdr::parse(header);
    let mut again = [0; VnetHdr::LEN];
    vnet.emit(&mut again);
    assert_eq!(again, *header);

    loopback(bytes);
    marks(bytes, &vnet);
    match frame::parse(bytes) {
        Err(_) => {}
        Ok(Frame::Arp(arp)) => {
            let mut out = [0; 64];
            let len = reply::arp_reply(&arp, MAC, IP4, &mut out);
            assert!(matches!(frame::parse(&out[..len]), Ok(Frame::Arp(_))));
        }
        Ok(Frame::Ip(info)) => {
            assert!(flow::entropy_port(&info.five_tuple()) >= 49152);
            split(bytes, &vnet, &info);
            finish(bytes, &vnet, &info);
            settle(bytes, &vnet, &info);
            fixup(bytes, &vnet, &info);
            rewrite(bytes, &vnet, &info);
            merge(bytes, &vnet, &info);
            answer(bytes, &vnet, &info);
        }
    }
});

fn loopback(bytes: &[u8]) {
    let Ok(said) = Loopback::parse(bytes) else {
        return;
    };
    let mut out = vec![0xee; bytes.len()];
    assert_eq!(said.write(&mut out), Ok(bytes.len()));
    assert_eq!(Loopback::parse(&out), Ok(said));
    assert!(said.answered().len <= said.len);
}

/// The marks of the packet around a frame: there as RFC 6040 section 4.1 has it, and carried over to
/// what is inside as its figure 4 has it. Nothing else is touched.
fn marks(bytes: &[u8], vnet: &VnetHdr) {
    const CE: u8 = 3;
    let [outer, dscp] = vnet.hdr_len.to_be_bytes();
    let parsed = frame::parse(bytes);
    let inner = ecn::outer_class(bytes, Dscp::Inherit);
    let around = ecn::outer_class(bytes, Dscp::Fixed(dscp & 63));
    assert_eq!((around >> 2, around & 3), (dscp & 63, inner & 3));
    for mark in 0..=CE {
        let mut copy = bytes.to_vec();
        if let Err(reason) = ecn::decapsulate(&mut copy, outer & !3 | mark) {
            assert_eq!((reason, inner & 3, mark), (DropReason::Congestion, 0, CE));
            assert_eq!(copy, bytes);
            continue;
        }
        if matches!(parsed, Ok(Frame::Ip(_))) {
            assert_ne!((inner & 3, mark), (0, CE), "the sender hears of it");
        }
        let wanted = match (inner & 3, mark) {
            (1 | 2, CE) => CE,
            (2, 1) => 1,
            (own, _) => own,
        };
        assert_eq!(ecn::outer_class(&copy, Dscp::Inherit), inner & !3 | wanted);
        // The class, and the checksum of an IPv4 header.
        let mut changed = (0..bytes.len()).filter(|at| copy[*at] != bytes[*at]);
        assert!(changed.all(|at| matches!(at, 14 | 15 | 24 | 25)));
        assert_eq!(frame::parse(&copy), parsed);
        if let Ok(Frame::Ip(info)) = parsed
            && info.is_ipv4()
        {
            let sum = |frame: &[u8]| checksum::sum(&frame[info.l3..info.l4]);
            assert_eq!(sum(&copy), sum(bytes));
        }
    }
}

fn split(bytes: &[u8], vnet: &VnetHdr, info: &IpInfo) {
    let mut arena = vec![0; gso::arena_len(8)];
    let mut out = vec![gso::Segment::default(); gso::MAX_SEGMENTS];
    let Ok(split) = gso::split(bytes, vnet, info, &[0x55; 8], &mut arena, &mut out) else {
        return;
    };
    let mut next = info.payload;
    for segment in &out[..split.count] {
        let header = &arena[segment.header.start as usize..segment.header.end as usize];
        let payload = segment.payload.start as usize..segment.payload.end as usize;
        assert_eq!(payload.start, next);
        next = payload.end;
        let part = [&header[8..], &bytes[payload]].concat();
        let Ok(Frame::Ip(part_info)) = frame::parse(&part) else {
            panic!("a segment is no frame");
        };
        assert_eq!(part_info.len, part.len());
        assert!(part.len() + 8 <= split.segment_len);
        assert!(checksum::verify_transport(&part, &part_info));
    }
    assert_eq!(next, info.len);
}

fn finish(bytes: &[u8], vnet: &VnetHdr, info: &IpInfo) {
    let mut copy = bytes.to_vec();
    if gso::finish_single(&mut copy, vnet, Some(info)).is_err() {
        assert_eq!(copy, bytes);
    }
}

/// Whatever the header asks for, the one that the frame travels on with changes nothing but a
/// checksum of its transport.
fn settle(bytes: &[u8], vnet: &VnetHdr, info: &IpInfo) {
    let mut copy = bytes.to_vec();
    let Ok(settled) = offload::settle(&mut copy, vnet, &Frame::Ip(*info)) else {
        assert_eq!(copy, bytes);
        return;
    };
    assert_eq!(copy[..info.payload], bytes[..info.payload]);
    let again = offload::settle(&mut copy.clone(), &settled, &Frame::Ip(*info));
    assert_eq!(again, Ok(settled));
    if settled.gso() == GsoKind::None && settled.needs_csum() {
        // As the receiver's kernel does.
        let (start, offset) = (settled.csum_start.into(), settled.csum_offset.into());
        checksum::complete(&mut copy, start, offset).expect("inside");
    }
    let Ok(Frame::Ip(now)) = frame::parse(&copy) else {
        panic!("a finished frame is no frame");
    };
    assert_eq!((copy[..info.l4] == bytes[..info.l4], now), (true, *info));
}

fn fixup(bytes: &[u8], vnet: &VnetHdr, info: &IpInfo) {
    let mut copy = bytes.to_vec();
    let mtu = usize::from(vnet.gso_size);
    let Ok(fixed) = superframe::fixup(&mut copy, info, mtu) else {
        return;
    };
    if fixed.gso() != GsoKind::None {
        let headers = info.payload - info.l3;
        assert_eq!(usize::from(fixed.gso_size) + headers, mtu);
        assert!(checksum::is_partial(&copy, info));
        split(&copy, &fixed, info);
    }
}

fn rewrite(bytes: &[u8], vnet: &VnetHdr, info: &IpInfo) {
    let ip: IpAddr = if info.is_ipv4() {
        IP4.into()
    } else {
        IP6.into()
    };
    let right = checksum::verify_transport(bytes, info);
    let partial = checksum::is_partial(bytes, info);
    for side in [Side::Source, Side::Destination] {
        let mut copy = bytes.to_vec();
        assert!(rewrite::rewrite_endpoint(
            &mut copy,
            info,
            side,
            ip,
            Some(vnet.gso_size),
            false
        ));
        let Ok(Frame::Ip(now)) = frame::parse(&copy) else {
            panic!("a rewritten frame is no frame");
        };
        assert_eq!(
            if side == Side::Source {
                now.src
            } else {
                now.dst
            },
            ip
        );
        assert_eq!(now.len, info.len);
        if right {
            assert!(checksum::verify_transport(&copy, &now));
        }
        let mut copy = bytes.to_vec();
        rewrite::rewrite_endpoint(&mut copy, info, side, ip, Some(vnet.gso_size), true);
        if partial && !right {
            assert!(checksum::is_partial(&copy, info));
        }
    }
    let mut copy = bytes.to_vec();
    rewrite::clamp_mss(&mut copy, info, vnet.gso_size, vnet.needs_csum());
    if right && !vnet.needs_csum() {
        assert!(checksum::verify_transport(&copy, info));
    }
}

fn merge(bytes: &[u8], vnet: &VnetHdr, info: &IpInfo) {
    // The frame, and what would follow it in its flow.
    let mut arena = bytes.repeat(3);
    let mut to = Coalescer::default();
    let trusted = vnet.hdr_len & 1 == 0;
    let (mut offered, mut taken) = (0, 0);
    let mut count = |to: &mut Coalescer, arena: &mut [u8]| {
        if let Some(run) = to.take(arena) {
            let tails: usize = run.tails.iter().map(|range| range.len()).sum();
            assert_eq!(run.head.len() + tails, run.len);
            if !run.tails.is_empty() {
                let head = &arena[run.head.clone()];
                assert_eq!(
                    run.len - info.payload,
                    (1 + run.tails.len()) * info.payload_len()
                );
                assert_eq!(run.vnet.gso() == GsoKind::None, false);
                assert!(run.len - info.l3 <= 65_535);
                assert!(head.len() == info.len);
            }
            taken += 1 + run.tails.len();
        }
    };
    for i in 0..3_usize {
        let range = i * bytes.len()..(i + 1) * bytes.len();
        if info.proto == frame::TCP && info.fragment == frame::Fragment::None {
            let at = range.start + info.l4 + 4;
            let seq = u32::from_be_bytes(arena[at..at + 4].try_into().expect("four bytes"));
            let next = seq.wrapping_add((i * info.payload_len()) as u32);
            arena[at..at + 4].copy_from_slice(&next.to_be_bytes());
        }
        let Ok(Frame::Ip(info)) = frame::parse(&arena[range.clone()]) else {
            panic!("a copy is no frame");
        };
        if to.offer(&arena, range.clone(), &info, 1, trusted) == Offer::Refused {
            count(&mut to, &mut arena);
            assert_eq!(to.offer(&arena, range, &info, 1, trusted), Offer::Started);
        }
        offered += 1;
    }
    count(&mut to, &mut arena);
    assert!(to.is_empty());
    assert_eq!(offered, taken);
}

fn answer(bytes: &[u8], vnet: &VnetHdr, info: &IpInfo) {
    let mut out = [0; reply::MAX_LEN];
    let ip: IpAddr = if info.is_ipv4() {
        IP4.into()
    } else {
        IP6.into()
    };
    let check = |out: &[u8]| {
        if out.is_empty() {
            return;
        }
        let Ok(Frame::Ip(answer)) = frame::parse(out) else {
            panic!("an answer is no frame");
        };
        assert_eq!(answer.dst, info.src);
        assert!(checksum::verify_transport(out, &answer));
    };
    let len = reply::packet_too_big(bytes, info, MAC, ip, vnet.gso_size, &mut out);
    check(&out[..len]);
    let len = reply::icmp_unreachable(bytes, info, MAC, ip, &mut out);
    check(&out[..len]);
    let len = reply::tcp_reset_for(bytes, info, &mut out);
    check(&out[..len]);
    if let Some(target) = reply::nd_target(bytes, info) {
        let len = reply::nd_advertisement(bytes, info, MAC, target, true, &mut out);
        check(&out[..len]);
    }
    let right = checksum::verify_transport(bytes, info) || checksum::is_partial(bytes, info);
    let mut copy = bytes.to_vec();
    let len = reply::icmp_echo_reply(&mut copy, info);
    if right {
        check(&copy[..len]);
    }
}
