//! Services: placement, published ports, virtual addresses, names, balancing, retries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType, rdata::A};
use weft_netns_tests::{Cluster, Held, Settings, Task, eventually, figure, get, hold, within};
use weft_sys::netns::Netns;

use crate::{PROGRAM, swarm};

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// The task that an answer came from.
fn replica(answer: &str) -> &str {
    let rest = answer.strip_prefix("Hello from ").expect("a greeting");
    rest.split(' ').next().expect("a name")
}

/// Asks every node from outside until all replicas have answered there.
fn every_node_reaches(cluster: &Cluster, client: &Netns, tasks: &[Task]) {
    let wanted: BTreeSet<&str> = tasks.iter().map(|t| t.name.as_str()).collect();
    for node in NODES {
        let to = cluster.at(node, 8000);
        eventually("the node knows all replicas", || {
            let mut seen = BTreeSet::new();
            for _ in 0..wanted.len() {
                let answer = get(client, to).map_err(|e| e.to_string())?;
                seen.insert(replica(&answer).to_owned());
            }
            let seen: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
            if seen == wanted {
                Ok(())
            } else {
                Err(format!("{node}: {seen:?}"))
            }
        });
        // From here on no request fails.
        for _ in 0..10 {
            let answer = get(client, to);
            let known = answer.as_deref().is_ok_and(|a| wanted.contains(replica(a)));
            assert!(known, "{node}: {answer:?}");
        }
        let own = cluster.netns(node, None);
        let local = SocketAddr::from(([127, 0, 0, 1], 8000));
        for to in [to, local] {
            let answer = get(&own, to);
            let known = answer.as_deref().is_ok_and(|a| wanted.contains(replica(a)));
            assert!(known, "{node} itself, {to}: {answer:?}");
        }
    }
}

#[test]
fn a_service_is_spread_published_scaled_and_reached_at_its_virtual_address() {
    let cluster = swarm(3);
    let tasks = cluster.web(3);
    let nodes: Vec<&str> = tasks.iter().map(|t| t.node.as_str()).collect();
    assert_eq!(nodes, NODES, "one on each node");
    let there = cluster.rows(&["node", "ps", "node2"]);
    let names: Vec<_> = there.iter().map(|row| row["TaskName"].as_str()).collect();
    assert_eq!(names, [Some(tasks[1].name.as_str())]);
    let client = cluster.outside();
    every_node_reaches(&cluster, &client, &tasks);

    let said = cluster.weft("node1", &["service", "scale", "web=2"]).ok();
    assert!(said.starts_with("web scaled to 2\n"), "{said}");
    let fewer = cluster.tasks("web");
    assert_eq!(fewer.len(), 2, "{fewer:?}");
    every_node_reaches(&cluster, &client, &fewer);
    assert_eq!(cluster.rows(&["service", "ls"])[0]["Replicas"], "2/2");

    // The virtual address: from a replica itself, and from a namespace without a service.
    let to = SocketAddr::new(cluster.vip("web", "front"), 80);
    let empty = NODES.iter().find(|n| fewer.iter().all(|t| t.node != **n));
    let (guest, _) = cluster.guest(empty.expect("a node without a replica"), "guest", "front");
    let task = cluster.netns(&fewer[0].node, Some(&fewer[0].netns));
    for client in [&guest, &task] {
        eventually("the virtual address answers", || get(client, to));
        // Counts of other nodes are a moment old, so that one replica may look idler for a while.
        let mut seen = BTreeSet::new();
        eventually("both replicas answer", || {
            seen.insert(replica(&get(client, to).expect("an answer")).to_owned());
            if seen.len() == 2 {
                Ok(())
            } else {
                Err(seen.clone())
            }
        });
    }

    cluster.weft("node1", &["service", "rm", "web"]).done();
    eventually("the port is closed everywhere", || {
        match NODES.map(|node| get(&client, cluster.at(node, 8000))) {
            [Err(_), Err(_), Err(_)] => Ok(()),
            answers => Err(answers),
        }
    });
    eventually("the tasks are gone", || {
        match NODES.iter().flat_map(|n| cluster.task_pids(n)).count() {
            0 => Ok(()),
            left => Err(left),
        }
    });
}

