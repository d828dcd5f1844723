//! The TCP ports that nodes meet at, while a stranger fills them.

mod bomb;

use std::collections::VecDeque;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bomb::{Outcome, Thrower};
use tonic::Code;
use weft_lab::OUTSIDE;
use weft_netns_tests::{Cluster, Settings, eventually, figure, within};
use weft_sys::netns::Netns;

use crate::PROGRAM;

/// Silent connections that the stranger would like to hold, at each port.
const SILENT: usize = 2_000;
/// Connections that it makes at one port at most: the test has an end.
const MOST_CONNECTIONS: usize = 60_000;
/// Bombs that have to be answered, and that are thrown at most.
const BOMBS: usize = 150;
const MOST_BOMBS: usize = 1_000;
/// KiB that the manager's agent may ever have held in memory.
const MEMORY_KIB: u64 = 100_000;

/// Connects and says nothing, again and again; the oldest ones make room for new ones.
fn keep_silent(from: &Netns, to: SocketAddr, stop: &AtomicBool, made: &AtomicUsize) {
    let silent = || {
        let mut held = VecDeque::with_capacity(SILENT);
        while !stop.load(Ordering::Relaxed) && made.load(Ordering::Relaxed) < MOST_CONNECTIONS {
            // A port whose queue is full does not answer.
            let limit = Duration::from_millis(100);
            if let Ok(stream) = TcpStream::connect_timeout(&to, limit) {
                if held.len() == SILENT {
                    held.pop_front();
                }
                held.push_back(stream);
                // Bounded in time: two thousand in two seconds, then so many again.
                std::thread::sleep(Duration::from_micros(500));
            }
            made.fetch_add(1, Ordering::Relaxed);
        }
    };
    from.run_in(silent).expect("a thread");
}

