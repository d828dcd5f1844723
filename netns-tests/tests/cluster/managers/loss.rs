//! Managers that lose their power, one after the other, while the workers serve.

use std::time::Instant;

use weft_netns_tests::{Cluster, Said, eventually, figure};

use super::traffic::Traffic;
use super::{NO_LEADER, comes_to_do, comes_to_refuse, drain, lists, with_managers};

const MANAGERS: [&str; 3] = ["node1", "node2", "node3"];
const WORKERS: [&str; 2] = ["node4", "node5"];

/// A row of `node ls` of each node, the managers' given.
fn rows(managers: [String; 3]) -> Vec<String> {
    let workers = WORKERS.map(|node| format!("{node} Ready"));
    managers.into_iter().chain(workers).collect()
}

#[track_caller]
fn shows(cluster: &Cluster, asked: &str, part: impl Fn(&str) -> &'static str) {
    let rows = rows(MANAGERS.map(|node| format!("{node} {}", part(node))));
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    lists(cluster, asked, &rows);
}

fn pids(cluster: &Cluster) -> Vec<Vec<String>> {
    WORKERS.map(|node| cluster.task_pids(node)).to_vec()
}

#[test]
fn a_leader_and_then_the_quorum_are_lost_and_traffic_goes_on() {
    let mut cluster = with_managers(5, 3);
    drain(&cluster, &MANAGERS);
    let tasks = cluster.web(2);
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    let before = pids(&cluster);
    let traffic = Traffic::start(&cluster, &WORKERS);

    cluster.lab_mut().kill_node("node1").expect("it has power");
    let killed = Instant::now();
    let two = ["node2", "node3"];
    eventually("a change is taken", || {
        let words = ["network", "create", "after"];
        let said = two.map(|node| cluster.weft(node, &words));
        // One whose answer was lost is there all the same.
        let taken = |said: &Said| said.code == 0 || said.err.contains("after already exists");
        if said.iter().any(taken) {
            Ok(())
        } else {
            Err(Box::new(said))
        }
    });
    figure(&format!(
        "a change was taken {:.2} s after the leader's power was off",
        killed.elapsed().as_secs_f64()
    ));
    let leader = cluster.wait_leader(&two);
    let rest = if leader == "node2" { "node3" } else { "node2" };
    cluster.ask(rest);
    shows(&cluster, rest, |node| match node {
        "node1" => "Down Unreachable",
        node if node == leader => "Ready Leader",
        _ => "Ready Reachable",
    });
    // Any of them takes a change, and shows what another one took.
    for (name, node, other) in [
        ("by-the-leader", leader.as_str(), rest),
        ("by-the-rest", rest, leader.as_str()),
    ] {
        cluster.weft(node, &["network", "create", name]).done();
        cluster.weft(other, &["network", "inspect", name]).done();
    }
    let words = ["network", "create", "by-the-rest"];
    cluster
        .weft(rest, &words)
        .refused(&["by-the-rest already exists"]);

    without_a_quorum(&mut cluster, &leader, rest);
    one_comes_back(&mut cluster, &leader, rest);
    eventually(
        "two tasks are wanted, and run where they did",
        || match cluster.tasks("web") {
            now if now == tasks => Ok(()),
            now => Err(now),
        },
    );
    assert_eq!(pids(&cluster), before);
    traffic.noticed_nothing();
}

/// The second of three loses its power: nothing can be changed, and what was known can be read.
fn without_a_quorum(cluster: &mut Cluster, leader: &str, rest: &str) {
    cluster.lab_mut().kill_node(rest).expect("it has power");
    // Of what was asked before it was noticed some may have been taken: another name than below.
    comes_to_refuse(cluster, leader, &["network", "create", "lost"], NO_LEADER);
    for command in [
        &["node", "ls"][..],
        &["service", "ls"],
        &["service", "scale", "web=3"],
        &["node", "update", "--availability", "active", "node1"],
    ] {
        cluster.weft(leader, command).refused(&[NO_LEADER]);
    }
    let stale = cluster.weft(leader, &["node", "ls", "--stale"]);
    assert_eq!(stale.code, 0, "{stale:?}");
    for node in MANAGERS.iter().chain(&WORKERS) {
        assert!(stale.out.contains(node), "{stale:?}");
    }
    let stale = cluster.weft(leader, &["service", "ls", "--stale"]);
    assert_eq!(stale.code, 0, "{stale:?}");
    assert!(stale.out.contains("web"), "{stale:?}");
    cluster.weft(WORKERS[0], &["info"]).done();
}

/// Two of three are enough, also when one of them knows nothing of the last changes; then all are back.
fn one_comes_back(cluster: &mut Cluster, leader: &str, rest: &str) {
    cluster.lab_mut().start_node("node1").expect("it is off");
    comes_to_do(cluster, leader, &["network", "create", "late"]);
    cluster.ask(leader);
    let now = cluster.wait_leader(&["node1", leader]);
    shows(cluster, leader, |node| match node {
        node if node == rest => "Down Unreachable",
        node if node == now => "Ready Leader",
        _ => "Ready Reachable",
    });
    for name in ["after", "by-the-leader", "by-the-rest", "late"] {
        comes_to_do(cluster, "node1", &["network", "inspect", name]);
    }
    cluster.lab_mut().start_node(rest).expect("it is off");
    let now = cluster.wait_leader(&MANAGERS);
    shows(cluster, rest, |node| {
        if node == now {
            "Ready Leader"
        } else {
            "Ready Reachable"
        }
    });
}

/// `weftd` of every manager ends at once and starts again; no node loses its power.
#[test]
#[ignore = "second tier: the first tier has managers that lose their power"]
fn all_managers_start_anew_and_traffic_goes_on() {
    let cluster = with_managers(4, 3);
    drain(&cluster, &MANAGERS);
    let tasks = cluster.web(2);
    let traffic = Traffic::start(&cluster, &["node4"]);
    for node in MANAGERS {
        cluster.lab().kill_agent(node).expect("an agent");
    }
    let back = Instant::now();
    for (name, node) in [("a", "node1"), ("b", "node2"), ("c", "node3")] {
        comes_to_do(&cluster, node, &["network", "create", name]);
    }
    figure(&format!(
        "all managers took changes {:.2} s after their start",
        back.elapsed().as_secs_f64()
    ));
    cluster.wait_ready(4);
    assert_eq!(cluster.tasks("web"), tasks);
    traffic.noticed_nothing();
}

/// More changes than the log keeps for one that is behind: the one that was away gets a snapshot.
#[test]
#[ignore = "second tier: it makes thousands of changes"]
fn a_manager_that_was_away_for_long_gets_a_snapshot_and_traffic_goes_on() {
    const CHANGES: usize = 5_500;

    let mut cluster = with_managers(4, 3);
    drain(&cluster, &MANAGERS);
    let tasks = cluster.web(2);
    let traffic = Traffic::start(&cluster, &["node4"]);
    cluster.lab_mut().kill_node("node3").expect("it has power");
    for n in 0..CHANGES {
        let state = ["pause", "drain"][n % 2];
        let body = format!("{{\"Availability\":\"{state}\"}}");
        let request = format!(
            "POST /v1/nodes/node2/update HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = cluster.api("node1", request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    cluster.network("last");
    cluster.lab_mut().start_node("node3").expect("it is off");
    comes_to_do(&cluster, "node3", &["network", "inspect", "last"]);
    cluster.wait_ready(4);
    assert_eq!(cluster.tasks("web"), tasks);
    traffic.noticed_nothing();
}
