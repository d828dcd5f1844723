//! Connections to published ports that are open while something around them ends: their service,
//! their program, or the patience of the host's connection tracking.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use weft_netns_tests::{LIMIT, eventually, get, hold};
use weft_sys::netns::Netns;

use crate::swarm;

/// An answer that fits into the queue of the server's socket whole.
const ANSWER: usize = 24_000;

/// Asks for an answer of which next to nothing can be sent before it is read.
fn ask_and_wait(client: &Netns, to: SocketAddr) -> TcpStream {
    let connect = || {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_recv_buffer_size(2048)?;
        socket.connect_timeout(&to.into(), LIMIT)?;
        Ok::<_, std::io::Error>(TcpStream::from(socket))
    };
    let mut stream = client.run_in(connect).expect("a thread").expect("a server");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let request = format!("GET /bytes/{ANSWER} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    stream
}

/// Reads an answer to its end so slowly that the program which gave it has ended before.
fn read_slowly(stream: &mut TcpStream) -> Result<usize, (usize, std::io::Error)> {
    let mut read = 0;
    loop {
        match stream.read(&mut [0; 1000]) {
            Ok(0) => return Ok(read),
            Ok(more) => read += more,
            Err(error) => return Err((read, error)),
        }
        std::thread::sleep(Duration::from_millis(350));
    }
}

#[test]
fn a_removed_service_serves_its_open_connections_to_the_last_byte() {
    let cluster = swarm(2);
    cluster.web(2);
    let client = cluster.outside();
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let vip = SocketAddr::new(cluster.vip("web", "front"), 80);
    let mut held = Vec::new();
    let mut slow = Vec::new();
    for node in ["node1", "node2"] {
        let to = cluster.at(node, 8000);
        for _ in 0..2 {
            eventually("the node answers", || get(&client, to));
            held.push(hold(&client, to).expect("a connection"));
            slow.push(ask_and_wait(&client, to));
        }
    }
    held.push(hold(&guest, vip).expect("a connection"));
    cluster.weft("node1", &["service", "rm", "web"]).done();
    let removed = Instant::now();
    // Name and port belong to the next one at once.
    let words = ["service", "create", "-d", "--name", "web", "--network"];
    let words = [&words[..], &["front", "-p", "8000:80", "host"]].concat();
    let program = [
        cluster.program(),
        "demo-http",
        "--port",
        "80",
        "--name",
        "next",
    ];
    cluster
        .weft("node1", &[&words[..], &program].concat())
        .done();
    for node in ["node1", "node2"] {
        eventually("the next service answers", || {
            let answer = get(&client, cluster.at(node, 8000)).map_err(|e| e.to_string())?;
            if answer.contains("next") {
                Ok(())
            } else {
                Err(answer)
            }
        });
    }
    // The programs are asked to end when connections had time to.
    let in_time = removed.elapsed() < Duration::from_secs(4);
    assert!(in_time, "the machine is too slow for this test");
    for (at, held) in held.iter_mut().enumerate() {
        let before = held.answer.clone();
        held.again()
            .unwrap_or_else(|e| panic!("connection {at}: {e}"));
        assert_eq!(held.answer, before, "the same replica");
    }
    drop(held);
    std::thread::scope(|scope| {
        for stream in &mut slow {
            scope.spawn(|| match read_slowly(stream) {
                Ok(read) => assert!(read > ANSWER, "the end after {read} bytes"),
                Err((read, error)) => panic!("after {read} bytes: {error}"),
            });
        }
    });
}

#[test]
fn the_hosts_connection_tracking_keeps_what_the_mesh_has() {
    let cluster = swarm(1);
    let task = cluster.web(1).remove(0);
    let client = cluster.outside();
    let to = cluster.at("node1", 8000);
    eventually("the node answers", || get(&client, to));
    let set = "cd /proc/sys/net/netfilter && for t in established close_wait fin_wait unacknowledged max_retrans; do echo 1 > nf_conntrack_tcp_timeout_$t; done";
    cluster.run("node1", None, &["sh", "-c", set]).done();
    // Another program in the replica's sandbox: it answers late.
    let sandbox = cluster.netns(&task.node, Some(&task.netns));
    cluster
        .weft(
            "node1",
            &["service", "update", "--publish-add", "8001:81", "web"],
        )
        .done();
    let listener = sandbox.run_in(|| TcpListener::bind("0.0.0.0:81"));
    let listener = listener.expect("a thread").expect("the port is free");
    let to = cluster.at("node1", 8001);
    eventually("packets to the port go on as they are", || {
        let rows = cluster.rows(&["mesh", "ls"]);
        let frame = rows.iter().filter(|row| row["FrontEnd"] == "frame");
        if frame.count() == 2 {
            Ok(())
        } else {
            Err(rows)
        }
    });
    let connect = || TcpStream::connect_timeout(&to, LIMIT);
    let mut quiet = client.run_in(connect).expect("a thread").expect("a server");
    let (mut server, _) = listener.accept().expect("a connection");
    let mut closed = client.run_in(connect).expect("a thread").expect("a server");
    let (mut late, _) = listener.accept().expect("a connection");
    closed
        .shutdown(std::net::Shutdown::Write)
        .expect("a shutdown");
    assert_eq!(late.read(&mut [0]).expect("an end"), 0);
    std::thread::sleep(Duration::from_millis(2500));
    for (server, client) in [(&mut server, &mut quiet), (&mut late, &mut closed)] {
        server.write_all(b"late").expect("sent");
        client.set_read_timeout(Some(LIMIT)).expect("a limit");
        let mut answer = [0; 4];
        client.read_exact(&mut answer).expect("the answer");
        assert_eq!(&answer, b"late");
    }
    // What has no entry goes nowhere under the address of the mesh.
    let script = "nft list counter inet weft published_untracked";
    let said = cluster.run("node1", None, &["sh", "-c", script]).ok();
    assert!(said.contains("packets 0 "), "{said}");
}
