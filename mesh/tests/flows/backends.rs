//! Replicas that go, drain and come back.

use std::time::Duration;

use weft_mesh::{Context, Forward, Refusal, Reset, ResetTo, Target};
use weft_wire::{DropReason, PortId};

use crate::bench::*;

fn sweep(b: &mut Bench) -> Vec<(ResetTo, Vec<u8>)> {
    let mut resets = Vec::new();
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    let keep = |r: Reset<'_>, resets: &mut Vec<_>| resets.push((r.to, r.frame.to_vec()));
    while !b.table.sweep(&cx, 2, |r| keep(r, &mut resets)) {}
    resets
}

#[test]
fn both_ends_are_reset_when_the_replica_is_gone() {
    let mut b = Bench::new(2);
    let mut seen = Vec::new();
    for sport in 1..=6 {
        seen.push((sport, b.open(sport)));
    }
    b.forwarded(&port(), to_vip(1, ACK, 101, 501, b"12345"));
    b.forwarded(&port(), to_vip(1, ACK, 106, 777, b""));
    assert_eq!(b.own(), [3, 3]);
    let (_, first) = seen[0];
    let gone = b.replica_at(first.dst);
    let mac = b.replicas[gone].mac;
    b.replicas.remove(gone);
    b.publish();
    let resets = sweep(&mut b);
    assert_eq!(b.loads[gone].own(), 0);
    assert_eq!(b.table.len(), 3);
    assert_eq!((resets.len(), b.table.counters().lost_replica), (6, 3));
    for (_, frame) in &resets {
        check(frame);
        assert_eq!(info(frame).tcp_flags, RST | ACK);
    }
    let find = |to: ResetTo, port: u16| {
        resets
            .iter()
            .find(|(t, f)| *t == to && (info(f).dport == port || info(f).sport == port))
            .map(|(_, f)| f.clone())
            .unwrap()
    };
    let to_client = find(ResetTo::Client(Target::Port(PortId(1))), 1);
    assert_eq!(
        info(&to_client).five_tuple(),
        tuple(vip(), 80, client(), 1, 6)
    );
    // In the middle of both windows, so that both ends believe it.
    assert_eq!(to_client[38..42], 777u32.to_be_bytes());
    assert_eq!(to_client[42..46], 106u32.to_be_bytes());
    let to_replica = find(ResetTo::Replica { vni: vni(), mac }, 1);
    assert_eq!(info(&to_replica).five_tuple(), first);
    assert_eq!(to_replica[38..42], 106u32.to_be_bytes());
    // A second sweep finds nothing.
    assert!(sweep(&mut b).is_empty());
}

#[test]
fn a_client_that_has_not_acknowledged_anything_believes_its_reset() {
    let mut b = Bench::new(1);
    let seen = b.half_open(1);
    b.returned(&port(), answer(seen, SYN | ACK, 500, 101, b""));
    b.replicas.clear();
    b.publish();
    let resets = sweep(&mut b);
    assert_eq!(resets.len(), 2);
    // The client may be open by now: it takes what comes next, and nothing else.
    let (to, reset) = &resets[0];
    assert_eq!(*to, ResetTo::Client(Target::Port(PortId(1))));
    assert_eq!(reset[38..42], 501_u32.to_be_bytes());
    assert_eq!(reset[42..46], 101_u32.to_be_bytes());
}

#[test]
fn nobody_gets_a_reset_without_its_numbers() {
    // After a restart the ends of a connection have said nothing yet.
    let mut b = Bench::new(1);
    let memory = crate::journal::recorded(&mut b);
    let quiet = b.open(1);
    let seen = b.open(2);
    assert_eq!(crate::journal::restart(&mut b, &memory), 2);
    b.returned(&port(), answer(seen, ACK, 501, 777, b"more"));
    b.replicas.clear();
    b.publish();
    let resets = sweep(&mut b);
    let [(ResetTo::Replica { .. }, reset)] = &resets[..] else {
        panic!("{resets:?}");
    };
    assert_eq!(info(reset).five_tuple(), seen, "not {quiet:?}");
    assert_eq!(reset[38..42], 777_u32.to_be_bytes());
    // What the client says is answered with a reset for its own numbers.
    assert!(matches!(
        b.forward(&port(), &mut to_vip(1, ACK, 101, 501, b"data")),
        Forward::Refuse(Refusal::Reset(DropReason::NotAFlow))
    ));
}

