//! Something dies in the middle of an update: the update goes on, and leaves one task in each slot.

use weft_netns_tests::{Cluster, Settings, eventually};

use super::{Kind, becomes, becomes_as, environment, serve, serve_as};
use crate::{PROGRAM, swarm};

const NODES: [&str; 3] = ["node1", "node2", "node3"];

const REPLICAS: usize = 6;

/// Begins an update to this version.
fn begin(cluster: &Cluster, version: &str) {
    let mut words = vec!["service", "update", "-d", "--env-add", version];
    // So that there is a middle of it.
    words.extend(["--update-delay", "300ms", "web"]);
    cluster.weft(&asked(cluster), &words).done();
}

/// The manager that is asked in these tests: one that answers.
fn asked(cluster: &Cluster) -> String {
    eventually("a manager answers", || {
        let answers = |node: &&str| cluster.weft(node, &["node", "ls"]).code == 0;
        NODES.into_iter().find(answers).map(str::to_owned).ok_or(())
    })
}

/// Waits until a task of this version runs, and returns its node and name.
fn first_of(cluster: &Cluster, version: &str) -> (String, String) {
    eventually("a new task runs", || {
        let rows = cluster.rows(&["service", "ps", "web"]);
        let new = rows.iter().find(|row| {
            row["State"] == "Running" && environment(cluster, &row["ID"]).contains(version)
        });
        let text =
            |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let found = new.map(|row| (text(row, "Node"), text(row, "TaskName")));
        found.ok_or(rows.clone())
    })
}

#[test]
fn an_update_outlives_the_agent_of_a_node() {
    outlives_an_agent(Kind::Host);
}

#[test]
fn an_update_of_containers_outlives_the_agent_of_a_node() {
    outlives_an_agent(Kind::Container);
}

fn outlives_an_agent(kind: Kind) {
    let cluster = swarm(3);
    serve_as(kind, &cluster, REPLICAS, &[]);
    begin(&cluster, "VERSION=2");
    first_of(&cluster, "VERSION=2");
    cluster.restart_agent("node2");
    becomes_as(kind, &cluster, REPLICAS, "VERSION=2", &NODES);
}

/// All that the shim has started ends with it, and its task has failed, which is one failure of those
/// that are allowed.
#[test]
fn an_update_outlives_the_shim_of_a_new_task() {
    let cluster = swarm(3);
    let patience = ["--update-max-failure-ratio", "0.5", "--restart-delay", "0s"];
    serve(&cluster, REPLICAS, &patience);
    begin(&cluster, "VERSION=2");
    let (node, name) = first_of(&cluster, "VERSION=2");
    let script = format!(
        "for p in $(pgrep -f 'demo-http --port 80$'); do \
           tr '\\0' '\\n' < /proc/$p/environ | grep -qx 'WEFT_TASK_NAME={name}' || continue; \
           shim=; \
           while p=$(sed -n 's/^PPid:[^0-9]*//p' /proc/$p/status) && [ \"$p\" -gt 1 ] && \
             [ \"$(tr '\\0' ' ' < /proc/$p/cmdline | cut -d' ' -f1)\" = weft-shim ]; do shim=$p; done; \
           [ -n \"$shim\" ] && kill -9 $shim && echo killed; \
         done; true"
    );
    let said = cluster.run(&node, None, &["sh", "-c", &script]).ok();
    assert_eq!(said, "killed\n", "{name} on {node}");
    becomes(&cluster, REPLICAS, "VERSION=2", &NODES);
    let rows = cluster.rows(&["service", "ps", "--no-trunc", "web"]);
    let failed = rows.iter().find(|row| row["TaskName"] == name.as_str());
    let failed = failed.expect("history has it");
    assert_eq!(failed["State"], "Failed", "{failed}");
}

#[test]
fn an_update_outlives_the_leader_of_three_managers() {
    outlives_a_leader(Kind::Host);
}

#[test]
fn an_update_of_containers_outlives_the_leader_of_three_managers() {
    outlives_a_leader(Kind::Container);
}

fn outlives_a_leader(kind: Kind) {
    let settings = Settings {
        managers: 3,
        ..Settings::default()
    };
    let cluster = Cluster::swarm(PROGRAM, &settings);
    serve_as(kind, &cluster, REPLICAS, &[]);
    begin(&cluster, "VERSION=2");
    first_of(&cluster, "VERSION=2");
    let leader = cluster.wait_leader(&NODES);
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != leader).collect();
    cluster.ask(others[0]);
    cluster.lab().kill_agent(&leader).expect("an agent ran");
    eventually("somebody leads", || {
        let said = cluster.weft(others[0], &["node", "ls"]);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    becomes_as(kind, &cluster, REPLICAS, "VERSION=2", &NODES);
}

/// The plug of a machine, with the tasks on it.
#[test]
#[ignore = "second tier: a node has to be missed, and its tasks start elsewhere"]
fn an_update_outlives_a_leader_that_loses_its_power() {
    let settings = Settings {
        managers: 3,
        ..Settings::default()
    };
    let mut cluster = Cluster::swarm(PROGRAM, &settings);
    serve(&cluster, REPLICAS, &["--restart-delay", "0s"]);
    begin(&cluster, "VERSION=2");
    first_of(&cluster, "VERSION=2");
    let leader = cluster.wait_leader(&NODES);
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != leader).collect();
    cluster.ask(others[0]);
    cluster.lab_mut().kill_node(&leader).expect("it was up");
    let says = |node: &str, words: &[&str]| {
        let said = cluster.weft(node, words);
        if said.code == 0 {
            Ok(said.out)
        } else {
            Err(said.err)
        }
    };
    eventually("somebody leads", || says(others[0], &["node", "ls"]));
    eventually("all run elsewhere", || {
        let tasks = cluster.tasks("web");
        let there = tasks.iter().filter(|task| task.node == leader).count();
        if tasks.len() == REPLICAS && there == 0 {
            Ok(())
        } else {
            Err(tasks)
        }
    });
    becomes(&cluster, REPLICAS, "VERSION=2", &others);
}
