//! Clients outside that use one port towards two nodes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use weft_mesh::{Context, FlowConfig, FlowTable, Forward, Install, Origin, Replica, Reverse};
use weft_wire::Mac;

use crate::bench::*;

/// Two workers of one node.
fn workers() -> (Bench, FlowTable) {
    let config = FlowConfig {
        seed: 7,
        ..FlowConfig::default()
    };
    let other = FlowTable::new(FlowConfig {
        worker: 1,
        ..config.clone()
    });
    let mut b = Bench::with(1, config);
    b.replicas[0].local = true;
    b.publish();
    (b, other)
}

const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

fn keeps_client() -> Origin {
    Origin::Mesh {
        vni: vni(),
        node_ip: v4(200),
        node_mac: NODE_MAC,
        keeps_client: true,
    }
}

/// A client's SYN to this node, and the port that the replica sees.
fn to_this_node(b: &mut Bench, sport: u16) -> (u16, Install) {
    let seen = tuple(OUTSIDE, sport, mesh_ip(), 8000, 6);
    let mut syn = tcp((CLIENT, NODE_MAC), seen, (SYN, 1, 0), b"");
    let Forward::Rewritten {
        install: Some(install),
        ..
    } = b.forward(&keeps_client(), &mut syn)
    else {
        panic!("no install");
    };
    check(&syn);
    (info(&syn).sport, install)
}

/// Two other nodes.
const VIAS: [Mac; 2] = [Mac([2, 0x42, 10, 0, 0, 201]), Mac([2, 0x42, 10, 0, 0, 202])];

/// A segment of a client that came to another node, and the port that the replica sees.
fn by_another_node(b: &Bench, table: &mut FlowTable, sport: u16, flags: u8) -> u16 {
    to_replica(b, table, (VIAS[0], v4(11)), sport, flags)
}

fn to_replica(
    b: &Bench,
    table: &mut FlowTable,
    (via, replica): (Mac, IpAddr),
    sport: u16,
    flags: u8,
) -> u16 {
    let seen = tuple(OUTSIDE, sport, replica, 80, 6);
    let mut frame = tcp((via, b.replicas[0].mac), seen, (flags, 1, 1), b"");
    let parsed = info(&frame);
    let cx = Context {
        now: b.now,
        epoch: b.epoch,
        services: &b.services,
    };
    table.arrived(&cx, vni(), &mut frame, &parsed, false);
    check(&frame);
    info(&frame).sport
}

#[test]
fn one_port_towards_two_nodes_is_two_connections_for_the_replica() {
    let (mut b, _) = workers();
    let (first, _) = to_this_node(&mut b, 33_000);
    let meeting = port_seen_as(&b, (VIAS[0], v4(11)), first);
    assert_ne!(meeting, 33_000, "one port is two from the start");
    // One that is the same by both ways, and ones that would be without care.
    for there in [33_000, meeting] {
        let (mut b, mut other) = workers();
        let first = by_another_node(&b, &mut other, there, SYN);
        let (second, install) = to_this_node(&mut b, 33_000);
        assert_ne!(second, first);
        assert!(other.install(b.now, install));
        assert_eq!(other.len(), 2);
        assert_eq!(by_another_node(&b, &mut other, there, ACK), first);

        let (mut b, mut other) = workers();
        let (first, install) = to_this_node(&mut b, 33_000);
        let second = by_another_node(&b, &mut other, there, SYN);
        assert_ne!(second, first, "before the other worker has the entry");
        assert!(other.install(b.now, install));
        assert_eq!(other.len(), 2);
        assert_eq!(by_another_node(&b, &mut other, there, ACK), second);
    }
}

#[test]
fn one_port_by_several_nodes_is_as_many_for_a_replica_that_remembers_them() {
    let (mut b, mut other) = workers();
    let mut seen = vec![to_this_node(&mut b, 33_000).0];
    // One after the other, each over and forgotten here before the next.
    for last in 1..=199 {
        let by = (Mac([2, 0x42, 10, 0, 0, last]), v4(11));
        seen.push(to_replica(&b, &mut other, by, 33_000, SYN));
        to_replica(&b, &mut other, by, 33_000, RST);
        b.pass(Duration::from_secs(11));
        assert_eq!(other.expire(b.now, 10), 1);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 200);
    // An agent that has lost everything finds the ports that it gave before.
    let mut new = FlowTable::new(FlowConfig::default());
    let before = by_another_node(&b, &mut other, 33_000, SYN);
    assert_eq!(by_another_node(&b, &mut new, 33_000, ACK), before);
    // Privileged ones stay what they are.
    assert_eq!(by_another_node(&b, &mut other, 1023, SYN), 1023);
}

