//! Single requests that are under way when their task is told to end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use weft_netns_tests::{Cluster, LIMIT, connect, eventually, get, hold, within};
use weft_sys::netns::Netns;

use super::serve;
use crate::swarm;

/// A request whose answer takes so many milliseconds, sent.
fn asked(client: &Netns, to: SocketAddr, ms: u32) -> TcpStream {
    let mut stream = connect(client, to, LIMIT).expect("a connection");
    let request = format!("GET /slow/{ms} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    stream
}

/// The rest of it.
#[track_caller]
fn is_answered(mut stream: TcpStream) {
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    assert!(read.is_ok(), "{read:?} after {answer:?}");
    assert!(
        answer.contains(" 200 ") && answer.contains("Hello from web."),
        "{answer:?}"
    );
}

fn scale_to_none(cluster: &Cluster) {
    cluster
        .weft("node1", &["service", "scale", "-d", "web=0"])
        .done();
}

/// No balancer counts it.
#[test]
fn an_answer_to_a_client_that_asks_a_task_by_its_own_address_arrives() {
    let cluster = swarm(2);
    serve(&cluster, 2, &[]);
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let task = cluster.tasks("web").remove(1);
    let found = eventually("its name is known", || {
        let found = cluster.lookup(&task, "tasks.web", false)?;
        if found.len() == 2 {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    });
    let streams: Vec<TcpStream> = found
        .iter()
        .map(|ip| {
            let ip = ip.parse().expect("an address");
            asked(&guest, SocketAddr::new(ip, 80), 3_000)
        })
        .collect();
    scale_to_none(&cluster);
    streams.into_iter().for_each(is_answered);
}

/// Longer than the time that open connections had once, shorter than the grace period.
#[test]
#[ignore = "second tier: it waits for an answer of eight seconds"]
fn an_answer_arrives_that_takes_nearly_as_long_as_the_grace_period() {
    let cluster = swarm(2);
    serve(&cluster, 2, &[]);
    let client = cluster.outside();
    let streams = ["node1", "node2"].map(|node| {
        let to = cluster.at(node, 8000);
        eventually("the node answers", || get(&client, to));
        asked(&client, to, 8_000)
    });
    scale_to_none(&cluster);
    streams.into_iter().for_each(is_answered);
}

/// A task that ends while its clients keep connections is not waited for longer than its service says.
#[test]
fn an_idle_connection_keeps_a_task_no_longer_than_the_grace_period() {
    let cluster = swarm(1);
    serve(&cluster, 1, &["--stop-grace-period", "1s"]);
    let client = cluster.outside();
    let to = cluster.at("node1", 8000);
    let held = eventually("the node answers", || hold(&client, to));
    scale_to_none(&cluster);
    let ((), took) = within(LIMIT, "its program has ended", || {
        let pids = cluster.task_pids("node1");
        if pids.is_empty() { Ok(()) } else { Err(pids) }
    });
    // Nodes have two seconds to agree.
    assert!(took.as_secs_f64() < 4.5, "{took:?}");
    drop(held);
}

/// The connection goes by another node's balancer, and by the port that the next agent takes over.
#[test]
fn an_answer_of_a_task_that_is_to_end_arrives_although_its_agent_is_killed() {
    let cluster = swarm(2);
    serve(&cluster, 1, &["--constraint", "node.hostname==node2"]);
    let client = cluster.outside();
    let to = cluster.at("node1", 8000);
    eventually("the node answers", || get(&client, to));
    let stream = asked(&client, to, 4_000);
    scale_to_none(&cluster);
    eventually("it is to end", || {
        let rows = cluster.rows(&["service", "ps", "web"]);
        let wanted = rows.iter().filter(|row| row["DesiredState"] == "Running");
        if wanted.count() == 0 {
            Ok(())
        } else {
            Err(rows.clone())
        }
    });
    cluster.restart_agent("node2");
    is_answered(stream);
    eventually("its program has ended", || {
        let pids = cluster.task_pids("node2");
        if pids.is_empty() { Ok(()) } else { Err(pids) }
    });
}
