//! Nodes that answer their manager and carry no traffic.

use serde_json::Value;
use weft_netns_tests::{Cluster, eventually};

use crate::swarm;

/// The row of a node in `node ls`, once its status is this.
fn status(cluster: &Cluster, node: &str, wanted: &str) -> Value {
    eventually(&format!("{node} is {wanted}"), || {
        let rows = cluster.rows(&["node", "ls"]);
        let row = rows.iter().find(|row| row["Hostname"] == node).cloned();
        match row {
            Some(row) if row["Status"] == wanted => Ok(row),
            other => Err(other),
        }
    })
}

/// Gives node2 another address, or its own again.
fn readdress(cluster: &Cluster, from: &str, to: &str) {
    let script = format!(
        "set -e; ip addr del 10.77.0.{from}/24 dev eth0; ip addr add 10.77.0.{to}/24 dev eth0"
    );
    cluster.run("node2", None, &["sh", "-c", &script]).done();
}

#[test]
fn a_node_without_its_address_is_shown_gets_nothing_and_comes_back() {
    let cluster = swarm(2);
    cluster.network("front");
    let weft = |words: &[&str]| cluster.weft("node1", words);
    let create = |name: &str| {
        let words = [
            "service",
            "create",
            "--detach",
            "--replicas",
            "2",
            "--network",
            "front",
            "--name",
            name,
        ];
        weft(&[&words[..], &["host", "sleep", "3600"]].concat()).done();
    };
    eventually("gossip of node2 sees node1", || {
        let said = cluster.inspect("node", "node2");
        if said["Gossip"]["Seen"] == 1 {
            Ok(())
        } else {
            Err(said)
        }
    });
    create("web");
    eventually("one task on each node", || {
        let tasks = cluster.tasks("web");
        let nodes: Vec<&str> = tasks.iter().map(|t| t.node.as_str()).collect();
        if nodes == ["node1", "node2"] {
            Ok(())
        } else {
            Err(tasks)
        }
    });

    readdress(&cluster, "2", "22");
    cluster.lab().kill_agent("node2").expect("an agent to kill");
    let row = status(&cluster, "node2", "Impaired");
    let says = "its data plane does not run: ";
    let message = row["Message"].as_str().expect("a text");
    assert!(message.starts_with(says), "{row}");
    assert!(
        message.contains("10.77.0.2 is not one of this host's"),
        "{row}"
    );
    let node = cluster.inspect("node", "node2");
    assert_eq!(
        node["Status"]["Impaired"]["Reason"], row["Message"],
        "{node}"
    );
    assert_eq!(node["Status"]["State"], "ready", "{node}");

    // Nothing new goes there; where there is nothing else, it says why.
    create("more");
    eventually("both run on node1", || {
        let tasks = cluster.tasks("more");
        if tasks.len() == 2 && tasks.iter().all(|t| t.node == "node1") {
            Ok(())
        } else {
            Err(tasks)
        }
    });
    weft(&["node", "update", "--availability", "pause", "node1"]).done();
    create("none");
    eventually("its tasks say why they wait", || {
        let said = weft(&["service", "ps", "--no-trunc", "none"]);
        let why = "no suitable node (1 node not available for new tasks; 1 node impaired)";
        if said.out.contains(why) {
            Ok(())
        } else {
            Err(said)
        }
    });

    // It comes back in time: the task that it has goes on.
    let before = cluster.tasks("web");
    assert_eq!(before.len(), 2, "{before:?}");
    readdress(&cluster, "22", "2");
    status(&cluster, "node2", "Ready");
    eventually("what waited runs there", || {
        let tasks = cluster.tasks("none");
        if tasks.len() == 2 && tasks.iter().all(|t| t.node == "node2") {
            Ok(())
        } else {
            Err(tasks)
        }
    });
    assert_eq!(cluster.tasks("web"), before);
}

#[test]
#[ignore = "second tier: it waits out the grace of a node that carries no traffic"]
fn tasks_of_a_node_that_gossip_cannot_reach_move_after_a_grace() {
    let cluster = swarm(3);
    let tasks = cluster.web(3);
    assert_eq!(tasks.len(), 3);
    // The manager's port is open, gossip is not.
    let port = "udp dport 7946 drop; tcp dport 7946 drop\n";
    let chain =
        |hook: &str| format!("chain {hook} {{\ntype filter hook {hook} priority 0\n{port}}}\n");
    let rules = format!(
        "table inet cut {{\n{}{}}}\n",
        chain("input"),
        chain("output")
    );
    let rules = rules.as_str();
    cluster.run("node3", None, &["nft", rules]).done();
    let row = status(&cluster, "node3", "Impaired");
    let message = row["Message"].as_str().expect("a text");
    assert!(
        message.contains("does not pass between it and node1, node2"),
        "{row}"
    );
    let node = cluster.inspect("node", "node3");
    assert_eq!(node["Gossip"]["Seen"], 0, "{node}");
    eventually("its task runs elsewhere", || {
        let tasks = cluster.tasks("web");
        if tasks.len() == 3 && tasks.iter().all(|t| t.node != "node3") {
            Ok(())
        } else {
            Err(tasks)
        }
    });
    cluster
        .run("node3", None, &["nft", "delete", "table", "inet", "cut"])
        .done();
    status(&cluster, "node3", "Ready");
}
