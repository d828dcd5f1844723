//! Established flows are carried by the kernel, and by the workers whenever those have to see them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use weft_netns_tests::{
    Cluster, LIMIT, Settings, eventually, figure, receive_pattern, send_pattern, transfer,
};
use weft_sys::netns::Netns;

use crate::capture::{capture, read};
use crate::{PROGRAM, swarm};

/// Bytes of the large transfer.
const TOTAL: usize = 200 << 20;
/// Bytes of the one that is captured.
const CAPTURED: usize = 16 << 20;
/// Bytes after which the slow stream repeats itself; no power of two, so that a piece that is lost
/// shows.
const PERIOD: usize = 251;
/// Bytes of it in one write, every [`PACE`]: enough for the kernel to carry it.
const CHUNK: usize = PERIOD * 1024;
const PACE: Duration = Duration::from_millis(10);
/// A stream that brings nothing for so long is broken.
const BROKEN: Duration = Duration::from_secs(20);

/// What the doctor of a node says of the fast path.
fn line(cluster: &Cluster, node: &str) -> String {
    let text = cluster.weft(node, &["doctor", "--format", "json"]);
    let rows = text.out.lines();
    let checks = rows.map(|row| serde_json::from_str::<Value>(row).expect("a row is JSON"));
    let mut checks = checks.filter(|check| check["Name"] == "fast path");
    let check = checks.next().expect("the check is there");
    check["Found"].as_str().expect("a text").to_owned()
}

/// Waits until the sandbox of each node is taken in; false where the kernel does not take the
/// programs, as in user namespaces.
fn is_on(cluster: &Cluster) -> bool {
    let mut on = [false; 2];
    for (node, on) in ["node1", "node2"].into_iter().zip(&mut on) {
        *on = eventually("the fast path is on, or refused", || {
            let line = line(cluster, node);
            if line.starts_with("kernel (tc): ") && line.contains(" flows, 1 sandboxes") {
                Ok(true)
            } else if line.starts_with("user space, because ") {
                Ok(false)
            } else {
                Err(line)
            }
        });
    }
    assert_eq!(on[0], on[1], "both nodes have one kernel");
    on[0]
}

/// Packets of a node that the kernel carried, or handed back.
fn events(cluster: &Cluster, node: &str, event: &str) -> u64 {
    let name = format!("weft_fast_path_events_total{{event=\"{event}\"}}");
    cluster.metric(node, &name)
}

/// A sandbox on each of two nodes, and a port number of the second one.
fn pair(cluster: &Cluster) -> (Netns, Netns, SocketAddr) {
    cluster.network("front");
    let (client, _) = cluster.guest("node1", "client", "front");
    let (server, printed) = cluster.guest("node2", "server", "front");
    let ip = printed["IP"].as_str().and_then(|ip| ip.parse().ok());
    (
        client,
        server,
        SocketAddr::new(ip.expect("an address"), 7000),
    )
}

