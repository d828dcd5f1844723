//! What a user may ask of the choice of replicas: the same one for a client, by whichever port and node
//! it asks, or a near one.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use weft_netns_tests::{Cluster, Task, eventually, get};
use weft_sys::netns::Netns;

use crate::{PROGRAM, swarm};

/// A service of four replicas with three ports, each of which is a program of its own.
fn serve_three_ports(cluster: &Cluster) -> Vec<Task> {
    let script = format!("for port in 80 81 82; do {PROGRAM} demo-http --port $port & done; wait");
    let words = ["service", "create", "--name", "web", "--replicas", "4"];
    let program = ["-p", "8000-8002:80-82", "host", "sh", "-c", &script];
    cluster
        .weft("node1", &[&words[..], &program].concat())
        .done();
    cluster.tasks("web")
}

/// The three ports of each of these nodes.
fn ports(cluster: &Cluster, nodes: &[&str]) -> Vec<SocketAddr> {
    let of_all = |port| nodes.iter().map(move |node| cluster.at(node, port));
    (8000..=8002).flat_map(of_all).collect()
}

/// Tasks that answer `count` requests of a client, by each port and node in turn.
fn answered(cluster: &Cluster, client: &Netns, nodes: &[&str], count: usize) -> BTreeSet<String> {
    let ports = ports(cluster, nodes);
    ports
        .iter()
        .cycle()
        .take(count)
        .map(|to| get(client, *to).expect("an answer"))
        .map(|answer| answer.split(' ').nth(2).expect("a name").to_owned())
        .collect()
}

#[test]
fn a_client_stays_with_one_replica_by_every_port_or_with_a_near_one_when_the_service_says_so() {
    let cluster = swarm(2);
    let tasks = serve_three_ports(&cluster);
    let client = cluster.outside();
    let both = ["node1", "node2"];
    for to in ports(&cluster, &both) {
        eventually("the port answers", || get(&client, to));
    }
    let reached = |nodes: &[&str], count: usize, wanted: usize| {
        eventually("the rule is known everywhere", || {
            let seen = answered(&cluster, &client, nodes, count);
            if seen.len() == wanted {
                Ok(seen)
            } else {
                Err(seen)
            }
        })
    };
    reached(&both, 18, 4);
    let update = |words: &[&str]| {
        let words = [&["service", "update", "-d"], words, &["web"]].concat();
        cluster.weft("node1", &words).done();
    };
    update(&["--affinity", "client"]);
    let one = reached(&both, 42, 1);
    assert_eq!(answered(&cluster, &client, &both, 24), one);
    update(&["--affinity", "none", "--local-first"]);
    for node in both {
        let near: BTreeSet<String> = tasks
            .iter()
            .filter(|task| task.node == node)
            .map(|task| task.name.clone())
            .collect();
        assert_eq!(near.len(), 2);
        eventually("only replicas of the node answer", || {
            let seen = answered(&cluster, &client, &[node], 21);
            if seen == near { Ok(()) } else { Err(seen) }
        });
    }
    update(&["--local-first=false"]);
    reached(&["node1"], 18, 4);
}
