//! Two hundred clients ask without a pause while replicas are killed, scaled and drained.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use weft_netns_tests::{Cluster, Task, ask, ask_on, connect, eventually, figure};
use weft_sys::netns::Netns;

use crate::swarm;

const CLIENTS: usize = 200;

/// A client that waits for longer has lost its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// One request that failed.
#[derive(Debug, Clone)]
struct Failure {
    begun: Instant,
    ended: Instant,
    kind: ErrorKind,
    /// The client's port, when it was connected.
    #[expect(dead_code, reason = "printed when the test fails")]
    from: Option<u16>,
    #[expect(dead_code, reason = "printed when the test fails")]
    to: SocketAddr,
}

/// What all clients saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

impl Seen {
    /// Asks one node after another until it is told to stop.
    fn ask_on(&self, from: &Netns, nodes: &[SocketAddr], first: usize) {
        for to in nodes.iter().cycle().skip(first) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let begun = Instant::now();
            let stream = connect(from, *to, PATIENCE);
            let own = stream.as_ref().ok().and_then(|s| s.local_addr().ok());
            match stream.and_then(|stream| ask_on(&stream)) {
                Ok(_) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.failures.lock().expect("no panic").push(Failure {
                    begun,
                    ended: Instant::now(),
                    kind: error.kind(),
                    from: own.map(|own| own.port()),
                    to: *to,
                }),
            }
        }
    }

    /// Waits until so many more requests were answered: there is traffic around what happens.
    fn go_on_for(&self, more: u64) {
        let mark = self.answered.load(Ordering::Relaxed);
        eventually("requests are answered", || {
            let now = self.answered.load(Ordering::Relaxed) - mark;
            if now >= more { Ok(()) } else { Err(now) }
        });
    }

    fn failures(&self) -> Vec<Failure> {
        self.failures.lock().expect("no panic").clone()
    }
}

/// Kills the process of a task; when it is gone. Until the kernel comes to it, on a busy machine some
/// time after the signal, its sockets take connections and answer nothing.
fn kill(cluster: &Cluster, task: &Task) -> Instant {
    let script = format!(
        "for p in $(pgrep -f 'demo-http --port 80$'); do tr '\\0' '\\n' < /proc/$p/environ | grep -qx 'WEFT_TASK_NAME={}' && kill -9 $p && echo $p && while s=$(cut -d' ' -f3 /proc/$p/stat 2>/dev/null) && ( [ \"$s\" != Z ] || [ $(ls /proc/$p/task | wc -l) -gt 1 ] ); do sleep 0.01; done; done; true",
        task.name
    );
    let said = cluster.run(&task.node, None, &["sh", "-c", &script]);
    assert!(!said.out.trim().is_empty(), "{said:?}");
    Instant::now()
}

#[test]
fn no_request_fails_but_those_in_flight_on_a_killed_replica() {
    let cluster = swarm(3);
    cluster.web(9);
    let client = cluster.outside();
    let nodes = ["node1", "node2", "node3"].map(|node| cluster.at(node, 8000));
    for to in nodes {
        eventually("the node answers", || ask(&client, to, PATIENCE));
    }
    let seen = Seen::default();
    let mut kills = Vec::new();
    std::thread::scope(|scope| {
        for at in 0..CLIENTS {
            let (seen, client) = (&seen, &client);
            scope.spawn(move || seen.ask_on(client, &nodes, at % 3));
        }
        // Whatever fails below must not leave the clients behind.
        let stop = StopAtEnd(&seen);
        seen.go_on_for(500);
        for node in ["node1", "node2", "node3"] {
            let tasks = cluster.tasks("web");
            let task = tasks.iter().find(|t| t.node == node).expect("a task");
            let before = Instant::now();
            let after = kill(&cluster, task);
            kills.push((before, after));
            seen.go_on_for(500);
            eventually("nine run again", || match cluster.tasks("web").len() {
                9 => Ok(()),
                n => Err(n),
            });
        }
        let killed = seen.failures();
        // So that a failure tells what went on.
        let mut phases = vec![("two of nine", Instant::now())];
        for count in ["2", "9"] {
            if count == "9" {
                phases.push(("nine of two", Instant::now()));
            }
            let scale = format!("web={count}");
            cluster.weft("node1", &["service", "scale", &scale]).done();
            seen.go_on_for(500);
        }
        phases.push(("node3 drains", Instant::now()));
        let words = ["node", "update", "--availability", "drain", "node3"];
        cluster.weft("node1", &words).done();
        eventually("the node is drained", || {
            match cluster
                .tasks("web")
                .iter()
                .filter(|t| t.node == "node3")
                .count()
            {
                0 => Ok(()),
                n => Err(n),
            }
        });
        seen.go_on_for(1000);
        drop(stop);
        figure(&format!(
            "{} requests; {} in flight on one of {} killed replicas failed",
            seen.answered.load(Ordering::Relaxed),
            killed.len(),
            kills.len()
        ));
        let since = seen.failures().split_off(killed.len());
        assert!(
            since.is_empty(),
            "scaling and draining: {since:?}; begun: {phases:?}; node2 says {} and dropped {}",
            cluster.weft("node2", &["why", "8000"]).out,
            cluster.weft("node2", &["drops"]).out
        );
        for failure in killed {
            let in_flight = |(before, after): &(Instant, Instant)| {
                failure.begun <= *after && failure.ended >= *before
            };
            let broke = matches!(
                failure.kind,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
            );
            assert!(
                broke && kills.iter().any(in_flight),
                "{failure:?} {kills:?}"
            );
        }
    });
}

struct StopAtEnd<'a>(&'a Seen);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}
