//! A full table: who has to make room for whom.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use weft_mesh::{FlowConfig, FlowState, Forward, Origin, Reverse};
use weft_wire::{DropReason, FiveTuple};

use crate::bench::*;

fn full_bench(capacity: usize) -> Bench {
    Bench::with(
        2,
        FlowConfig {
            capacity,
            seed: 3,
            ..FlowConfig::default()
        },
    )
}

/// Address of the client behind port `number`.
fn address(number: u32) -> IpAddr {
    v4(100 + u8::try_from(number).unwrap())
}

fn flow(number: u32, sport: u16) -> FiveTuple {
    tuple(address(number), sport, vip(), 80, 6)
}

fn begin(b: &mut Bench, number: u32, sport: u16) -> Option<FiveTuple> {
    let mut syn = tcp((CLIENT, VIP_MAC), flow(number, sport), (SYN, 100, 0), b"");
    match b.forward(&port_number(number), &mut syn) {
        Forward::Rewritten { .. } => Some(info(&syn).five_tuple()),
        Forward::Drop(DropReason::FlowTableFull) => None,
        other => panic!("{other:?}"),
    }
}

fn open(b: &mut Bench, number: u32, sport: u16) -> bool {
    let Some(seen) = begin(b, number, sport) else {
        return false;
    };
    b.reverse(&mut answer(seen, SYN | ACK, 500, 101, b""));
    let mut ack = tcp((CLIENT, VIP_MAC), flow(number, sport), (ACK, 101, 501), b"");
    matches!(
        b.forward(&port_number(number), &mut ack),
        Forward::Rewritten { .. }
    )
}

/// A datagram, answered or not.
fn ask(b: &mut Bench, number: u32, sport: u16, answered: bool) -> bool {
    let t = tuple(address(number), sport, vip(), 53, 17);
    let mut frame = udp((CLIENT, VIP_MAC), t, b"q");
    let Forward::Rewritten { .. } = b.forward(&port_number(number), &mut frame) else {
        return false;
    };
    if answered {
        let seen = info(&frame).five_tuple();
        let mut reply = udp((VIP_MAC, CLIENT), seen.reversed(), b"a");
        assert!(matches!(b.reverse(&mut reply), Reverse::Rewritten { .. }));
    }
    true
}

fn is_open(b: &Bench, number: u32, sport: u16) -> bool {
    b.table.state_of(vni(), flow(number, sport)) == Some(FlowState::Established)
}

fn count_open(b: &Bench, number: u32, sports: std::ops::Range<u16>) -> usize {
    sports.filter(|&sport| is_open(b, number, sport)).count()
}

#[test]
fn who_floods_with_connections_makes_room_for_others() {
    let mut b = full_bench(100);
    for sport in 0..100 {
        assert!(open(&mut b, 1, sport));
    }
    assert!(
        !open(&mut b, 1, 1000),
        "nothing left for the flooder itself"
    );
    // A second client gets its half, not more.
    for sport in 0..50 {
        b.pass(Duration::from_millis(10));
        assert!(open(&mut b, 2, sport), "connection {sport}");
    }
    assert!(!open(&mut b, 2, 1000));
    assert_eq!(
        (count_open(&b, 1, 0..100), count_open(&b, 2, 0..100)),
        (50, 50)
    );
    assert_eq!(b.table.counters().evicted.open, 50);
    // And the flooder cannot win it back.
    for sport in 2000..3000 {
        assert!(!open(&mut b, 1, sport));
        begin(&mut b, 1, sport);
    }
    assert_eq!(count_open(&b, 2, 0..100), 50);
    assert_eq!(b.own().iter().sum::<u32>(), 100);
}

#[test]
fn a_syn_flood_takes_the_place_of_its_own() {
    let mut b = full_bench(64);
    for sport in 0..4 {
        assert!(open(&mut b, 2, sport));
        assert!(begin(&mut b, 2, 10 + sport).is_some());
    }
    for sport in 0..5000 {
        assert!(begin(&mut b, 1, sport).is_some());
    }
    for sport in 0..4 {
        assert!(is_open(&b, 2, sport));
        let half = b.table.state_of(vni(), flow(2, 10 + sport));
        assert_eq!(half, Some(FlowState::SynSent));
    }
    let evicted = b.table.counters().evicted;
    assert_eq!((evicted.handshakes, evicted.total()), (4944, 4944));
}

#[test]
fn floods_of_answered_datagrams_take_the_place_of_the_oldest_of_their_own() {
    let mut b = full_bench(64);
    for sport in 0..8 {
        assert!(ask(&mut b, 2, sport, true));
    }
    for sport in 0..2000 {
        b.pass(Duration::from_millis(1));
        assert!(ask(&mut b, 1, sport, true));
    }
    for sport in 0..8 {
        let t = tuple(address(2), sport, vip(), 53, 17);
        let state = b.table.state_of(vni(), t);
        assert_eq!(state, Some(FlowState::DatagramsAnswered));
    }
    assert_eq!(b.table.counters().evicted.datagrams, 2000 - 56);
    assert_eq!(b.table.len(), 64);
}

