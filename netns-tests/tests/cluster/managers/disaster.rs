//! All other managers are lost for good, or the state is: the ways back.

use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use weft_netns_tests::{Cluster, Settings};

use super::traffic::Traffic;
use super::{NO_LEADER, comes_to_do, comes_to_refuse, drain, lists, with_managers};
use crate::PROGRAM;

#[test]
fn the_last_of_three_managers_makes_the_swarm_anew_with_all_that_is_in_it() {
    let mut cluster = with_managers(4, 3);
    drain(&cluster, &["node1", "node2", "node3"]);
    let tasks = cluster.web(2);
    let pids = cluster.task_pids("node4");
    let before = ["front", "web"].map(|name| object(&cluster, name));
    let traffic = Traffic::start(&cluster, &["node4", "node1"]);
    for node in ["node2", "node3"] {
        cluster.lab_mut().kill_node(node).expect("it has power");
    }
    comes_to_refuse(&cluster, "node1", &["network", "create", "lost"], NO_LEADER);

    let addr = cluster.addr("node1").to_string();
    let words = [
        "swarm",
        "init",
        "--force-new-cluster",
        "--advertise-addr",
        &addr,
    ];
    let said = cluster.weft("node1", &words).ok();
    assert!(
        said.starts_with("Swarm initialized: current node (")
            && said.contains(") is now a manager."),
        "{said}"
    );
    comes_to_do(&cluster, "node1", &["network", "create", "after"]);
    lists(
        &cluster,
        "node1",
        &[
            "node1 Ready Leader",
            "node2 Down",
            "node3 Down",
            "node4 Ready",
        ],
    );
    assert_eq!(["front", "web"].map(|name| object(&cluster, name)), before);
    assert_eq!(cluster.tasks("web"), tasks);
    assert_eq!(cluster.task_pids("node4"), pids);

    // One that was lost has a swarm of its own past: it leaves that, and joins this one.
    cluster.weft("node1", &["node", "rm", "node2"]).done();
    cluster.lab_mut().start_node("node2").expect("it is off");
    comes_to_do(&cluster, "node2", &["swarm", "leave", "--force"]);
    let token = cluster.token_for("manager");
    let said = cluster.join("node2", &token).ok();
    assert_eq!(said, "This node joined a swarm as a manager.\n");
    comes_to_do(&cluster, "node2", &["network", "inspect", "after"]);
    traffic.noticed_nothing();
}

/// What must be the same afterwards: the id, and what was asked for or decided.
fn object(cluster: &Cluster, name: &str) -> [Value; 2] {
    let (kind, keys) = match name {
        "front" => ("network", ["Id", "VNI"]),
        _ => ("service", ["ID", "Spec"]),
    };
    let object = cluster.inspect(kind, name);
    keys.map(|key| {
        assert!(!object[key].is_null(), "{key} of {object}");
        object[key].clone()
    })
}

/// The machine of the only manager is lost. Another one with its address takes its place.
#[test]
fn a_backup_that_was_made_under_traffic_makes_the_same_swarm_again() {
    let cluster = Cluster::bare(PROGRAM, &Settings::default());
    cluster.init("node1");
    cluster.join("node2", &cluster.token()).done();
    cluster.wait_ready(2);
    drain(&cluster, &["node1"]);
    let tasks = cluster.web(2);
    let pids = cluster.task_pids("node2");
    let before = ["front", "web"].map(|name| object(&cluster, name));
    let token = cluster.token();
    let traffic = Traffic::start(&cluster, &["node2"]);
    let file = cluster.dir().join("swarm.backup").display().to_string();
    cluster.weft("node1", &["swarm", "backup", &file]).done();
    let mode = std::fs::metadata(&file).expect("a file").mode();
    assert_eq!(mode & 0o077, 0, "it has the root's key: {mode:o}");
    cluster.network("later");
    let restore = |node: &str, file: &str| cluster.weft(node, &["swarm", "restore", file]);
    restore("node1", &file).refused(&["This node is already part of a swarm"]);

    // Of a damaged one nothing is taken.
    let half = format!("{file}.half");
    let bytes = std::fs::read(&file).expect("a backup");
    std::fs::write(&half, &bytes[..bytes.len() / 2]).expect("a damaged one");
    restore("node3", &half).refused(&["backup"]);
    cluster
        .weft("node3", &["node", "ls"])
        .refused(&["\"weft swarm init\""]);

    cluster.weft("node1", &["swarm", "leave", "--force"]).done();
    restore("node1", &file).done();
    cluster.wait_ready(2);
    assert_eq!(["front", "web"].map(|name| object(&cluster, name)), before);
    let names = cluster.weft("node1", &["network", "ls", "--format", "{{.Name}}"]);
    let names = names.ok();
    assert!(!names.lines().any(|name| name == "later"), "{names}");
    assert_eq!(cluster.tasks("web"), tasks);
    assert_eq!(cluster.task_pids("node2"), pids);
    assert_eq!(cluster.token(), token);
    cluster.network("later");
    cluster.join("node3", &token).done();
    cluster.wait_ready(3);
    traffic.noticed_nothing();
}
