//! Jobs, as `service ls` counts them.

use weft_netns_tests::{Cluster, eventually};

use super::{create, remove, rows};

pub(super) fn begin(cluster: &Cluster) {
    let flags = ["--mode", "replicated-job", "--replicas", "4"];
    let flags = [&flags[..], &["--max-concurrent", "2"]].concat();
    create(cluster, "four", &flags, &["sleep", "0.3"]);
    create(cluster, "each", &["--mode", "global-job"], &["true"]);
}

pub(super) fn are_counted(cluster: &Cluster) {
    shows(cluster, "four", "0/2 (4/4 completed)");
    shows(cluster, "each", "0/0 (3/3 completed)");
    for (name, tasks) in [("four", 4), ("each", 3)] {
        let rows = rows(cluster, name);
        let complete = rows.iter().filter(|row| row["State"] == "Complete");
        assert_eq!(complete.count(), tasks, "{rows:#?}");
    }
    // Another run, which is wider.
    let words = ["service", "update", "-d", "--max-concurrent", "4", "four"];
    cluster.weft("node1", &words).done();
    shows(cluster, "four", "0/4 (4/4 completed)");
    remove(cluster, "four");
    remove(cluster, "each");
}

#[track_caller]
fn shows(cluster: &Cluster, name: &str, replicas: &str) {
    eventually(&format!("{name} shows {replicas}"), || {
        let rows = cluster.rows(&["service", "ls"]);
        let row = rows.iter().find(|row| row["Name"] == name);
        if row.is_some_and(|row| row["Replicas"] == replicas) {
            Ok(())
        } else {
            Err(rows)
        }
    });
}