#[test]
fn what_is_over_goes_first_then_handshakes_then_datagrams() {
    let mut b = full_bench(8);
    assert!(open(&mut b, 1, 0) && open(&mut b, 1, 1));
    assert!(ask(&mut b, 1, 2, false) && ask(&mut b, 1, 3, true));
    assert!(begin(&mut b, 1, 4).is_some() && begin(&mut b, 1, 5).is_some());
    for sport in [6, 7] {
        assert!(open(&mut b, 1, sport));
        let mut reset = tcp((CLIENT, VIP_MAC), flow(1, sport), (RST, 101, 0), b"");
        b.forward(&port_number(1), &mut reset);
    }
    let mut order = Vec::new();
    for sport in 20..30 {
        let before = b.table.counters().evicted;
        let done = open(&mut b, 1, sport);
        let now = b.table.counters().evicted;
        order.push(match done {
            false => "none",
            true if now.closed > before.closed => "closed",
            true if now.handshakes > before.handshakes => "handshake",
            true if now.datagrams > before.datagrams => "datagrams",
            true => "open",
        });
    }
    assert_eq!(
        order[..7],
        [
            "closed",
            "closed",
            "handshake",
            "handshake",
            "datagrams",
            "datagrams",
            "none"
        ]
    );
    assert_eq!(count_open(&b, 1, 0..2), 2);
}

#[test]
fn published_ports_have_one_half() {
    let mut b = full_bench(60);
    for sport in 0..60 {
        let number = 1 + u32::from(sport) % 3;
        assert!(open(&mut b, number, sport));
    }
    let mut taken = 0;
    for sport in 1..=60 {
        let mut syn = to_mesh(sport, 8000, SYN, 1);
        if let Forward::Rewritten { .. } = b.forward(&mesh(), &mut syn) {
            taken += 1;
            let seen = info(&syn).five_tuple();
            b.reverse(&mut answer(seen, SYN | ACK, 1, 2, b""));
            b.forward(&mesh(), &mut to_mesh(sport, 8000, ACK, 2));
        }
    }
    assert_eq!(taken, 30);
    for number in 1..4 {
        assert_eq!(count_open(&b, number, 0..60), 10, "port {number}");
    }
}

#[test]
fn a_client_that_leaves_gives_its_part_back() {
    let mut b = full_bench(20);
    for sport in 0..10 {
        assert!(open(&mut b, 1, sport) && open(&mut b, 2, sport));
    }
    assert!(!open(&mut b, 1, 50));
    b.table.close_port(weft_wire::PortId(2), |_| ());
    for sport in 50..60 {
        assert!(open(&mut b, 1, sport));
    }
    assert_eq!(b.table.counters().evicted.total(), 0);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Open,
    Begin,
    Ask(bool),
    Wait(u16),
}

proptest! {
    #[test]
    fn nobody_within_his_part_loses_an_open_connection_to_another(
        steps in prop::collection::vec(
            (
                // The first client does as much as all others together.
                prop_oneof![3 => Just(1_u32), 3 => 2_u32..5],
                0_u16..40,
                prop_oneof![
                    5 => Just(Step::Open),
                    3 => Just(Step::Begin),
                    2 => any::<bool>().prop_map(Step::Ask),
                    1 => (0_u16..100).prop_map(Step::Wait),
                ],
            ),
            1..200,
        ),
        capacity in 4_usize..24,
    ) {
        let mut b = full_bench(capacity);
        for (number, sport, step) in steps {
            let open_before: Vec<_> = (1..5_u32)
                .map(|n| (0..40).filter(|&s| is_open(&b, n, s)).collect::<Vec<u16>>())
                .collect();
            match step {
                Step::Open if !is_open(&b, number, sport) => {
                    open(&mut b, number, sport);
                }
                Step::Begin if !is_open(&b, number, sport) => {
                    begin(&mut b, number, sport);
                }
                Step::Ask(answered) => {
                    ask(&mut b, number, sport, answered);
                }
                Step::Wait(secs) => {
                    b.pass(Duration::from_secs(secs.into()));
                    b.table.expire(b.now, 100);
                }
                _ => {}
            }
            prop_assert!(b.table.len() <= capacity);
            let loads: u32 = b.own().iter().sum();
            prop_assert_eq!(loads as usize, b.table.active());
            for (n, before) in (1..5_u32).zip(&open_before) {
                let lost = before.iter().filter(|&&s| !is_open(&b, n, s)).count();
                // At most four ports, so a part is at least a quarter.
                prop_assert!(
                    lost == 0 || (n != number && before.len() >= capacity / 4),
                    "{} lost {} of {} to {}", n, lost, before.len(), number
                );
            }
        }
    }
}

#[test]
fn origins_differ_only_by_their_port() {
    // The parts are by port, not by address: one sandbox may have several.
    let mut b = full_bench(10);
    for sport in 0..10 {
        assert!(open(&mut b, 1, sport));
    }
    let mut syn = tcp(
        (CLIENT, VIP_MAC),
        tuple(v4(77), 1, vip(), 80, 6),
        (SYN, 1, 0),
        b"",
    );
    let same: Origin = port_number(1);
    assert!(matches!(
        b.forward(&same, &mut syn),
        Forward::Drop(DropReason::FlowTableFull)
    ));
}
