//! Clients ask without a pause while replicas are killed, scaled and drained: two hundred of them, or a
//! few that have one port each.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use weft_netns_tests::{Cluster, Settings, Task, ask, ask_on, connect, eventually, figure};
use weft_sys::netns::Netns;

use crate::{PROGRAM, swarm};

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
    /// The longest that a request from one port took, in microseconds.
    longest_us: AtomicU64,
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

    /// Asks one node, always from one port, until it is told to stop.
    fn ask_from_port(&self, from: &Netns, port: u16, to: SocketAddr, end: End) {
        while !self.stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let asked = loop {
                match ask_from_port(from, port, to, end) {
                    // The end of the connection before is not acknowledged yet.
                    Err(error) if is_own(&error) && begun.elapsed() < PATIENCE => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    other => break other,
                }
            };
            let ended = Instant::now();
            let took = u64::try_from((ended - begun).as_micros()).unwrap_or(u64::MAX);
            self.longest_us.fetch_max(took, Ordering::Relaxed);
            match asked {
                Ok(_) => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.failures.lock().expect("no panic").push(Failure {
                    begun,
                    ended,
                    kind: error.kind(),
                    from: Some(port),
                    to,
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

/// Who ends a connection, so that its client can have the port again at once.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The server, after its answer.
    Server,
    /// The client, by a reset.
    Reset,
}

/// Whether the client's own kernel has the port for the connection before.
fn is_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable
    )
}

/// Asks once, from a port that a connection which is over may have had.
fn ask_from_port(from: &Netns, port: u16, to: SocketAddr, end: End) -> io::Result<String> {
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if matches!(end, End::Reset) {
            socket.set_linger(Some(Duration::ZERO))?;
        }
        let own = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        socket.bind(&own.into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        io::Result::Ok(TcpStream::from(socket))
    };
    let mut stream = from.run_in(connect)??;
    stream.set_read_timeout(Some(PATIENCE))?;
    match end {
        End::Reset => ask_on(&stream),
        End::Server => {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            match stream.read_to_string(&mut answer)? {
                0 => Err(ErrorKind::UnexpectedEof.into()),
                _ => Ok(answer),
            }
        }
    }
}

/// Whether a request failed as one does whose replica was killed meanwhile.
fn was_in_flight(failure: &Failure, kills: &[(Instant, Instant)]) -> bool {
    let broke = matches!(
        failure.kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    );
    let in_flight =
        |(before, after): &(Instant, Instant)| failure.begun <= *after && failure.ended >= *before;
    broke && kills.iter().any(in_flight)
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
            assert!(was_in_flight(&failure, &kills), "{failure:?} {kills:?}");
        }
    });
}

/// An update that stops the only replica before it starts the next one: there is none for a while, and
/// who connects then, from outside or from the node itself, waits.
#[test]
fn clients_wait_while_the_only_replica_is_replaced() {
    let cluster = swarm(2);
    cluster.web(1);
    let client = cluster.outside();
    let own = cluster.netns("node1", None);
    let nodes = ["node1", "node2"].map(|node| cluster.at(node, 8000));
    for to in nodes {
        eventually("the node answers", || ask(&client, to, PATIENCE));
    }
    let before = cluster.tasks("web");
    let seen = Seen::default();
    std::thread::scope(|scope| {
        for at in 0..20 {
            let (seen, from) = (&seen, if at < 16 { &client } else { &own });
            scope.spawn(move || seen.ask_on(from, &nodes, at % 2));
        }
        // Whatever fails below must not leave the clients behind.
        let stop = StopAtEnd(&seen);
        seen.go_on_for(100);
        let words = ["service", "update", "--force", "web"];
        cluster.weft("node1", &words).done();
        seen.go_on_for(100);
        drop(stop);
    });
    let failures = seen.failures();
    assert!(failures.is_empty(), "{failures:?}");
    assert_ne!(cluster.tasks("web"), before, "it is another task");
    let held: u64 = ["node1", "node2"]
        .into_iter()
        .flat_map(|node| (0..8).map(move |worker| (node, worker)))
        .map(|(node, worker)| {
            let series = format!("weft_flow_events_total{{worker=\"{worker}\",event=\"held\"}}");
            cluster.metric(node, &series)
        })
        .sum();
    assert!(held > 0, "nobody had to wait");
    // Where none is wanted, nobody waits.
    cluster.weft("node1", &["service", "scale", "web=0"]).done();
    for to in nodes {
        eventually("the node refuses at once", || {
            let begun = Instant::now();
            match connect(&client, to, PATIENCE) {
                Err(error)
                    if error.kind() == ErrorKind::ConnectionRefused
                        && begun.elapsed() < Duration::from_secs(1) =>
                {
                    Ok(())
                }
                other => Err(other),
            }
        });
    }
}

struct StopAtEnd<'a>(&'a Seen);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// A second is what a client waits before it repeats a segment that was lost.
#[test]
#[ignore = "second tier: it measures how long clients wait, with the machine to itself"]
fn one_port_over_and_over_is_served_while_replicas_come_and_go() {
    let settings = Settings {
        nodes: 2,
        alone: true,
        ..Settings::default()
    };
    let cluster = Cluster::swarm(PROGRAM, &settings);
    cluster.web(3);
    let client = cluster.outside();
    let nodes = ["node1", "node2"].map(|node| cluster.at(node, 8000));
    for to in nodes {
        eventually("the node answers", || ask(&client, to, PATIENCE));
    }
    let scale = |count: usize| {
        let scale = format!("web={count}");
        cluster.weft("node1", &["service", "scale", &scale]).done();
    };
    let seen = Seen::default();
    let mut kills = Vec::new();
    std::thread::scope(|scope| {
        let mut port = 20_000;
        for to in nodes {
            for end in [End::Server, End::Reset] {
                let (seen, client) = (&seen, &client);
                scope.spawn(move || seen.ask_from_port(client, port, to, end));
                port += 1;
            }
        }
        // Whatever fails below must not leave the clients behind.
        let stop = StopAtEnd(&seen);
        seen.go_on_for(500);
        for count in [1, 3] {
            scale(count);
            seen.go_on_for(500);
        }
        for _ in 0..2 {
            let task = cluster.tasks("web").remove(0);
            let before = Instant::now();
            kills.push((before, kill(&cluster, &task)));
            seen.go_on_for(500);
            eventually("three run again", || match cluster.tasks("web").len() {
                3 => Ok(()),
                n => Err(n),
            });
        }
        seen.go_on_for(500);
        drop(stop);
    });
    let longest = Duration::from_micros(seen.longest_us.load(Ordering::Relaxed));
    let (answered, failures) = (seen.answered.load(Ordering::Relaxed), seen.failures());
    figure(&format!(
        "{answered} requests from four ports, the longest took {longest:?}; {} in flight on one of {} killed replicas failed",
        failures.len(),
        kills.len()
    ));
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    for failure in failures {
        assert!(was_in_flight(&failure, &kills), "{failure:?} {kills:?}");
    }
}