/// Answers every question about an address, and counts. Names of one word are nobody's.
pub(crate) fn resolver(netns: &Netns, at: SocketAddr, stop: Arc<AtomicBool>) -> Arc<AtomicU32> {
    let socket = netns
        .run_in(|| UdpSocket::bind(at))
        .expect("a thread outside")
        .expect("the port is free");
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a limit");
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while !stop.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let question = Message::from_vec(&buffer[..length]).expect("a DNS message");
            let mut answer = question.clone();
            answer.metadata.message_type = MessageType::Response;
            answer.metadata.response_code = ResponseCode::NoError;
            let query = &question.queries[0];
            if query.name().num_labels() == 1 {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else if query.query_type() == RecordType::A {
                answer.answers.push(Record::from_rdata(
                    query.name().clone(),
                    60,
                    RData::A(A::new(203, 0, 113, 7)),
                ));
            }
            count.fetch_add(1, Ordering::Relaxed);
            let bytes = answer.to_vec().expect("an answer can be written");
            socket.send_to(&bytes, from).expect("an answer can be sent");
        }
    });
    asked
}

/// Those that ask by their C library.
fn ordinary_programs_ask_the_resolver(cluster: &Cluster, node: &str) {
    for pid in cluster.task_pids(node) {
        let file = format!("/proc/{pid}/root/etc/resolv.conf");
        let text = cluster.run(node, None, &["cat", &file]).ok();
        assert!(text.contains("nameserver 127.0.0.11\n"), "{text}");
    }
}

