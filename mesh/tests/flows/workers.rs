//! Replicas whose frames another worker reads.

use std::time::Duration;

use weft_mesh::{Context, FlowConfig, FlowTable, Forward, Install, Reverse, Services};
use weft_wire::FiveTuple;

use crate::bench::*;

pub(crate) fn other_worker() -> FlowTable {
    FlowTable::new(FlowConfig {
        worker: 1,
        seed: 99,
        ..FlowConfig::default()
    })
}

/// A bench whose replicas are all on this node.
pub(crate) fn bench(replicas: u8) -> Bench {
    let mut b = Bench::new(replicas);
    for replica in &mut b.replicas {
        replica.local = true;
    }
    b.publish();
    b
}

fn open(b: &mut Bench, sport: u16) -> (FiveTuple, Install) {
    let mut syn = to_vip(sport, SYN, 100, 0, b"");
    let Forward::Rewritten {
        install: Some(install),
        ..
    } = b.forward(&port(), &mut syn)
    else {
        panic!("no install");
    };
    (info(&syn).five_tuple(), install)
}

pub(crate) fn reverse(table: &mut FlowTable, b: &Bench, frame: &mut [u8]) -> Reverse {
    let services = Services::default();
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &services,
    };
    let info = info(frame);
    table.reverse(&cx, vni(), frame, &info, false)
}

#[test]
fn data_is_rewritten_in_place_and_turning_points_go_to_the_owner() {
    let mut b = bench(1);
    let mut other = other_worker();
    let (seen, install) = open(&mut b, 1);
    assert_eq!(
        (install.vni(), install.replica_ip(), install.owner()),
        (vni(), v4(11), 0)
    );
    assert!(other.install(b.now, install));
    for flags in [SYN | ACK, FIN | ACK, RST] {
        let mut frame = answer(seen, flags, 1, 101, b"");
        let before = frame.clone();
        assert!(matches!(
            reverse(&mut other, &b, &mut frame),
            Reverse::ToOwner { worker: 0 }
        ));
        assert_eq!(frame, before);
    }
    let mut data = answer(seen, ACK, 2, 101, b"data");
    assert!(matches!(
        reverse(&mut other, &b, &mut data),
        Reverse::Rewritten { to } if to == port().target()
    ));
    check(&data);
    assert_eq!(info(&data).five_tuple(), tuple(vip(), 80, client(), 1, 6));
    // The owner rewrites what it is handed.
    b.returned(&port(), answer(seen, SYN | ACK, 1, 101, b""));
    assert!(b.table.poll_removal().is_none());
}

#[test]
fn the_entry_leaves_with_its_flow() {
    let mut b = bench(1);
    let mut other = other_worker();
    let (seen, install) = open(&mut b, 1);
    assert!(other.install(b.now, install));
    b.returned(&port(), answer(seen, SYN | ACK, 1, 101, b""));
    b.forwarded(&port(), to_vip(1, RST, 101, 0, b""));
    // The port is used again before the removal is delivered.
    let (_, again) = open(&mut b, 1);
    assert!(other.install(b.now, again));
    let removal = b.table.poll_removal().unwrap();
    assert_eq!((removal.vni(), removal.replica_ip()), (Some(vni()), v4(11)));
    other.uninstall(removal);
    assert_eq!(other.len(), 1);
    b.table.close_port(weft_wire::PortId(1), |_| ());
    other.uninstall(b.table.poll_removal().unwrap());
    assert!(other.is_empty());
}

#[test]
fn a_refusal_by_a_local_replica_is_retried_by_the_owner() {
    let mut b = bench(2);
    let mut other = other_worker();
    let (seen, install) = open(&mut b, 1);
    assert!(other.install(b.now, install));
    let mut refusal = answer(seen, RST | ACK, 0, 101, b"");
    assert!(matches!(
        reverse(&mut other, &b, &mut refusal),
        Reverse::ToOwner { worker: 0 }
    ));
    let Reverse::Retry {
        install: Some(next),
        ..
    } = b.reverse(&mut refusal)
    else {
        panic!("no retry");
    };
    assert_ne!(next.replica_ip(), install.replica_ip());
    assert!(other.install(b.now, next));
    other.uninstall(b.table.poll_removal().unwrap());
    assert_eq!(other.len(), 1);
}

#[test]
fn an_entry_for_this_worker_itself_changes_nothing() {
    let mut b = bench(1);
    let (_, install) = open(&mut b, 1);
    assert!(!b.table.install(b.now, install));
    assert_eq!(b.table.len(), 1);
    b.table.close_port(weft_wire::PortId(1), |_| ());
    let removal = b.table.poll_removal().unwrap();
    let (_, _) = open(&mut b, 1);
    b.table.uninstall(removal);
    assert_eq!(b.table.len(), 1);
}

#[test]
fn the_first_answering_datagram_tells_the_owner() {
    let mut b = bench(1);
    let mut other = other_worker();
    let t = tuple(client(), 1, vip(), 53, 17);
    let mut question = udp((CLIENT, VIP_MAC), t, b"q");
    let Forward::Rewritten {
        install: Some(install),
        ..
    } = b.forward(&port(), &mut question)
    else {
        panic!("no install");
    };
    assert!(other.install(b.now, install));
    let mut reply = udp(
        (CLIENT, VIP_MAC),
        info(&question).five_tuple().reversed(),
        b"a",
    );
    assert!(matches!(
        reverse(&mut other, &b, &mut reply.clone()),
        Reverse::ToOwner { worker: 0 }
    ));
    assert!(matches!(
        reverse(&mut other, &b, &mut reply),
        Reverse::Rewritten { .. }
    ));
    check(&reply);
}

#[test]
fn an_entry_whose_removal_was_lost_makes_room_after_a_long_time() {
    let mut b = bench(1);
    let mut other = FlowTable::new(FlowConfig {
        worker: 1,
        capacity: 40,
        ..FlowConfig::default()
    });
    let mut flows = Vec::new();
    for sport in 1..=42 {
        flows.push(open(&mut b, sport));
    }
    for (_, install) in &flows[..40] {
        assert!(other.install(b.now, *install));
    }
    b.pass(Duration::from_secs(3500));
    assert!(
        !other.install(b.now, flows[40].1),
        "nothing is idle for long"
    );
    // All but three are used once more.
    for (seen, _) in &flows[3..40] {
        let mut data = answer(*seen, ACK, 2, 101, b"data");
        assert!(matches!(
            reverse(&mut other, &b, &mut data),
            Reverse::Rewritten { .. }
        ));
    }
    b.pass(Duration::from_secs(200));
    // A call looks at a part of the table only; three calls have seen all of it.
    for (_, install) in &flows[40..] {
        assert!((0..3).any(|_| other.install(b.now, *install)));
    }
    assert_eq!((other.len(), other.counters().evicted.guests), (40, 2));
    for (seen, _) in &flows[3..] {
        let mut data = answer(*seen, ACK, 2, 101, b"data");
        assert!(matches!(
            reverse(&mut other, &b, &mut data),
            Reverse::Rewritten { .. }
        ));
    }
}
