//! Clients of another node's published port, on the node of their replica: what ends an entry, and what
//! only looks like it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use weft_mesh::{CarriageKind, Carried, Context, FlowState, Reverse};
use weft_wire::{FiveTuple, Mac};

use crate::bench::*;

const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const VIA: Mac = Mac([2, 0x42, 10, 0, 0, 201]);
/// Far from all numbers of a connection here.
const FAR: u32 = 1 << 31;

fn sent(sport: u16) -> FiveTuple {
    tuple(OUTSIDE, sport, v4(11), 80, 6)
}

/// A segment of the client, by the other node; as the replica sees it.
fn arrive(b: &mut Bench, sport: u16, segment: (u8, u32, u32)) -> FiveTuple {
    let mut frame = tcp((VIA, b.replicas[0].mac), sent(sport), segment, b"");
    let parsed = info(&frame);
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    b.table.arrived(&cx, vni(), &mut frame, &parsed, false);
    check(&frame);
    info(&frame).five_tuple()
}

/// A segment of the replica; whether it goes back by the node that the client came through.
fn returns(b: &mut Bench, seen: FiveTuple, (flags, seq, ack): (u8, u32, u32)) -> bool {
    let mut frame = answer(seen, flags, seq, ack, b"");
    match b.reverse(&mut frame) {
        Reverse::Return { dst_mac } => {
            assert_eq!(dst_mac, VIA);
            check(&frame);
            assert_eq!(
                info(&frame).five_tuple(),
                sent(info(&frame).dport).reversed()
            );
            true
        }
        Reverse::NotAFlow => false,
        other => panic!("{other:?}"),
    }
}

/// An open connection: the client is at 101, the replica at 501.
fn open(b: &mut Bench, sport: u16) -> FiveTuple {
    let seen = arrive(b, sport, (SYN, 100, 0));
    assert!(returns(b, seen, (SYN | ACK, 500, 101)));
    assert_eq!(arrive(b, sport, (ACK, 101, 501)), seen);
    seen
}

/// Whether the entry is there after everything that is over has been forgotten.
fn stays(b: &mut Bench, seen: FiveTuple) -> bool {
    b.pass(Duration::from_secs(11));
    b.table.expire(b.now, 100);
    returns(b, seen, (ACK, 501, 101))
}

#[test]
fn a_reset_that_only_guesses_the_sequence_number_ends_no_entry() {
    let mut b = Bench::new(1);
    let seen = open(&mut b, 40_000);
    for seq in [FAR, 101 + (80 << 20), 101_u32.wrapping_sub(80 << 20)] {
        assert_eq!(arrive(&mut b, 40_000, (RST, seq, 0)), seen, "it goes on");
        assert!(stays(&mut b, seen), "{seq}");
    }
    // The client's own, of data that got lost on a long way.
    arrive(&mut b, 40_000, (RST, 101 + (12 << 20), 0));
    assert!(!stays(&mut b, seen));
    // The first packet of all is no reset, which may be one of a connection before all that is known.
    assert_eq!(arrive(&mut b, 40_000, (RST, 101, 0)), seen);
    assert!(b.table.is_empty());
}

#[test]
fn what_a_stranger_said_first_does_not_keep_an_entry_for_ever() {
    let mut b = Bench::new(1);
    // In mid-stream, as after a restart: the numbers are not the client's.
    let seen = arrive(&mut b, 40_000, (ACK, FAR, 7));
    for seq in [101, 301, 501] {
        arrive(&mut b, 40_000, (ACK, seq, 501));
    }
    arrive(&mut b, 40_000, (RST, 501, 0));
    assert!(
        stays(&mut b, seen),
        "nobody has said that these are the client's"
    );
    // The replica has, as it answers in any case.
    assert!(returns(&mut b, seen, (ACK, 501, 501)));
    arrive(&mut b, 40_000, (RST, 501, 0));
    assert!(!stays(&mut b, seen));
    // Nor does an opening of a stranger in the middle.
    let seen = open(&mut b, 40_001);
    arrive(&mut b, 40_001, (SYN, FAR, 0));
    assert!(returns(&mut b, seen, (ACK, 501, 101)), "it is challenged");
    arrive(&mut b, 40_001, (RST, 101, 0));
    assert!(!stays(&mut b, seen));
}

#[test]
fn an_entry_that_nothing_is_known_of_believes_the_first_reset() {
    let mut b = Bench::new(1);
    let memory = crate::journal::recorded(&mut b);
    let seen = open(&mut b, 40_000);
    assert_eq!(crate::journal::restart(&mut b, &memory), 1);
    assert!(stays(&mut b, seen));
    let end = 101 + (3 << 20);
    arrive(&mut b, 40_000, (RST, end, 0));
    assert!(!stays(&mut b, seen));
}

