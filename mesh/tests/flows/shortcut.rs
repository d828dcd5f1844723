//! Connections that are carried past the table.

use std::time::Duration;

use weft_mesh::{Carriage, Carried, Context, FlowState, Forward};
use weft_wire::{FiveTuple, Instant, PortId};

use crate::bench::*;

fn request(sport: u16) -> FiveTuple {
    tuple(client(), sport, vip(), 80, 6)
}

fn carry(b: &mut Bench, request: FiveTuple) -> Option<Carriage> {
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    b.table.carry(&cx, vni(), request)
}

fn carried(b: &mut Bench, sport: u16, last: Instant, client: Option<(u32, u32)>) {
    let carried = Carried {
        from_client: 1000,
        to_client: 70,
        last,
        client,
    };
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    b.table.carried(&cx, vni(), request(sport), &carried);
}

#[test]
fn a_connection_is_carried_while_it_is_open_and_needs_no_second_rewrite() {
    let mut b = Bench::new(1);
    assert_eq!(carry(&mut b, request(1)), None, "there is none");
    let seen = b.half_open(1);
    assert_eq!(carry(&mut b, request(1)), None, "nobody has answered");
    b.returned(&port(), answer(seen, SYN | ACK, 500, 101, b""));
    assert_eq!(carry(&mut b, request(1)), None, "nor confirmed");
    b.forwarded(&port(), to_vip(1, ACK, 101, 501, b""));
    let expected = Carriage {
        vni: vni(),
        request: request(1),
        answer: seen.reversed(),
    };
    assert_eq!(carry(&mut b, request(1)), Some(expected));
    // From the same port by another virtual address: the replica sees another port.
    let other = tuple(client(), 1, v4(3), 80, 6);
    let segment = |flags, ack| tcp((CLIENT, VIP_MAC), other, (flags, 100, ack), b"");
    let seen = info(&b.forwarded(&port(), segment(SYN, 0))).five_tuple();
    assert_ne!(seen.sport, 1);
    b.returned(&port(), answer(seen, SYN | ACK, 500, 101, b""));
    b.forwarded(&port(), segment(ACK, 501));
    let state = b.table.state_of(vni(), other);
    assert_eq!(state, Some(FlowState::Established));
    assert_eq!(carry(&mut b, other), None);
    // Its replica drains, and is gone.
    b.replicas[0].draining = true;
    b.publish();
    assert_eq!(carry(&mut b, request(1)), Some(expected));
    b.replicas.clear();
    b.publish();
    assert_eq!(carry(&mut b, request(1)), None);
}

#[test]
fn whoever_carries_a_connection_hears_once_that_it_ended() {
    let mut b = Bench::new(1);
    let seen: Vec<_> = (0..4).map(|sport| b.open(sport)).collect();
    for sport in 1..4 {
        carry(&mut b, request(sport)).unwrap();
        carry(&mut b, request(sport)).unwrap();
    }
    assert_eq!(b.table.poll_ended(), None);
    // One that nobody carries, and three ways to end.
    b.returned(&port(), answer(seen[0], FIN | ACK, 501, 101, b""));
    b.returned(&port(), answer(seen[1], FIN | ACK, 501, 101, b""));
    b.forwarded(&port(), to_vip(2, RST | ACK, 101, 501, b""));
    let mut ended = Vec::new();
    ended.extend(b.table.poll_ended());
    ended.extend(b.table.poll_ended());
    b.table.close_port(PortId(1), |_| ());
    ended.extend(b.table.poll_ended());
    assert_eq!(b.table.poll_ended(), None);
    ended.sort_by_key(|carriage| carriage.request.sport);
    let expected = [1, 2, 3].map(|sport| Carriage {
        vni: vni(),
        request: request(sport),
        answer: seen[usize::from(sport)].reversed(),
    });
    assert_eq!(ended, expected);
    assert_eq!(carry(&mut b, request(1)), None);
}