#[test]
fn names_are_answered_inside_sandboxes_and_forwarded_to_the_outside() {
    let cluster = Cluster::swarm(
        PROGRAM,
        &Settings {
            nodes: 2,
            agent_args: ["--dns-upstream", "10.77.0.254:53"]
                .map(str::to_owned)
                .to_vec(),
            ..Settings::default()
        },
    );
    let stop = Arc::new(AtomicBool::new(false));
    let asked = resolver(
        &cluster.outside(),
        cluster.at("outside", 53),
        Arc::clone(&stop),
    );
    let tasks = cluster.web(2);
    let (own, other) = (&tasks[0], &tasks[1]);
    let vip = cluster.vip("web", "front").to_string();
    let ips = |tasks: &[Task]| {
        let mut ips: Vec<IpAddr> = tasks.iter().map(|t| t.ip).collect();
        ips.sort();
        ips.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for tcp in [false, true] {
        for (name, expected) in [
            ("web", vec![vip.clone()]),
            ("web.front", vec![vip.clone()]),
            ("WEB.", vec![vip.clone()]),
            ("tasks.web", ips(&tasks)),
            (&other.name, vec![other.ip.to_string()]),
            (&own.name, vec![own.ip.to_string()]),
        ] {
            eventually("the name resolves", || {
                match cluster.lookup(own, name, tcp) {
                    Ok(found) if found == expected => Ok(()),
                    found => Err((name.to_owned(), tcp, found)),
                }
            });
        }
    }
    assert_eq!(
        asked.load(Ordering::Relaxed),
        0,
        "names of the cluster stay inside"
    );
    // `net1` can be no public domain, so that names below it are the cluster's alone; `front`
    // could be one.
    cluster.network("net1");
    let words = [
        "service",
        "create",
        "--name",
        "plain",
        "--network",
        "net1",
        "host",
        PROGRAM,
        "demo-http",
        "--port",
        "80",
    ];
    cluster.weft("node1", &words).done();
    let plain = cluster.tasks("plain").remove(0);
    eventually("the name resolves", || {
        cluster.lookup(&plain, "plain.net1", false)
    });
    let missing = cluster.lookup(&plain, "nope.net1", false);
    assert!(
        missing.as_ref().is_err_and(|e| e.contains("no such name")),
        "{missing:?}"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    // A network is not seen from another one.
    let other_network = cluster.lookup(&plain, "tasks.web.net1", false);
    assert!(other_network.is_err(), "{other_network:?}");
    let forwarded = cluster.lookup(own, "nope.front", false);
    assert_eq!(forwarded, Ok(vec!["203.0.113.7".to_owned()]));

    let found = eventually("an outside name is forwarded", || {
        cluster.lookup(own, "www.example.test", false)
    });
    assert_eq!(found, ["203.0.113.7"]);
    let before = asked.load(Ordering::Relaxed);
    assert!(before >= 1);
    assert_eq!(cluster.lookup(own, "www.example.test", false), Ok(found));
    assert_eq!(
        asked.load(Ordering::Relaxed),
        before,
        "the second answer is from the cache"
    );
    ordinary_programs_ask_the_resolver(&cluster, &own.node);

    cluster.weft("node1", &["service", "scale", "web=1"]).done();
    let left = cluster.tasks("web");
    eventually("tasks.web shrinks", || {
        match cluster.lookup(&left[0], "tasks.web", false) {
            Ok(found) if found == ips(&left) => Ok(()),
            found => Err(found),
        }
    });
    stop.store(true, Ordering::Relaxed);
}

#[test]
fn open_connections_are_balanced_over_replicas_and_over_nodes() {
    let cluster = swarm(3);
    let tasks = cluster.web(3);
    let client = cluster.outside();
    every_node_reaches(&cluster, &client, &tasks);
    let to = cluster.at("node1", 8000);
    let open = "weft_mesh_open_connections{service=\"web\",published=\"8000\",protocol=\"tcp\",host_ip=\"\"}";
    // Connections of before count until their last packets were seen, hence more than one look.
    let (mut held, counts) = eventually("12 connections are spread evenly", || {
        let before = cluster.metric("node1", open);
        if before > 0 {
            return Err(format!("{before} are open already"));
        }
        let held: Vec<Held> = (0..12)
            .map(|_| hold(&client, to).expect("a connection"))
            .collect();
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for one in &held {
            *counts.entry(replica(&one.answer).to_owned()).or_default() += 1;
        }
        if counts.values().eq(&[4, 4, 4]) {
            Ok((held, counts))
        } else {
            Err(format!("{counts:?}"))
        }
    });
    assert_eq!(cluster.metric("node1", open), 12);
    figure(&format!(
        "12 idle connections over 3 replicas: {:?}",
        counts.values()
    ));
    for one in &mut held {
        one.again().expect("a connection that was idle works");
    }

    // Other nodes learn the counts by gossip: what opens there goes where the fewest are open.
    let idle = counts.keys().next().expect("a replica").clone();
    held.retain(|one| replica(&one.answer) != idle);
    let (_, took) = within(
        Duration::from_secs(10),
        "connections of another node go to the idle replica",
        || {
            let three: Vec<Held> = (0..3)
                .map(|_| hold(&client, cluster.at("node2", 8000)).expect("a connection"))
                .collect();
            let chosen: Vec<_> = three.iter().map(|h| replica(&h.answer)).collect();
            if chosen.iter().all(|name| *name == idle) {
                Ok(())
            } else {
                Err(format!("{chosen:?}"))
            }
        },
    );
    figure(&format!(
        "another node knew the counts after {:.2} s",
        took.as_secs_f64()
    ));
}

#[test]
fn a_replica_that_refuses_is_passed_over() {
    let cluster = swarm(3);
    cluster.network("front");
    // On node2 the program goes on, but listens no more once a file is there.
    let (off, quiet) = (cluster.dir().join("off"), cluster.dir().join("quiet"));
    let script = format!(
        "[ $WEFT_NODE_NAME = node2 ] || exec {PROGRAM} demo-http --port 80; \
         {PROGRAM} demo-http --port 80 & p=$!; \
         while [ ! -e {} ]; do sleep 0.05; done; \
         kill $p; wait $p; echo > {}; exec sleep 1000",
        off.display(),
        quiet.display()
    );
    let words = [
        "service",
        "create",
        "--name",
        "web",
        "--network",
        "front",
        "-p",
        "8000:80",
        "--replicas",
        "3",
        "host",
        "sh",
        "-c",
        &script,
    ];
    cluster.weft("node1", &words).done();
    let tasks = cluster.tasks("web");
    assert_eq!(tasks.len(), 3, "{tasks:?}");
    std::fs::write(&off, "").expect("a file");
    eventually("node2's program listens no more", || {
        if quiet.exists() {
            Ok(())
        } else {
            Err("it does")
        }
    });
    let client = cluster.outside();
    for node in NODES {
        eventually("the node answers", || get(&client, cluster.at(node, 8000)));
    }
    for node in NODES {
        let mut seen = BTreeSet::new();
        for i in 0..20 {
            let answer = get(&client, cluster.at(node, 8000));
            let answer = answer.unwrap_or_else(|e| panic!("request {i} through {node}: {e}"));
            seen.insert(replica(&answer).to_owned());
        }
        assert_eq!(seen.len(), 2, "through {node}: {seen:?}");
    }
    let vip = SocketAddr::new(cluster.vip("web", "front"), 80);
    let (guest, _) = cluster.guest("node3", "guest", "front");
    eventually("the virtual address answers", || get(&guest, vip));
    for i in 0..20 {
        if let Err(error) = get(&guest, vip) {
            panic!("request {i} to the virtual address: {error}");
        }
    }
    let retried: u64 = NODES.iter().map(|n| cluster.drops(n, "retried")).sum();
    figure(&format!("80 requests, {retried} refusals that nobody saw"));
    assert!(retried > 0);
}
