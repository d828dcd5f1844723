use std::time::Duration;

use bytes::Bytes;
use weft_gossip::{Config, Gossip, Identity, NetdbView};
use weft_model::assignment::EndpointView;
use weft_model::id::NetworkId;
use weft_model::objects::Mac;
use weft_model::records::{EndpointRecord, Table};

use super::*;
use crate::compile::known::KnownEndpoint;

/// A replica of service `s` that takes connections, or none, or is gone.
fn change(id: &str, ready: Option<bool>) -> Change {
    let after = ready.map(|ready| {
        let view = EndpointView {
            id: id.into(),
            network: NetworkId::from("n"),
            node: NodeId::from("other"),
            name: id.to_owned(),
            ips: vec![[10, 0, 0, 5].into()],
            mac: Mac([2, 0x42, 10, 0, 0, 5]),
            aliases: Vec::new(),
            service: Some(ServiceId::from("s")),
            task: None,
        };
        let said = EndpointRecord {
            id: id.into(),
            ready,
            draining: false,
            ipv4_only: Vec::new(),
            without_ipv6: false,
        };
        PlacedEndpoint {
            record: Arc::new(KnownEndpoint::new(view, &said)),
            port: None,
        }
    });
    Change {
        id: id.into(),
        before: None,
        after,
    }
}

fn of(loads: &mut Loads, endpoint: &EndpointId, ready: bool) -> Arc<ReplicaLoad> {
    loads.of(endpoint, &NodeId::from("other"), ready)
}

fn gossip(node: &str) -> Gossip {
    let addr = ([10, 0, 0, 1], 7946).into();
    let id = Identity::new(node.into(), addr, 1);
    Gossip::new(Config::default(), id, [0; 32], Duration::ZERO)
}

fn record(active: u32, draining: bool) -> Option<LoadRecord> {
    Some(LoadRecord { active, draining })
}

#[test]
fn reports_changes_once_and_forgets_the_idle() {
    let mut loads = Loads::default();
    let (a, b) = (EndpointId::from("a"), EndpointId::from("b"));
    let flow = of(&mut loads, &a, true).open();
    of(&mut loads, &b, true);
    loads.follow(
        &[change("a", Some(true)), change("b", Some(true))],
        Instant(1),
    );
    assert_eq!(loads.take_changes(), [(a.clone(), record(1, false))]);
    assert_eq!(loads.take_changes(), []);
    loads.follow(&[change("a", None), change("b", None)], Instant(2));
    assert_eq!(loads.take_changes(), [], "an open flow keeps its counter");
    assert!(!loads.counters.contains_key(&b));
    drop(flow);
    assert_eq!(loads.take_changes(), [(a.clone(), None)]);
    assert!(loads.counters.is_empty() && loads.gone.is_empty());
}

