//! What a user may ask of the choice of replicas: the same one for a client, or a near one.

use std::collections::BTreeSet;

use weft_netns_tests::{Cluster, eventually, get};
use weft_sys::netns::Netns;

use crate::swarm;

/// Tasks that answer `count` requests of a client, by each node in turn.
fn answered(cluster: &Cluster, client: &Netns, nodes: &[&str], count: usize) -> BTreeSet<String> {
    let ports = nodes.iter().cycle().map(|node| cluster.at(node, 8000));
    ports
        .take(count)
        .map(|to| get(client, to).expect("an answer"))
        .map(|answer| answer.split(' ').nth(2).expect("a name").to_owned())
        .collect()
}

#[test]
fn a_client_stays_with_one_replica_or_with_a_near_one_when_the_service_says_so() {
    let cluster = swarm(2);
    cluster.network("front");
    let tasks = cluster.serve_web(4);
    let client = cluster.outside();
    let both = ["node1", "node2"];
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
    reached(&both, 16, 4);
    let update = |words: &[&str]| {
        let words = [&["service", "update", "-d"], words, &["web"]].concat();
        cluster.weft("node1", &words).done();
    };
    update(&["--affinity", "client"]);
    let one = reached(&both, 40, 1);
    assert_eq!(answered(&cluster, &client, &both, 20), one);
    update(&["--affinity", "none", "--local-first"]);
    for node in both {
        let near: BTreeSet<String> = tasks
            .iter()
            .filter(|task| task.node == node)
            .map(|task| task.name.clone())
            .collect();
        assert_eq!(near.len(), 2);
        eventually("only replicas of the node answer", || {
            let seen = answered(&cluster, &client, &[node], 20);
            if seen == near { Ok(()) } else { Err(seen) }
        });
    }
    update(&["--local-first=false"]);
    reached(&["node1"], 16, 4);
}
