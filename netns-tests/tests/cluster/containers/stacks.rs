//! Stacks: files are deployed, deployed again, and removed; and the secrets and configs that tasks see.
//!
//! One cluster is asked all of it, in lanes beside each other, as most of it is waiting.

mod again;
mod databases;
mod demo;
mod first;
mod leader;
mod names;
mod payloads;
mod rotation;
mod search;
mod voting;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use weft_lab::tools::get::fetch;
use weft_netns_tests::{Cluster, Said, Settings, within};

use super::{NODES, REGISTRY, cluster, in_a_box, load, text};

/// For all tasks of a stack to run or to be gone.
const STACK_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn stacks_and_what_they_keep_are_what_their_files_say() {
    let cluster = cluster(&Settings::default());
    load(&cluster, "node1", &in_a_box());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            first::stack_answers_on_every_node_and_leaves_nothing(&cluster);
            again::what_did_not_change_goes_on(&cluster);
            again::what_cannot_be_deployed_makes_nothing(&cluster);
            again::whoever_is_waited_for_comes_first(&cluster);
            again::what_was_interrupted_is_finished_by_the_next(&cluster);
        });
        scope.spawn(|| {
            voting::a_vote_goes_all_the_way(&cluster);
            names::of_two_stacks_on_one_network_are_apart(&cluster);
        });
        scope.spawn(|| payloads::of_a_stack_come_and_go_with_it(&cluster));
    });
    // These end agents, which others would notice.
    payloads::sizes_and_names_are_checked(&cluster);
    payloads::are_files_that_tasks_read(&cluster);
}

/// Writes a file into the folder of the test; its path.
fn written(cluster: &Cluster, name: &str, content: &str) -> PathBuf {
    let path = cluster.dir().join(name);
    std::fs::write(&path, content).expect("a file");
    path
}

/// `weft stack deploy` of a file with this content.
fn try_deploy(cluster: &Cluster, stack: &str, file: &str, flags: &[&str]) -> Said {
    let path = written(cluster, &format!("{stack}.yml"), file);
    let path = path.display().to_string();
    let words = ["stack", "deploy", "-c", &path];
    cluster.weft("node1", &[&words[..], flags, &[stack]].concat())
}

/// The same, which is carried out; what it printed.
#[track_caller]
fn deploy(cluster: &Cluster, stack: &str, file: &str) -> String {
    try_deploy(cluster, stack, file, &[]).ok()
}

/// `weft stack rm`, which waits; what it printed.
#[track_caller]
fn remove(cluster: &Cluster, stack: &str) -> String {
    cluster.weft("node1", &["stack", "rm", stack]).ok()
}

/// Lines, whatever their order.
fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

/// Waits until exactly these services of a stack have that many tasks: `("vote", "2/2")`.
#[track_caller]
fn counts(cluster: &Cluster, stack: &str, wanted: &[(&str, &str)]) {
    let name = |key: &str| format!("{stack}_{key}");
    let wanted: BTreeSet<(String, String)> = wanted
        .iter()
        .map(|(key, count)| (name(key), (*count).to_owned()))
        .collect();
    within(STACK_LIMIT, &format!("the services of {stack} run"), || {
        let rows = cluster.rows(&["stack", "services", stack]);
        let found = rows.iter().map(|row| {
            // `1/1 (max 1 per node)`
            let count = text(row, "Replicas").split(' ').next().unwrap_or_default();
            (text(row, "Name").to_owned(), count.to_owned())
        });
        let found: BTreeSet<(String, String)> = found.collect();
        if found == wanted { Ok(()) } else { Err(rows) }
    });
}

/// Ids of the tasks of a service that shall run, sorted.
fn ids(cluster: &Cluster, service: &str) -> Vec<String> {
    let rows = cluster.rows(&["service", "ps", "--no-trunc", service]);
    let wanted = rows
        .iter()
        .filter(|row| text(row, "DesiredState") == "Running");
    let mut ids: Vec<String> = wanted.map(|row| text(row, "ID").to_owned()).collect();
    ids.sort_unstable();
    ids
}

/// How often a service was changed.
fn version(cluster: &Cluster, service: &str) -> Value {
    cluster.inspect("service", service)["Version"]["Index"].clone()
}

/// Asserts that nothing of a stack is left: neither for managers nor on a node.
#[track_caller]
fn nothing_is_left(cluster: &Cluster, stack: &str) {
    let begins = format!("{stack}_");
    for kind in ["service", "network", "secret", "config"] {
        let rows = cluster.rows(&[kind, "ls"]);
        let left = rows
            .iter()
            .find(|row| text(row, "Name").starts_with(&begins));
        assert!(left.is_none(), "{kind}: {left:?}");
    }
    let stacks = cluster.rows(&["stack", "ls"]);
    assert!(
        stacks.iter().all(|row| text(row, "Name") != stack),
        "{stacks:?}"
    );
    for node in NODES {
        let rows = cluster.rows(&["node", "ps", node]);
        let left = rows
            .iter()
            .find(|row| text(row, "Name").starts_with(&begins) && text(row, "State") == "Running");
        assert!(left.is_none(), "{node}: {left:?}");
    }
}

/// What the port of a node answers to a client outside.
fn asked(cluster: &Cluster, at: SocketAddr, path: &str) -> io::Result<String> {
    let answer = cluster
        .outside()
        .run_in(|| fetch(at, path, Duration::from_secs(6)))??;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

/// The output of a shell script in a task.
#[track_caller]
fn inside(cluster: &Cluster, task: &str, script: &str) -> String {
    try_inside(cluster, task, script).ok()
}

fn try_inside(cluster: &Cluster, task: &str, script: &str) -> Said {
    cluster.weft("node1", &["exec", task, "sh", "-c", script])
}

/// The name of an image of these tests, in a file.
fn boxed() -> String {
    format!("{REGISTRY}/box:1")
}
