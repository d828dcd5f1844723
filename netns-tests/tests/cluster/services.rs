//! Services that live: what clients notice while tasks are replaced, what becomes of an update in
//! whose middle something dies, and what is refused.

mod deaths;
mod paused;
mod refused;
mod requests;
mod unnoticed;

use std::collections::BTreeSet;

use serde_json::Value;
use weft_netns_tests::{Cluster, eventually};

use crate::containers;

/// What the tasks of a test are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// The node's own program.
    Host,
    /// Containers of an image.
    Container,
}

impl Kind {
    /// What `service create` has behind its flags, for an HTTP server on port 80.
    fn program(self, cluster: &Cluster) -> Vec<String> {
        match self {
            Self::Host => ["host", cluster.program(), "demo-http", "--port", "80"]
                .map(str::to_owned)
                .to_vec(),
            Self::Container => vec![containers::load_web(cluster)],
        }
    }

    /// Process ids of the servers on a node.
    fn task_pids(self, cluster: &Cluster, node: &str) -> Vec<String> {
        match self {
            Self::Host => cluster.task_pids(node),
            Self::Container => containers::web_pids(cluster, node),
        }
    }
}

/// Starts so many of the HTTP server as service `web` on a network `front`, published on port 8000.
/// New tasks are not watched unless the flags say so.
fn serve(cluster: &Cluster, replicas: usize, flags: &[&str]) {
    serve_as(Kind::Host, cluster, replicas, flags);
}

/// The same with tasks of that kind.
fn serve_as(kind: Kind, cluster: &Cluster, replicas: usize, flags: &[&str]) {
    cluster.network("front");
    let replicas = replicas.to_string();
    let mut words = vec!["service", "create", "--name", "web", "--network", "front"];
    words.extend(["-p", "8000:80", "--replicas", &replicas]);
    for monitor in ["--update-monitor", "--rollback-monitor"] {
        if !flags.contains(&monitor) {
            words.extend([monitor, "0s"]);
        }
    }
    words.extend(flags);
    let program = kind.program(cluster);
    words.extend(program.iter().map(String::as_str));
    cluster.weft("node1", &words).done();
}

/// A field of a service's last update, by the manager that is asked.
fn update_status(cluster: &Cluster, field: &str) -> String {
    let service = cluster.inspect("service", "web");
    let value = &service["UpdateStatus"][field];
    value.as_str().unwrap_or_default().to_owned()
}

/// What an inspect of a task says of its environment.
fn environment(cluster: &Cluster, id: &Value) -> String {
    let id = id.as_str().expect("an id");
    cluster.inspect("task", id)["Spec"]["ContainerSpec"]["Env"].to_string()
}

/// Waits until the last update of `web` has replaced all tasks: so many run, one in each slot, and
/// each has this in its environment. No process of another one is left on these nodes; what others
/// were last seen to run does not count.
fn becomes(cluster: &Cluster, replicas: usize, version: &str, nodes: &[&str]) {
    becomes_as(Kind::Host, cluster, replicas, version, nodes);
}

/// The same with tasks of that kind.
fn becomes_as(kind: Kind, cluster: &Cluster, replicas: usize, version: &str, nodes: &[&str]) {
    let runs = |row: &&Value| {
        let node = row["Node"].as_str().unwrap_or_default();
        row["State"] == "Running" && nodes.contains(&node)
    };
    eventually("the update is over", || {
        match update_status(cluster, "State").as_str() {
            "completed" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    eventually("one task runs in each slot", || {
        let rows = cluster.rows(&["service", "ps", "web"]);
        let running: Vec<&Value> = rows.iter().filter(runs).collect();
        let slots: BTreeSet<Option<u64>> = running.iter().map(|row| row["Slot"].as_u64()).collect();
        if running.len() == replicas && slots.len() == replicas {
            Ok(())
        } else {
            Err(rows.clone())
        }
    });
    let rows = cluster.rows(&["service", "ps", "web"]);
    for row in rows.iter().filter(runs) {
        let has = environment(cluster, &row["ID"]);
        assert!(has.contains(version), "{has}: {row}");
    }
    eventually("no old process is left", || {
        let pids: Vec<String> = nodes
            .iter()
            .flat_map(|node| kind.task_pids(cluster, node))
            .collect();
        if pids.len() == replicas {
            Ok(())
        } else {
            Err(pids)
        }
    });
}