#[test]
fn the_kernel_carries_bulk_and_gives_it_back_when_it_is_asked() {
    let cluster = swarm(2);
    let (client, server, to) = pair(&cluster);
    let on = is_on(&cluster);
    let took = transfer(&client, &server, to, TOTAL);
    let rate = TOTAL as f64 * 8.0 / took.as_secs_f64() / 1e9;
    figure(&format!("{rate:.1} Gbit/s, by the kernel: {on}"));
    let counted = |node: &str, event: &str| events(&cluster, node, event);
    if !on {
        assert_eq!((counted("node1", "out"), counted("node2", "in")), (0, 0));
        return;
    }
    for (node, event) in [
        ("node1", "out"),
        ("node2", "in"),
        ("node2", "out"),
        ("node1", "in"),
    ] {
        let count = counted(node, event);
        assert!(count > 100, "{node}, {event}: {count}");
    }
    for (node, series) in [
        ("node1", r#"rx_bytes_total{port="client",network="front"}"#),
        ("node2", r#"tx_bytes_total{port="server",network="front"}"#),
    ] {
        assert_eq!(counted(node, "failed"), 0);
        eventually("what the kernel carried is counted for the port", || {
            let bytes = cluster.metric(node, &format!("weft_port_{series}"));
            let about = TOTAL as u64..(TOTAL + TOTAL / 8) as u64;
            if about.contains(&bytes) {
                Ok(())
            } else {
                Err(bytes)
            }
        });
        eventually("a flow that is over is forgotten", || {
            match cluster.metric(node, "weft_fast_path_flows") {
                0 => Ok(()),
                flows => Err(flows),
            }
        });
    }
    a_capture_sees_every_frame(&cluster, (&client, &server, to));
    let before = counted("node1", "out");
    // The agent may notice a moment later that nobody reads any more.
    eventually("it goes on afterwards", || {
        let took = transfer(&client, &server, to, CAPTURED);
        if counted("node1", "out") > before {
            Ok(())
        } else {
            Err(took)
        }
    });
}

fn a_capture_sees_every_frame(
    cluster: &Cluster,
    (client, server, to): (&Netns, &Netns, SocketAddr),
) {
    let file = cluster.dir().join("stream.pcapng");
    let name = file.to_str().expect("a path");
    let words = ["--port", "client", "-s", "60", "-w", name];
    let mut running = capture(cluster, &words);
    eventually("the capture runs", || {
        let len = std::fs::metadata(&file).map_or(0, |m| m.len());
        if len > 0 { Ok(()) } else { Err(()) }
    });
    let before = events(cluster, "node1", "out");
    let took = transfer(client, server, to, CAPTURED);
    assert_eq!(events(cluster, "node1", "out"), before, "in {took:?}");
    kill_process(Pid::from_child(&running), Signal::INT).expect("it runs");
    assert!(running.wait().expect("it ends").success());
    let frames = read(&std::fs::read(&file).expect("the file"));
    // TCP over IPv4, from the stream's sender.
    let port = to.port().to_be_bytes();
    let of_stream = frames.iter().filter(|frame| {
        let bytes = &frame.bytes;
        bytes.get(12..14) == Some(&[8, 0])
            && bytes.get(23) == Some(&6)
            && bytes.get(36..38) == Some(&port[..])
    });
    let count = of_stream.count();
    assert!(count > 50, "{count} of {} frames", frames.len());
}

/// Sends at a steady pace until `stop`, and closes the stream; not for ever, should the test fail.
fn send(mut stream: &TcpStream, stop: &AtomicBool) {
    let started = Instant::now();
    let chunk: Vec<u8> = (0..CHUNK).map(|at| (at % PERIOD) as u8).collect();
    while !stop.load(Ordering::Relaxed) && started.elapsed() < 5 * LIMIT {
        stream.write_all(&chunk).expect("the stream goes on");
        // The pace of a sender, not a wait for anything.
        std::thread::sleep(PACE);
    }
    let end = stream.shutdown(std::net::Shutdown::Write);
    end.expect("the stream is open");
}

/// Reads to the end, and compares every byte. The longest silence.
fn receive(mut stream: &TcpStream, brought: &AtomicU64) -> Duration {
    let mut buffer = vec![0; 64 * 1024];
    let expected: Vec<u8> = (0..buffer.len() + PERIOD)
        .map(|at| (at % PERIOD) as u8)
        .collect();
    let (mut at, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    loop {
        let count = stream.read(&mut buffer).expect("the stream goes on");
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if count == 0 {
            return longest;
        }
        assert!(buffer[..count] == expected[at..at + count], "other bytes");
        at = (at + count) % PERIOD;
        brought.fetch_add(count as u64, Ordering::Relaxed);
    }
}

fn connect(client: &Netns, server: &Netns, to: SocketAddr) -> [TcpStream; 2] {
    let listener = server.run_in(|| TcpListener::bind(to)).expect("a thread");
    let listener = listener.expect("the port is free");
    let near = client.run_in(|| TcpStream::connect_timeout(&to, BROKEN));
    let near = near.expect("a thread").expect("the server answers");
    let (far, _) = listener.accept().expect("the connection is there");
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(BROKEN)).expect("a limit");
        stream.set_write_timeout(Some(BROKEN)).expect("a limit");
    }
    [near, far]
}

#[test]
fn a_stream_goes_on_while_the_agent_of_its_node_is_killed() {
    let cluster = swarm(2);
    let (client, server, to) = pair(&cluster);
    let on = is_on(&cluster);
    let [near, far] = connect(&client, &server, to);
    let (stop, brought) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&far, &brought));
        let sender = scope.spawn(|| send(&near, &stop));
        let carried = || {
            eventually("the kernel carries it", || {
                let flows = cluster.metric("node1", "weft_fast_path_flows");
                if flows > 0 || !on { Ok(()) } else { Err(flows) }
            });
        };
        carried();
        let before = brought.load(Ordering::Relaxed);
        cluster.restart_agent("node1");
        eventually("it goes on", || {
            let more = brought.load(Ordering::Relaxed) - before;
            if more > 20 * CHUNK as u64 || sender.is_finished() {
                Ok(())
            } else {
                Err(more)
            }
        });
        // The next agent takes the sandbox in as well, and its flows.
        let ready = cluster.lab().wait_ready_of("node1", LIMIT);
        ready.expect("the next agent answers");
        carried();
        stop.store(true, Ordering::Relaxed);
        sender.join().expect("all is taken");
        let longest = receiver.join().expect("all is as it was sent");
        figure(&format!(
            "the agent of the sender was killed: the stream was silent for {:.0} ms at most",
            longest.as_secs_f64() * 1e3
        ));
    });
    assert_eq!(brought.load(Ordering::Relaxed) % CHUNK as u64, 0);
}

