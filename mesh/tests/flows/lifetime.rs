//! When flows end, and what makes room for new ones.

use std::time::Duration;

use weft_mesh::{FlowConfig, FlowState, Forward};
use weft_wire::{DropReason, Instant};

use crate::bench::*;

fn expire(b: &mut Bench) -> usize {
    let mut ended = 0;
    loop {
        let n = b.table.expire(b.now, 64);
        if b.table.next_deadline().is_none_or(|d| d > b.now) {
            return ended + n;
        }
        ended += n;
    }
}

fn state(b: &Bench, sport: u16) -> Option<FlowState> {
    b.table
        .state_of(vni(), tuple(client(), sport, vip(), 80, 6))
}

#[test]
fn an_open_connection_never_ends_by_being_idle() {
    let mut b = Bench::new(1);
    b.open(1);
    b.pass(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(expire(&mut b), 0);
    b.forwarded(&port(), to_vip(1, ACK, 101, 501, b"still here"));
    assert_eq!(state(&b, 1), Some(FlowState::Established));
}

#[test]
fn a_handshake_that_nobody_finishes_ends_after_75_seconds() {
    let mut b = Bench::new(1);
    b.half_open(1);
    let seen = b.half_open(2);
    b.returned(&port(), answer(seen, SYN | ACK, 1, 101, b""));
    b.pass(Duration::from_secs(74));
    assert_eq!(expire(&mut b), 0);
    assert_eq!((b.own(), b.table.active()), (vec![2], 2));
    b.pass(Duration::from_secs(3));
    assert_eq!(expire(&mut b), 2);
    assert_eq!((b.own(), b.table.active(), b.table.len()), (vec![0], 0, 0));
    assert_eq!(b.table.next_deadline(), None);
}

#[test]
fn both_closed_counts_as_ended_at_once_and_is_forgotten_after_10_seconds() {
    let mut b = Bench::new(1);
    let seen = b.open(1);
    assert_eq!(b.own(), [1]);
    b.forwarded(&port(), to_vip(1, FIN | ACK, 101, 501, b""));
    assert_eq!(b.own(), [1]);
    b.returned(&port(), answer(seen, FIN | ACK, 501, 102, b"tail"));
    assert_eq!((b.own(), b.table.active()), (vec![0], 0));
    // The last acknowledgement still finds its way.
    b.forwarded(&port(), to_vip(1, ACK, 102, 506, b""));
    b.pass(Duration::from_secs(12));
    assert_eq!(expire(&mut b), 1);
    assert!(b.table.is_empty());
}

#[test]
fn a_half_closed_connection_lives_while_it_is_used() {
    let mut b = Bench::new(1);
    let seen = b.open(1);
    b.forwarded(&port(), to_vip(1, FIN | ACK, 101, 501, b""));
    for _ in 0..10 {
        b.pass(Duration::from_secs(3000));
        expire(&mut b);
        b.returned(&port(), answer(seen, ACK, 501, 102, b"slow"));
    }
    b.pass(Duration::from_secs(3602));
    assert_eq!(expire(&mut b), 1);
}

#[test]
fn datagrams_are_forgotten_sooner_when_nobody_answered() {
    let mut b = Bench::new(1);
    let t = |sport| tuple(client(), sport, vip(), 53, 17);
    b.forwarded(&port(), udp((CLIENT, VIP_MAC), t(1), b"q"));
    let seen = info(&b.forwarded(&port(), udp((CLIENT, VIP_MAC), t(2), b"q"))).five_tuple();
    b.returned(&port(), udp((CLIENT, VIP_MAC), seen.reversed(), b"a"));
    b.pass(Duration::from_secs(32));
    assert_eq!(expire(&mut b), 1);
    assert_eq!(b.table.state_of(vni(), t(1)), None);
    assert_eq!(
        b.table.state_of(vni(), t(2)),
        Some(FlowState::DatagramsAnswered)
    );
    b.pass(Duration::from_secs(150));
    assert_eq!(expire(&mut b), 1);
    assert_eq!(b.own(), [0]);
}

#[test]
fn a_client_may_use_its_port_again_at_once() {
    let mut b = Bench::new(2);
    let seen = b.open(1);
    b.forwarded(&port(), to_vip(1, FIN | ACK, 101, 501, b""));
    b.returned(&port(), answer(seen, FIN | ACK, 501, 102, b""));
    b.half_open(1);
    assert_eq!(state(&b, 1), Some(FlowState::SynSent));
    assert_eq!((b.table.len(), b.own().iter().sum::<u32>()), (1, 1));
}

#[test]
fn a_full_table_forgets_half_open_connections_and_keeps_open_ones() {
    let mut b = Bench::with(
        1,
        FlowConfig {
            capacity: 8,
            ..FlowConfig::default()
        },
    );
    for sport in 0..4 {
        b.open(sport);
    }
    for sport in 100..1100 {
        b.half_open(sport);
    }
    assert_eq!(
        (b.table.len(), b.table.counters().evicted.handshakes),
        (8, 996)
    );
    assert_eq!(b.own(), [8]);
    for sport in 0..4 {
        assert_eq!(state(&b, sport), Some(FlowState::Established));
    }
    // The newest of the others are there.
    assert_eq!(state(&b, 1099), Some(FlowState::SynSent));
    assert_eq!(state(&b, 1000), None);
}

#[test]
fn a_table_full_of_open_connections_takes_no_more() {
    let mut b = Bench::with(
        1,
        FlowConfig {
            capacity: 4,
            ..FlowConfig::default()
        },
    );
    for sport in 0..4 {
        b.open(sport);
    }
    assert!(matches!(
        b.forward(&port(), &mut to_vip(9, SYN, 1, 0, b"")),
        Forward::Drop(DropReason::FlowTableFull)
    ));
    assert_eq!((b.own(), b.table.counters().full), (vec![4], 1));
    b.forwarded(&port(), to_vip(2, ACK, 101, 501, b"unharmed"));
}

#[test]
fn a_dropped_table_takes_its_counts_back() {
    let mut b = Bench::new(1);
    b.open(1);
    b.half_open(2);
    b.table = weft_mesh::FlowTable::new(FlowConfig::default());
    assert_eq!(b.own(), [0]);
}

#[test]
fn expiry_looks_at_no_more_than_its_budget() {
    let mut b = Bench::new(1);
    for sport in 0..100 {
        b.half_open(sport);
    }
    b.pass(Duration::from_secs(80));
    assert_eq!(b.table.expire(b.now, 30), 30);
    assert!(b.table.next_deadline() < Some(b.now));
    assert_eq!(expire(&mut b), 70);
    assert_eq!(b.table.expire(Instant(u64::MAX), 30), 0);
}

#[test]
fn a_reset_that_only_guesses_the_sequence_number_ends_nothing() {
    let mut b = Bench::new(1);
    b.open(1);
    let far = 101 + (1 << 30);
    // Nor does it help to prepare the ground.
    b.forwarded(&port(), to_vip(1, ACK, far, 501, b"forged"));
    for seq in [far, far + 6, 101_u32.wrapping_sub(1 << 30)] {
        b.forwarded(&port(), to_vip(1, RST, seq, 0, b""));
        assert_eq!(state(&b, 1), Some(FlowState::Established));
    }
    assert_eq!(b.own(), [1]);
    b.forwarded(&port(), to_vip(1, ACK, 101, 501, b"data"));
    b.forwarded(&port(), to_vip(1, RST, 105, 0, b""));
    assert_eq!(state(&b, 1), Some(FlowState::Reset));
}
