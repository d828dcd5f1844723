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

/// Starts so many of the HTTP server as service `web` on a network `front`, published on port 8000.
/// New tasks are not watched unless the flags say so.
fn serve(cluster: &Cluster, replicas: usize, flags: &[&str]) {
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
    words.extend(["host", cluster.program(), "demo-http", "--port", "80"]);
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
        let pids: Vec<String> = nodes.iter().flat_map(|n| cluster.task_pids(n)).collect();
        if pids.len() == replicas {
            Ok(())
        } else {
            Err(pids)
        }
    });
}
