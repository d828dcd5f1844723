//! Stories that a walk may miss, and proof that there is something to walk through.

use std::time::Duration;

use weft_mesh::FlowState;
use weft_wire::FiveTuple;
use weft_wire::frame::TCP_ACK;

use super::bed::Bed;
use super::connection::{End, Target};
use super::world::{Change, ENDPOINTS, vni};

/// Behind another node.
const FAR: usize = 2;
/// Here, read by another worker than the client.
const NEAR: usize = 1;

/// A connection from the first endpoint, which is here, that the programs carry.
fn carried(bed: &mut Bed, target: Target) -> usize {
    let at = bed.connect(0, target);
    assert!(!bed.connections[at].over, "it is open");
    bed.exchange(at, 12);
    let before = bed.counts.carried;
    bed.exchange(at, 5);
    assert_eq!(bed.counts.carried, before + 10, "{target:?}");
    at
}

/// Only these endpoints serve the first service.
fn serve(bed: &mut Bed, replicas: &[usize]) {
    for endpoint in 0..ENDPOINTS {
        let service = if replicas.contains(&endpoint) { 0 } else { 9 };
        bed.change(Change::Serve { endpoint, service });
    }
}

/// A connection to a far endpoint, one to a near one, and the same by a service.
fn targets(bed: &mut Bed, mut with: impl FnMut(&mut Bed, Target)) {
    for endpoint in [FAR, NEAR] {
        with(bed, Target::Endpoint(endpoint));
        serve(bed, &[endpoint]);
        with(bed, Target::Service(0));
    }
}

#[test]
fn every_kind_of_flow_is_carried_and_nothing_is_left_of_it() {
    let mut bed = Bed::new(1);
    targets(&mut bed, |bed, target| {
        let at = carried(bed, target);
        bed.bulk(at, End::Client, 1100);
        bed.bulk(at, End::Server, 1100);
        bed.close(at, End::Client);
    });
    assert!(bed.counts.made >= 6, "two of each that stays here");
    bed.be_quiet();
}

#[test]
fn other_tables_send_it_to_a_worker_and_it_is_carried_again() {
    let mut bed = Bed::new(2);
    targets(&mut bed, |bed, target| {
        let at = carried(bed, target);
        for narrow in [true, false] {
            bed.change(Change::Mtu { narrow });
            let before = bed.counts.carried;
            bed.exchange(at, 1);
            assert_eq!(bed.counts.carried, before, "{target:?}");
            bed.exchange(at, 15);
            assert!(bed.counts.carried > before, "{target:?}");
        }
    });
    bed.be_quiet();
}

#[test]
fn a_service_that_loses_its_replica_loses_its_entries_by_the_next_round() {
    let mut bed = Bed::new(3);
    for replica in [FAR, NEAR] {
        serve(&mut bed, &[replica]);
        let at = carried(&mut bed, Target::Service(0));
        // The tables of the switch are the same: no epoch says so.
        bed.change(Change::Replace { endpoint: replica });
        assert!(bed.connections[at].over);
        assert!(bed.programs.borrow().out.is_empty());
        // Draining is about new connections.
        let at = carried(&mut bed, Target::Service(0));
        bed.change(Change::Drain { endpoint: replica });
        let before = bed.counts.carried;
        bed.exchange(at, 1);
        assert_eq!(bed.counts.carried, before + 2);
        bed.change(Change::Drain { endpoint: replica });
        bed.close(at, End::Server);
    }
    bed.be_quiet();
}

#[test]
fn what_the_kernel_has_carried_makes_no_reset_a_stranger() {
    let mut bed = Bed::new(4);
    for replica in [FAR, NEAR] {
        serve(&mut bed, &[replica]);
        let at = carried(&mut bed, Target::Service(0));
        for _ in 0..20 {
            bed.bulk(at, End::Client, 1100);
        }
        bed.abort(at, End::Client);
        let request = bed.connections[at].flow(End::Client);
        let state = bed.readers[0].flows.state_of(vni(), request);
        assert_eq!(state, Some(FlowState::Reset));
    }
    bed.be_quiet();
}

#[test]
fn half_an_hour_of_talk_and_half_a_minute_of_silence_end_an_entry() {
    let mut bed = Bed::new(5);
    serve(&mut bed, &[FAR]);
    let [direct, balanced] = [Target::Endpoint(FAR), Target::Service(0)].map(|target| {
        let at = carried(&mut bed, target);
        (at, bed.connections[at].flow(End::Client))
    });
    let has =
        |bed: &Bed, flow: FiveTuple| bed.programs.borrow().out.keys().any(|key| key.flow == flow);
    for _ in 0..70 {
        bed.pass(Duration::from_secs(29));
        for (at, flow) in [direct, balanced] {
            assert!(has(&bed, flow) || flow == balanced.1);
            bed.send(at, End::Client, TCP_ACK, 64, 0);
        }
    }
    assert!(!has(&bed, balanced.1), "it goes by the worker for once");
    bed.pass(Duration::from_secs(31));
    assert!(!has(&bed, direct.1));
    bed.be_quiet();
}

#[test]
fn a_flow_that_ends_in_the_round_that_finds_it_worth_an_entry_gets_none() {
    let mut bed = Bed::new(6);
    targets(&mut bed, |bed, target| {
        let at = bed.connect(0, target);
        bed.batch = true;
        bed.bulk(at, End::Client, 1100);
        bed.close(at, End::Client);
        bed.batch = false;
        bed.settle();
        assert!(bed.programs.borrow().out.is_empty(), "{target:?}");
    });
    assert_eq!(bed.counts.made, 0);
    bed.be_quiet();
}

#[test]
fn a_port_that_comes_back_under_another_number_has_counts_of_its_own() {
    let mut bed = Bed::new(7);
    let at = carried(&mut bed, Target::Endpoint(NEAR));
    // The worker that has written the entries does not read that port.
    bed.change(Change::Move {
        endpoint: NEAR,
        to: 0,
        anew: false,
    });
    bed.bulk(at, End::Client, 1100);
    // The new record has to hear of the socket at the other end first.
    bed.exchange(at, 1);
    let before = bed.counts.carried;
    bed.exchange(at, 5);
    assert_eq!(bed.counts.carried, before + 10);
    bed.be_quiet();
}
