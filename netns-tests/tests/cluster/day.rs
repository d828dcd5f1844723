//! A team's first day with services, typed on a terminal: what docker prints there, line by line.

mod demo;
mod global;
mod lines;
mod maintenance;
mod services;
mod update;

use weft_netns_tests::{Cluster, eventually};

/// Types `service create` of the HTTP server as `web`, published on port 8000, and returns its id and
/// the lines below that.
fn create(cluster: &Cluster, how: &str) -> (String, Vec<String>) {
    let words = ["service", "create", "--name=web", how, "-p", "8000:80"];
    let task = ["host", cluster.program(), "demo-http", "--port", "80"];
    let version = ["--version", "1"];
    let lines = cluster.typed("node1", &[&words[..], &task, &version].concat());
    let (id, rest) = lines.split_first().expect("it shows something");
    assert_eq!(id.len(), 25, "{lines:#?}");
    (id.clone(), rest.to_vec())
}

/// A task as `service ps` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// ` \_ ` of one that another one took the place of.
    indent: String,
    name: String,
    node: String,
    desired: String,
    state: String,
}

/// The tasks of `web`, in the order of their table.
fn rows(cluster: &Cluster) -> Vec<Row> {
    let rows = cluster.rows(&["service", "ps", "web"]).into_iter();
    rows.map(|row| {
        let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        Row {
            indent: text("Indent"),
            name: text("Name"),
            node: text("Node"),
            desired: text("DesiredState"),
            state: text("State"),
        }
    })
    .collect()
}

fn runs(row: &Row) -> bool {
    row.desired == "Running" && row.state == "Running"
}

/// How many tasks run on each of the three nodes.
fn by_node(rows: &[Row]) -> [usize; 3] {
    ["node1", "node2", "node3"].map(|node| {
        rows.iter()
            .filter(|row| runs(row) && row.node == node)
            .count()
    })
}

/// Waits until tasks run so on the nodes, and returns all rows.
#[track_caller]
fn spread(cluster: &Cluster, wanted: [usize; 3]) -> Vec<Row> {
    eventually(&format!("{wanted:?} tasks run on the nodes"), || {
        let rows = rows(cluster);
        if by_node(&rows) == wanted {
            Ok(rows)
        } else {
            Err(rows)
        }
    })
}
