//! The root of all certificates is replaced while everything runs, and a node that was removed has
//! none that counts.

use weft_netns_tests::{Cluster, Settings, eventually};

use super::traffic::Traffic;
use super::{comes_to_do, lists};
use crate::PROGRAM;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The root of the swarm, as `swarm ca` prints it.
#[track_caller]
fn root(cluster: &Cluster) -> String {
    let text = cluster.weft("node1", &["swarm", "ca"]).ok();
    assert!(text.starts_with(BEGIN), "{text}");
    text.trim().to_owned()
}

#[test]
fn the_root_is_replaced_under_traffic_and_a_removed_node_is_refused() {
    let settings = Settings {
        nodes: 4,
        ..Settings::default()
    };
    let cluster = Cluster::bare(PROGRAM, &settings);
    cluster.init("node1");
    let token = cluster.token();
    for node in ["node2", "node3"] {
        cluster.join(node, &token).done();
    }
    cluster.wait_ready(3);
    let tasks = cluster.web(3);
    let traffic = Traffic::start(&cluster, &["node2", "node1"]);
    let before = root(&cluster);

    let said = cluster.weft("node1", &["swarm", "ca", "--rotate"]).ok();
    assert!(said.contains(BEGIN), "{said}");
    let after = eventually("there is another root, and it alone", || {
        let after = root(&cluster);
        let alone = after.matches(BEGIN).count() == 1;
        if alone && after != before {
            Ok(after)
        } else {
            Err(after)
        }
    });
    cluster.wait_ready(3);
    // What was handed out before pins the root before.
    let fresh = cluster.token();
    assert_ne!(fresh, token);
    cluster
        .join("node4", &token)
        .refused(&["remote CA does not match fingerprint"]);
    cluster.join("node4", &fresh).done();
    traffic.noticed_nothing();
    // All have certificates of the new root: they come back with them.
    for node in ["node1", "node2", "node3"] {
        cluster.restart_agent(node);
    }
    let rows = [
        "node1 Ready Leader",
        "node2 Ready",
        "node3 Ready",
        "node4 Ready",
    ];
    lists(&cluster, "node1", &rows);
    assert_eq!(root(&cluster), after);
    assert_eq!(cluster.tasks("web"), tasks);

    // One that was removed has a certificate that has not run out, and is refused all the same.
    let rm = ["node", "rm", "--force", "node4"];
    cluster.weft("node1", &rm).done();
    cluster.restart_agent("node4");
    eventually("the node that was removed is told", || {
        let said = cluster.weft("node4", &["info"]);
        if said.out.contains("was removed from swarm") {
            Ok(())
        } else {
            Err(said)
        }
    });
    lists(&cluster, "node1", &rows[..3]);
    comes_to_do(&cluster, "node1", &["network", "create", "after"]);
}