#[test]
fn a_reset_of_the_replica_that_its_client_ignores_ends_no_entry() {
    let mut b = Bench::new(1);
    // It answers a segment of the connection before, which is not this one's opening.
    let seen = arrive(&mut b, 40_000, (SYN, 100, 0));
    for stale in [(RST, 9, 0), (RST | ACK, 0, FAR)] {
        assert!(returns(&mut b, seen, stale), "the client's node decides");
        assert!(stays(&mut b, seen), "{stale:?}");
    }
    assert!(returns(&mut b, seen, (SYN | ACK, 500, 101)));
    assert!(returns(&mut b, seen, (RST, FAR, 0)));
    assert!(stays(&mut b, seen));
    arrive(&mut b, 40_000, (ACK, 101, 501));
    assert!(returns(
        &mut b,
        seen,
        (RST, 501_u32.wrapping_sub(8 << 20), 0)
    ));
    assert!(stays(&mut b, seen));
    // All that a client may have in its window is its.
    assert!(returns(&mut b, seen, (RST | ACK, 501 + (1 << 29), 101)));
    assert!(!stays(&mut b, seen));
    // A refusal.
    let seen = arrive(&mut b, 40_001, (SYN, 100, 0));
    assert!(returns(&mut b, seen, (RST | ACK, 0, 101)));
    assert!(!stays(&mut b, seen));
    // One by a program that ended when it had answered already.
    let seen = arrive(&mut b, 40_002, (SYN, 100, 0));
    assert!(returns(&mut b, seen, (SYN | ACK, FAR, 101)));
    assert!(returns(&mut b, seen, (RST | ACK, 0, 101)));
    assert!(!stays(&mut b, seen));
}

#[test]
fn a_stale_reset_of_a_replica_ends_no_connection_of_this_node_either() {
    let mut b = Bench::new(1);
    let seen = b.open(1);
    let of = tuple(client(), 1, vip(), 80, 6);
    b.returned(&port(), answer(seen, RST, FAR, 0, b""));
    assert_eq!(b.table.state_of(vni(), of), Some(FlowState::Established));
    assert_eq!(b.own(), [1]);
    b.returned(&port(), answer(seen, RST, 501, 0, b""));
    assert_eq!(b.table.state_of(vni(), of), Some(FlowState::Reset));
}

/// What the kernel has carried since the numbers here were noted is more than belongs together.
#[test]
fn a_reset_of_the_replica_counts_while_it_is_not_told_what_was_carried() {
    let mut b = Bench::new(1);
    let seen = b.open(1);
    let of = tuple(client(), 1, vip(), 80, 6);
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    let kind = CarriageKind::Virtual;
    assert!(b.table.carry(&cx, kind, (vni(), of)).is_some());
    // In one round with a FIN, after which nobody carries it any more.
    b.returned(&port(), answer(seen, FIN | ACK, FAR, 101, b""));
    b.returned(&port(), answer(seen, RST, FAR, 0, b""));
    assert_eq!(b.table.state_of(vni(), of), Some(FlowState::Reset));
}

#[test]
fn a_clients_reset_has_the_numbers_of_what_was_carried_from_its_replica() {
    let mut b = Bench::new(1);
    let seen = open(&mut b, 40_000);
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    let of = (vni(), seen.reversed());
    assert!(b.table.carry(&cx, CarriageKind::Return, of).is_some());
    let told = Carried {
        from_client: 0,
        to_client: 0,
        last: b.now,
        client: Some((FAR, 0)),
    };
    b.table.carried(&cx, CarriageKind::Return, of, &told);
    arrive(&mut b, 40_000, (RST, 101, 0));
    assert!(stays(&mut b, seen));
    arrive(&mut b, 40_000, (RST, FAR + 1000, 0));
    assert!(!stays(&mut b, seen));
}

#[test]
fn a_client_may_open_again_from_a_port_whose_connection_is_over() {
    let mut b = Bench::new(1);
    let by_port = open(&mut b, 40_000);
    arrive(&mut b, 40_000, (RST, 101, 0));
    for first in [100, FAR, 100] {
        let seen = arrive(&mut b, 40_000, (SYN, first, 0));
        assert_eq!(
            seen, by_port,
            "its kernel knows what became of the last one"
        );
        assert!(returns(&mut b, seen, (SYN | ACK, first, first + 1)));
        arrive(&mut b, 40_000, (ACK, first + 1, first + 1));
        arrive(&mut b, 40_000, (FIN | ACK, first + 1, first + 1));
        assert!(returns(&mut b, seen, (FIN | ACK, first + 1, first + 2)));
        assert_eq!(b.table.len(), 1);
    }
}