/// A connection to a published port that the replica behind one of these listeners has got.
fn connect_published(
    client: &Netns,
    to: SocketAddr,
    listeners: &[TcpListener],
    wanted: usize,
) -> [TcpStream; 2] {
    eventually("the replica is chosen", || {
        let near = client.run_in(|| TcpStream::connect_timeout(&to, BROKEN));
        let near = near.expect("a thread").map_err(|e| e.to_string())?;
        let end = Instant::now() + BROKEN;
        // The client's last segment of the handshake may still be on its way.
        let (at, far) = loop {
            let accepted = listeners.iter().enumerate().find_map(|(at, listener)| {
                let accepted = listener.accept();
                match accepted {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                    other => Some((at, other.expect("a connection").0)),
                }
            });
            match accepted {
                Some(accepted) => break accepted,
                None if Instant::now() > end => return Err("nobody has it".to_owned()),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(BROKEN)).expect("a limit");
            stream.set_write_timeout(Some(BROKEN)).expect("a limit");
        }
        if at == wanted {
            Ok([near, far])
        } else {
            Err(format!("replica {at} has it"))
        }
    })
}

/// Sends bytes that tell their place until the kernel has carried most of them, by what `counts` says
/// of packets.
fn stream_until_carried(from: &TcpStream, to: &TcpStream, counts: impl Fn() -> Vec<u64>) {
    eventually("the kernel carries it", || {
        let before = counts();
        std::thread::scope(|scope| {
            scope.spawn(|| send_pattern(from, CAPTURED));
            receive_pattern(to, CAPTURED);
        });
        let after = counts();
        let mut carried = before
            .iter()
            .zip(&after)
            .map(|(before, after)| after - before);
        // Super-frames of 64 KiB at most.
        if carried.all(|packets| packets > CAPTURED as u64 / 65_536 / 2) {
            Ok(())
        } else {
            Err((before, after))
        }
    });
}

#[test]
fn the_kernel_carries_connections_through_published_ports() {
    let cluster = swarm(2);
    cluster.network("front");
    let words = [
        &["service", "create", "--name", "web", "--network", "front"][..],
        &["-p", "8001:90", "--replicas", "2", "host"],
        &[PROGRAM, "demo-http", "--port", "80"],
    ]
    .concat();
    cluster.weft("node1", &words).done();
    let tasks = cluster.tasks("web");
    let nodes: Vec<&str> = tasks.iter().map(|task| task.node.as_str()).collect();
    assert_eq!(nodes, ["node1", "node2"], "one on each node");
    let listen = |netns: &Netns| {
        let listener = netns.run_in(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 90)));
        let listener = listener.expect("a thread").expect("the port is free");
        listener.set_nonblocking(true).expect("a socket");
        listener
    };
    let netns = tasks
        .iter()
        .map(|task| cluster.netns(&task.node, Some(&task.netns)));
    let listeners: Vec<TcpListener> = netns.map(|netns| listen(&netns)).collect();
    let on = is_on(&cluster);
    // Of the node that it connects to the client is another machine: what comes for it is forwarded.
    let client = cluster.outside();
    let to = cluster.at("node1", 8001);
    for (wanted, up, down) in [
        (0, [("node1", "local"); 2], [("node1", "local"); 2]),
        (
            1,
            [("node1", "out"), ("node2", "in")],
            [("node2", "out"), ("node1", "in")],
        ),
    ] {
        let [near, far] = connect_published(&client, to, &listeners, wanted);
        for (from, to, carriers) in [(&near, &far, up), (&far, &near, down)] {
            let counts = || {
                let carriers = carriers.iter().filter(|_| on);
                let counts = carriers.map(|(node, event)| events(&cluster, node, event));
                counts.collect::<Vec<u64>>()
            };
            stream_until_carried(from, to, counts);
        }
    }
    for node in ["node1", "node2"] {
        eventually("flows that are over are forgotten", || {
            match cluster.metric(node, "weft_fast_path_flows") {
                0 => Ok(()),
                flows => Err(flows),
            }
        });
    }
}

#[test]
fn it_can_be_switched_off() {
    let settings = Settings {
        nodes: 2,
        agent_args: ["--fast-path", "off"].map(str::to_owned).to_vec(),
        ..Settings::default()
    };
    let cluster = Cluster::swarm(PROGRAM, &settings);
    let (client, server, to) = pair(&cluster);
    assert_eq!(line(&cluster, "node1"), "off (--fast-path off)");
    let took = transfer(&client, &server, to, CAPTURED);
    assert_eq!(events(&cluster, "node1", "out"), 0, "in {took:?}");
    assert_eq!(cluster.metric("node1", "weft_fast_path_flows"), 0);
}
