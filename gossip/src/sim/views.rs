//! What views show of a change, and what they share.

use std::sync::Arc;

use weft_model::records::LoadRecord;

use super::*;
use crate::NetdbView;

const TABLES: [Table; 3] = [Table::Node, Table::Endpoint, Table::Load];

impl Sim {
    /// Node `i` writes, and everybody hears of it.
    fn write(&mut self, i: usize, table: Table, key: &str, value: &'static str) {
        let now = self.now;
        let node = self.nodes[i].as_mut().expect("runs");
        node.put(now, table, key, Bytes::from_static(value.as_bytes()))
            .unwrap();
        self.after(i);
        self.run(2 * SECOND);
    }
}

/// Tables that differ.
fn changed(before: &NetdbView, after: &NetdbView) -> Vec<Table> {
    let changed = TABLES.into_iter().filter(|t| !after.has_same(*t, before));
    changed.collect()
}

#[test]
fn a_change_shows_in_its_table_and_nowhere_else() {
    let mut sim = Sim::cluster(5, 0.0, 3);
    let start = sim.node(2).view();
    assert_eq!(start.undecodable(), 3, "`first` is no endpoint");
    assert_eq!(start.endpoints().count(), 0);
    sim.run(20 * SECOND);
    let idle = sim.node(2).view();
    assert_eq!(changed(&start, &idle), []);
    assert!(idle.has_same_active(&start));

    sim.write(0, Table::Load, "e", r#"{"active": 3}"#);
    let loaded = sim.node(2).view();
    assert_eq!(changed(&idle, &loaded), [Table::Load]);
    assert_eq!(loaded.changed(Table::Load, &idle), [&name(0)], "it came");
    assert!(loaded.changed(Table::Endpoint, &idle).is_empty());
    let three = LoadRecord {
        active: 3,
        draining: false,
    };
    assert!(loaded.loads().eq([(&name(0), "e", three)]));
    assert_eq!(sim.node(2).load(&name(0), "e"), Some(three));
    sim.write(1, Table::Load, "e", r#"{"active": 1}"#);
    let both = sim.node(2).view();
    let one = LoadRecord { active: 1, ..three };
    let news = |view: &NetdbView, before: &NetdbView| {
        let news = view.changed_loads(before);
        news.map(|(by, replica, load)| (by.clone(), replica.to_owned(), load))
            .collect::<Vec<_>>()
    };
    let of = |i, load| (name(i), "e".to_owned(), load);
    assert_eq!(
        news(&both, &loaded),
        [of(1, Some(one))],
        "the other is known"
    );
    assert_eq!(news(&both, &idle), [of(0, Some(three)), of(1, Some(one))]);
    assert_eq!(news(&idle, &both), [of(0, None), of(1, None)]);
    assert_eq!(both.changed(Table::Load, &loaded), [&name(1)]);
    // The same again is nothing new.
    sim.write(0, Table::Load, "e", r#"{"active": 3}"#);
    assert_eq!(changed(&both, &sim.node(2).view()), []);

    sim.write(0, Table::Endpoint, "e", r#"{"id": "e", "ready": true}"#);
    let ready = sim.node(2).view();
    assert_eq!(changed(&both, &ready), [Table::Endpoint]);
    assert_eq!(
        ready.changed(Table::Endpoint, &both),
        [&name(0)],
        "it wrote"
    );
    assert!(ready.endpoints_of(&name(0)).any(|e| e.id.as_str() == "e"));
    assert_eq!(ready.endpoints_of(&name(1)).count(), 0);
    assert!(ready.endpoints().any(|(by, e)| *by == name(0) && e.ready));
    sim.write(0, Table::Node, &name(0).0, r#"{"mtu": 1500}"#);
    let spoken = sim.node(2).view();
    assert_eq!(changed(&ready, &spoken), [Table::Node]);
    assert!(
        spoken
            .nodes()
            .any(|(by, n)| *by == name(0) && n.mtu == 1500)
    );
    assert_eq!(spoken.node(&name(0)).map(|n| n.mtu), Some(1500));
    assert_eq!(spoken.undecodable(), 3);
    let now = sim.now;
    let node = sim.nodes[0].as_mut().unwrap();
    assert!(node.delete(now, Table::Endpoint, "e"));
    sim.after(0);
    sim.run(2 * SECOND);
    let gone = sim.node(2).view();
    assert_eq!(changed(&spoken, &gone), [Table::Endpoint]);
    assert_eq!(gone.endpoints().count(), 0);
    assert_eq!(spoken.endpoints().count(), 1, "a view is of its moment");

    assert!(gone.has_same_active(&spoken));
    sim.nodes[0] = None;
    sim.run(5 * SECOND);
    let dead = sim.node(2).view();
    assert_eq!(changed(&gone, &dead), TABLES, "all that it said is hidden");
    assert!(!dead.has_same_active(&gone));
    assert_eq!(dead.changed(Table::Node, &gone), [&name(0)], "it went");
    assert_eq!(dead.changed(Table::Load, &gone), [&name(0)]);
    assert!(dead.node(&name(0)).is_none());
    assert_eq!((dead.undecodable(), dead.nodes().count()), (2, 0));
    assert_eq!(news(&dead, &gone), [of(0, None)]);
    assert!(dead.loads().map(|(by, ..)| by).eq([&name(1)]));
}

#[test]
fn who_is_cut_off_and_comes_back_says_what_it_said() {
    let mut sim = Sim::cluster(6, 0.0, 3);
    sim.write(0, Table::Load, "e", r#"{"active": 3}"#);
    let before = sim.node(2).view();
    sim.island = [0].into();
    sim.run(5 * SECOND);
    let hidden = sim.node(2).view();
    assert_eq!(
        changed(&before, &hidden),
        [Table::Endpoint, Table::Load],
        "it never spoke of itself"
    );
    sim.island.clear();
    let back = |s: &Sim| s.node(2).view().loads().count() == 1;
    assert!(sim.until(30 * SECOND, back).is_some());
    let after = sim.node(2).view();
    assert_eq!(changed(&hidden, &after), [Table::Endpoint, Table::Load]);
}

#[test]
fn a_view_shares_with_the_one_before_what_is_the_same() {
    let mut sim = Sim::cluster(5, 0.0, 3);
    let start = sim.node(2).view();
    let shares = |view: &NetdbView| Arc::ptr_eq(&view.members, &start.members);
    sim.write(0, Table::Load, "e", r#"{"active": 3}"#);
    let loaded = sim.node(2).view_after(&start);
    assert!(shares(&loaded) && !shares(&sim.node(2).view()));
    assert_eq!(changed(&start, &loaded), [Table::Load]);
    assert_eq!(loaded.loads().count(), 1);
    sim.nodes[0] = None;
    sim.run(5 * SECOND);
    let (dead, anew) = (sim.node(2).view_after(&loaded), sim.node(2).view());
    assert!(!shares(&dead), "one of them is down");
    assert_eq!(dead.members, anew.members);
    assert_eq!(changed(&anew, &dead), []);
    assert_eq!((dead.loads().count(), loaded.loads().count()), (0, 1));
}

#[test]
fn who_is_no_longer_hot_is_calm_and_who_dies_too() {
    let mut sim = Sim::cluster(5, 0.0, 3);
    let calm = sim.node(2).view();
    let hot = name(0);
    sim.write(0, Table::Load, &hot.0, r#"{"pressure": 4200}"#);
    let seen = sim.node(2).view_after(&calm);
    let news = |view: &NetdbView, before: &NetdbView| {
        let news = view.changed_pressures(before);
        news.map(|(by, record)| (by.clone(), record.pressure))
            .collect::<Vec<_>>()
    };
    assert_eq!(news(&seen, &calm), [(hot.clone(), 4200)]);
    assert_eq!(seen.changed_loads(&calm).count(), 0, "it is no report");
    sim.write(0, Table::Load, "e", r#"{"active": 3}"#);
    let loaded = sim.node(2).view_after(&seen);
    assert_eq!(news(&loaded, &seen), []);
    sim.nodes[0] = None;
    sim.run(5 * SECOND);
    let dead = sim.node(2).view_after(&loaded);
    assert_eq!(news(&dead, &loaded), [(hot, 0)]);
}

#[test]
fn views_that_follow_each_other_are_those_made_anew() {
    let mut sim = Sim::cluster(6, 0.0, 7);
    let mut last = NetdbView::default();
    let mut same = 0;
    for round in 0..60 {
        match round {
            10 => sim.island = [4].into(),
            25 => sim.island.clear(),
            40 => sim.nodes[5] = None,
            _ if round % 3 == 0 => {
                let value = if round % 2 == 0 {
                    r#"{"active": 1}"#
                } else {
                    r#"{"active": 2}"#
                };
                sim.write(round % 4, Table::Load, "e", value);
            }
            _ => sim.run(SECOND / 2),
        }
        let (now, anew) = (sim.node(2).view_after(&last), sim.node(2).view());
        assert_eq!(now.members, anew.members, "round {round}");
        assert!(TABLES.iter().all(|table| now.has_same(*table, &anew)));
        assert_eq!(now.changed_loads(&anew).count(), 0);
        same += usize::from(Arc::ptr_eq(&now.members, &last.members));
        last = now;
    }
    assert!(same > 20, "members were made again in most rounds: {same}");
}
