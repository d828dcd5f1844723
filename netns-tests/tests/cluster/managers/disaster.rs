//! All other managers are lost for good, or the state is: the ways back.

use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use weft_netns_tests::{Cluster, Settings, eventually, get};

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

#[test]
fn a_backup_is_made_and_restored_while_the_swarm_runs() {
    let settings = Settings {
        nodes: 2,
        ..Settings::default()
    };
    let cluster = Cluster::swarm(PROGRAM, &settings);
    let tasks = cluster.web(2);
    let pids = cluster.task_pids("node2");
    let client = cluster.outside();
    let file = cluster.dir().join("swarm.backup").display().to_string();
    cluster.weft("node1", &["swarm", "backup", &file]).done();
    let mode = std::fs::metadata(&file).expect("a file").mode();
    assert_eq!(mode & 0o077, 0, "it has the root's key: {mode:o}");

    cluster.network("later");
    cluster.weft("node1", &["swarm", "restore", &file]).done();
    eventually("what came after the backup is gone", || {
        let said = cluster.weft("node1", &["network", "ls", "--format", "{{.Name}}"]);
        let names: Vec<&str> = said.out.lines().collect();
        if said.code == 0 && names.contains(&"front") && !names.contains(&"later") {
            Ok(())
        } else {
            Err(said)
        }
    });
    cluster.wait_ready(2);
    assert_eq!(cluster.tasks("web"), tasks);
    assert_eq!(cluster.task_pids("node2"), pids);
    for node in ["node1", "node2"] {
        get(&client, cluster.at(node, 8000)).expect("the port answers");
    }
    cluster.network("later");

    let bytes = std::fs::read(&file).expect("a backup");
    std::fs::write(&file, &bytes[..bytes.len() / 2]).expect("a damaged one");
    let said = cluster.weft("node1", &["swarm", "restore", &file]);
    said.refused(&[&file]);
    cluster
        .weft("node1", &["network", "inspect", "later"])
        .done();
}
