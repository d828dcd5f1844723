//! Firewalls in the way of gossip's datagrams.

use weft_netns_tests::{Cluster, eventually};

use crate::swarm;

/// Waits until the warnings of a node have this in them.
#[track_caller]
fn warns(cluster: &Cluster, node: &str, wanted: &str) {
    eventually(&format!("{node}: {wanted}"), || {
        let said = cluster.weft(node, &["info"]);
        if said.out.contains(wanted) {
            Ok(())
        } else {
            Err(said)
        }
    });
}

fn news(cluster: &Cluster, node: &str, of: &str) -> usize {
    let log = std::fs::read_to_string(cluster.lab().log(node).expect("a log")).expect("a text");
    log.lines().filter(|line| line.contains(of)).count()
}

#[test]
#[ignore = "second tier: it waits for probes that fail"]
fn a_node_whose_gossip_datagrams_are_dropped_stays_and_everybody_says_so() {
    let cluster = swarm(3);
    let silent = "does not answer; its endpoints are withdrawn";
    let before = ["node1", "node2"].map(|node| news(&cluster, node, silent));
    // A firewall that lets answers pass, and nothing that is no answer.
    let rules = "table inet cut {\nchain out {\ntype filter hook output priority 0\n\
                 udp dport 7946 drop\n}\n}\n";
    cluster.run("node3", None, &["nft", rules]).done();
    warns(
        &cluster,
        "node1",
        "UDP 7946 does not pass from node3 (10.77.0.3)",
    );
    warns(
        &cluster,
        "node3",
        "UDP 7946 does not pass to node1 (10.77.0.1)",
    );
    let doctor = cluster.weft("node2", &["doctor"]).out;
    assert!(doctor.contains("UDP 7946 does not pass"), "{doctor}");
    // What it says reaches the others all the same.
    cluster.network("front");
    let (_guest, _) = cluster.guest("node3", "box", "front");
    let (client, _) = cluster.guest("node1", "client", "front");
    let ip = cluster.weft("node1", &["network", "inspect", "front"]).out;
    drop(client);
    eventually("node1 knows the box of node3", || {
        let said = cluster.weft("node1", &["network", "inspect", "front"]);
        if said.out.contains("\"box\"") {
            Ok(())
        } else {
            Err((said, ip.clone()))
        }
    });
    let after = ["node1", "node2"].map(|node| news(&cluster, node, silent));
    assert_eq!(before, after, "nobody was withdrawn");
    cluster
        .run("node3", None, &["nft", "delete", "table", "inet", "cut"])
        .done();
    eventually("the warning goes", || {
        let said = cluster.weft("node1", &["info"]);
        if said.out.contains("does not pass") {
            Err(said)
        } else {
            Ok(())
        }
    });
}
