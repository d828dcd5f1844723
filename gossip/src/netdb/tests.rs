use proptest::prelude::*;

use super::*;

const T0: Duration = Duration::ZERO;

fn db(name: &str) -> Netdb {
    Netdb::new(name.into(), 7)
}

fn sync(now: Duration, a: &mut Netdb, b: &mut Netdb) {
    let mut news = Vec::new();
    for delta in b.deltas(&a.digest(), false, usize::MAX) {
        a.apply_delta(now, delta, false, &mut news);
    }
    for delta in a.deltas(&b.digest(), false, usize::MAX) {
        b.apply_delta(now, delta, false, &mut news);
    }
}

fn live(db: &Netdb, owner: &str) -> Vec<(String, Vec<u8>)> {
    db.owners
        .get(&NodeId::from(owner))
        .into_iter()
        .flat_map(|o| o.entries.iter())
        .filter(|(.., e)| e.deleted.is_none())
        .map(|(_, key, e)| (key.to_owned(), e.value.to_vec()))
        .collect()
}

fn put(db: &mut Netdb, key: &str, value: &'static [u8]) -> Update {
    db.put(Table::Endpoint, key, Bytes::from_static(value))
        .unwrap();
    db.update(&(db.me.clone(), (2, key.to_owned()))).unwrap()
}

#[test]
fn newest_wins_in_any_order() {
    let (mut a, mut b) = (db("a"), db("b"));
    let one = put(&mut a, "k", b"1");
    let two = put(&mut a, "k", b"2");
    assert_eq!(b.apply(T0, &two), Applied::Newer);
    assert_eq!(b.apply(T0, &two), Applied::Same);
    assert_eq!(b.apply(T0, &one), Applied::Older);
    assert_eq!(live(&b, "a"), [("k".to_owned(), b"2".to_vec())]);
    assert!(
        !a.put(Table::Endpoint, "k", Bytes::from_static(b"2"))
            .unwrap()
    );
}

#[test]
fn deletion_survives_its_tombstone() {
    let (mut a, mut b, mut c) = (db("a"), db("b"), db("c"));
    let old = put(&mut a, "k", b"1");
    put(&mut a, "other", b"1");
    sync(T0, &mut a, &mut b);
    sync(T0, &mut a, &mut c);
    assert!(a.delete(T0, Table::Endpoint, "k"));
    assert!(!a.delete(T0, Table::Endpoint, "k"));
    sync(T0, &mut a, &mut b);
    let later = Duration::from_secs(3600);
    for d in [&mut a, &mut b] {
        d.reap(later, Duration::from_secs(60), Duration::MAX, |_| true);
        assert_eq!(d.owners[&NodeId::from("a")].entries.len(), 1);
    }
    // c slept through all of it, and the tombstone is gone everywhere.
    sync(later, &mut b, &mut c);
    assert_eq!(live(&c, "a"), [("other".to_owned(), b"1".to_vec())]);
    assert_eq!(c.apply(later, &old), Applied::Older);
    assert!(a.deltas(&c.digest(), false, usize::MAX).is_empty());
}

#[test]
fn both_owners_of_one_key_are_kept() {
    let (mut a, mut b) = (db("a"), db("b"));
    put(&mut a, "k", b"a");
    put(&mut b, "k", b"b");
    sync(T0, &mut a, &mut b);
    for d in [&a, &b] {
        assert_eq!(live(d, "a")[0].1, b"a");
        assert_eq!(live(d, "b")[0].1, b"b");
    }
}

#[test]
fn a_later_life_voids_an_earlier_one() {
    let (mut a, mut b) = (db("a"), db("b"));
    let old = put(&mut a, "k", b"1");
    sync(T0, &mut a, &mut b);
    assert!(b.observe_incarnation(&"a".into(), 8));
    assert!(live(&b, "a").is_empty());
    assert_eq!(b.apply(T0, &old), Applied::Older);
}

#[test]
fn own_entries_of_an_unknown_life_are_outbid() {
    let (mut a, mut b) = (Netdb::new("a".into(), 100), db("b"));
    put(&mut a, "stale", b"1");
    sync(T0, &mut a, &mut b);
    // The clock of a went backwards over a restart.
    let mut a = Netdb::new("a".into(), 50);
    put(&mut a, "k", b"2");
    assert_eq!(a.own_ahead(&b.digest()), Some(100));
    let echo = b
        .update(&("a".into(), (2, "stale".to_owned())))
        .expect("b has it");
    assert_eq!(a.apply(T0, &echo), Applied::OwnAhead(100));
    assert_eq!(a.rebase(101).len(), 1);
    sync(T0, &mut a, &mut b);
    assert_eq!(live(&b, "a"), [("k".to_owned(), b"2".to_vec())]);
}

