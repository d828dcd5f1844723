//! Published ports in every way that people write them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use weft_netns_tests::{Cluster, Settings, Task, connect, eventually, figure, get, hold};
use weft_sys::netns::Netns;

use crate::door::memory_kib;
use crate::{PROGRAM, swarm};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Creates a service whose tasks answer with the port that was asked, on several ports.
pub(crate) fn serve(cluster: &Cluster, name: &str, options: &[&str], ports: &[u16]) -> Vec<Task> {
    let script: Vec<String> = ports
        .iter()
        .map(|port| format!("{PROGRAM} demo-http --port {port} --name {name}-{port} & "))
        .collect();
    let script = format!("{} wait", script.concat());
    let words = [
        &["service", "create", "--name", name],
        options,
        &["host", "sh", "-c", &script],
    ]
    .concat();
    cluster.weft("node1", &words).done();
    cluster.tasks(name)
}

/// Rows of an `ls` on some node.
pub(crate) fn rows_at(cluster: &Cluster, node: &str, words: &[&str]) -> Vec<Value> {
    let words = [words, &["--format", "json"]].concat();
    let text = cluster.weft(node, &words).ok();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect()
}

/// Asks until somebody called `name` answers.
fn answers(netns: &Netns, to: SocketAddr, name: &str) {
    eventually("the right one answers", || {
        let answer = get(netns, to).map_err(|e| format!("{to}: {e}"))?;
        if answer.starts_with(&format!("Hello from {name} ")) {
            Ok(())
        } else {
            Err(format!("{to}: {answer}"))
        }
    });
}

#[track_caller]
fn is_refused(netns: &Netns, to: SocketAddr) {
    let started = Instant::now();
    let refused = get(netns, to);
    let kind = refused.as_ref().map_err(std::io::Error::kind);
    assert_eq!(kind, Err(ErrorKind::ConnectionRefused), "{to}: {refused:?}");
    let took = started.elapsed();
    assert!(took < Duration::from_millis(900), "{to} after {took:?}");
}

/// Gives a machine an IPv6 address on the underlay.
pub(crate) fn add_ipv6(cluster: &Cluster, machine: &str, last: u8) -> IpAddr {
    let v4 = cluster.addr(machine).to_string();
    let links = cluster
        .run(machine, None, &["ip", "-o", "-4", "address"])
        .ok();
    let line = links.lines().find(|l| l.contains(&format!(" {v4}/")));
    let device = line.and_then(|l| l.split_whitespace().nth(1));
    let ip = format!("fd99::{last}");
    let words = [
        "ip",
        "address",
        "add",
        &format!("{ip}/64"),
        "dev",
        device.expect("a device with the address"),
        "nodad",
    ];
    cluster.run(machine, None, &words).done();
    ip.parse().expect("an address")
}

/// Answers datagrams in a sandbox with `name` until `stop`.
pub(crate) fn udp_server(netns: &Netns, port: u16, name: &'static str, stop: Arc<AtomicBool>) {
    let socket = netns
        .run_in(|| UdpSocket::bind(("0.0.0.0", port)))
        .expect("a thread in the sandbox")
        .expect("the port is free");
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a limit");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                drop(socket.send_to(name.as_bytes(), from));
            }
        }
    });
}

pub(crate) fn udp_answers(netns: &Netns, to: SocketAddr, name: &str) {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = netns
        .run_in(|| UdpSocket::bind((any, 0)))
        .expect("a thread")
        .expect("a port");
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .expect("a limit");
    socket.connect(to).expect("a route");
    eventually("the datagram is answered", || {
        let mut buffer = [0; 100];
        let asked = socket.send(b"?").and_then(|_| socket.recv(&mut buffer));
        let length = asked.map_err(|e| format!("{to}: {e}"))?;
        assert_eq!(&buffer[..length], name.as_bytes(), "{to}");
        Ok::<_, String>(())
    });
}

