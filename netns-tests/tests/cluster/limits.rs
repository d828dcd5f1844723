//! As many connections as a service, and each of its clients, may have; and the list of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use weft_netns_tests::{Cluster, ask, eventually, get, hold};
use weft_sys::netns::Netns;

use crate::published::{rows_at, serve};
use crate::swarm;

const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that was not refused: a listener accepts before it knows, and resets then.
fn open(netns: &Netns, to: SocketAddr) -> Option<TcpStream> {
    let stream = netns.run_in(|| TcpStream::connect_timeout(&to, PATIENCE));
    let stream = stream.expect("a thread").ok()?;
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a limit");
    let read = (&stream).read(&mut [0]);
    let silent =
        read.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    silent.then_some(stream)
}

fn update(cluster: &Cluster, words: &[&str]) {
    let words = [&["service", "update", "-d"], words, &["web"]].concat();
    cluster.weft("node1", &words).done();
}

#[test]
fn silent_clients_take_no_more_than_their_limit_and_open_connections_are_left_alone() {
    let cluster = swarm(2);
    let options = [
        "--replicas",
        "2",
        "-p",
        "8000:80",
        "--limit-client-connections",
        "5",
    ];
    serve(&cluster, "web", &options, &[80]);
    let client = cluster.outside();
    let (first, second) = (cluster.at("node1", 8000), cluster.at("node2", 8000));
    eventually("the ports answer", || {
        ask(&client, first, PATIENCE).and_then(|_| ask(&client, second, PATIENCE))
    });
    let rows = || rows_at(&cluster, "node1", &["mesh", "conns", "web"]);
    let open_rows = |state: &str| rows().iter().filter(|r| r["State"] == state).count();
    eventually("earlier connections are over", || {
        match open_rows("ESTABLISHED") {
            0 => Ok(()),
            n => Err(n),
        }
    });
    let mut spoken = hold(&client, first).expect("an answer");
    // They connect and never say a word.
    let mut silent: Vec<TcpStream> = (0..4)
        .map(|_| open(&client, first).expect("room"))
        .collect();
    assert!(
        open(&client, first).is_none(),
        "a sixth connection of one client"
    );
    // By localhost it is another client, by the listener.
    let own = cluster.netns("node1", None);
    let local = SocketAddr::from(([127, 0, 0, 1], 8000));
    let by_listener: Vec<_> = (0..5).map(|_| open(&own, local).expect("room")).collect();
    assert!(
        open(&own, local).is_none(),
        "a sixth connection of one client"
    );
    spoken.again().expect("what is open goes on");

    let listed = rows();
    let of = |ip: &str| {
        let theirs = listed.iter().filter(|r| {
            let client = r["Client"].as_str().expect("a text");
            r["State"] == "ESTABLISHED" && client.starts_with(&format!("{ip}:"))
        });
        theirs.count()
    };
    let from_outside = cluster.addr("outside").to_string();
    assert_eq!((of(&from_outside), of("127.0.0.1")), (5, 5), "{listed:#?}");
    let row = &listed[0];
    assert_eq!(
        (&row["Address"], &row["Service"]),
        (&"*:8000".into(), &"web".into())
    );
    assert!(
        row["ReplicaName"]
            .as_str()
            .is_some_and(|n| n.starts_with("web.")),
        "{row}"
    );
    assert!(rows_at(&cluster, "node1", &["mesh", "conns", "-n", "3"]).len() == 3);
    cluster
        .weft("node1", &["mesh", "conns", "nobody"])
        .refused(&["no such service: nobody", "weft service ls"]);

    silent.pop();
    silent.push(eventually("there is room again", || {
        open(&client, first).ok_or("refused")
    }));
    drop(by_listener);

    // Five are open by node1, of eight in the cluster; node2 has room for three, and its own half,
    // four, in any case.
    update(
        &cluster,
        &[
            "--limit-client-connections",
            "0",
            "--limit-connections",
            "8",
        ],
    );
    eventually("node2 counts what node1 has", || {
        let more: Vec<_> = (0..6).filter_map(|_| open(&client, second)).collect();
        if more.len() == 4 {
            Ok(())
        } else {
            Err(more.len())
        }
    });
    spoken.again().expect("what is open goes on");
    assert!(cluster.drops("node2", "connection_limit") > 0);
    update(&cluster, &["--limit-connections", "0"]);
    eventually("the limit is gone", || {
        let more: Vec<_> = (0..20).filter_map(|_| open(&client, first)).collect();
        if more.len() == 20 {
            Ok(())
        } else {
            Err(more.len())
        }
    });
    spoken.again().expect("what is open goes on");
    drop(silent);
}

#[test]
fn a_replica_that_takes_half_a_proxy_header_ends_its_own_connection_only() {
    let cluster = swarm(1);
    let proxied = "published=8001,target=81,client_address=proxy-v1";
    let tasks = serve(&cluster, "web", &["-p", "8000:80", "-p", proxied], &[80]);
    let sandbox = cluster.netns("node1", Some(&tasks[0].netns));
    let replica = sandbox.run_in(|| TcpListener::bind("0.0.0.0:81"));
    let replica = replica.expect("a thread").expect("the port is free");
    let client = cluster.outside();
    let (plain, to) = (cluster.at("node1", 8000), cluster.at("node1", 8001));
    eventually("the port answers", || get(&client, plain));
    let mut other = hold(&client, plain).expect("an answer");
    let connect = || {
        let stream = client.run_in(|| TcpStream::connect_timeout(&to, PATIENCE));
        let stream = stream.expect("a thread").expect("the port is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream
    };
    std::thread::scope(|scope| {
        // Reads a part of the header and goes; then a whole one, of a client that says nothing.
        let served = scope.spawn(|| {
            let (mut half, _) = replica.accept().expect("a connection");
            half.read_exact(&mut [0; 5]).expect("the header begins");
            drop(half);
            let (mut whole, _) = replica.accept().expect("a connection");
            let mut header = Vec::new();
            while !header.ends_with(b"\r\n") {
                let mut byte = [0];
                whole.read_exact(&mut byte).expect("the header goes on");
                header.extend(byte);
            }
            whole.write_all(b"done").expect("the client is there");
            String::from_utf8(header).expect("version 1 is text")
        });
        let mut first = connect();
        let ended = first.read(&mut [0; 10]);
        assert!(
            matches!(&ended, Ok(0))
                || matches!(&ended, Err(e) if e.kind() == ErrorKind::ConnectionReset),
            "{ended:?}"
        );
        let mut second = connect();
        let mut answer = [0; 4];
        second.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"done");
        let header = served.join().expect("a replica");
        let from = second.local_addr().expect("an address");
        let wanted = format!(
            "PROXY TCP4 {} {} {} 8001\r\n",
            from.ip(),
            to.ip(),
            from.port()
        );
        assert_eq!(header, wanted);
    });
    other.again().expect("the other port goes on");
    get(&client, plain).expect("the other port goes on");
}
