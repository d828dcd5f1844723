//! Tasks that stay where their volume is.

use serde_json::Value;
use weft_netns_tests::{Cluster, Settings, eventually};

use super::{becomes, cluster, create, in_a_box, load, remove, rows, text};

/// Where the task has run first.
const HOME: &str = "node2";

fn availability(cluster: &Cluster, node: &str, what: &str) {
    let words = ["node", "update", "--availability", what, node];
    cluster.weft("node1", &words).done();
}

/// A cluster with a task on its home, which has written something.
fn at_home() -> Cluster {
    let cluster = cluster(&Settings {
        nodes: 2,
        ..Settings::default()
    });
    load(&cluster, "node1", &in_a_box());
    availability(&cluster, "node1", "drain");
    let mount = "type=volume,source=data,target=/data,volume-sticky=true";
    create(&cluster, "keeps", &["--mount", mount], "box:1", &[]);
    let row = becomes(&cluster, "keeps", "Running");
    assert_eq!(text(&row, "Node"), HOME);
    availability(&cluster, "node1", "active");
    let words = ["exec", "keeps.1", "sh", "-c", "echo kept > /data/word"];
    cluster.weft("node1", &words).done();
    cluster
}

/// Waits until another task than this one runs: at home, with what the first one has written.
fn runs_at_home(cluster: &Cluster, before: &Value) -> Value {
    let row = eventually("another task runs", || {
        let rows = rows(cluster, "keeps");
        let runs = |row: &&Value| row["State"] == "Running" && row["ID"] != before["ID"];
        rows.first().filter(runs).cloned().ok_or(rows.clone())
    });
    assert_eq!(text(&row, "Node"), HOME, "{row}");
    let said = eventually("it is entered", || {
        let said = cluster.weft("node1", &["exec", "keeps.1", "cat", "/data/word"]);
        if said.code == 0 { Ok(said) } else { Err(said) }
    });
    assert_eq!(said.out, "kept\n");
    row
}

/// Waits until the task waits for its home, and says so.
fn waits_for_home(cluster: &Cluster) {
    let why = format!("its volume is on node {HOME}, and volume-sticky keeps it there");
    eventually("it waits for its home", || {
        let rows = rows(cluster, "keeps");
        let waits = rows
            .first()
            .is_some_and(|row| row["State"] == "Pending" && text(row, "Error").contains(&why));
        if waits { Ok(()) } else { Err(rows) }
    });
}

#[test]
fn a_task_with_a_sticky_volume_waits_for_its_home() {
    let cluster = at_home();
    let first = becomes(&cluster, "keeps", "Running");
    let again = ["service", "update", "-d", "--force", "keeps"];
    cluster.weft("node1", &again).done();
    let second = runs_at_home(&cluster, &first);
    availability(&cluster, HOME, "drain");
    waits_for_home(&cluster);
    availability(&cluster, HOME, "active");
    runs_at_home(&cluster, &second);
    remove(&cluster, "keeps");
}

#[test]
#[ignore = "second tier: a node is switched off, and everybody has to notice"]
fn a_task_with_a_sticky_volume_comes_back_with_its_node() {
    let mut cluster = at_home();
    let first = becomes(&cluster, "keeps", "Running");
    cluster.lab_mut().kill_node(HOME).expect("it was up");
    waits_for_home(&cluster);
    cluster.lab_mut().start_node(HOME).expect("it is off");
    cluster.wait_ready(2);
    runs_at_home(&cluster, &first);
}