#[test]
fn left_drops_entries_and_refuses_late_ones() {
    let (mut a, mut b) = (db("a"), db("b"));
    let old = put(&mut a, "k", b"1");
    sync(T0, &mut a, &mut b);
    let key = a.leave();
    let update = a.update(&key).unwrap();
    assert_eq!(b.apply(T0, &update), Applied::Newer);
    assert_eq!(b.apply(T0, &update), Applied::Same);
    assert_eq!(b.apply(T0, &old), Applied::Older);
    assert!(live(&b, "a").is_empty());
}

#[test]
fn failed_for_long_counts_as_left() {
    let (mut a, mut b) = (db("a"), db("b"));
    put(&mut a, "k", b"1");
    sync(T0, &mut a, &mut b);
    let day = Duration::from_secs(86_400);
    b.reap(T0, day, day, |_| false);
    assert_eq!(live(&b, "a").len(), 1);
    b.reap(day, day, day, |_| false);
    assert!(live(&b, "a").is_empty());
    assert_eq!(a.own_ahead(&b.digest()), Some(7));
}

#[test]
fn small_budget_still_gets_there() {
    let (mut a, mut b) = (db("a"), db("b"));
    for i in 0..50 {
        put(&mut a, &format!("k{i}"), b"0123456789");
    }
    let mut rounds = 0;
    let mut news = Vec::new();
    loop {
        let deltas = a.deltas(&b.digest(), false, 600);
        if deltas.is_empty() {
            break;
        }
        for delta in deltas {
            b.apply_delta(T0, delta, false, &mut news);
        }
        rounds += 1;
        assert!(rounds < 50);
    }
    assert_eq!(live(&a, "a"), live(&b, "a"));
    assert!(rounds > 2);
}

#[test]
fn limits_are_named() {
    let mut a = db("a");
    assert_eq!(a.put(Table::Node, "", Bytes::new()), Err(PutError::Key(0)));
    assert_eq!(
        a.put(Table::Node, "k", Bytes::from(vec![0; MAX_VALUE + 1])),
        Err(PutError::Value(MAX_VALUE + 1))
    );
    assert_eq!(a.apply(T0, &Update::default()), Applied::Invalid);
}

proptest! {
    /// Whatever was lost, doubled or reordered: after comparing pairwise all hold the same.
    #[test]
    fn always_converges(
        ops in prop::collection::vec((0_usize..3, 0_u8..4, any::<bool>(), 0_u8..8), 1..60),
        order in prop::collection::vec((0_usize..60, 0_usize..3), 0..120),
        syncs in prop::collection::vec((0_usize..3, 0_usize..3), 0..6),
    ) {
        let mut dbs = [db("a"), db("b"), db("c")];
        let mut sent = Vec::new();
        for (at, (who, key, delete, value)) in ops.into_iter().enumerate() {
            let key = format!("k{key}");
            if delete {
                dbs[who].delete(T0, Table::Endpoint, &key);
            } else {
                dbs[who].put(Table::Endpoint, &key, Bytes::from(vec![value])).unwrap();
            }
            let me = dbs[who].me.clone();
            sent.extend(dbs[who].update(&(me, (2, key))));
            if let Some((x, y)) = syncs.get(at).filter(|(x, y)| x < y) {
                let (left, right) = dbs.split_at_mut(*y);
                sync(T0, &mut left[*x], &mut right[0]);
            }
        }
        for (which, to) in order {
            if let Some(update) = sent.get(which) {
                dbs[to].apply(T0, update);
            }
        }
        for (x, y) in [(0, 1), (0, 2), (1, 2), (0, 1)] {
            let (left, right) = dbs.split_at_mut(y);
            sync(T0, &mut left[x], &mut right[0]);
        }
        for owner in ["a", "b", "c"] {
            prop_assert_eq!(live(&dbs[0], owner), live(&dbs[1], owner));
            prop_assert_eq!(live(&dbs[0], owner), live(&dbs[2], owner));
        }
        prop_assert!(dbs[0].deltas(&dbs[1].digest(), false, usize::MAX).is_empty());
    }
}
