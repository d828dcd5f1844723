//! Several managers: the walk of an operator from `swarm init` to the last `swarm leave`, and what
//! nodes that carry traffic notice of it.

mod cut_off;
mod day;
mod demo;
mod disaster;
mod leaving;
mod locked;
mod loss;
mod moves;
mod root;
mod traffic;

use weft_netns_tests::{Cluster, Said, Settings, eventually};

use crate::PROGRAM;

/// Where nothing can be changed, in docker's words.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

/// What a worker says to a command about the cluster, in docker's words.
const NOT_A_MANAGER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node";

/// A swarm of so many nodes, the first of which are managers.
fn with_managers(nodes: u8, managers: usize) -> Cluster {
    let settings = Settings {
        nodes,
        managers,
        ..Settings::default()
    };
    Cluster::swarm(PROGRAM, &settings)
}

/// What `node ls` of a manager says of each node: name, state, and its part as a manager.
fn listed(cluster: &Cluster, asked: &str) -> Result<Vec<String>, Said> {
    let row = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}";
    let said = cluster.weft(asked, &["node", "ls", "--format", row]);
    if said.code != 0 {
        return Err(said);
    }
    let rows = said.out.lines().map(|row| row.trim_end().to_owned());
    Ok(rows.collect())
}

/// Waits until a manager lists exactly these.
#[track_caller]
fn lists(cluster: &Cluster, asked: &str, wanted: &[&str]) {
    eventually(&format!("{asked} lists {wanted:?}"), || {
        match listed(cluster, asked) {
            Ok(rows) if rows == wanted => Ok(()),
            other => Err(other),
        }
    });
}

/// Waits until a command is refused with these words.
#[track_caller]
fn comes_to_refuse(cluster: &Cluster, node: &str, command: &[&str], words: &str) {
    eventually(&format!("{node} refuses {command:?}"), || {
        let said = cluster.weft(node, command);
        if said.code == 1 && said.err.contains(words) {
            Ok(())
        } else {
            Err(said)
        }
    });
}

/// Waits until a command is carried out, and returns what it printed.
#[track_caller]
fn comes_to_do(cluster: &Cluster, node: &str, command: &[&str]) -> String {
    eventually(&format!("{node} does {command:?}"), || {
        let said = cluster.weft(node, command);
        if said.code == 0 {
            Ok(said.out)
        } else {
            Err(said)
        }
    })
}

/// The managers run no tasks, so that none ends with them.
fn drain(cluster: &Cluster, managers: &[&str]) {
    let words = ["node", "update", "--availability", "drain"];
    cluster
        .weft("node1", &[&words[..], managers].concat())
        .done();
}
