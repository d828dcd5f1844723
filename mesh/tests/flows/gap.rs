//! Clients that come while their service has no replica: they wait for the next one.

use std::time::Duration;

use weft_mesh::{
    Admission, Context, FlowConfig, FlowCounters, Forward, Origin, Refusal, Reverse, Target,
};
use weft_wire::{DropReason, Mac, checksum};

use crate::bench::*;

const PATIENCE: Duration = Duration::from_secs(10);

impl Bench {
    /// The only replica drains, and another one is wanted.
    fn gap(&mut self) {
        for replica in &mut self.replicas {
            replica.draining = true;
        }
        self.in_gap = true;
        self.publish();
    }

    /// The next replica is there.
    fn end_gap(&mut self) {
        let next = self.replicas.last_mut().unwrap();
        next.key += 1000;
        next.ip = v4(99);
        next.mac = Mac([2, 0x42, 10, 0, 0, 99]);
        next.draining = false;
        self.in_gap = false;
        self.publish();
    }

    /// Who is let in or refused now, with the frames.
    fn admitted(&mut self) -> Vec<(Admission, Vec<u8>)> {
        let cx = Context {
            now: self.now,
            epoch: self.epoch,
            services: &self.services,
        };
        let mut all = Vec::new();
        while !self.table.admit(&cx, 3, |admission, frame| {
            check(frame);
            all.push((admission, frame.to_vec()));
        }) {}
        all
    }

    #[track_caller]
    fn waits(&mut self, origin: &Origin, mut frame: Vec<u8>) {
        let verdict = self.forward(origin, &mut frame);
        assert!(matches!(verdict, Forward::Held), "{verdict:?}");
    }

    fn held(&self) -> (u64, u64) {
        let FlowCounters {
            held, held_refused, ..
        } = self.table.counters();
        (held, held_refused)
    }
}

fn syn(sport: u16) -> Vec<u8> {
    to_vip(sport, SYN, 100, 0, b"")
}

/// Ports of the clients that were refused, each with a reset that it believes.
fn refused(all: &[(Admission, Vec<u8>)]) -> Vec<u16> {
    all.iter()
        .map(|(admission, frame)| {
            assert!(
                matches!(
                    admission,
                    Admission::Refuse {
                        to: Target::Port(_),
                        reason: DropReason::NoReplica
                    }
                ),
                "{admission:?}"
            );
            let reset = info(frame);
            assert_eq!(reset.tcp_flags & (RST | ACK), RST | ACK);
            assert_eq!(reset.five_tuple().src, vip());
            let ack = reset.l4 + 8;
            assert_eq!(frame[ack..ack + 4], 101_u32.to_be_bytes());
            reset.dport
        })
        .collect()
}

#[test]
fn a_client_in_a_gap_reaches_the_next_replica() {
    let mut b = Bench::new(1);
    b.gap();
    b.waits(&port(), syn(1));
    b.waits(&mesh(), to_mesh(2, 8000, SYN, 100));
    assert!(b.table.is_empty() && b.table.has_waiting());
    assert!(b.admitted().is_empty(), "the gap goes on");
    b.pass(Duration::from_secs(7));
    b.end_gap();
    let all = b.admitted();
    assert!(!b.table.has_waiting());
    let seen: Vec<_> = all.iter().map(|(_, frame)| info(frame)).collect();
    for ((admission, _), seen) in all.iter().zip(&seen) {
        let Admission::Forward {
            vni: net, dst_mac, ..
        } = admission
        else {
            panic!("{admission:?}");
        };
        assert_eq!((*net, *dst_mac), (vni(), Mac([2, 0x42, 10, 0, 0, 99])));
        assert_eq!((seen.dst, seen.dport), (v4(99), 80));
    }
    assert_eq!((seen[0].src, seen[1].src), (client(), v4(200)));
    let answered = answer(seen[0].five_tuple(), SYN | ACK, 500, 101, b"");
    let back = info(&b.returned(&port(), answered));
    assert_eq!((back.src, back.dport), (vip(), 1));
    b.returned(
        &mesh(),
        answer(seen[1].five_tuple(), SYN | ACK, 500, 101, b""),
    );
    assert_eq!((b.own(), b.held()), (vec![2], (2, 0)));
    assert_eq!(b.table.counters().refused, 0);
}

#[test]
fn who_waits_too_long_is_refused_and_the_clock_of_the_table_says_when() {
    let mut b = Bench::new(1);
    b.gap();
    b.waits(&port(), syn(1));
    let end = b.now.after(PATIENCE);
    b.pass(Duration::from_secs(4));
    // Its segment again, and another client.
    b.waits(&port(), syn(1));
    b.waits(&port(), syn(2));
    assert_eq!(b.table.next_deadline(), Some(end));
    b.pass(Duration::from_millis(5999));
    assert!(b.admitted().is_empty());
    b.pass(Duration::from_millis(1));
    assert_eq!(refused(&b.admitted()), [1]);
    assert_eq!(
        b.table.next_deadline(),
        Some(b.now.after(PATIENCE - Duration::from_secs(6)))
    );
    assert_eq!((b.held(), b.table.counters().refused), ((2, 1), 1));
}

