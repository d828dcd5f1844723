//! A secret becomes another one: a new object, and a rolling update to it.

use std::collections::BTreeSet;

use weft_netns_tests::{Cluster, within};

use super::super::{rows, text};
use super::search::Value;
use super::{STACK_LIMIT, ids, inside, try_inside};

/// The tasks of `keeper` are replaced by ones that have a new value where the old one was; returns it.
/// Those of another service keep the old one.
pub(super) fn another_value_takes_its_place(cluster: &Cluster, old: &Value) -> Value {
    let new = Value::random(cluster, "next");
    let words = ["secret", "create", "db-pass-2", "-"];
    cluster.weft_reading("node1", &words, &new.text).done();
    let before: BTreeSet<String> = ids(cluster, "keeper").into_iter().collect();
    let mut words = vec![
        "service",
        "update",
        "-d",
        "--secret-rm",
        "db-pass",
        "--secret-add",
    ];
    words.extend(["source=db-pass-2,target=pass,uid=1000,mode=0400", "keeper"]);
    cluster.weft("node1", &words).done();
    within(STACK_LIMIT, "both tasks were replaced", || {
        let now = ids(cluster, "keeper");
        let rows = rows(cluster, "keeper");
        let running = rows.iter().filter(|row| text(row, "State") == "Running");
        if now.len() == 2 && running.count() == 2 && now.iter().all(|id| !before.contains(id)) {
            Ok(())
        } else {
            Err(now)
        }
    });
    for slot in 1..=2 {
        let task = format!("keeper.{slot}");
        assert_eq!(inside(cluster, &task, "cat /run/secrets/pass"), new.text);
        let said = try_inside(cluster, &task, "cat /srv/deep/pass");
        assert!(
            said.err.contains("No such file"),
            "it was removed: {said:?}"
        );
    }
    assert_eq!(
        inside(cluster, "plain.1", "cat /run/secrets/db-pass"),
        old.text
    );
    new
}