#[test]
fn a_port_is_free_again_after_its_connection() {
    let (mut b, mut other) = workers();
    let here = |b: &mut Bench| {
        let (port, _) = to_this_node(b, 33_000);
        let sent = tuple(OUTSIDE, 33_000, mesh_ip(), 8000, 6);
        let reset = tcp((CLIENT, NODE_MAC), sent, (RST, 2, 0), b"");
        b.forwarded(&keeps_client(), reset);
        b.pass(Duration::from_secs(11));
        b.table.expire(b.now, 10);
        assert!(b.table.is_empty());
        port
    };
    let port = here(&mut b);
    let by = (VIAS[0], v4(11));
    let there = port_seen_as(&b, by, port);
    for _ in 0..3 {
        assert_eq!(to_replica(&b, &mut other, by, there, SYN), port);
        to_replica(&b, &mut other, by, there, RST);
        b.pass(Duration::from_secs(11));
        assert_eq!(other.expire(b.now, 10), 1);
        assert_eq!(here(&mut b), port);
    }
}

#[test]
fn a_refused_connection_gives_its_port_at_the_first_replica_back() {
    let (mut b, mut other) = workers();
    let second = b.replicas[0].clone();
    b.replicas.push(Replica {
        key: 101,
        ip: v4(12),
        mac: Mac([2, 0x42, 10, 0, 0, 12]),
        load: Arc::default(),
        ..second
    });
    b.publish();
    let (port, install) = to_this_node(&mut b, 33_000);
    let refused = install.replica_ip();
    let seen = tuple(refused, 80, OUTSIDE, port, 6);
    let mut refusal = tcp((b.replicas[0].mac, NODE_MAC), seen, (RST | ACK, 0, 2), b"");
    assert!(matches!(b.reverse(&mut refusal), Reverse::Retry { .. }));
    let by = (VIAS[0], refused);
    let there = port_seen_as(&b, by, port);
    assert_eq!(to_replica(&b, &mut other, by, there, SYN), port);
}

/// A client's port that the replica sees as that one, by such a node.
fn port_seen_as(b: &Bench, by: (Mac, IpAddr), seen: u16) -> u16 {
    let new = || FlowTable::new(FlowConfig::default());
    let sees = |table: &mut FlowTable, port| to_replica(b, table, by, port, SYN) == seen;
    let mut table = new();
    // In a table of its own none has to give way to another by chance.
    let mut ports = (1024..=u16::MAX).filter(|port| sees(&mut table, *port));
    ports.find(|port| sees(&mut new(), *port)).expect("a port")
}

#[test]
fn a_port_whose_connection_is_over_is_not_given_to_a_client_of_another_node() {
    let (mut b, mut other) = workers();
    let first = by_another_node(&b, &mut other, 33_000, SYN);
    by_another_node(&b, &mut other, 33_000, RST);
    let by = (VIAS[1], v4(11));
    let meeting = port_seen_as(&b, by, first);
    // The replica's kernel may have it open still, or in TIME_WAIT.
    let second = to_replica(&b, &mut other, by, meeting, SYN);
    assert_ne!(second, first);
    assert_eq!(other.len(), 2);
    // The same client by the same node knows what became of its own.
    assert_eq!(by_another_node(&b, &mut other, 33_000, SYN), first);
    assert_eq!(by_another_node(&b, &mut other, 33_000, ACK), first);
    assert_eq!(to_replica(&b, &mut other, by, meeting, ACK), second);
    // In the end it is free.
    by_another_node(&b, &mut other, 33_000, RST);
    to_replica(&b, &mut other, by, meeting, RST);
    b.pass(Duration::from_secs(11));
    assert_eq!(other.expire(b.now, 10), 2);
    assert_eq!(to_replica(&b, &mut other, by, meeting, SYN), first);
}
