//! A published number that the kernel has given to a connection of the node itself.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use weft_netns_tests::{Cluster, eventually, get};
use weft_sys::netns::Netns;

use crate::published::{rows_at, serve};
use crate::swarm;

const NUMBER: u16 = 40_000;

/// A connection of a program on the node from that number, and its other end.
fn connection_from(node: &Netns, near: SocketAddr) -> (TcpStream, TcpStream) {
    node.run_in(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        // As the kernel chooses a number: nobody else may wait on it.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.bind(&near.into()).expect("the number is free");
        let to = listener.local_addr().expect("an address");
        socket.connect(&to.into()).expect("connect");
        let (far, from) = listener.accept().expect("accept");
        assert_eq!(from, near);
        (TcpStream::from(socket), far)
    })
    .expect("enter")
}

fn row(cluster: &Cluster, node: &str) -> Result<Value, String> {
    let rows = rows_at(cluster, node, &["mesh", "ls"]);
    let row = rows.into_iter().find(|r| r["Port"] == NUMBER);
    row.ok_or_else(|| "no such port".to_owned())
}

#[test]
fn clients_elsewhere_are_served_and_the_nodes_own_once_the_connection_is_over() {
    let cluster = swarm(2);
    let node1 = cluster.netns("node1", None);
    let near = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), NUMBER);
    let (mut own, mut far) = connection_from(&node1, near);
    let publish = format!("{NUMBER}:80");
    serve(&cluster, "web", &["--replicas", "2", "-p", &publish], &[80]);

    let client = cluster.outside();
    for node in ["node1", "node2"] {
        eventually("the node answers", || {
            get(&client, cluster.at(node, NUMBER))
        });
    }
    let row1 = row(&cluster, "node1").expect("the port");
    assert_eq!(row1["State"], "listening (frame), not for this node");
    let held_by = row1["HeldBy"].as_str().unwrap_or_default();
    assert!(held_by.starts_with("a connection"), "{row1}");
    let row2 = row(&cluster, "node2").expect("the port");
    assert_eq!(
        (&row2["State"], &row2["HeldBy"]),
        (&"listening (frame)".into(), &"".into())
    );
    let why = cluster.weft("node1", &["why", &NUMBER.to_string()]).ok();
    let says = format!("ip_local_reserved_ports={NUMBER}");
    assert!(
        why.contains("programs of this node itself are refused while") && why.contains(&says),
        "{why}"
    );

    // The connection is nobody's but its own.
    own.write_all(b"to").expect("write");
    let mut heard = [0; 2];
    far.read_exact(&mut heard).expect("read");
    far.write_all(b"fro").expect("write");
    let mut heard = [0; 3];
    own.read_exact(&mut heard).expect("read");
    // Who closes first keeps the number for a minute: the other end.
    drop(far);
    assert_eq!(own.read(&mut heard).expect("the end"), 0);
    drop(own);
    eventually("the listener is back", || match row(&cluster, "node1") {
        Ok(row) if row["State"] == "listening (frame)" => Ok(row),
        other => Err(other),
    });
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    eventually("the node's own programs are served", || {
        get(&node1, SocketAddr::new(local, NUMBER))
    });
}