#[test]
fn ports_of_both_protocols_families_and_forms_are_accepted_everywhere() {
    let cluster = swarm(2);
    let stop = Arc::new(AtomicBool::new(false));
    let options = [
        "--replicas",
        "1",
        "-p",
        "8000-8002:80-82",
        "-p",
        "5353:5353/udp",
        "-p",
        "published=9000,target=81,protocol=tcp,mode=ingress",
        "-p",
        "82",
    ];
    let tasks = serve(&cluster, "web", &options, &[80, 81, 82]);
    let sandbox = cluster.netns(&tasks[0].node, Some(&tasks[0].netns));
    udp_server(&sandbox, 5353, "datagram", Arc::clone(&stop));
    let ports = cluster.inspect("service", "web");
    let ports = ports["Endpoint"]["Ports"]
        .as_array()
        .expect("a list")
        .clone();
    let dynamic = ports
        .iter()
        .find(|p| p["TargetPort"] == 82 && p["PublishedPort"] != 8002);
    let dynamic = dynamic
        .and_then(|p| p["PublishedPort"].as_u64())
        .expect("a port");
    assert!((30000..=32767).contains(&dynamic), "{ports:?}");
    let dynamic = u16::try_from(dynamic).expect("a port");

    let client = cluster.outside();
    add_ipv6(&cluster, "outside", 254);
    for (node, last) in [("node1", 1), ("node2", 2)] {
        let own = cluster.netns(node, None);
        let v6 = add_ipv6(&cluster, node, last);
        for (netns, ip) in [
            (&client, cluster.addr(node)),
            (&client, v6),
            (&own, V4),
            (&own, V6),
            (&own, cluster.addr(node)),
            (&own, v6),
        ] {
            for (port, name) in [
                (8000, "web-80"),
                (8001, "web-81"),
                (8002, "web-82"),
                (9000, "web-81"),
                (dynamic, "web-82"),
            ] {
                answers(netns, SocketAddr::new(ip, port), name);
            }
            udp_answers(netns, SocketAddr::new(ip, 5353), "datagram");
        }
        is_refused(&client, cluster.at(node, 8003));
        is_refused(&client, cluster.at(node, 5353));
    }
    let figures = rows_at(&cluster, "node2", &["mesh", "ls"]);
    let row = figures.iter().find(|r| r["Port"] == 5353).expect("a row");
    assert_eq!(row["Protocol"], "udp");
    assert_eq!(row["Replicas"], "1/1");
    assert!(row["BytesOut"].as_u64() >= Some(8 * 6), "{row}");
    stop.store(true, Ordering::Relaxed);
}

#[test]
fn a_port_on_one_address_is_accepted_there_alone_also_when_it_moves() {
    let cluster = swarm(2);
    let (one, two) = (cluster.addr("node1"), cluster.addr("node2"));
    let on_two = format!("{two}:7001:81");
    let options = ["-p", "127.0.0.1:7000:80", "-p", &on_two];
    serve(&cluster, "narrow", &options, &[80, 81]);
    // The same number on another address is another port.
    let on_one = format!("{one}:7001:80");
    serve(&cluster, "other", &["-p", &on_one], &[80]);
    let client = cluster.outside();
    let own = |node| cluster.netns(node, None);
    for node in ["node1", "node2"] {
        answers(&own(node), SocketAddr::new(V4, 7000), "narrow-80");
        is_refused(&client, cluster.at(node, 7000));
        is_refused(&own(node), SocketAddr::new(V4, 7001));
        is_refused(&own(node), SocketAddr::new(V6, 7000));
    }
    for _ in 0..5 {
        answers(&client, cluster.at("node2", 7001), "narrow-81");
        answers(&client, cluster.at("node1", 7001), "other-80");
    }
    // That an address is elsewhere is nobody's error…
    for row in cluster.rows(&["service", "ls"]) {
        assert_eq!(row["PortErrors"], serde_json::json!([]), "{row}");
    }
    let rows = rows_at(&cluster, "node1", &["mesh", "ls"]);
    assert_eq!(state(&rows, 7001, "narrow"), "no such address here");
    assert_eq!(state(&rows, 7001, "other"), "listening (frame)");
    // … but that it is nowhere is one, until a node gets it.
    an_address_comes_and_moves(&cluster);
}

fn state(rows: &[Value], port: u16, service: &str) -> Value {
    let row = rows
        .iter()
        .find(|r| r["Port"] == port && r["Service"] == service);
    row.map(|r| r["State"].clone()).expect("a row")
}

