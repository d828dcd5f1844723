//! Replicas that fail are left out, and connections say how long they live.

use std::time::Duration;

use weft_mesh::{FlowState, Reverse};
use weft_wire::FiveTuple;

use crate::bench::*;

/// Refuses a connection as its replica would; the next replica's view of it.
fn refuse(b: &mut Bench, seen: FiveTuple) -> FiveTuple {
    let mut reset = answer(seen, RST | ACK, 0, 101, b"");
    let reverse = b.reverse(&mut reset);
    assert!(matches!(reverse, Reverse::Retry { .. }), "{reverse:?}");
    info(b.table.retry_frame()).five_tuple()
}

/// Connects again and again; the replica at `down` refuses. How often it was asked.
fn connect(b: &mut Bench, down: usize, sports: std::ops::Range<u16>) -> usize {
    let mut asked = 0;
    for sport in sports {
        let mut seen = b.half_open(sport);
        while b.replica_at(seen.dst) == down {
            asked += 1;
            seen = refuse(b, seen);
        }
        b.returned(&port(), answer(seen, SYN | ACK, 500, 101, b""));
    }
    asked
}

/// Every replica has answered on its port.
fn warm(replicas: u8) -> Bench {
    let mut b = Bench::new(replicas);
    for sport in 0..100 {
        b.open(sport);
    }
    b
}

#[test]
fn a_replica_that_refuses_is_left_out_and_tried_again() {
    let mut b = warm(3);
    assert_eq!(connect(&mut b, 1, 1000..1050), 3);
    assert!(b.loads[1].health().is_ejected(b.now));
    assert_eq!(b.loads[1].health().ejections(), 1);
    b.pass(Duration::from_secs(1));
    assert_eq!(connect(&mut b, 1, 1050..1100), 1, "one trial");
    assert_eq!(b.loads[1].health().ejections(), 2);
    b.pass(Duration::from_secs(2));
    // Now it answers.
    connect(&mut b, 9, 1100..1150);
    assert!(!b.loads[1].health().is_ejected(b.now));
    assert!(b.own()[1] > 40);
}

#[test]
fn a_port_where_nothing_ever_listened_says_nothing_of_the_replica() {
    let mut b = Bench::new(3);
    for sport in 0..30 {
        let mut seen = b.half_open(sport);
        for _ in 0..2 {
            seen = refuse(&mut b, seen);
        }
        assert_eq!(
            b.table.state_of(vni(), to_vip_tuple(sport)),
            Some(FlowState::SynSent)
        );
    }
    assert!(b.loads.iter().all(|l| l.health().ejections() == 0));
}

fn to_vip_tuple(sport: u16) -> FiveTuple {
    info(&to_vip(sport, SYN, 100, 0, b"")).five_tuple()
}

#[test]
fn silence_counts_and_an_impatient_client_does_not() {
    let mut b = warm(4);
    let again = |b: &mut Bench, wait: Duration| {
        let mut asked = Vec::new();
        for sport in 2000..2040 {
            asked.push((sport, b.half_open(sport)));
        }
        b.pass(wait);
        for (sport, seen) in asked {
            if b.replica_at(seen.dst) == 2 {
                b.forwarded(&port(), to_vip(sport, SYN, 100, 0, b""));
            }
        }
        b.loads[2].health().ejections()
    };
    assert_eq!(again(&mut b, Duration::from_millis(100)), 0);
    b.table = weft_mesh::FlowTable::new(weft_mesh::FlowConfig::default());
    assert_eq!(again(&mut b, Duration::from_secs(1)), 1);
}

#[test]
fn lifetimes_are_those_of_connections_that_lived() {
    let mut b = Bench::new(1);
    let service = std::sync::Arc::clone(&b.services.all()[0].balancer.load);
    let seen = b.half_open(1);
    let mut reset = answer(seen, RST | ACK, 0, 101, b"");
    b.reverse(&mut reset);
    assert_eq!(service.ended(), 0, "refused");
    b.open(2);
    b.pass(Duration::from_secs(7));
    b.forwarded(&port(), to_vip(2, RST, 101, 0, b""));
    assert_eq!(service.mean_lifetime(), Some(Duration::from_secs(7)));
    assert_eq!((service.ended(), b.own()[0]), (1, 0));
}
