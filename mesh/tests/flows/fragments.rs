//! Fragmented datagrams of flows.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use weft_mesh::{Forward, Reverse};
use weft_wire::frame::TCP;
use weft_wire::{DropReason, FiveTuple, checksum};

use crate::bench::*;
use crate::workers::{bench as local_bench, other_worker, reverse};

/// One fragment: `from..to` of the IP payload of `whole`.
fn piece(whole: &[u8], id: u32, from: usize, to: usize, more: bool) -> Vec<u8> {
    let at = info(whole);
    let data = &whole[at.l4 + from..at.l4 + to];
    let bits = u16::try_from(from).unwrap();
    let mut out = whole[..at.l4].to_vec();
    if at.is_ipv4() {
        let len = u16::try_from(20 + data.len()).unwrap();
        out[16..18].copy_from_slice(&len.to_be_bytes());
        out[18..20].copy_from_slice(&u16::try_from(id).unwrap().to_be_bytes());
        let bits = (bits / 8) | (u16::from(more) << 13);
        out[20..22].copy_from_slice(&bits.to_be_bytes());
        out[24..26].fill(0);
        let sum = !checksum::sum(&out[14..34]);
        out[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        let len = u16::try_from(8 + data.len()).unwrap();
        out[18..20].copy_from_slice(&len.to_be_bytes());
        out.extend([out[20], 0]);
        out[20] = 44;
        out.extend((bits | u16::from(more)).to_be_bytes());
        out.extend(id.to_be_bytes());
    }
    out.extend(data);
    out
}

/// A whole packet in fragments of `size` bytes of data.
fn pieces(whole: &[u8], id: u32, size: usize) -> Vec<Vec<u8>> {
    let at = info(whole);
    let len = at.len - at.l4;
    (0..len)
        .step_by(size)
        .map(|from| {
            let to = len.min(from + size);
            piece(whole, id, from, to, to < len)
        })
        .collect()
}

/// What a receiver makes of fragments in order.
fn reassembled(pieces: &[Vec<u8>]) -> Vec<u8> {
    let first = &pieces[0];
    let (head, skip) = if first[12..14] == [8, 0] {
        (14 + 20, 0)
    } else {
        (14 + 40, 8)
    };
    let mut out = first[..head].to_vec();
    if skip > 0 {
        out[20] = first[54];
    }
    for piece in pieces {
        out.extend(&piece[head + skip..]);
    }
    let len = out.len() - 14;
    if skip == 0 {
        out[16..18].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        out[20..22].fill(0);
        out[24..26].fill(0);
        let sum = !checksum::sum(&out[14..34]);
        out[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        let len = u16::try_from(len - 40).unwrap();
        out[18..20].copy_from_slice(&len.to_be_bytes());
    }
    out
}

fn question(sport: u16, len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
    udp(
        (CLIENT, VIP_MAC),
        tuple(client(), sport, vip(), 53, 17),
        &data,
    )
}

fn dropped(verdict: Forward) -> Option<DropReason> {
    match verdict {
        Forward::Drop(reason) => Some(reason),
        _ => None,
    }
}

fn forward_all(b: &mut Bench, pieces: &mut [Vec<u8>]) -> Vec<Option<DropReason>> {
    pieces
        .iter_mut()
        .map(|piece| dropped(b.forward(&port(), piece)))
        .collect()
}

#[test]
fn a_datagram_and_its_answer_cross_in_fragments() {
    for v6_flow in [false, true] {
        let mut b = Bench::new(3);
        let t = if v6_flow {
            for (i, replica) in (11..).zip(&mut b.replicas) {
                replica.ip = v6(i);
            }
            b.publish();
            tuple(v6(5), 9, v6(2), 53, 17)
        } else {
            tuple(client(), 9, vip(), 53, 17)
        };
        let whole = udp((CLIENT, VIP_MAC), t, &[0x5a; 5000]);
        let mut sent = pieces(&whole, 77, 1424);
        assert_eq!(forward_all(&mut b, &mut sent), [None; 4]);
        for piece in &sent {
            assert_eq!(
                weft_wire::frame::dst_mac(piece),
                weft_wire::frame::dst_mac(&sent[0])
            );
        }
        let got = reassembled(&sent);
        check(&got);
        let seen: FiveTuple = info(&got).five_tuple();
        assert_eq!((seen.src, seen.sport, seen.dport), (t.src, 9, 53));
        assert_eq!(b.table.len(), 1, "one datagram is one flow");

        let reply = udp((VIP_MAC, CLIENT), seen.reversed(), &[7; 8000]);
        let mut back = pieces(&reply, 78, 1424);
        for piece in &mut back {
            assert!(matches!(b.reverse(piece), Reverse::Rewritten { .. }));
        }
        let got = reassembled(&back);
        check(&got);
        assert_eq!(info(&got).five_tuple(), t.reversed());
    }
}

#[test]
fn published_ports_take_fragments_too() {
    let mut b = Bench::new(1);
    let t = tuple(host_ip(), 5000, mesh_ip(), 8000, 17);
    let mut sent = pieces(&udp((CLIENT, VIP_MAC), t, &[1; 3000]), 1, 1424);
    for piece in &mut sent {
        assert!(matches!(
            b.forward(&mesh(), piece),
            Forward::Rewritten { .. }
        ));
    }
    let got = reassembled(&sent);
    check(&got);
    assert_eq!(
        info(&got).five_tuple(),
        tuple(v4(200), 5000, v4(11), 53, 17)
    );
}

#[test]
fn later_fragments_in_any_order_follow_the_first() {
    let mut b = Bench::new(1);
    let mut sent = pieces(&question(9, 5000), 1, 1424);
    sent[1..].reverse();
    assert_eq!(forward_all(&mut b, &mut sent), [None; 4]);
    sent[1..].reverse();
    check(&reassembled(&sent));
}

#[test]
fn a_later_fragment_that_comes_first_is_dropped() {
    let mut b = Bench::new(1);
    let early = Some(DropReason::FragmentEarly);
    let mut sent = pieces(&question(9, 3000), 1, 1424);
    assert_eq!(dropped(b.forward(&port(), &mut sent[1])), early);
    assert!(b.table.is_empty());
    assert_eq!(dropped(b.forward(&port(), &mut sent[0])), None);
    assert_eq!(dropped(b.forward(&port(), &mut sent[2])), None);
    // Of another datagram, another client, another protocol.
    for (id, src, proto) in [(2, 5, 17), (1, 6, 17), (1, 5, TCP)] {
        let mut other = pieces(&question(9, 3000), id, 1424).swap_remove(1);
        other[14 + 15] = src;
        other[14 + 9] = proto;
        assert_eq!(dropped(b.forward(&port(), &mut other)), early);
    }
}

#[test]
fn entries_are_forgotten_after_five_seconds_or_when_all_has_come() {
    let mut b = Bench::new(1);
    let early = Some(DropReason::FragmentEarly);
    let sent = pieces(&question(9, 3000), 1, 1424);
    b.forward(&port(), &mut sent[0].clone());
    b.pass(Duration::from_millis(4999));
    assert_eq!(dropped(b.forward(&port(), &mut sent[1].clone())), None);
    b.pass(Duration::from_millis(2));
    assert_eq!(dropped(b.forward(&port(), &mut sent[2].clone())), early);
    // All has come: nothing more is expected.
    assert_eq!(forward_all(&mut b, &mut sent.clone()), [None; 3]);
    assert_eq!(dropped(b.forward(&port(), &mut sent[1].clone())), early);
    // The identification may be used again at once.
    assert_eq!(forward_all(&mut b, &mut sent.clone()), [None; 3]);
}

#[test]
fn rfc1858_rfc5722_nothing_covers_the_header_that_was_checked() {
    let overlap = Some(DropReason::FragmentOverlap);
    let whole = question(9, 3000);
    for from in [8, 16, 1416] {
        let mut b = Bench::new(1);
        let sent = pieces(&whole, 1, 1424);
        assert_eq!(dropped(b.forward(&port(), &mut sent[0].clone())), None);
        let mut over = piece(&whole, 1, from, from + 16, true);
        assert_eq!(dropped(b.forward(&port(), &mut over)), overlap);
        // The whole datagram is lost with it, and only that.
        assert_eq!(dropped(b.forward(&port(), &mut sent[1].clone())), overlap);
        let mut next = pieces(&whole, 2, 1424);
        assert_eq!(forward_all(&mut b, &mut next), [None; 3]);
    }
    // A second header for other ports.
    let mut b = Bench::new(1);
    let sent = pieces(&whole, 1, 1424);
    b.forward(&port(), &mut sent[0].clone());
    let mut other = pieces(&question(10, 3000), 1, 1424).swap_remove(0);
    assert_eq!(dropped(b.forward(&port(), &mut other)), overlap);
    assert_eq!(b.table.len(), 1, "no flow for it");
    assert_eq!(dropped(b.forward(&port(), &mut sent[1].clone())), overlap);
}

#[test]
fn what_does_not_add_up_is_dropped() {
    let mut b = Bench::new(1);
    let whole = question(9, 3000);
    let sent = pieces(&whole, 1, 1424);
    b.forward(&port(), &mut sent[0].clone());
    // The end is known, and something comes behind it.
    let mut end = piece(&whole, 1, 1424, 1432, false);
    let mut behind = piece(&whole, 1, 1440, 1448, true);
    b.forward(&port(), &mut end);
    let reason = dropped(b.forward(&port(), &mut behind));
    assert!(reason.is_some());
    // An inner fragment of uneven length.
    let mut uneven = piece(&whole, 2, 0, 1421, true);
    assert_eq!(
        dropped(b.forward(&port(), &mut uneven)),
        Some(DropReason::BadFragment)
    );
    // A first fragment too short for its transport header does not pass the parser.
    let syn = to_vip(9, SYN, 1, 0, &[0; 64]);
    let tiny = piece(&syn, 3, 0, 16, true);
    assert_eq!(
        weft_wire::frame::parse(&tiny),
        Err(DropReason::BadTransportHeader)
    );
}

#[test]
fn fragments_do_not_outlive_their_flow() {
    let mut b = Bench::new(1);
    let sent = pieces(&question(9, 3000), 1, 1424);
    b.forward(&port(), &mut sent[0].clone());
    b.replicas.clear();
    b.publish();
    let gone = Some(DropReason::NoReplica);
    assert_eq!(dropped(b.forward(&port(), &mut sent[1].clone())), gone);
    b.table.close_port(weft_wire::PortId(1), |_| ());
    assert_eq!(dropped(b.forward(&port(), &mut sent[2].clone())), gone);
    // A first fragment is refused as any packet is.
    let mut first = sent[0].clone();
    assert!(matches!(b.forward(&port(), &mut first), Forward::Refuse(_)));
    let early = Some(DropReason::FragmentEarly);
    assert_eq!(dropped(b.forward(&port(), &mut sent[1].clone())), early);
}

#[test]
fn a_replicas_own_fragments_are_not_touched() {
    let mut b = Bench::new(1);
    b.open(1);
    let own = udp(
        (CLIENT, VIP_MAC),
        tuple(v4(11), 9, client(), 53, 17),
        &[1; 3000],
    );
    for mut piece in pieces(&own, 1, 1424) {
        let before = piece.clone();
        assert!(matches!(b.reverse(&mut piece), Reverse::NotAFlow));
        assert_eq!(piece, before);
    }
}

#[test]
fn fragments_of_a_first_answer_reach_the_owner_together() {
    let mut b = local_bench(1);
    let mut other = other_worker();
    let mut asked = question(9, 8);
    let Forward::Rewritten {
        install: Some(install),
        ..
    } = b.forward(&port(), &mut asked)
    else {
        panic!("no install");
    };
    assert!(other.install(b.now, install));
    let seen = info(&asked).five_tuple();
    let reply = udp((VIP_MAC, CLIENT), seen.reversed(), &[7; 3000]);
    let mut first = pieces(&reply, 1, 1424);
    for piece in &mut first {
        assert!(matches!(
            reverse(&mut other, &b, piece),
            Reverse::ToOwner { worker: 0 }
        ));
        assert!(matches!(b.reverse(piece), Reverse::Rewritten { .. }));
    }
    check(&reassembled(&first));
    let mut second = pieces(&reply, 2, 1424);
    for piece in &mut second {
        assert!(matches!(
            reverse(&mut other, &b, piece),
            Reverse::Rewritten { .. }
        ));
    }
    check(&reassembled(&second));
}

#[test]
fn a_flood_of_first_fragments_leaves_most_others_alone() {
    let mut b = Bench::new(1);
    let IpAddr::V4(flooder) = v4(250) else {
        panic!()
    };
    let others: Vec<_> = (20..84)
        .map(|last| {
            let t = tuple(v4(last), 9, vip(), 53, 17);
            pieces(&udp((CLIENT, VIP_MAC), t, &[1; 3000]), 1, 1424)
        })
        .collect();
    for sent in &others {
        b.forward(&port(), &mut sent[0].clone());
    }
    let t = tuple(IpAddr::V4(flooder), 9, vip(), 53, 17);
    let flood = udp((CLIENT, VIP_MAC), t, &[1; 3000]);
    for id in 0..5000 {
        b.forward(&port(), &mut piece(&flood, id, 0, 1424, true));
    }
    let lost = others
        .iter()
        .filter(|sent| dropped(b.forward(&port(), &mut sent[1].clone())).is_some())
        .count();
    assert!(lost <= 8, "{lost} of 64 lost their fragments");
}

proptest! {
    /// Every later fragment that passes has a first one behind it that passed less than five
    /// seconds ago, and stays clear of what that one holds.
    #[test]
    fn no_fragment_bypasses_the_first(
        steps in prop::collection::vec(
            (0_u32..3, 0_usize..8, 1_usize..4, any::<bool>(), 0_u64..3000, 9_u16..11),
            1..60,
        ),
    ) {
        let mut b = Bench::new(2);
        let mut firsts = [None::<(u64, usize)>; 3];
        let mut millis = 0;
        for (id, from, len, more, wait, sport) in steps {
            b.pass(Duration::from_millis(wait));
            millis += wait;
            let (from, to) = (from * 8, (from + len) * 8);
            if from == 0 && !more {
                continue;
            }
            let mut frame = piece(&question(sport, 200), id, from, to, more);
            let verdict = b.forward(&port(), &mut frame);
            let Forward::Rewritten { .. } = verdict else { continue };
            let first = &mut firsts[id as usize];
            if from == 0 {
                *first = Some((millis, to));
            } else {
                let (when, end) = first.expect("a first fragment");
                prop_assert!(from >= end, "{} covers the first {}", from, end);
                prop_assert!(millis < when + 5000);
            }
        }
    }
}
