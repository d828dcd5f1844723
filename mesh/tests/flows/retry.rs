//! Connections that a replica does not take.

use std::time::Duration;

use weft_mesh::{FlowConfig, FlowState, Forward, Protocol, Refusal, Reverse};
use weft_wire::{DropReason, FiveTuple};

use crate::bench::*;

/// Refuses as the replica would; the next replica's view when the connection was moved.
fn refuse(b: &mut Bench, seen: FiveTuple) -> Option<FiveTuple> {
    let mut reset = answer(seen, RST | ACK, 0, 101, b"");
    match b.reverse(&mut reset) {
        Reverse::Retry { dst_mac, .. } => {
            let frame = b.table.retry_frame();
            check(frame);
            assert_eq!(weft_wire::frame::dst_mac(frame), dst_mac);
            assert_eq!(info(frame).tcp_flags, SYN);
            Some(info(frame).five_tuple())
        }
        Reverse::Rewritten { .. } => {
            check(&reset);
            assert_eq!(info(&reset).src, vip());
            None
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refused_connection_goes_to_each_other_replica_and_then_the_client_is_told() {
    let mut b = Bench::new(3);
    let mut seen = b.half_open(40_000);
    let mut asked = vec![seen.dst];
    while let Some(next) = refuse(&mut b, seen) {
        assert_eq!(b.own().iter().sum::<u32>(), 1);
        asked.push(next.dst);
        seen = next;
    }
    asked.sort_unstable();
    assert_eq!(asked, [v4(11), v4(12), v4(13)]);
    assert_eq!(b.own(), [0, 0, 0]);
    assert_eq!(b.loads.iter().map(|l| l.tally().refused()).sum::<u64>(), 3);
    let c = b.table.counters();
    assert_eq!((c.created, c.retried, c.refused), (1, 2, 1));
}

#[test]
fn a_moved_connection_works_and_its_first_replica_is_forgotten() {
    let mut b = Bench::new(2);
    let first = b.half_open(40_000);
    let second = refuse(&mut b, first).unwrap();
    b.returned(&port(), answer(second, SYN | ACK, 9, 101, b""));
    let sent = b.forwarded(&port(), to_vip(40_000, ACK, 101, 10, b"hello"));
    assert_eq!(info(&sent).dst, second.dst);
    let mut late = answer(first, SYN | ACK, 1, 101, b"");
    assert!(matches!(b.reverse(&mut late), Reverse::NotAFlow));
    let at = b.replica_at(second.dst);
    assert_eq!(b.loads[at].tally().accepted(), 1);
}

#[test]
fn what_a_moved_connection_does_is_counted_where_it_belongs() {
    let mut b = Bench::new(2);
    let first = b.half_open(40_000);
    b.pass(Duration::from_millis(7));
    let second = refuse(&mut b, first).unwrap();
    b.pass(Duration::from_millis(3));
    b.returned(&port(), answer(second, SYN | ACK, 9, 101, b""));
    b.forwarded(&port(), to_vip(40_000, ACK, 101, 10, b"hello"));
    b.returned(&port(), answer(second, ACK, 10, 106, b"good day"));
    let figures = |ip| {
        let load = b.loads[b.replica_at(ip)].tally();
        let connect = load.connect();
        (
            (load.refused(), load.retried()),
            (load.rx_bytes(), load.tx_bytes()),
            (connect.count(), connect.total()),
        )
    };
    let zero = Duration::ZERO;
    assert_eq!(figures(first.dst), ((1, 1), (0, 0), (0, zero)));
    let took = Duration::from_millis(3);
    assert_eq!(figures(second.dst), ((0, 0), (5, 8), (1, took)));
}

#[test]
fn a_retry_is_counted_at_its_port_whoever_accepted_the_connection() {
    let mut b = Bench::new(2);
    let sent = b.forwarded(&mesh(), to_mesh(40_000, 8001, SYN, 100));
    let seen = info(&sent).five_tuple();
    refuse(&mut b, seen).unwrap();
    let retried = |port| {
        let published = b.services.published(Protocol::Tcp, port).unwrap();
        let tally = published.load.tally();
        (tally.retried(), tally.accepted())
    };
    assert_eq!((retried(8000), retried(8001)), ((0, 0), (1, 0)));
}

#[test]
fn a_connection_that_is_never_answered_has_failed() {
    let mut b = Bench::new(1);
    b.half_open(40_000);
    b.pass(Duration::from_secs(80));
    b.table.expire(b.now, 10);
    let tally = b.loads[0].tally();
    assert_eq!((tally.refused(), tally.retried()), (1, 0));
    // One that was answered, and then given up by its client, has not.
    let seen = b.half_open(40_001);
    b.returned(&port(), answer(seen, SYN | ACK, 9, 101, b""));
    b.pass(Duration::from_secs(80));
    b.table.expire(b.now, 10);
    assert_eq!(b.loads[0].tally().refused(), 1);
}

#[test]
fn rfc9293_s3_10_7_3_a_reset_that_does_not_acknowledge_the_syn_is_ignored() {
    let mut b = Bench::new(2);
    let seen = b.half_open(40_000);
    for (flags, ack) in [(RST, 0), (RST | ACK, 100 + 70_000), (RST | ACK, 102)] {
        let mut forged = answer(seen, flags, 0, ack, b"");
        assert!(matches!(
            b.reverse(&mut forged),
            Reverse::Drop(DropReason::NotAFlow)
        ));
    }
    b.returned(&port(), answer(seen, SYN | ACK, 1, 101, b""));
}

#[test]
fn an_unanswered_syn_goes_elsewhere_when_the_client_repeats_it() {
    let mut b = Bench::new(3);
    let mut asked = vec![b.half_open(40_000).dst];
    for _ in 0..2 {
        b.pass(Duration::from_secs(1));
        asked.push(b.half_open(40_000).dst);
    }
    asked.sort_unstable();
    assert_eq!(asked, [v4(11), v4(12), v4(13)]);
    // All were asked: the last one goes on being asked.
    let last = b.half_open(40_000);
    assert_eq!(b.half_open(40_000), last);
    assert_eq!(b.table.len(), 1);
    assert_eq!(b.own().iter().sum::<u32>(), 1);
    // An answered one stays where it is.
    b.returned(&port(), answer(last, SYN | ACK, 1, 101, b""));
    assert_eq!(b.half_open(40_000), last);
}

#[test]
fn a_replica_that_ends_before_its_answer_arrives_is_replaced_unseen() {
    let mut b = Bench::new(2);
    let first = b.half_open(40_000);
    // The answer is lost on its way to the client, and the replica is killed.
    b.returned(&port(), answer(first, SYN | ACK, 9, 101, b""));
    b.pass(Duration::from_secs(1));
    assert_eq!(b.half_open(40_000), first);
    let second = refuse(&mut b, first).expect("another replica is asked");
    assert_ne!(second.dst, first.dst);
    b.returned(&port(), answer(second, SYN | ACK, 20, 101, b""));
    let sent = b.forwarded(&port(), to_vip(40_000, ACK, 101, 21, b"hello"));
    assert_eq!(info(&sent).dst, second.dst);
    assert_eq!(b.own().iter().sum::<u32>(), 1);
}

#[test]
fn a_repeated_syn_that_is_answered_again_stays_with_its_replica() {
    let mut b = Bench::new(2);
    let seen = b.half_open(40_000);
    b.returned(&port(), answer(seen, SYN | ACK, 9, 101, b""));
    for wait in [1, 2, 4] {
        b.pass(Duration::from_secs(wait));
        assert_eq!(b.half_open(40_000), seen);
        b.returned(&port(), answer(seen, SYN | ACK, 9, 101, b""));
    }
    b.forwarded(&port(), to_vip(40_000, ACK, 101, 10, b"hello"));
    // From here on a reset of the replica is the client's.
    assert_eq!(refuse(&mut b, seen), None);
}

#[test]
fn a_reset_of_an_open_connection_reaches_the_client() {
    let mut b = Bench::new(2);
    let seen = b.open(40_000);
    b.returned(&port(), answer(seen, RST, 501, 0, b""));
    assert_eq!(
        b.table
            .state_of(vni(), tuple(client(), 40_000, vip(), 80, 6)),
        Some(FlowState::Reset)
    );
    assert_eq!(b.own(), [0, 0]);
}

#[test]
fn without_a_copy_of_the_syn_the_refusal_reaches_the_client() {
    let mut b = Bench::with(
        2,
        FlowConfig {
            syn_copies: 1,
            ..FlowConfig::default()
        },
    );
    let first = b.half_open(1);
    let second = b.half_open(2);
    assert_eq!(refuse(&mut b, first), None);
    assert!(refuse(&mut b, second).is_some());
}

#[test]
fn a_service_without_replicas_refuses_at_once() {
    let mut b = Bench::new(1);
    b.replicas[0].draining = true;
    b.publish();
    assert!(matches!(
        b.forward(&port(), &mut to_vip(1, SYN, 1, 0, b"")),
        Forward::Refuse(Refusal::Reset(DropReason::NoReplica))
    ));
    assert_eq!(b.table.counters().refused, 1);
}

#[test]
fn mesh_connections_are_moved_too() {
    let mut b = Bench::new(2);
    let first = info(&b.forwarded(&mesh(), to_mesh(40_000, 8000, SYN, 100))).five_tuple();
    let mut reset = answer(first, RST | ACK, 0, 101, b"");
    assert!(matches!(b.reverse(&mut reset), Reverse::Retry { .. }));
    let frame = b.table.retry_frame();
    check(frame);
    let second = info(frame).five_tuple();
    assert_ne!(first.dst, second.dst);
    assert_eq!((second.src, second.dport), (v4(200), 80));
    let back = info(&b.returned(&mesh(), answer(second, SYN | ACK, 1, 101, b"")));
    assert_eq!(
        back.five_tuple(),
        tuple(mesh_ip(), 8000, host_ip(), 40_000, 6)
    );
}

#[test]
fn a_kept_syn_with_a_partial_checksum_is_sent_on_complete() {
    let mut b = Bench::new(2);
    let mut syn = to_vip(40_000, SYN, 100, 0, b"");
    let before = info(&syn);
    let field = before.l4 + 16;
    let pseudo =
        weft_wire::checksum::pseudo_header(before.src, before.dst, 6, before.len - before.l4);
    syn[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let cx = weft_mesh::Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    assert!(matches!(
        b.table.forward(&cx, &port(), &mut syn, &before, true),
        Forward::Rewritten { .. }
    ));
    let seen = info(&syn).five_tuple();
    assert!(refuse(&mut b, seen).is_some());
}

#[test]
fn a_refusal_ends_a_connection_that_its_client_has_forgotten() {
    let mut b = Bench::new(2);
    let seen = b.open(1);
    // The client was cut off, and opens anew from its old port; the replica's program has ended.
    let again = info(&b.forwarded(&port(), to_vip(1, SYN, 3_000_000_000, 0, b""))).five_tuple();
    assert_eq!(again, seen, "the table knows no better");
    let refusal = answer(seen, RST | ACK, 0, 3_000_000_001, b"");
    let returned = b.returned(&port(), refusal);
    assert_eq!(
        info(&returned).tcp_flags,
        RST | ACK,
        "the client hears of it"
    );
    let request = tuple(client(), 1, vip(), 80, 6);
    let state = b.table.state_of(vni(), request);
    assert_eq!(state, Some(FlowState::Reset));
}
