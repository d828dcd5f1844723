//! Bytes of no meaning at every port and at the API: counted, answered with errors, and no harm.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use weft_lab::OUTSIDE;
use weft_netns_tests::{eventually, get};
use weft_sys::netns::Netns;

use crate::swarm;

/// Bytes that look random and are the same in every run.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as u8
        })
        .collect()
}

fn throw(from: &Netns, to: SocketAddr, datagrams: impl Iterator<Item = Vec<u8>>) {
    let socket = from
        .run_in(|| UdpSocket::bind("0.0.0.0:0"))
        .expect("a thread")
        .expect("a socket");
    for datagram in datagrams {
        // Refused (ICMP port unreachable) is an answer too.
        drop(socket.send_to(&datagram, to));
    }
}

#[test]
fn noise_on_every_port_is_counted_and_changes_nothing() {
    let cluster = swarm(2);
    let tasks = cluster.web(2);
    let (outside, neighbour) = (cluster.netns(OUTSIDE, None), cluster.netns("node2", None));
    let client = cluster.outside();
    eventually("web answers", || get(&client, cluster.at("node1", 8000)));
    let all_sizes = || (0..200).map(|i: usize| noise(7 + i as u32, i * 7 % 1400));

    // From a stranger; then from the address of a neighbour, which no header can prove.
    throw(&outside, cluster.at("node1", 4789), all_sizes());
    throw(&neighbour, cluster.at("node1", 4789), all_sizes());
    let header = |flags: u8, vni: u32, rest: usize| {
        let mut bytes = vec![flags, 0, 0, 0];
        bytes.extend((vni << 8).to_be_bytes());
        bytes.extend(noise(vni, rest));
        bytes
    };
    throw(
        &neighbour,
        cluster.at("node1", 4789),
        (0..50).map(|_| header(0x00, 4096, 60)),
    );
    throw(
        &neighbour,
        cluster.at("node1", 4789),
        (0..50).map(|_| header(0x08, 0x00ab_cdef, 60)),
    );
    throw(
        &neighbour,
        cluster.at("node1", 4789),
        (0..50).map(|i| header(0x08, 4097, i)),
    );
    for reason in [
        "unknown_vtep",
        "bad_vxlan_header",
        "unknown_vni",
        "truncated",
    ] {
        eventually("the drop is counted", || {
            match cluster.drops("node1", reason) {
                0 => Err(format!("{reason}: {:?}", cluster.weft("node1", &["drops"]))),
                _ => Ok(()),
            }
        });
    }

    let gossip = cluster.at("node1", 7946);
    throw(&outside, gossip, all_sizes());
    for port in [7946, 2377] {
        let to = cluster.at("node1", port);
        for seed in 0..10 {
            let stream = outside.run_in(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)));
            let mut stream = stream.expect("a thread").expect("the port is open");
            // It may be closed on us before all of it is written.
            drop(stream.write_all(&noise(seed, 5000)));
        }
    }
    eventually("gossip counts it", || {
        let of = |event: &str| {
            cluster.metric(
                "node1",
                &format!("weft_gossip_events_total{{event=\"{event}\"}}"),
            )
        };
        let counts = (of("malformed"), of("unknown_key"), of("forged"));
        if counts.0 + counts.1 + counts.2 >= 150 {
            Ok(())
        } else {
            Err(counts)
        }
    });

    let task = &tasks[0];
    let sandbox = cluster.netns(&task.node, Some(&task.netns));
    let server: SocketAddr = "127.0.0.11:53".parse().expect("an address");
    throw(&sandbox, server, all_sizes());
    for seed in 0..10 {
        let stream = sandbox.run_in(|| TcpStream::connect_timeout(&server, Duration::from_secs(5)));
        let mut stream = stream.expect("a thread").expect("the port is open");
        drop(stream.write_all(&noise(seed, 3000)));
    }
    let queries = "weft_dns_queries_total{outcome=\"malformed\"}";
    eventually("DNS counts it", || {
        match cluster.metric(&task.node, queries) {
            count if count >= 50 => Ok(()),
            count => Err(count),
        }
    });

    for node in ["node1", "node2"] {
        for _ in 0..10 {
            get(&client, cluster.at(node, 8000)).unwrap_or_else(|e| panic!("{node}: {e}"));
        }
    }
    let found = cluster
        .lookup(task, "tasks.web", true)
        .expect("names are answered");
    assert_eq!(found.len(), 2, "{found:?}");
    cluster.wait_ready(2);
    assert_eq!(cluster.tasks("web"), tasks, "nothing was started again");
}

#[test]
fn noise_at_the_api_is_answered_with_errors() {
    let cluster = swarm(1);
    let post = |path: &str, body: &str| {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        cluster.api("node1", request.as_bytes())
    };
    for (answer, status, says) in [
        (post("/v1/nope", "{}"), "404", "has no such path"),
        (post("/v1/services", "{"), "400", "POST /v1/services"),
        (post("/v1/services", "{\"Name\": 1}"), "4", "message"),
        (post("/v1/networks", "[]"), "4", "message"),
        (
            post(
                "/v1/networks/front/connect",
                "{\"Netns\": \"/x\", \"IP\": \"no\"}",
            ),
            "4",
            "message",
        ),
        (post("/v1/services", &"x".repeat(9 << 20)), "413", "message"),
        (
            post("/v1/services/a%2Fb/scale", "{\"Replicas\": 4294967296}"),
            "4",
            "message",
        ),
        (
            cluster.api(
                "node1",
                b"DELETE /v1/info HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            ),
            "405",
            "message",
        ),
    ] {
        let expected = format!("HTTP/1.1 {status}");
        assert!(
            answer.starts_with(&expected) && answer.contains(says),
            "{status}: {answer}"
        );
    }
    for seed in 0..20 {
        let answer = cluster.api("node1", &noise(seed, 4000));
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    // Half a request, and a client that says nothing.
    assert!(
        !cluster
            .api("node1", b"GET /v1/info HT")
            .starts_with("HTTP/1.1 200")
    );
    assert_eq!(cluster.api("node1", b""), "");
    cluster.weft("node1", &["info"]).done();
    cluster.wait_ready(1);
}