#[test]
fn a_service_that_wants_no_replica_refuses_also_those_that_wait() {
    let mut b = Bench::new(1);
    b.gap();
    b.waits(&port(), syn(1));
    b.in_gap = false;
    b.publish();
    assert_eq!(refused(&b.admitted()), [1]);
    let verdict = b.forward(&port(), &mut syn(2));
    let none = Refusal::Reset(DropReason::NoReplica);
    assert!(
        matches!(verdict, Forward::Refuse(r) if r == none),
        "{verdict:?}"
    );
}

#[test]
fn the_oldest_make_room_and_are_told() {
    let config = FlowConfig {
        waiting: 8,
        ..FlowConfig::default()
    };
    let mut b = Bench::with(1, config);
    b.gap();
    for sport in 1..=100 {
        b.waits(&port(), syn(sport));
        let expected: Vec<u16> = (sport > 2).then(|| sport - 2).into_iter().collect();
        assert_eq!(refused(&b.admitted()), expected);
    }
    b.end_gap();
    assert_eq!(b.admitted().len(), 2, "a quarter of the room");
    assert_eq!(b.held(), (100, 98));
}

#[test]
fn only_what_opens_a_connection_waits() {
    let mut b = Bench::new(1);
    b.gap();
    let stranger = b.forward(&port(), &mut to_vip(1, ACK, 1, 1, b"data"));
    assert!(matches!(stranger, Forward::Refuse(Refusal::Reset(_))));
    let t = tuple(client(), 1, vip(), 53, 17);
    let datagram = b.forward(&port(), &mut udp((CLIENT, VIP_MAC), t, b"?"));
    assert!(matches!(
        datagram,
        Forward::Refuse(Refusal::PortUnreachable(_))
    ));
    // With more data than is kept.
    let long = b.forward(&port(), &mut to_vip(1, SYN, 1, 0, &[7; 200]));
    assert!(matches!(long, Forward::Refuse(Refusal::Reset(_))));
    assert!(!b.table.has_waiting());
}

#[test]
fn an_unanswered_connection_whose_replica_ends_waits_for_the_next_one() {
    let mut b = Bench::new(1);
    let silent = b.half_open(1);
    let refusing = b.half_open(2);
    b.gap();
    // One replica refuses what it was sent last: its program has ended.
    let verdict = b.reverse(&mut answer(refusing, RST | ACK, 0, 101, b""));
    assert!(
        matches!(verdict, Reverse::Drop(DropReason::Retried)),
        "{verdict:?}"
    );
    // The other connection loses its replica altogether.
    let replica = b.replicas.pop().unwrap();
    assert_eq!(replica.ip, silent.dst);
    b.publish();
    b.waits(&port(), syn(1));
    assert!(b.table.is_empty());
    assert_eq!(b.own(), [0]);
    b.replicas.push(replica);
    b.end_gap();
    let mut clients: Vec<_> = b.admitted().iter().map(|(_, f)| info(f).sport).collect();
    clients.sort_unstable();
    assert_eq!(clients, [1, 2]);
}

#[test]
fn a_replica_that_refuses_outside_of_a_gap_speaks_for_the_service() {
    let mut b = Bench::new(1);
    let seen = b.half_open(1);
    let back = info(&b.returned(&port(), answer(seen, RST | ACK, 0, 101, b"")));
    assert_eq!(back.tcp_flags & RST, RST);
    assert!(!b.table.has_waiting());
}

#[test]
fn who_asks_again_after_the_gap_is_sent_on_once() {
    let mut b = Bench::new(1);
    b.gap();
    b.waits(&port(), syn(1));
    b.end_gap();
    // Before those that wait had their turn.
    b.half_open(1);
    assert!(b.admitted().is_empty());
    assert_eq!((b.table.len(), b.own()), (1, vec![1]));
}

#[test]
fn a_partial_checksum_is_completed() {
    let mut b = Bench::new(1);
    b.gap();
    let mut frame = syn(1);
    let before = info(&frame);
    let field = before.l4 + 16;
    let pseudo = checksum::pseudo_header(before.src, before.dst, 6, before.len - before.l4);
    frame[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    let verdict = b.table.forward(&cx, &port(), &mut frame, &before, true);
    assert!(matches!(verdict, Forward::Held), "{verdict:?}");
    b.end_gap();
    // The bench checks what is sent on.
    assert_eq!(b.admitted().len(), 1);
}

#[test]
fn clients_of_a_port_that_goes_are_forgotten() {
    let mut b = Bench::new(1);
    b.gap();
    b.waits(&port(), syn(1));
    b.waits(&port_number(2), to_vip(2, SYN, 100, 0, b""));
    let Origin::Port { port: gone, .. } = port() else {
        panic!("a port");
    };
    assert_eq!(b.table.close_port(gone, |_| {}), 0);
    b.end_gap();
    assert_eq!(b.admitted().len(), 1);
}
