//! The first half of an operator's day: a swarm of one manager and two workers, one of which is
//! promoted and demoted again, and its end in the order of a careful operator.

use std::time::Duration;

use weft_netns_tests::{Cluster, Settings, eventually, figure, within};

use super::{NOT_A_MANAGER, comes_to_refuse, lists};
use crate::PROGRAM;

/// A worker that is promoted answers within so long: within a second of weft's own time, and each look
/// starts a debug build of `weft`.
const AT_ONCE: Duration = Duration::from_secs(3);

const LAST: &str = "weft: You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message.\n";

const JOIN_FIRST: &str =
    "Use \"weft swarm init\" or \"weft swarm join\" to connect this node to swarm and try again.";

#[test]
fn a_swarm_is_made_a_worker_promoted_and_demoted_and_everybody_leaves_in_order() {
    let settings = Settings {
        // What is said to take a second takes one on a machine that does nothing else.
        alone: true,
        ..Settings::default()
    };
    let cluster = Cluster::bare(PROGRAM, &settings);
    let said = cluster.init("node1");
    let managers = "To add a manager to this swarm, run 'weft swarm join-token manager' and follow the instructions.\n";
    assert!(said.contains(managers), "{said}");
    join_by_tokens(&cluster);
    cluster.wait_ready(3);
    the_table(&cluster);
    cluster
        .weft("node2", &["node", "ls"])
        .refused(&[NOT_A_MANAGER]);
    promote_and_demote(&cluster);
    everybody_leaves(&cluster);
}

/// The tokens of both roles: two secrets for one root, each rotated alone.
fn join_by_tokens(cluster: &Cluster) {
    let (worker, manager) = (cluster.token_for("worker"), cluster.token_for("manager"));
    let root = |token: &str| token.rsplit_once('-').map(|(root, _)| root.to_owned());
    assert_eq!(root(&worker), root(&manager));
    assert_ne!(worker, manager);
    let said = cluster
        .weft("node1", &["swarm", "join-token", "manager"])
        .ok();
    let command = format!("\n    weft swarm join --token {manager} 10.77.0.1:2377\n");
    let begins = "To add a manager to this swarm, run the following command:\n";
    assert!(
        said.starts_with(begins) && said.contains(&command),
        "{said}"
    );

    let rotate = ["swarm", "join-token", "--rotate", "manager"];
    let said = cluster.weft("node1", &rotate).ok();
    assert!(
        said.starts_with("Successfully rotated manager join token.\n"),
        "{said}"
    );
    assert_ne!(cluster.token_for("manager"), manager);
    assert_eq!(cluster.token_for("worker"), worker);
    cluster
        .join("node2", &manager)
        .refused(&["A valid join token is necessary to join this cluster"]);
    for node in ["node2", "node3"] {
        let said = cluster.join(node, &worker).ok();
        assert_eq!(said, "This node joined a swarm as a worker.\n");
    }
}

/// `node ls` as a table: docker's columns, a star at the node that was asked.
fn the_table(cluster: &Cluster) {
    let text = cluster.weft("node1", &["node", "ls"]).ok();
    let mut lines = text.lines();
    let words = |line: &str| {
        let cells = line.split("  ").map(str::trim);
        let cells = cells.filter(|cell| !cell.is_empty()).map(str::to_owned);
        cells.collect::<Vec<_>>()
    };
    let headings = lines.next().map(words);
    let expected = [
        "ID",
        "HOSTNAME",
        "STATUS",
        "AVAILABILITY",
        "MANAGER STATUS",
        "ENGINE VERSION",
    ];
    assert_eq!(headings.as_deref(), Some(&expected.map(str::to_owned)[..]));
    let stars: Vec<bool> = lines.map(|line| line.contains(" * ")).collect();
    assert_eq!(stars, [true, false, false], "{text}");
    let rows = ["node1 Ready Leader", "node2 Ready", "node3 Ready"];
    lists(cluster, "node1", &rows);
}

fn promote_and_demote(cluster: &Cluster) {
    let weft = |words: &[&str]| cluster.weft("node1", words);
    let said = weft(&["node", "promote", "node2"]).ok();
    assert_eq!(said, "Node node2 promoted to a manager in the swarm.\n");
    let (_, took) = within(AT_ONCE, "the worker that was promoted answers", || {
        let said = cluster.weft("node2", &["node", "ls"]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    figure(&format!(
        "a worker that was promoted answered after {:.2} s",
        took.as_secs_f64()
    ));
    let rows = ["node1 Ready Leader", "node2 Ready Reachable", "node3 Ready"];
    for asked in ["node1", "node2"] {
        lists(cluster, asked, &rows);
    }
    let star = cluster
        .weft(
            "node2",
            &["node", "ls", "--format", "{{if .Self}}{{.Hostname}}{{end}}"],
        )
        .ok();
    assert_eq!(star.trim(), "node2");
    let said = weft(&["node", "promote", "node2"]).ok();
    assert_eq!(said, "Node node2 is already a manager.\n");
    warns_of_two(cluster, true);

    let said = weft(&["node", "demote", "node2"]).ok();
    assert_eq!(said, "Manager node2 demoted in the swarm.\n");
    comes_to_refuse(cluster, "node2", &["node", "ls"], NOT_A_MANAGER);
    let rows = ["node1 Ready Leader", "node2 Ready", "node3 Ready"];
    lists(cluster, "node1", &rows);
    let said = weft(&["node", "demote", "node2"]).ok();
    assert_eq!(said, "Node node2 is already a worker.\n");
    weft(&["node", "demote", "node1"])
        .refused(&["attempting to demote the last manager of the swarm"]);
    warns_of_two(cluster, false);
}

/// Two managers are worse than one, and say so for as long as they are two.
fn warns_of_two(cluster: &Cluster, wanted: bool) {
    eventually("a warning about two managers comes or goes", || {
        let said = cluster.weft("node1", &["info"]);
        if said.code == 0 && said.out.contains("fault tolerance") == wanted {
            Ok(())
        } else {
            Err(said)
        }
    });
}

/// Workers first, then the manager.
fn everybody_leaves(cluster: &Cluster) {
    let weft = |words: &[&str]| cluster.weft("node1", words);
    weft(&["node", "rm", "node3"]).refused(&["is not down and can't be removed"]);
    for node in ["node2", "node3"] {
        let said = cluster.weft(node, &["swarm", "leave"]).ok();
        assert_eq!(said, "Node left the swarm.\n");
    }
    lists(
        cluster,
        "node1",
        &["node1 Ready Leader", "node2 Down", "node3 Down"],
    );
    for node in ["node2", "node3"] {
        assert_eq!(weft(&["node", "rm", node]).ok(), format!("{node}\n"));
    }
    lists(cluster, "node1", &["node1 Ready Leader"]);

    let said = weft(&["swarm", "leave"]);
    said.refused(&[]);
    assert_eq!(said.err, LAST);
    let said = weft(&["swarm", "leave", "--force"]).ok();
    assert_eq!(said, "Node left the swarm.\n");
    weft(&["node", "ls"]).refused(&[JOIN_FIRST]);
}