#[test]
fn what_others_have_open_reaches_the_counters_of_what_is_balanced() {
    let mut other = gossip("n");
    for replica in ["a", "b"] {
        let seven = Bytes::from_static(br#"{"active": 7}"#);
        other
            .put(Duration::ZERO, Table::Load, replica, seven)
            .unwrap();
    }
    let view = other.view();
    let mut loads = Loads::default();
    let ids = ["a", "b", "c"].map(EndpointId::from);
    let [a, b, c] = ids.each_ref().map(|id| of(&mut loads, id, true));
    let service = ServiceId::from("s");
    let nobody = NetdbView::default();
    loads.hear(view.changed_loads(&nobody));
    loads.set_limits(&BTreeMap::from([(&service, 5)]));
    loads.follow(
        &[change("a", Some(true)), change("c", Some(true))],
        Instant(1),
    );
    loads.set_others(Instant(1));
    let counts = [&a, &b, &c].map(|load| (load.others(), load.claimed()));
    assert_eq!(counts, [(7, 5), (0, 0), (0, 0)]);
    // One that comes later, and one that goes while it has something open from here.
    let flow = a.open();
    loads.follow(&[change("b", Some(true)), change("a", None)], Instant(2));
    loads.set_others(Instant(2));
    assert_eq!((b.others(), a.others()), (7, 0));
    drop(flow);
    loads.hear(nobody.changed_loads(&view));
    loads.set_others(Instant(3));
    assert_eq!((b.others(), b.claimed()), (0, 0));
}

#[test]
fn what_is_heard_of_a_service_leaves_the_others_as_they_are() {
    let mut loads = Loads::default();
    let [a, b, c] = ["a", "b", "c"].map(|id| of(&mut loads, &EndpointId::from(id), true));
    let mut other = change("c", Some(true));
    if let Some(placed) = &mut other.after {
        Arc::make_mut(&mut placed.record).service = Some(ServiceId::from("other"));
    }
    let replicas = [change("a", Some(true)), change("b", Some(true)), other];
    loads.follow(&replicas, Instant(1));
    loads.set_others(Instant(1));
    let said = |active| {
        Some(LoadRecord {
            active,
            draining: false,
        })
    };
    let n = NodeId::from("n");
    let hear = |loads: &mut Loads, active| {
        loads.hear([(&n, "a", said(active))].into_iter());
    };
    let now = Instant(20);
    let ages = || [&a, &b, &c].map(|load| load.age_of_others(now).map(|age| age.as_nanos()));
    hear(&mut loads, 7);
    loads.set_changed(Instant(10));
    assert_eq!([a.others(), b.others(), c.others()], [7, 0, 0]);
    let aged = [Some(10), Some(10), Some(19)];
    assert_eq!(ages(), aged, "those of one service have one age");
    // The same again, though a task may be draining now, is nothing.
    hear(&mut loads, 7);
    loads.set_changed(Instant(15));
    assert_eq!(ages(), aged);
    loads.set_others(Instant(16));
    assert_eq!(ages(), [Some(4); 3]);
    // Its counter is asked for later: it knows what was said before.
    loads.follow(&[change("d", Some(true))], Instant(17));
    loads.hear([(&n, "d", said(3))].into_iter());
    loads.set_changed(Instant(17));
    let d = of(&mut loads, &EndpointId::from("d"), true);
    loads.follow(&[], Instant(18));
    loads.set_changed(Instant(18));
    assert_eq!(d.others(), 3);
    loads.forget_reports();
    loads.set_changed(Instant(19));
    assert_eq!([a.others(), d.others()], [0, 0]);
}

#[test]
fn all_replicas_of_a_node_have_the_pressure_that_it_tells_of() {
    let mut loads = Loads::default();
    let on = |loads: &mut Loads, id: &str, node: &str| loads.of(&id.into(), &node.into(), true);
    let says = |loads: &mut Loads, pressure| {
        let record = PressureRecord { pressure };
        loads.set_pressures([(&NodeId::from("n"), record)].into_iter());
    };
    // It has no replica yet; one on a node before it, and one behind it, are of nodes that say
    // nothing.
    let before = on(&mut loads, "c", "m");
    says(&mut loads, 900);
    let behind = on(&mut loads, "d", "o");
    let a = on(&mut loads, "a", "n");
    assert_eq!(a.node().get(), 900, "it has said so before");
    let b = on(&mut loads, "b", "n");
    let pressures = || [&a, &b, &before, &behind].map(|load| load.node().get());
    says(&mut loads, 4200);
    assert_eq!(pressures(), [4200, 4200, 0, 0]);
    says(&mut loads, 0);
    assert_eq!(pressures(), [0; 4]);
}

#[test]
fn nodes_are_kept_while_they_have_replicas_or_are_not_calm() {
    let mut loads = Loads::default();
    let a = EndpointId::from("a");
    let nodes = |loads: &mut Loads| {
        loads.take_changes();
        loads
            .nodes
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    of(&mut loads, &a, true);
    let hot = NodeId::from("hot");
    let pressure = PressureRecord { pressure: 1000 };
    loads.set_pressures([(&hot, pressure)].into_iter());
    assert_eq!(nodes(&mut loads), ["hot", "other"]);
    loads.follow(&[change("a", None)], Instant(1));
    assert_eq!(nodes(&mut loads), ["hot"]);
    let calm = PressureRecord { pressure: 0 };
    let stranger = NodeId::from("stranger");
    loads.set_pressures([(&hot, calm), (&stranger, calm)].into_iter());
    assert_eq!(nodes(&mut loads), [""; 0]);
}

#[test]
fn a_replica_that_was_not_ready_is_a_newcomer_again() {
    let mut loads = Loads::default();
    let load = of(&mut loads, &EndpointId::from("a"), false);
    let mut since = |ready, now| {
        loads.follow(&[change("a", Some(ready))], Instant(now));
        load.ready_since()
    };
    assert_eq!(since(false, 1), None);
    assert_eq!(since(true, 2), Some(Instant(2)));
    assert_eq!(since(true, 3), Some(Instant(2)));
    assert_eq!(since(false, 4), None);
    assert_eq!(since(true, 5), Some(Instant(5)));
}

#[test]
fn a_counter_that_comes_after_its_replica_knows_that_this_is_ready() {
    let mut loads = Loads::default();
    loads.follow(&[change("a", Some(true))], Instant(1));
    let load = of(&mut loads, &EndpointId::from("a"), true);
    assert_eq!(load.ready_since(), None);
    loads.follow(&[], Instant(2));
    assert_eq!(load.ready_since(), Some(Instant(2)));
    loads.set_others(Instant(3));
    assert!(load.age_of_others(Instant(3)).is_some(), "it is balanced");
}

#[test]
fn tells_at_once_that_a_replica_gets_nothing_new() {
    let mut loads = Loads::default();
    let a = EndpointId::from("a");
    let load = of(&mut loads, &a, false);
    loads.follow(&[change("a", Some(false))], Instant(1));
    assert_eq!(loads.take_changes(), [], "it starts");
    loads.follow(&[change("a", Some(true))], Instant(2));
    assert!(!loads.is_urgent());
    let flow = load.open();
    assert_eq!(loads.take_urgent(), [], "counts have time");
    assert_eq!(loads.take_changes(), [(a.clone(), record(1, false))]);
    loads.follow(&[change("a", Some(false))], Instant(3));
    assert!(loads.is_urgent());
    assert_eq!(loads.take_urgent(), [(a.clone(), record(1, true))]);
    assert!(!loads.is_urgent());
    assert_eq!(loads.take_changes(), []);
    drop(flow);
    assert_eq!(loads.take_changes(), [(a.clone(), record(0, true))]);
    loads.follow(&[change("a", None)], Instant(4));
    assert_eq!(loads.take_urgent(), [(a, None)]);
}

#[test]
fn a_share_is_an_equal_part_and_one_at_least() {
    let mut loads = Loads::default();
    let service = ServiceId::from("s");
    let load = loads.of_service(&service);
    let share = |limit, nodes| {
        loads.set_shares(&BTreeMap::from([(&service, limit)]), nodes);
        load.share()
    };
    assert_eq!(share(1000, 3), 333);
    assert_eq!(share(2, 3), 1);
    assert_eq!(share(10, 0), 10);
}