fn throw_bombs(thrower: &Thrower<'_>, stop: &AtomicBool, answered: &AtomicUsize) -> usize {
    for thrown in 0..MOST_BOMBS {
        if stop.load(Ordering::Relaxed) {
            return thrown;
        }
        match thrower.throw() {
            Outcome::Answered(code) => {
                assert_eq!(code, Code::PermissionDenied);
                answered.fetch_add(1, Ordering::Relaxed);
            }
            // Others of its address were there before.
            Outcome::TurnedAway => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    MOST_BOMBS
}

/// Most memory that the agent of a node ever held, in KiB.
fn peak_kib(cluster: &Cluster, node: &str) -> u64 {
    memory_kib(cluster, node, "VmHWM:")
}

/// Memory of the agent of a node, in KiB, by the name that proc_pid_status(5) has for it.
pub(crate) fn memory_kib(cluster: &Cluster, node: &str, name: &str) -> u64 {
    let pid = cluster.lab().agent_pid(node).expect("a node");
    let status = format!("/proc/{}/status", pid.expect("its agent runs"));
    let status = fs::read_to_string(status).expect("a process");
    let found = status.lines().find_map(|l| l.strip_prefix(name));
    let found = found.expect("a figure").trim().trim_end_matches(" kB");
    found.parse().expect("a number")
}

/// State of each node that the manager knows.
fn states(cluster: &Cluster) -> Vec<(String, String)> {
    let text = |row: &serde_json::Value, of: &str| row[of].as_str().unwrap_or_default().to_owned();
    let rows = cluster.rows(&["node", "ls"]);
    rows.iter()
        .map(|row| (text(row, "Hostname"), text(row, "Status")))
        .collect()
}

fn all_ready(cluster: &Cluster) {
    let states = states(cluster);
    assert!(states.iter().all(|(_, s)| s == "Ready"), "{states:?}");
}

fn refused(cluster: &Cluster, door: &str) -> u64 {
    let events = ["refused_crowded", "refused_too_fast"];
    let name = |e| format!("weft_door_events_total{{door=\"{door}\",event=\"{e}\"}}");
    events
        .iter()
        .map(|e| cluster.metric("node1", &name(e)))
        .sum()
}

fn log_lines(cluster: &Cluster, about: &str) -> usize {
    let log = cluster.lab().log("node1").expect("a log");
    let text = fs::read_to_string(log).expect("a log");
    text.lines().filter(|line| line.contains(about)).count()
}

fn root(cluster: &Cluster) -> PathBuf {
    cluster.lab().dir().join("node1/data/certs/ca.crt")
}

#[test]
fn bombs_and_silence_of_a_stranger_keep_no_node_out() {
    weft_sys::open_files::raise().expect("descriptors for the stranger");
    let cluster = Cluster::bare(PROGRAM, &Settings::default());
    cluster.init("node1");
    let token = cluster.token();
    cluster.join("node2", &token).done();
    cluster.wait_ready(2);
    let quiet = peak_kib(&cluster, "node1");
    let stranger = cluster.netns(OUTSIDE, None);
    let manager = cluster.at("node1", 2377);
    let thrower = Thrower::new(&stranger, manager, &root(&cluster));

    // Bombs alone: every one is answered before it goes off.
    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let throwing = scope.spawn(|| throw_bombs(&thrower, &stop, &answered));
        let ended = StopAtEnd(&stop);
        within(Duration::from_secs(60), "bombs are answered", || {
            all_ready(&cluster);
            match answered.load(Ordering::Relaxed) {
                n if n >= BOMBS || throwing.is_finished() => Ok(()),
                n => Err(n),
            }
        });
        drop(ended);
        throwing.join().expect("bombs get one answer");
    });
    let bombs = answered.load(Ordering::Relaxed);
    let bomb_time = started.elapsed();
    let after_bombs = peak_kib(&cluster, "node1");
    assert!(bombs >= BOMBS, "{bombs}");
    assert!(after_bombs < MEMORY_KIB, "{after_bombs} KiB");

    // Bombs, and silence at both ports of both nodes, while nodes come and come back.
    stop.store(false, Ordering::Relaxed);
    let ports = [
        manager,
        cluster.at("node1", 7946),
        cluster.at("node2", 7946),
    ];
    let made = ports.map(|_| AtomicUsize::new(0));
    let (back, joined, synced) = std::thread::scope(|scope| {
        for (port, made) in ports.iter().zip(&made) {
            let (stranger, stop) = (&stranger, &stop);
            scope.spawn(move || keep_silent(stranger, *port, stop, made));
        }
        scope.spawn(|| throw_bombs(&thrower, &stop, &answered));
        let ended = StopAtEnd(&stop);
        eventually("the ports are full", || {
            all_ready(&cluster);
            let made = made.each_ref().map(|m| m.load(Ordering::Relaxed));
            if made.iter().all(|m| *m > SILENT) {
                Ok(())
            } else {
                Err(made)
            }
        });
        let figures = (
            come_back(&cluster),
            join(&cluster, &token),
            compare(&cluster),
        );
        drop(ended);
        figures
    });

    let peak = peak_kib(&cluster, "node1");
    let refused = ["manager", "gossip"].map(|door| refused(&cluster, door));
    let made = made.map(AtomicUsize::into_inner);
    figure(&format!(
        "{bombs} bombs of 16 MiB in {:.1} s: peak {quiet} -> {after_bombs} KiB; with {made:?} \
         silent connections: peak {peak} KiB, refused {refused:?}, an agent was back after \
         {:.2} s, a node joined in {:.2} s and had compared its tables after {:.2} s more",
        bomb_time.as_secs_f64(),
        back.as_secs_f64(),
        joined.as_secs_f64(),
        synced.as_secs_f64(),
    ));
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    assert!(refused.iter().all(|n| *n > 1_000), "{refused:?}");
    let lines = log_lines(&cluster, "refused a connection");
    assert!((1..=40).contains(&lines), "{lines} lines");
    eventually("the log tells of the others", || {
        let told = log_lines(&cluster, "more were suppressed");
        if told > 0 { Ok(()) } else { Err(told) }
    });
    cluster.wait_ready(3);
}

/// The flood ends also when a test that it belongs to has failed.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The agent of node2 dies and comes back before anybody takes the node for dead.
fn come_back(cluster: &Cluster) -> Duration {
    let before = cluster.lab().kill_agent("node2").expect("an agent to kill");
    let (_, back) = within(Duration::from_secs(15), "the session is open again", || {
        all_ready(cluster);
        let now = cluster.lab().agent_pid("node2").expect("a node");
        if now.is_none_or(|pid| pid == before) || cluster.weft("node2", &["info"]).code != 0 {
            return Err("no agent");
        }
        match cluster.metric("node2", "weft_session_connected") {
            1 => Ok(()),
            _ => Err("no session"),
        }
    });
    all_ready(cluster);
    back
}

fn join(cluster: &Cluster, token: &str) -> Duration {
    let started = Instant::now();
    cluster.join("node3", token).done();
    cluster.wait_ready(3);
    let joined = started.elapsed();
    assert!(joined < Duration::from_secs(10), "{joined:?}");
    joined
}

/// The new member and the others compare what they have, over TCP, without a failure.
fn compare(cluster: &Cluster) -> Duration {
    let metric = |event: &str| {
        let name = format!("weft_gossip_events_total{{event=\"{event}\"}}");
        cluster.metric("node3", &name)
    };
    let (_, took) = within(Duration::from_secs(20), "the new member compares", || {
        all_ready(cluster);
        match metric("syncs") {
            n if n >= 3 => Ok(()),
            n => Err((n, metric("syncs_failed"))),
        }
    });
    assert_eq!(metric("syncs_failed"), 0);
    took
}
