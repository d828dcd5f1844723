use std::time::Duration;

use bytes::Bytes;
use weft_gossip::{Config, Gossip, Identity};
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

fn record(active: u32, draining: bool) -> Option<LoadRecord> {
    Some(LoadRecord { active, draining })
}

#[test]
fn reports_changes_once_and_forgets_the_idle() {
    let mut loads = Loads::default();
    let (a, b) = (EndpointId::from("a"), EndpointId::from("b"));
    let flow = loads.of(&a, true).open();
    loads.of(&b, true);
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
    let addr = ([10, 0, 0, 1], 7946).into();
    let id = Identity::new("n".into(), addr, 1);
    let mut other = Gossip::new(Config::default(), id, [0; 32], Duration::ZERO);
    for replica in ["a", "b"] {
        let seven = Bytes::from_static(br#"{"active": 7}"#);
        other
            .put(Duration::ZERO, Table::Load, replica, seven)
            .unwrap();
    }
    let view = other.view();
    let mut loads = Loads::default();
    let ids = ["a", "b", "c"].map(EndpointId::from);
    let [a, b, c] = ids.each_ref().map(|id| loads.of(id, true));
    let service = ServiceId::from("s");
    loads.hear(view.reports());
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
    loads.hear(std::iter::empty());
    loads.set_others(Instant(3));
    assert_eq!((b.others(), b.claimed()), (0, 0));
}

#[test]
fn a_replica_that_was_not_ready_is_a_newcomer_again() {
    let mut loads = Loads::default();
    let load = loads.of(&EndpointId::from("a"), false);
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
    let load = loads.of(&EndpointId::from("a"), true);
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
    let load = loads.of(&a, false);
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
