//! An agent that is killed while connections are open, and comes back.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weft_netns_tests::{Cluster, ask, eventually, figure, get, hold};
use weft_sys::netns::Netns;

use crate::swarm;

const STREAMS: usize = 20;

/// Bytes that every stream carries every [`PACE`].
const CHUNK: usize = 256;
const PACE: Duration = Duration::from_millis(2);

/// A stream that brings nothing for so long is broken.
const BROKEN: Duration = Duration::from_secs(10);

const PROBE: Duration = Duration::from_secs(1);

/// How often an agent is killed whose node must not fill up.
const KILLS: usize = 20;

/// More than the time between two looks at everything that an agent keeps up.
const LOOKS: Duration = Duration::from_secs(4);

/// What the receiver of one stream saw.
#[derive(Default)]
struct Seen {
    bytes: AtomicU64,
    /// Nanoseconds of the longest silence.
    longest: AtomicU64,
}

/// Reads a stream to its end; every byte has to be the one that was sent.
fn receive(mut stream: TcpStream, seen: &Seen) {
    stream.set_read_timeout(Some(BROKEN)).expect("a limit");
    let mut buffer = [0; 16 * 1024];
    let mut last = Instant::now();
    loop {
        let count = stream.read(&mut buffer).expect("the stream goes on");
        let silence = u64::try_from(last.elapsed().as_nanos()).unwrap_or(u64::MAX);
        last = Instant::now();
        if count == 0 {
            return;
        }
        let start = seen.bytes.load(Ordering::Relaxed);
        for (at, byte) in (start..).zip(&buffer[..count]) {
            assert_eq!(*byte, (at % 251) as u8, "byte {at}");
        }
        seen.longest.fetch_max(silence, Ordering::Relaxed);
        seen.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Sends on all streams at a steady pace, and closes them.
fn send(streams: &[TcpStream], stop: &AtomicBool) {
    let mut at = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let chunk: Vec<u8> = (at..at + CHUNK as u64).map(|n| (n % 251) as u8).collect();
        for mut stream in streams {
            stream.write_all(&chunk).expect("the stream goes on");
        }
        at += CHUNK as u64;
        // The pace of a sender, not a wait for anything.
        std::thread::sleep(PACE);
    }
    for stream in streams {
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("the stream is open");
    }
}

fn connections(
    client: &Netns,
    server: &Netns,
    at: std::net::IpAddr,
) -> Vec<(TcpStream, TcpStream)> {
    let listener = server
        .run_in(|| TcpListener::bind((at, 0)))
        .expect("a thread")
        .expect("a listener");
    let to: SocketAddr = listener.local_addr().expect("an address");
    (0..STREAMS)
        .map(|_| {
            let near = client
                .run_in(|| TcpStream::connect_timeout(&to, BROKEN))
                .expect("a thread")
                .expect("a connection");
            near.set_nodelay(true).expect("an option");
            let (far, _) = listener.accept().expect("the other end");
            (near, far)
        })
        .collect()
}

#[test]
fn twenty_streams_outlive_the_agents_of_both_ends() {
    let cluster = swarm(2);
    cluster.network("front");
    let (client, _) = cluster.guest("node1", "client", "front");
    let (server, printed) = cluster.guest("node2", "server", "front");
    let ip = printed["IP"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .expect("an address");
    eventually("the other end is reached", || {
        let probe = client.run_in(|| TcpStream::connect_timeout(&SocketAddr::new(ip, 9), PROBE));
        // Nobody listens there: the refusal shows that packets pass in both directions.
        match probe.expect("a thread") {
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let (near, far): (Vec<_>, Vec<_>) = connections(&client, &server, ip).into_iter().unzip();
    let seen: Vec<Seen> = (0..STREAMS).map(|_| Seen::default()).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (stream, seen) in far.into_iter().zip(&seen) {
            scope.spawn(move || receive(stream, seen));
        }
        let sender = scope.spawn(|| send(&near, &stop));
        let brought = |more: u64| {
            let marks: Vec<u64> = seen
                .iter()
                .map(|s| s.bytes.load(Ordering::Relaxed))
                .collect();
            eventually("every stream brings more", || {
                let least = seen.iter().zip(&marks);
                let least = least
                    .map(|(s, mark)| s.bytes.load(Ordering::Relaxed) - mark)
                    .min();
                if least >= Some(more) || sender.is_finished() {
                    Ok(())
                } else {
                    Err(least)
                }
            });
        };
        brought(50 * CHUNK as u64);
        for node in ["node1", "node2"] {
            for s in &seen {
                s.longest.store(0, Ordering::Relaxed);
            }
            cluster.restart_agent(node);
            // What waited in the meantime, and then as much again.
            brought(500 * CHUNK as u64);
            let mut silences: Vec<u64> = seen
                .iter()
                .map(|s| s.longest.load(Ordering::Relaxed))
                .collect();
            silences.sort_unstable();
            let ms = |nanos: u64| nanos as f64 / 1e6;
            figure(&format!(
                "the agent of {node} was killed under {STREAMS} streams: silent for {:.0} ms in the middle, {:.0} ms at most",
                ms(silences[STREAMS / 2]),
                ms(silences[STREAMS - 1]),
            ));
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().expect("every stream takes what is sent");
    });
    let bytes: Vec<u64> = seen
        .iter()
        .map(|s| s.bytes.load(Ordering::Relaxed))
        .collect();
    assert!(bytes.iter().all(|n| *n == bytes[0] && *n > 0), "{bytes:?}");
}

/// Power failed, or the disk was restored: what is on it is older than what runs.
#[test]
fn orders_on_disk_that_are_old_take_nothing_down() {
    let cluster = swarm(2);
    let data = cluster.lab().dir().join("node2/data");
    cluster.network("front");
    let holding = |file: &str, name: &str| {
        eventually("the orders are on disk", || {
            let text = std::fs::read_to_string(data.join(file)).map_err(|e| e.to_string())?;
            if text.contains(name) {
                Ok(text)
            } else {
                Err(text)
            }
        })
    };
    let old = holding("shared.json", "front");
    let old_own = holding("assignment.json", "node2");
    let tasks = cluster.serve_web(2);
    let (guest, printed) = cluster.guest("node2", "guest", "front");
    let own = printed["IP"].as_str().and_then(|ip| ip.parse().ok());
    let own = SocketAddr::new(own.expect("an address"), 9000);
    let task = SocketAddr::new(tasks[1].ip, 80);
    assert_eq!(tasks[1].node, "node2");
    get(&guest, task).expect("the task of node2 answers");
    let pids = cluster.task_pids("node2");
    holding("assignment.json", "guest");
    holding("shared.json", "guest");
    cluster
        .lab()
        .freeze_agent("node1", true)
        .expect("a manager");
    std::fs::write(data.join("shared.json"), old).expect("older orders");
    std::fs::write(data.join("assignment.json"), old_own).expect("older orders");
    cluster.restart_agent("node2");
    std::thread::sleep(LOOKS);
    let has_interface = || {
        let bound = guest.run_in(|| TcpListener::bind(own));
        bound.expect("a thread").map(drop)
    };
    has_interface().expect("the sandbox has its interface without a manager");
    assert_eq!(cluster.task_pids("node2"), pids);
    cluster
        .lab()
        .freeze_agent("node1", false)
        .expect("a manager");
    eventually("all is as it was", || ask(&guest, task, PROBE));
    std::thread::sleep(LOOKS);
    has_interface().expect("the sandbox has its interface with a manager");
    assert_eq!(cluster.task_pids("node2"), pids);
}

/// What there is on a node because of its agent.
#[derive(Debug)]
struct Belongings {
    /// Open in the agent itself.
    descriptors: usize,
    threads: usize,
    /// Links, and how many rules, routes, mounts and lines of nftables there are.
    of_node: String,
    of_sandbox: String,
    files: String,
}

impl Belongings {
    fn of(cluster: &Cluster, node: &str, sandbox: &Path) -> Result<Self, String> {
        let pid = match cluster.lab().agent_pid(node) {
            Ok(Some(pid)) => pid,
            other => return Err(format!("no agent: {other:?}")),
        };
        let entries = |name: &str| {
            let entries = std::fs::read_dir(format!("/proc/{pid}/{name}"));
            entries.map(Iterator::count).map_err(|e| e.to_string())
        };
        let network = "ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort; \
            ip rule | wc -l; ip -6 rule | wc -l; ip route show table all | wc -l";
        let more = "wc -l < /proc/self/mounts; nft -s list ruleset | wc -l";
        let data = cluster.lab().dir().join(node).join("data");
        let files = format!("find /run/weft {} | sort", data.display());
        let said = |netns: Option<&Path>, script: &str| {
            let said = cluster.run(node, netns, &["sh", "-c", script]);
            if said.code == 0 {
                Ok(said.out)
            } else {
                Err(format!("{said:?}"))
            }
        };
        Ok(Self {
            descriptors: entries("fd")?,
            threads: entries("task")?,
            of_node: said(None, &format!("{network}; {more}"))?,
            of_sandbox: said(Some(sandbox), network)?,
            files: said(None, &files)?,
        })
    }

    /// Nothing is there that was not before. The process is another one, which may have a little more
    /// open at a time, but not one thing for each of those before it.
    fn is_as(&self, before: &Self) -> bool {
        let own = [
            (self.descriptors, before.descriptors),
            (self.threads, before.threads),
        ];
        own.iter().all(|(now, before)| *now < before + KILLS / 2)
            && self.of_node == before.of_node
            && self.of_sandbox == before.of_sandbox
            && self.files == before.files
    }
}

#[test]
#[ignore = "second tier: twenty agents are killed one after the other"]
fn an_agent_that_is_killed_over_and_over_leaves_nothing_behind() {
    const NODE: &str = "node2";
    let cluster = swarm(2);
    let tasks = cluster.web(2);
    let (guest, _) = cluster.guest(NODE, "guest", "front");
    let client = cluster.outside();
    let vip = SocketAddr::new(cluster.vip("web", "front"), 80);
    let published = cluster.at(NODE, 8000);
    let all_are_served = || {
        cluster.wait_ready(2);
        eventually("the guest is served", || get(&guest, vip));
        eventually("the node answers", || get(&client, published));
    };
    all_are_served();
    let pids = cluster.task_pids(NODE);
    let sandbox = tasks.iter().find(|task| task.node == NODE);
    let sandbox = sandbox.expect("a task there").netns.clone();

    let restart = |pause: Option<Duration>| {
        cluster.restart_agent(NODE);
        match pause {
            Some(pause) => std::thread::sleep(pause),
            None => eventually("it carries traffic", || {
                let said = cluster.weft(NODE, &["drops"]);
                if said.code == 0 { Ok(()) } else { Err(said) }
            }),
        }
    };
    // The first one made some things once and for all.
    restart(None);
    all_are_served();
    let before = eventually("nothing changes any more", || {
        let first = Belongings::of(&cluster, NODE, &sandbox)?;
        std::thread::sleep(PROBE);
        let second = Belongings::of(&cluster, NODE, &sandbox)?;
        if second.is_as(&first) && first.is_as(&second) {
            Ok(second)
        } else {
            Err(format!("{first:#?}, {second:#?}"))
        }
    });
    let mut held = hold(&client, published).expect("an answer");
    let mut pause = Duration::ZERO;
    for _ in 0..KILLS / 2 {
        restart(None);
        // And each time a little later in its start.
        restart(Some(pause));
        pause += Duration::from_millis(40);
    }
    restart(None);
    all_are_served();
    eventually("the node is as it was", || {
        let now = Belongings::of(&cluster, NODE, &sandbox)?;
        if now.is_as(&before) {
            Ok(())
        } else {
            Err(format!("{now:#?}, before: {before:#?}"))
        }
    });
    held.again().expect("the connection goes on");
    assert_eq!(cluster.task_pids(NODE), pids);
    assert_eq!(cluster.tasks("web"), tasks);
}