fn an_address_comes_and_moves(cluster: &Cluster) {
    serve(cluster, "nowhere", &["-p", "192.0.2.9:7009:80"], &[80]);
    let complained = |complains: bool| {
        let says = "port 7009/tcp: no node has the address 192.0.2.9";
        eventually("the service says so, or no longer", || {
            let row = cluster.inspect("service", "nowhere");
            match row["PortErrors"].to_string() {
                text if text.contains(says) == complains => Ok(()),
                text => Err(text),
            }
        });
    };
    let has = |node: &str, verb: &str| {
        let words = ["ip", "address", verb, "192.0.2.9/32", "dev", "lo"];
        cluster.run(node, None, &words).done();
    };
    let leads_to = |node: &str| {
        let via = cluster.addr(node).to_string();
        let words = ["ip", "route", "replace", "192.0.2.9/32", "via", &via];
        cluster.run("outside", None, &words).done();
    };
    let client = cluster.outside();
    let own = |node| cluster.netns(node, None);
    let there = SocketAddr::new("192.0.2.9".parse().expect("an address"), 7009);
    complained(true);
    has("node2", "add");
    leads_to("node2");
    answers(&own("node2"), there, "nowhere-80");
    answers(&client, there, "nowhere-80");
    complained(false);
    // It moves, and is nowhere on its way.
    has("node2", "del");
    complained(true);
    has("node1", "add");
    leads_to("node1");
    let moved = Instant::now();
    answers(&client, there, "nowhere-80");
    let took = moved.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    answers(&own("node1"), there, "nowhere-80");
    complained(false);
    for (node, wanted) in [
        ("node1", "listening (frame)"),
        ("node2", "no such address here"),
    ] {
        let rows = rows_at(cluster, node, &["mesh", "ls"]);
        assert_eq!(state(&rows, 7009, "nowhere"), wanted, "{node}");
    }
    leads_to("node2");
    let left = connect(&client, there, Duration::from_secs(1));
    assert!(left.is_err(), "{left:?}");
}

#[test]
fn ports_come_and_go_while_connections_on_other_ports_go_on() {
    let cluster = swarm(2);
    let tasks = serve(
        &cluster,
        "web",
        &["--replicas", "2", "-p", "8000:80"],
        &[80, 81],
    );
    let client = cluster.outside();
    answers(&client, cluster.at("node2", 8000), "web-80");
    let mut open = hold(&client, cluster.at("node2", 8000)).expect("an answer");
    let update = |words: &[&str]| {
        let words = [&["service", "update"], words, &["web"]].concat();
        cluster.weft("node1", &words)
    };
    update(&["--publish-add", "8001:81", "--publish-add", "8005:80"]).done();
    for node in ["node1", "node2"] {
        answers(&client, cluster.at(node, 8001), "web-81");
        answers(&client, cluster.at(node, 8005), "web-80");
    }
    open.again().expect("the open connection goes on");
    let mut removed = hold(&client, cluster.at("node1", 8001)).expect("an answer");
    update(&["--publish-rm", "8005:80", "--publish-rm", "81/tcp"]).done();
    for node in ["node1", "node2"] {
        for port in [8001, 8005] {
            eventually("the port is closed", || {
                match get(&client, cluster.at(node, port)) {
                    Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
                    other => Err(other),
                }
            });
        }
        answers(&client, cluster.at(node, 8000), "web-80");
    }
    open.again().expect("the open connection goes on");
    removed.again().expect("what was accepted goes on, too");
    assert_eq!(cluster.tasks("web"), tasks, "the same tasks");
    assert_eq!(
        cluster.rows(&["service", "ls"])[0]["Ports"],
        "*:8000->80/tcp"
    );
    update(&["--publish-rm", "99"])
        .refused(&["service web publishes no port 99/tcp; it publishes 8000->80/tcp"]);
    update(&["--publish-add", "8000:81"]).refused(&["duplicate published ports"]);
    update(&[]).refused(&["nothing to change: give --replicas, --args"]);

    // The first published port of a service.
    let words = [
        "service",
        "create",
        "--name",
        "late",
        "host",
        "sh",
        "-c",
        &format!("exec {PROGRAM} demo-http --port 80 --name late-80"),
    ];
    cluster.weft("node1", &words).done();
    let words = ["service", "update", "--publish-add", "8100:80", "late"];
    let said = cluster.weft("node1", &words).ok();
    assert!(said.contains("converged"), "{said}");
    for node in ["node1", "node2"] {
        answers(&client, cluster.at(node, 8100), "late-80");
    }
    let words = ["service", "update", "--publish-add", "8000:80", "late"];
    cluster.weft("node1", &words).refused(&[
        "port '8000' is already in use by service 'web'",
        "as an ingress port",
    ]);
}

