//! Ways of a service: back to what it was before, and after the labels of nodes.

use weft_netns_tests::{Cluster, eventually};

use super::{becomes, create, remove, rows, text};

pub(super) fn lead_back(cluster: &Cluster) {
    let flags = ["--update-monitor", "0s", "--rollback-monitor", "0s"];
    let flags = [&flags[..], &["-e", "VERSION=1", "--replicas", "2"]].concat();
    create(cluster, "back", &flags, &["sleep", "1000"]);
    is_of(cluster, "1", "");
    let weft = |words: &[&str]| cluster.weft("node1", words).done();
    weft(&["service", "update", "-d", "--env-add", "VERSION=2", "back"]);
    is_of(cluster, "2", "completed");
    weft(&["service", "rollback", "-d", "back"]);
    is_of(cluster, "1", "rollback_completed");
    // The way back from the way back.
    weft(&["service", "update", "--rollback", "-d", "back"]);
    is_of(cluster, "2", "rollback_completed");
    remove(cluster, "back");
}

/// Waits until both tasks have this version, and the last update is that far.
#[track_caller]
fn is_of(cluster: &Cluster, version: &str, state: &str) {
    eventually(&format!("both tasks are of version {version}"), || {
        let service = cluster.inspect("service", "back");
        let status = &service["UpdateStatus"]["State"];
        if status.as_str().unwrap_or_default() != state {
            return Err(service);
        }
        for slot in ["back.1", "back.2"] {
            let words = ["exec", slot, "sh", "-c", "echo $VERSION"];
            let said = cluster.weft("node1", &words);
            if said.code != 0 || said.out.trim() != version {
                return Err(serde_json::json!([slot, said.out, said.err]));
            }
        }
        Ok(())
    });
}

/// A running task leaves a node that its service may not be on any more.
pub(super) fn follow_labels(cluster: &Cluster) {
    let label = |flag: &str, label: &str, node: &str| {
        let words = ["node", "update", flag, label, node];
        cluster.weft("node1", &words).done();
    };
    label("--label-add", "zone=a", "node1");
    let flags = ["--constraint", "node.labels.zone==a"];
    let flags = [&flags[..], &["--restart-delay", "0s"]].concat();
    create(cluster, "zoned", &flags, &["sleep", "1000"]);
    let first = becomes(cluster, "zoned", "Running");
    assert_eq!(text(&first, "Node"), "node1");
    label("--label-add", "zone=a", "node3");
    label("--label-add", "zone=b", "node1");
    let second = eventually("it runs where the label is now", || {
        let rows = rows(cluster, "zoned");
        let new = rows.first().filter(|row| text(row, "Node") == "node3");
        let new = new.filter(|row| row["State"] == "Running");
        new.cloned().ok_or(rows)
    });
    assert_ne!(second["ID"], first["ID"]);
    eventually("the first one has ended", || {
        let rows = rows(cluster, "zoned");
        let old = rows.iter().find(|row| row["ID"] == first["ID"]);
        match old {
            Some(old) if old["State"] == "Shutdown" => Ok(()),
            _ => Err(rows),
        }
    });
    label("--label-rm", "zone", "node3");
    let nowhere = "scheduling constraints not satisfied on 3 nodes";
    eventually("no node meets its constraints", || {
        let rows = rows(cluster, "zoned");
        let new = rows.first().filter(|row| row["State"] == "Pending");
        match new {
            Some(new) if text(new, "Error").contains(nowhere) => Ok(()),
            _ => Err(rows),
        }
    });
    remove(cluster, "zoned");
    label("--label-rm", "zone", "node1");
}
