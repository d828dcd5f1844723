//! Clients and replicas of published ports that behave badly, and what others notice.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use weft_netns_tests::{Cluster, eventually, get, hold};
use weft_sys::netns::Netns;

use crate::published::{rows_at, serve};
use crate::swarm;

fn connect(netns: &Netns, to: SocketAddr) -> std::io::Result<TcpStream> {
    netns
        .run_in(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)))
        .expect("a thread")
}

fn active(cluster: &Cluster, node: &str, port: u16) -> Option<u64> {
    let rows = rows_at(cluster, node, &["mesh", "ls"]);
    let row = rows.iter().find(|r| r["Port"] == port)?;
    row["Active"].as_u64()
}

#[test]
fn a_reset_and_a_silent_replica_are_nobody_elses_affair() {
    let cluster = swarm(2);
    let options = ["--replicas", "1", "-p", "8000:80", "-p", "8001:81"];
    let tasks = serve(&cluster, "web", &options, &[80]);
    let sandbox = cluster.netns(&tasks[0].node, Some(&tasks[0].netns));
    // Takes connections and never says a word.
    let silent = sandbox.run_in(|| TcpListener::bind("0.0.0.0:81"));
    let silent = silent.expect("a thread").expect("the port is free");
    let client = cluster.outside();
    let (to, mute) = (cluster.at("node2", 8000), cluster.at("node2", 8001));
    eventually("the port answers", || get(&client, to));
    let mut other = hold(&client, to).expect("an answer");

    for _ in 0..20 {
        let mut stream = connect(&client, to).expect("the port is open");
        let request = b"GET /bytes/100000000 HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request).expect("it can be sent");
        stream.read_exact(&mut [0; 1000]).expect("an answer begins");
        // Closed with bytes unread, which resets it.
        drop(stream);
    }
    eventually("nothing is left but the other client", || {
        match active(&cluster, "node2", 8000) {
            Some(1) => Ok(()),
            other => Err(other),
        }
    });
    other
        .again()
        .expect("the other client's connection goes on");

    let waiting: Vec<TcpStream> = (0..50)
        .map(|_| connect(&client, mute).expect("the port is open"))
        .collect();
    for mut stream in &waiting {
        stream.write_all(b"anybody there?").expect("it can be sent");
    }
    eventually("they wait", || match active(&cluster, "node2", 8001) {
        Some(50) => Ok(()),
        other => Err(other),
    });
    let started = Instant::now();
    for _ in 0..20 {
        get(&client, to).expect("an answer");
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    other
        .again()
        .expect("the other client's connection goes on");
    drop(waiting);
    // They have only closed their side; the replica may still speak. Its end is theirs.
    drop(silent);
    eventually("they are forgotten", || {
        match active(&cluster, "node2", 8001) {
            Some(0) => Ok(()),
            other => Err(other),
        }
    });
}

#[test]
fn ten_thousand_attempts_at_a_port_without_service_leave_nothing_behind() {
    const ATTEMPTS: usize = 10_000;
    let cluster = swarm(1);
    serve(&cluster, "web", &["-p", "8000:80"], &[80]);
    let client = cluster.outside();
    let to = cluster.at("node1", 8000);
    eventually("the port answers", || get(&client, to));
    let flows = || -> u64 {
        (0..8)
            .map(|worker| {
                let name = format!("weft_flows_active{{worker=\"{worker}\"}}");
                cluster.metric("node1", &name)
            })
            .sum()
    };
    let created = || -> u64 {
        (0..8)
            .map(|worker| {
                let name =
                    format!("weft_flow_events_total{{worker=\"{worker}\",event=\"created\"}}");
                cluster.metric("node1", &name)
            })
            .sum()
    };
    let before = (flows(), created());
    let own = cluster.netns("node1", None);
    // At the node's address, and at the mesh address behind `weft0` itself.
    for (from, to) in [
        (&client, cluster.at("node1", 9999)),
        (&own, SocketAddr::from(([169, 254, 77, 2], 9999))),
    ] {
        let refused = from.run_in(|| {
            (0..ATTEMPTS)
                .filter(|_| {
                    TcpStream::connect_timeout(&to, Duration::from_secs(5))
                        .is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
                })
                .count()
        });
        assert_eq!(refused.expect("a thread"), ATTEMPTS, "{to}");
    }
    let after = (flows(), created());
    assert!(after.0 <= before.0, "{before:?} {after:?}");
    assert_eq!(after.1, before.1);
    get(&client, to).expect("the service goes on");
}
