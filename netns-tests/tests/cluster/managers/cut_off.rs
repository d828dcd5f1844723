//! A worker that reaches no manager for long: because it is cut off from them, or because there is none.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_netns_tests::{Cluster, Settings, eventually, figure, get, within};
use weft_sys::netns::Netns;

use super::{NO_LEADER, comes_to_do, comes_to_refuse, drain, listed};
use crate::PROGRAM;

const MANAGERS: [&str; 3] = ["node1", "node2", "node3"];

/// Long enough that a manager gives the node up, and that the node's own attempts have become as rare
/// as they get.
const AWAY: Duration = Duration::from_secs(25);

/// It is right again within so long.
const SOON: Duration = Duration::from_secs(1);

/// Three managers and two workers with a task of `web` each, and a sandbox on the last one. No other
/// cluster runs meanwhile: times are measured.
fn cluster() -> (Cluster, Netns) {
    let settings = Settings {
        nodes: 5,
        managers: 3,
        alone: true,
        ..Settings::default()
    };
    let cluster = Cluster::swarm(PROGRAM, &settings);
    drain(&cluster, &MANAGERS);
    let tasks = cluster.web(2);
    let nodes: Vec<&str> = tasks.iter().map(|task| task.node.as_str()).collect();
    assert_eq!(nodes, ["node4", "node5"]);
    let (guest, _) = cluster.guest("node5", "guest", "front");
    (cluster, guest)
}

/// The last node carries the traffic of its sandbox and of its published port.
fn serves(cluster: &Cluster, guest: &Netns, vip: SocketAddr) {
    eventually("the virtual address answers", || get(guest, vip));
    let (client, port) = (cluster.outside(), cluster.at("node5", 8000));
    eventually("the port answers", || get(&client, port));
}

/// Looks for as long as it is away whether the task goes on and the node serves.
fn goes_on(cluster: &Cluster, guest: &Netns, vip: SocketAddr, pids: &[String]) {
    let since = Instant::now();
    while since.elapsed() < AWAY {
        assert_eq!(cluster.task_pids("node5"), pids);
        serves(cluster, guest, vip);
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[track_caller]
fn is_listed(cluster: &Cluster, row: &str, limit: Duration) -> Duration {
    let (_, took) = within(limit, row, || match listed(cluster, "node1") {
        Ok(rows) if rows.iter().any(|found| found == row) => Ok(()),
        other => Err(other),
    });
    took
}

#[test]
#[ignore = "second tier: a node is cut off for as long as its attempts need to become rare"]
fn a_node_that_no_manager_reaches_goes_on_and_is_right_again_at_once() {
    let (cluster, guest) = cluster();
    let vip = SocketAddr::new(cluster.vip("web", "front"), 80);
    let pids = cluster.task_pids("node5");
    serves(&cluster, &guest, vip);
    cluster
        .lab()
        .close_port("node5", 2377)
        .expect("a firewall for it");
    goes_on(&cluster, &guest, vip, &pids);
    is_listed(&cluster, "node5 Down", Duration::from_secs(1));
    // What was changed meanwhile has its place there once it is back.
    let create = [
        "service", "create", "--detach", "--name", "late", "--mode", "global",
    ];
    let program = ["--network", "front", "host", cluster.program(), "demo-http"];
    let words = [&create[..], &program, &["--port", "81"]].concat();
    cluster.weft("node1", &words).done();

    cluster
        .lab()
        .open_port("node5", 2377)
        .expect("the firewall is there");
    let took = is_listed(&cluster, "node5 Ready", SOON);
    figure(&format!(
        "a node that was cut off for {} s was ready again after {:.2} s",
        AWAY.as_secs(),
        took.as_secs_f64()
    ));
    eventually("it runs what it is to run, and nothing else", || {
        let late = cluster.tasks("late");
        let web = cluster.tasks("web");
        let here = web.iter().filter(|task| task.node == "node5").count();
        let runs = cluster.task_pids("node5").len();
        let late = late.iter().any(|task| task.node == "node5");
        if web.len() == 2 && late && runs == here {
            Ok(())
        } else {
            Err((web, late, runs))
        }
    });
    serves(&cluster, &guest, vip);
}

#[test]
#[ignore = "second tier: managers are away for as long as a node's attempts need to become rare"]
fn nodes_whose_managers_are_all_gone_keep_their_tasks_and_are_right_again_at_once() {
    let (mut cluster, guest) = cluster();
    let vip = SocketAddr::new(cluster.vip("web", "front"), 80);
    let tasks = cluster.tasks("web");
    let pids = cluster.task_pids("node5");
    for node in MANAGERS {
        cluster.lab_mut().kill_node(node).expect("it has power");
    }
    goes_on(&cluster, &guest, vip, &pids);
    // An agent that starts without any manager takes up what ran.
    cluster.restart_agent("node5");
    serves(&cluster, &guest, vip);
    assert_eq!(cluster.task_pids("node5"), pids);

    cluster.lab_mut().start_node("node1").expect("it is off");
    comes_to_refuse(&cluster, "node1", &["node", "ls"], NO_LEADER);
    cluster.lab_mut().start_node("node2").expect("it is off");
    comes_to_do(&cluster, "node1", &["network", "create", "after"]);
    let took = is_listed(&cluster, "node5 Ready", SOON);
    figure(&format!(
        "a worker was ready {:.2} s after its managers led again",
        took.as_secs_f64()
    ));
    assert_eq!(cluster.tasks("web"), tasks);
    assert_eq!(cluster.task_pids("node5"), pids);
    serves(&cluster, &guest, vip);
}
