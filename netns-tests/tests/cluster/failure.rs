//! Nodes and agents that die.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weft_netns_tests::{Cluster, Settings, ask, eventually, figure, get, within};
use weft_sys::netns::Netns;

use crate::{PROGRAM, swarm};

/// How long an agent stands still.
const STILL: Duration = Duration::from_secs(15);

/// Longer than the silence after which a node is down.
const SILENCE: Duration = Duration::from_secs(5);

/// What a client saw: requests, attempts that were repeated, the longest request.
struct Seen {
    requests: u32,
    repeated: u32,
    longest: Duration,
}

/// One request after the other; each may be tried again until it has taken 10 s.
fn keep_asking(client: &Netns, to: SocketAddr, stop: &AtomicBool) -> Seen {
    let mut seen = Seen {
        requests: 0,
        repeated: 0,
        longest: Duration::ZERO,
    };
    // The last ones show that all is well again.
    while !stop.load(Ordering::Relaxed) || seen.requests < 20 {
        let started = Instant::now();
        seen.requests += 1;
        while let Err(error) = ask(client, to, Duration::from_secs(2)) {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "request to {to}: {error}"
            );
            seen.repeated += 1;
        }
        seen.longest = seen.longest.max(started.elapsed());
    }
    seen
}

#[test]
fn a_dead_node_is_withdrawn_and_its_tasks_move() {
    node3_dies(false);
}

#[test]
#[ignore = "second tier: the same over IPv4 is in the first tier"]
fn so_it_is_where_nodes_are_joined_by_ipv6() {
    node3_dies(true);
}

fn node3_dies(ipv6: bool) {
    let cluster = Cluster::swarm(
        PROGRAM,
        &Settings {
            alone: true,
            ipv6,
            ..Settings::default()
        },
    );
    let mut cluster = cluster;
    let tasks = cluster.web(3);
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let client = cluster.outside();
    let survivors = ["node1", "node2"];
    for node in survivors {
        eventually("the node answers", || get(&client, cluster.at(node, 8000)));
    }
    let dead = tasks
        .iter()
        .find(|t| t.node == "node3")
        .expect("a task on node3");
    let targets = survivors.map(|node| cluster.at(node, 8000));
    let here = tasks[0].clone();
    eventually("the task is known by name", || {
        match cluster.lookup(&here, "tasks.web", false) {
            Ok(found) if found.contains(&dead.ip.to_string()) => Ok(()),
            found => Err(found),
        }
    });
    drop(guest);

    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let (client, stop) = (&client, &stop);
        let clients = targets.map(|to| scope.spawn(move || keep_asking(client, to, stop)));
        // Whatever fails below, the clients have to end.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            watch_death(&mut cluster, &here, &dead.ip.to_string());
        }));
        stop.store(true, Ordering::Relaxed);
        let seen = clients.map(|c| c.join().expect("every request succeeds"));
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
        seen
    });
    for (node, seen) in survivors.iter().zip(seen) {
        figure(&format!(
            "{} requests through {node} while node3 died: 0 failed, {} attempts repeated, the longest took {:.2} s",
            seen.requests,
            seen.repeated,
            seen.longest.as_secs_f64()
        ));
    }
    for to in targets {
        let answer = get(&client, to);
        assert!(answer.is_ok(), "{to} afterwards: {answer:?}");
    }
}

fn watch_death(cluster: &mut Cluster, here: &weft_netns_tests::Task, dead: &str) {
    let killed = Instant::now();
    cluster
        .lab_mut()
        .kill_node("node3")
        .expect("the plug can be pulled");
    let left = |limit: f64| Duration::from_secs_f64(limit).saturating_sub(killed.elapsed());
    within(
        left(2.5),
        "the dead task leaves tasks.web",
        || match cluster.lookup(here, "tasks.web", false) {
            Ok(found) if !found.iter().any(|ip| ip == dead) => Ok(()),
            found => Err(found),
        },
    );
    figure(&format!(
        "withdrawn from names after {:.2} s",
        killed.elapsed().as_secs_f64()
    ));
    within(left(6.0), "the node is down", || {
        let rows = cluster.rows(&["node", "ls"]);
        let down = rows
            .iter()
            .any(|r| r["Hostname"] == "node3" && r["Status"] == "Down");
        if down { Ok(()) } else { Err(rows) }
    });
    figure(&format!(
        "node shown as Down after {:.2} s",
        killed.elapsed().as_secs_f64()
    ));
    within(left(10.0), "its task runs elsewhere", || {
        let tasks = cluster.tasks("web");
        let moved = tasks.len() == 3 && tasks.iter().all(|t| t.node != "node3");
        if moved { Ok(()) } else { Err(tasks) }
    });
    figure(&format!(
        "its task ran elsewhere after {:.2} s",
        killed.elapsed().as_secs_f64()
    ));
}