#[test]
fn ports_that_cannot_be_are_refused_with_dockers_words() {
    let cluster = swarm(1);
    for (ports, says, code) in [
        (
            &["8000:80", "8000:81"][..],
            "duplicate published ports provided",
            1,
        ),
        (
            &["8000-8002:80-82", "8001:90"],
            "duplicate published ports provided",
            1,
        ),
        (
            &["127.0.0.1:8000:80", "8000:80"],
            "duplicate published ports provided",
            1,
        ),
        (&["8000:0"], "invalid containerPort: 0", 2),
        (&["0-2:80-82"], "invalid hostPort: 0-2", 2),
        (&["8000-8001:80-82"], "invalid ranges specified", 2),
        (&["8002-8000:80-82"], "invalid hostPort: 8002-8000", 2),
        (&["70000:80"], "invalid hostPort: 70000", 2),
        (&["8000:80/sctp"], "invalid protocol value 'sctp'", 2),
        (&["published=8000"], "missing mandatory field 'target'", 2),
        (
            &["target=80,mode=both"],
            "must be either 'ingress' or 'host'",
            2,
        ),
        (&["7946:80"], "port 7946/tcp is used by weft itself", 1),
        (&["7946:80/udp"], "port 7946/udp is used by weft itself", 1),
        (&["2377:80"], "port 2377/tcp is used by weft itself", 1),
        (&["4789:80/udp"], "port 4789/udp is used by weft itself", 1),
    ] {
        let mut words = vec!["service", "create", "--name", "bad"];
        for port in ports {
            words.extend(["-p", port]);
        }
        words.extend(["host", "sleep", "1"]);
        let said = cluster.weft("node1", &words);
        assert!(
            said.code == code && said.err.contains(says),
            "{says}: {said:#?}"
        );
    }
    assert!(cluster.rows(&["service", "ls"]).is_empty());
}

#[test]
fn a_service_without_replicas_refuses_at_once() {
    let cluster = swarm(2);
    let words = ["-d", "--replicas", "0", "-p", "8000:80"];
    serve(&cluster, "web", &words, &[80]);
    let client = cluster.outside();
    for node in ["node1", "node2"] {
        eventually("the port is reserved", || {
            let rows = rows_at(&cluster, node, &["mesh", "ls"]);
            match rows.first() {
                Some(row) if row["State"] == "refusing (frame): no replica" => Ok(()),
                _ => Err(rows),
            }
        });
        is_refused(&client, cluster.at(node, 8000));
        is_refused(&cluster.netns(node, None), SocketAddr::new(V4, 8000));
    }
    for _ in 0..2 {
        cluster.weft("node1", &["service", "scale", "web=1"]).done();
        for node in ["node1", "node2"] {
            answers(&client, cluster.at(node, 8000), "web-80");
        }
        cluster.weft("node1", &["service", "scale", "web=0"]).done();
        for node in ["node1", "node2"] {
            eventually("the node refuses", || {
                match get(&client, cluster.at(node, 8000)) {
                    Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
                    other => Err(other),
                }
            });
        }
    }
}