#[test]
fn what_was_carried_is_as_what_came_by() {
    let mut b = Bench::new(1);
    b.open(1);
    carry(&mut b, request(1)).unwrap();
    b.pass(Duration::from_secs(60));
    let last = b.now;
    carried(&mut b, 1, last, Some((9_000_000, 8_000_000)));
    b.pass(Duration::from_secs(2));
    let mut rows = Vec::new();
    b.table.list(b.now, 0, 10, &mut rows);
    assert_eq!(rows[0].idle, Duration::from_secs(2));
    let tally = b.loads[0].tally();
    assert_eq!((tally.rx_bytes(), tally.tx_bytes()), (1000, 70));
    // The client's own reset is far from what came by here, and believed.
    b.forwarded(&port(), to_vip(1, RST | ACK, 9_000_000, 8_000_000, b""));
    let state = b.table.state_of(vni(), request(1));
    assert_eq!(state, Some(FlowState::Reset));
    // The rest of it counts, too.
    carried(&mut b, 1, last, None);
    assert_eq!(b.loads[0].tally().rx_bytes(), 2000);
    // The next one from that port is another one.
    b.half_open(1);
    carried(&mut b, 1, last, Some((1, 2)));
    assert_eq!(b.loads[0].tally().rx_bytes(), 2000);
}

#[test]
fn resets_have_the_numbers_of_what_was_carried() {
    let mut b = Bench::new(2);
    let seen = b.open(1);
    b.open(2);
    b.open(3);
    carry(&mut b, request(1)).unwrap();
    b.replicas.clear();
    b.publish();
    let mut resets = Vec::new();
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    assert!(
        !b.table
            .sweep(&cx, 10, |reset| resets.push(reset.frame.to_vec()))
    );
    assert_eq!(resets.len(), 4, "the others, both ends");
    assert_eq!(b.table.poll_ended().map(|c| c.request), Some(request(1)));
    let told = Carried {
        from_client: 0,
        to_client: 0,
        last: cx.now,
        client: Some((9_000_000, 8_000_000)),
    };
    b.table.carried(&cx, vni(), request(1), &told);
    resets.clear();
    assert!(
        b.table
            .sweep(&cx, 10, |reset| resets.push(reset.frame.to_vec()))
    );
    let [to_client, to_replica] = &resets[..] else {
        panic!("{} resets", resets.len());
    };
    assert_eq!(to_client[38..42], 8_000_000_u32.to_be_bytes());
    assert_eq!(to_client[42..46], 9_000_000_u32.to_be_bytes());
    assert_eq!(info(to_replica).five_tuple(), seen);
    assert_eq!(to_replica[38..42], 9_000_000_u32.to_be_bytes());
    assert!(b.table.is_empty() && b.table.poll_ended().is_none());
    // Without a sweep: the client's next frame finds that out.
    let mut b = Bench::new(1);
    b.open(1);
    carry(&mut b, request(1)).unwrap();
    b.replicas.clear();
    b.publish();
    let verdict = b.forward(&port(), &mut to_vip(1, ACK, 101, 501, b"data"));
    assert!(matches!(verdict, Forward::Refuse(_)));
    assert!(b.table.poll_ended().is_some());
}

#[test]
fn a_client_that_has_closed_is_reset_by_the_numbers_of_its_last_segment() {
    let mut b = Bench::new(1);
    b.open(1);
    carry(&mut b, request(1)).unwrap();
    let last = b.now;
    let told = Some((9_000_000, 8_000_000));
    carried(&mut b, 1, last, told);
    // Its end has data, and acknowledges more than what was carried did.
    let end = to_vip(1, FIN | ACK, 9_000_000, 8_000_070, b"bye");
    b.forwarded(&port(), end);
    assert!(b.table.poll_ended().is_some());
    carried(&mut b, 1, last, told);
    b.replicas.clear();
    b.publish();
    let mut resets = Vec::new();
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    assert!(
        b.table
            .sweep(&cx, 10, |reset| resets.push(reset.frame.to_vec()))
    );
    let [to_client, to_replica] = &resets[..] else {
        panic!("{} resets", resets.len());
    };
    assert_eq!(to_client[38..42], 8_000_070_u32.to_be_bytes());
    assert_eq!(to_client[42..46], 9_000_004_u32.to_be_bytes());
    assert_eq!(to_replica[38..42], 9_000_004_u32.to_be_bytes());
}
