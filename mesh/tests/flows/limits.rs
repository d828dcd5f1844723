//! Connections of a service and of one client: as many as there may be.

use weft_mesh::{Forward, Limits, Refusal};
use weft_wire::DropReason;

use crate::bench::*;

fn is_refused(b: &mut Bench, mut frame: Vec<u8>) -> bool {
    let verdict = b.forward(&port(), &mut frame);
    let refused = Refusal::Reset(DropReason::ConnectionLimit);
    assert!(
        matches!(verdict, Forward::Rewritten { .. })
            || matches!(verdict, Forward::Refuse(r) if r == refused),
        "{verdict:?}"
    );
    matches!(verdict, Forward::Refuse(_))
}

fn syn(sport: u16) -> Vec<u8> {
    to_vip(sport, SYN, 100, 0, b"")
}

fn other_syn(sport: u16) -> Vec<u8> {
    let t = tuple(v4(6), sport, vip(), 80, 6);
    tcp((CLIENT, VIP_MAC), t, (SYN, 100, 0), b"")
}

#[test]
fn one_client_is_refused_while_others_are_served_and_its_open_ones_go_on() {
    let mut b = Bench::new(2);
    b.limits.per_client = 3;
    b.publish();
    let seen: Vec<_> = (1..=3).map(|sport| b.open(sport)).collect();
    assert!(is_refused(&mut b, syn(4)));
    assert!(!is_refused(&mut b, other_syn(4)));
    // A repeated SYN of a connection that counts already is no other connection.
    assert!(!is_refused(&mut b, other_syn(4)));
    b.forwarded(&port(), to_vip(1, ACK, 101, 501, b"goes on"));
    b.forwarded(&port(), to_vip(2, RST, 101, 501, b""));
    assert!(!is_refused(&mut b, syn(5)), "one has ended");
    assert!(is_refused(&mut b, syn(6)));
    // Both closed: over, though the entry is still there.
    b.forwarded(&port(), to_vip(1, FIN | ACK, 101, 501, b""));
    b.returned(&port(), answer(seen[0], FIN | ACK, 501, 102, b""));
    assert!(!is_refused(&mut b, syn(6)));
    assert!(is_refused(&mut b, syn(7)));
}

#[test]
fn a_limit_that_changes_counts_for_new_connections() {
    let mut b = Bench::new(1);
    for sport in 1..=5 {
        b.open(sport);
    }
    b.limits = Limits {
        connections: 5,
        per_client: 2,
    };
    b.publish();
    assert!(is_refused(&mut b, other_syn(1)), "5 are open");
    b.limits.connections = 6;
    b.publish();
    assert!(!is_refused(&mut b, other_syn(1)));
    b.forwarded(&port(), to_vip(1, ACK, 101, 501, b"goes on"));
    b.limits = Limits::default();
    b.publish();
    assert!(!is_refused(&mut b, other_syn(2)));
}

#[test]
fn connections_by_other_nodes_count_for_the_service() {
    let mut b = Bench::new(2);
    b.limits.connections = 10;
    b.publish();
    b.loads[0].set_others(4);
    b.loads[1].set_others(5);
    b.open(1);
    assert!(is_refused(&mut b, syn(2)));
    b.loads[0].set_others(3);
    assert!(!is_refused(&mut b, syn(2)));
}

#[test]
fn no_report_takes_a_nodes_own_share_of_a_limit() {
    let mut b = Bench::new(3);
    b.limits.connections = 9;
    b.service.set_share(3);
    b.publish();
    for load in &b.loads {
        load.set_others(u32::MAX);
    }
    for sport in 1..=3 {
        assert!(!is_refused(&mut b, syn(sport)), "connection {sport}");
    }
    assert!(is_refused(&mut b, syn(4)), "the share is used up");
    for load in &b.loads {
        load.set_others(0);
    }
    for sport in 4..=9 {
        assert!(!is_refused(&mut b, syn(sport)), "the others need none");
    }
    assert!(is_refused(&mut b, syn(10)));
    // What counts for the limit need not count for the choice.
    b.loads[0].set_claimed(1);
    assert_eq!((b.loads[0].others(), b.loads[0].claimed()), (0, 1));
}
