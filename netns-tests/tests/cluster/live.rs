//! Services that live, seen as their users see them: what runs in tasks and what they write, ways back,
//! jobs, places and limits, checks that misbehave, and a node without power. One swarm for all of it.

mod checks;
mod jobs;
mod limits;
mod output;
mod power;
mod programs;
mod ways;

use serde_json::Value;
use weft_netns_tests::{Cluster, Settings, eventually};

use crate::PROGRAM;

/// Both answer; the first one leads, the other asks it.
const MANAGERS: [&str; 2] = ["node1", "node2"];
const WORKER: &str = "node3";

/// What a worker says to a command about the cluster.
const NOT_A_MANAGER: &str = "This node is not a swarm manager.";

#[test]
fn services_live_as_their_users_are_told() {
    let settings = Settings {
        managers: MANAGERS.len(),
        ..Settings::default()
    };
    let mut cluster = Cluster::swarm(PROGRAM, &settings);
    // They take their time, beside what follows.
    let checked = checks::begin(&cluster);
    jobs::begin(&cluster);
    programs::run_in_the_walls_of_a_task(&cluster);
    output::is_read_from_any_manager(&cluster);
    limits::hold(&cluster);
    ways::lead_back(&cluster);
    ways::follow_labels(&cluster);
    jobs::are_counted(&cluster);
    checked.came_to(&cluster);
    power::is_lost_and_returns(&mut cluster);
}

/// Starts a service of the node's own programs, and does not wait for it.
#[track_caller]
fn create(cluster: &Cluster, name: &str, flags: &[&str], command: &[&str]) {
    let words = ["service", "create", "-d", "--name", name];
    let words = [&words[..], flags, &["host"], command].concat();
    cluster.weft("node1", &words).done();
}

/// Takes it away: what follows has fewer tasks beside it.
#[track_caller]
fn remove(cluster: &Cluster, name: &str) {
    cluster.weft("node1", &["service", "rm", name]).done();
}

/// What `service ps` says of the tasks of a service: by slots, in each of them the newest first.
fn rows(cluster: &Cluster, name: &str) -> Vec<Value> {
    cluster.rows(&["service", "ps", "--no-trunc", name])
}

/// Waits until the newest task of the first slot is that far.
#[track_caller]
fn becomes(cluster: &Cluster, name: &str, state: &str) -> Value {
    eventually(&format!("{name} is {state}"), || {
        let rows = rows(cluster, name);
        let first = rows.first().filter(|row| row["State"] == state);
        first.cloned().ok_or(rows)
    })
}

/// A text of a row.
fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}