#[test]
fn a_segment_that_comes_before_the_sweep_is_answered_with_a_reset() {
    let mut b = Bench::new(2);
    let seen = b.open(1);
    b.replicas.remove(b.replica_at(seen.dst));
    b.publish();
    assert!(matches!(
        b.forward(&port(), &mut to_vip(1, ACK, 101, 501, b"data")),
        Forward::Refuse(Refusal::Reset(DropReason::NotAFlow))
    ));
    assert_eq!((b.table.len(), b.own()), (0, vec![0, 0]));
    // The client opens a new one, on the replica that is left.
    assert_ne!(b.open(1).dst, seen.dst);
}

#[test]
fn an_unanswered_connection_moves_from_a_lost_replica() {
    let mut b = Bench::new(2);
    let first = b.half_open(1);
    b.replicas.remove(b.replica_at(first.dst));
    b.publish();
    assert!(sweep(&mut b).is_empty());
    let second = b.half_open(1);
    assert_ne!(first.dst, second.dst);
    // Without any replica left it is refused.
    b.replicas.clear();
    b.publish();
    assert!(matches!(
        b.forward(&port(), &mut to_vip(1, SYN, 100, 0, b"")),
        Forward::Refuse(Refusal::Reset(DropReason::NoReplica))
    ));
    assert_eq!((b.table.len(), b.own()), (0, vec![0, 0]));
}

#[test]
fn datagrams_move_to_another_replica() {
    let mut b = Bench::new(2);
    let t = tuple(client(), 9, vip(), 53, 17);
    let first = info(&b.forwarded(&port(), udp((CLIENT, VIP_MAC), t, b"1"))).dst;
    b.replicas.remove(b.replica_at(first));
    b.publish();
    let second = info(&b.forwarded(&port(), udp((CLIENT, VIP_MAC), t, b"2"))).dst;
    assert_ne!(first, second);
    assert_eq!((b.table.len(), b.own().iter().sum::<u32>()), (1, 1));
    // A sweep ends datagrams without a word.
    b.replicas.clear();
    b.publish();
    assert!(sweep(&mut b).is_empty());
    assert!(b.table.is_empty());
}

#[test]
fn draining_keeps_what_is_open_and_takes_nothing_new() {
    let mut b = Bench::new(2);
    let seen = b.open(1);
    let draining = b.replica_at(seen.dst);
    b.replicas[draining].draining = true;
    b.publish();
    assert!(sweep(&mut b).is_empty());
    for sport in 2..20 {
        assert_ne!(b.open(sport).dst, seen.dst);
    }
    b.forwarded(&port(), to_vip(1, ACK, 101, 501, b"data"));
    b.returned(&port(), answer(seen, ACK, 501, 105, b"data"));
    assert_eq!(b.loads[draining].own(), 1);
}

#[test]
fn new_connections_go_where_the_fewest_are_open() {
    let mut b = Bench::new(4);
    for sport in 0..40 {
        b.open(sport);
    }
    assert_eq!(b.own(), [10; 4]);
    b.loads[2].set_others(30);
    for sport in 40..70 {
        b.open(sport);
    }
    assert_eq!(b.own(), [20, 20, 10, 20]);
}

#[test]
fn the_flows_of_a_removed_port_are_ended() {
    let mut b = Bench::new(2);
    b.open(1);
    b.half_open(2);
    b.forwarded(&mesh(), to_mesh(3, 8000, SYN, 1));
    let mut told = Vec::new();
    assert_eq!(b.table.close_port(PortId(2), |_| ()), 0);
    let closed = b.table.close_port(PortId(1), |r| told.push(r.to));
    assert_eq!((closed, b.table.len()), (2, 1));
    assert!(told.iter().all(|to| matches!(to, ResetTo::Replica { .. })));
    assert_eq!(told.len(), 2);
    b.pass(Duration::from_secs(100));
    assert_eq!(b.table.expire(b.now, 10), 1);
    assert_eq!(b.own(), [0, 0]);
}