#[test]
fn a_name_and_a_port_serve_the_next_service_at_once_eight_times_over() {
    let cluster = swarm(2);
    let client = cluster.outside();
    let nodes = ["node1", "node2"];
    for round in 0..8 {
        let name = format!("round-{round}");
        let words = ["service", "create", "-d", "--name", "web", "-p", "8000:80"];
        let program = ["host", PROGRAM, "demo-http", "--name", &name];
        let words = [&words[..], &program, &["--port", "80"]].concat();
        cluster.weft("node1", &words).done();
        for to in nodes.map(|node| cluster.at(node, 8000)) {
            answers(&client, to, &name);
            // None of those before it is asked any more.
            for _ in 0..3 {
                let answer = get(&client, to).expect("an answer");
                let newest = answer.starts_with(&format!("Hello from {name} "));
                assert!(newest, "{name}: {answer}");
            }
        }
        cluster.weft("node1", &["service", "rm", "web"]).done();
    }
    assert!(cluster.rows(&["service", "ls"]).is_empty());
    for node in nodes {
        eventually("the port is closed", || {
            match get(&client, cluster.at(node, 8000)) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
                other => Err(other),
            }
        });
        eventually("none of them runs", || {
            let said = cluster.run(node, None, &["pgrep", "-f", "round-[0-7] --port 80$"]);
            if said.code == 1 { Ok(()) } else { Err(said) }
        });
    }
}

/// Both nodes listen on a thousand ports of a protocol; how long it took since `begun`.
fn a_thousand_open(cluster: &Cluster, protocol: &str, begun: Instant) -> Duration {
    for node in ["node1", "node2"] {
        eventually("all of them are open", || {
            let rows = rows_at(cluster, node, &["mesh", "ls"]);
            let of_all = rows.iter().filter(|r| r["Protocol"] == protocol);
            let states = of_all.filter_map(|r| r["State"].as_str());
            match states.filter(|s| s.starts_with("listening")).count() {
                1000 => Ok(()),
                open => Err(open),
            }
        });
    }
    begun.elapsed()
}

#[test]
#[ignore = "second tier: it opens two thousand ports, with the machine to itself"]
fn a_thousand_ports_of_each_protocol_open_within_seconds_and_cost_little_memory() {
    // Ten for each port, with a margin.
    const MOST_KIB: u64 = 40_000;
    let cluster = Cluster::swarm(
        PROGRAM,
        &Settings {
            nodes: 2,
            alone: true,
            ..Settings::default()
        },
    );
    let nodes = ["node1", "node2"];
    let memory = || nodes.map(|node| memory_kib(&cluster, node, "VmRSS:"));
    let (tcp, udp) = ("20000-20999:20000-20999", "20000-20999:20000-20999/udp");
    let before = memory();
    let begun = Instant::now();
    let options = ["-d", "-p", tcp];
    serve(&cluster, "many", &options, &[20_000, 20_999]);
    let tcp_took = a_thousand_open(&cluster, "tcp", begun);
    let with_tcp = memory();
    let begun = Instant::now();
    let words = ["service", "update", "-d", "--publish-add", udp, "many"];
    cluster.weft("node1", &words).done();
    let udp_took = a_thousand_open(&cluster, "udp", begun);
    let with_both = memory();
    figure(&format!(
        "1,000 ports of TCP in {tcp_took:?}, of UDP in {udp_took:?}; {before:?}, {with_tcp:?}, {with_both:?} KiB"
    ));
    for took in [tcp_took, udp_took] {
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    for (before, after) in before.iter().zip(with_both) {
        let more = after.saturating_sub(*before);
        assert!(more < MOST_KIB, "{more} KiB");
    }
    // The first and the last of them, by both nodes.
    let task = cluster.tasks("many").remove(0);
    let sandbox = cluster.netns(&task.node, Some(&task.netns));
    let stop = Arc::<AtomicBool>::default();
    let client = cluster.outside();
    for port in [20_000, 20_999] {
        udp_server(&sandbox, port, "datagram", Arc::clone(&stop));
        for node in nodes {
            answers(&client, cluster.at(node, port), &format!("many-{port}"));
            udp_answers(&client, cluster.at(node, port), "datagram");
        }
    }
    stop.store(true, Ordering::Relaxed);
    cluster.weft("node1", &["service", "rm", "many"]).done();
    for node in nodes {
        eventually("all of them are closed", || {
            let rows = rows_at(&cluster, node, &["mesh", "ls"]);
            if rows.is_empty() {
                Ok(())
            } else {
                Err(rows.len())
            }
        });
        is_refused(&client, cluster.at(node, 20_500));
    }
}