/// Reads a long answer slowly, and counts.
fn read_slowly(mut stream: &TcpStream, total: usize, read: &std::sync::atomic::AtomicUsize) {
    let mut chunk = vec![0; 32 * 1024];
    let mut left = total;
    while left > 0 {
        let want = left.min(chunk.len());
        let count = stream.read(&mut chunk[..want]).expect("the stream goes on");
        assert_ne!(
            count, 0,
            "the stream was cut off {left} bytes before its end"
        );
        left -= count;
        read.fetch_add(count, Ordering::Relaxed);
        // The pace of a slow reader, not a wait for anything.
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_agent_takes_neither_tasks_nor_connections_with_it() {
    use std::io::Write;
    use std::sync::atomic::AtomicUsize;

    let cluster = swarm(2);
    let tasks = cluster.web(2);
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let server = tasks
        .iter()
        .find(|t| t.node == "node2")
        .expect("a task on node2");
    let to = SocketAddr::new(server.ip, 80);
    eventually("the task answers", || get(&guest, to));
    let stream = guest
        .run_in(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))
        .expect("a thread")
        .expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a limit");
    let total: usize = 96 << 20;
    (&stream)
        .write_all(format!("GET /bytes/{total} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .expect("a request");
    let nodes = ["node1", "node2"];
    let pids = nodes.map(|n| cluster.task_pids(n));
    assert!(pids.iter().all(|p| p.len() == 1), "{pids:?}");

    let read = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_slowly(&stream, total, &read));
        for node in nodes {
            let killed = Instant::now();
            cluster.restart_agent(node);
            eventually("it carries traffic", || {
                let said = cluster.weft(node, &["drops"]);
                if said.code == 0 { Ok(()) } else { Err(said) }
            });
            // What was on the way when the agent died is not proof; twice a full window is.
            let mark = read.load(Ordering::Relaxed);
            eventually("the stream goes on", || {
                let more = read.load(Ordering::Relaxed) - mark;
                if more > 12 << 20 || reader.is_finished() {
                    Ok(())
                } else {
                    Err(more)
                }
            });
            assert!(
                !reader.is_finished(),
                "the stream was too short for this test"
            );
            figure(&format!(
                "12 MiB of a slow stream came after the agent of {node} was killed {:.2} s before",
                killed.elapsed().as_secs_f64()
            ));
            assert!(cluster.metric(node, "weft_session_connected") <= 1);
        }
        reader.join().expect("the stream arrives whole");
    });
    assert_eq!(
        nodes.map(|n| cluster.task_pids(n)),
        pids,
        "the same processes"
    );
    let services = eventually("the manager answers", || {
        let said = cluster.weft(
            "node1",
            &["service", "ls", "--format", "{{.Name}} {{.Replicas}}"],
        );
        if said.out == "web 2/2\n" {
            Ok(said.out)
        } else {
            Err(said)
        }
    });
    assert_eq!(services, "web 2/2\n");
    assert_eq!(cluster.tasks("web"), tasks);
    for node in nodes {
        eventually("the session is open", || {
            match cluster.metric(node, "weft_session_connected") {
                1 => Ok(()),
                other => Err(other),
            }
        });
    }
}

/// An agent that stands still as long as this is there, as in a machine that was suspended.
struct Still<'a> {
    cluster: &'a Cluster,
    node: &'a str,
    since: Instant,
}

impl<'a> Still<'a> {
    fn new(cluster: &'a Cluster, node: &'a str) -> Self {
        let frozen = cluster.lab().freeze_agent(node, true);
        frozen.expect("an agent to freeze");
        Self {
            cluster,
            node,
            since: Instant::now(),
        }
    }

    fn left(&self) -> Duration {
        STILL.saturating_sub(self.since.elapsed())
    }

    /// Lets it go on when its time is over.
    fn end(self) {
        std::thread::sleep(self.left());
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        // If it is gone, what asks it next says so.
        drop(self.cluster.lab().freeze_agent(self.node, false));
    }
}

#[test]
#[ignore = "second tier: two agents stand still for fifteen seconds each"]
fn of_tasks_whose_agent_stood_still_one_copy_is_left_and_a_manager_that_did_moves_none() {
    let cluster = swarm(3);
    let nodes = ["node1", "node2", "node3"];
    cluster.web(3);
    let client = cluster.outside();
    let pids = || nodes.map(|node| cluster.task_pids(node));
    let copies = || pids().map(|pids| pids.len());
    assert_eq!(copies(), [1, 1, 1]);
    let all_answer = |nodes: &[&str]| {
        for node in nodes {
            eventually("the node answers", || get(&client, cluster.at(node, 8000)));
        }
    };
    all_answer(&nodes);

    let still = Still::new(&cluster, "node3");
    let (_, took) = within(still.left(), "the node is down", || {
        let rows = cluster.rows(&["node", "ls"]);
        let is_down = rows
            .iter()
            .any(|row| row["Hostname"] == "node3" && row["Status"] == "Down");
        if is_down { Ok(()) } else { Err(rows) }
    });
    figure(&format!("a frozen node is down after {took:?}"));
    within(still.left(), "its task runs elsewhere", || {
        let tasks = cluster.tasks("web");
        let moved = tasks.len() == 3 && tasks.iter().all(|task| task.node != "node3");
        if moved { Ok(()) } else { Err(tasks) }
    });
    all_answer(&nodes[..2]);
    still.end();
    cluster.wait_ready(3);
    eventually("one copy of each task is left", || {
        let tasks = cluster.tasks("web");
        let of_node = |node: &str| tasks.iter().filter(|task| task.node == node).count();
        let (wanted, there) = (nodes.map(of_node), copies());
        if tasks.len() == 3 && wanted == there {
            Ok(())
        } else {
            Err((tasks, there))
        }
    });
    all_answer(&nodes);

    let before = (cluster.tasks("web"), pids());
    let still = Still::new(&cluster, "node1");
    // The others go on without a manager.
    all_answer(&nodes[1..]);
    still.end();
    cluster.wait_ready(3);
    std::thread::sleep(SILENCE);
    cluster.wait_ready(3);
    assert_eq!((cluster.tasks("web"), pids()), before);
    all_answer(&nodes);
}
