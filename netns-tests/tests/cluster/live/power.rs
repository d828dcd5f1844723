//! A node that loses its power: its disk is what it was, and nothing of its tasks is left.

use serde_json::Value;
use weft_netns_tests::{Cluster, eventually};

use super::{WORKER, becomes, create, rows, text};

pub(super) fn is_lost_and_returns(cluster: &mut Cluster) {
    // One moves while the node is away, the other one cannot.
    let flags = ["--replicas", "3", "--update-monitor", "0s"];
    let flags = [&flags[..], &["--restart-delay", "0s"]].concat();
    create(cluster, "even", &flags, &["sleep", "1000"]);
    let tied = ["--constraint", "node.hostname==node3"];
    create(cluster, "tied", &tied, &["sleep", "1000"]);
    let lost = [
        runs_on(cluster, "even", &["node1", "node2", "node3"]),
        runs_on(cluster, "tied", &["node3"]),
    ];
    let lost = lost.map(|tasks| {
        let lost = tasks.into_iter().find(|task| text(task, "Node") == WORKER);
        lost.expect("a task on it")
    });

    cluster.lab_mut().kill_node(WORKER).expect("it is up");
    eventually("its task runs elsewhere", || {
        let running = running(cluster, "even");
        if running.len() == 3 && running.iter().all(|row| text(row, "Node") != WORKER) {
            Ok(())
        } else {
            Err(rows(cluster, "even"))
        }
    });
    cluster.lab_mut().start_node(WORKER).expect("it is down");
    cluster.wait_ready(3);
    for (name, lost) in ["even", "tied"].into_iter().zip(&lost) {
        let old = eventually("what the machine took with it has failed", || {
            let rows = rows(cluster, name);
            let old = rows.iter().find(|row| row["ID"] == lost["ID"]);
            let old = old.filter(|row| row["State"] == "Failed").cloned();
            old.ok_or(rows)
        });
        assert_eq!(
            text(&old, "Error"),
            "\"task: non-zero exit (255)\"",
            "{old}"
        );
        assert_eq!(old["ExitCode"], 255, "{old}");
    }
    let tied = becomes(cluster, "tied", "Running");
    assert_ne!(tied["ID"], lost[1]["ID"], "{tied}");
    is_filled_again(cluster);
}

/// The node is empty until somebody asks. It may have to be seen by the gossip of the others again before it
/// takes tasks, which its session does not wait for.
fn is_filled_again(cluster: &Cluster) {
    let words = ["service", "rebalance", "--dry-run", "even"];
    let plan = eventually("one task would move to it", || {
        let said = cluster.weft("node2", &words);
        let mut moves = said.out.lines();
        let is_one = match (moves.next(), moves.next()) {
            (Some(one), None) => one.contains(" would move ") && one.ends_with(" to node3"),
            _ => false,
        };
        if is_one {
            Ok(said.out)
        } else {
            let nodes = cluster.rows(&["node", "ls"]);
            Err(Box::new((said, rows(cluster, "even"), nodes)))
        }
    });
    assert!(plan.starts_with("even."), "{plan}");
    let said = cluster
        .weft("node2", &["service", "rebalance", "even"])
        .ok();
    assert_eq!(said, plan.replace("would move", "moves"));
    runs_on(cluster, "even", &["node1", "node2", "node3"]);
    let said = cluster.weft("node1", &words).ok();
    assert_eq!(said, "even: nothing to move\n");
}

fn running(cluster: &Cluster, name: &str) -> Vec<Value> {
    let mut rows = rows(cluster, name);
    rows.retain(|row| row["State"] == "Running" && row["DesiredState"] == "Running");
    rows
}

/// Waits until the tasks of a service run on exactly these nodes.
#[track_caller]
fn runs_on(cluster: &Cluster, name: &str, nodes: &[&str]) -> Vec<Value> {
    eventually(&format!("{name} runs on {nodes:?}"), || {
        let running = running(cluster, name);
        let mut there: Vec<&str> = running.iter().map(|row| text(row, "Node")).collect();
        there.sort_unstable();
        if there == nodes {
            Ok(running.clone())
        } else {
            Err(rows(cluster, name))
        }
    })
}
