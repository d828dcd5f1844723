//! Published ports behave as a direct connection to the replica does: options, early answers, urgent
//! data, a program that is killed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use weft_netns_tests::{Cluster, LIMIT, Task, ask_on, connect, eventually, figure};
use weft_sys::netns::Netns;

use crate::published::rows_at;
use crate::swarm;

const NODES: [&str; 2] = ["node1", "node2"];

const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\n\r\nToo large.";

/// A way from a client to the replica.
struct Way {
    name: String,
    from: Netns,
    to: SocketAddr,
}

/// By the node of the replica, by the other one, and by the listener of either.
fn ways(cluster: &Cluster, port: u16) -> [Vec<Way>; 2] {
    let frame = NODES.map(|node| Way {
        name: format!("by {node}"),
        from: cluster.outside(),
        to: cluster.at(node, port),
    });
    let local = NODES.map(|node| Way {
        name: format!("by localhost of {node}"),
        from: cluster.netns(node, None),
        to: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
    });
    [frame.into(), local.into()]
}

/// Another program in the replica's sandbox, published on port 8001.
fn second_program(cluster: &Cluster, task: &Task) -> TcpListener {
    let sandbox = cluster.netns(&task.node, Some(&task.netns));
    let listener = sandbox.run_in(|| TcpListener::bind("0.0.0.0:81"));
    let words = ["service", "update", "--publish-add", "8001:81", "web"];
    cluster.weft("node1", &words).done();
    for node in NODES {
        eventually("packets to the port go on as they are", || {
            let rows = rows_at(cluster, node, &["mesh", "ls"]);
            let row = rows.iter().find(|row| row["Port"] == 8001);
            if row.is_some_and(|row| row["State"] == "listening (frame)") {
                Ok(())
            } else {
                Err(rows)
            }
        });
    }
    listener.expect("a thread").expect("the port is free")
}

/// A new connection, and its other end.
fn connection(way: &Way, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = eventually("the port answers", || connect(&way.from, way.to, LIMIT));
    let (server, _) = listener.accept().expect("a connection");
    for end in [&client, &server] {
        end.set_read_timeout(Some(LIMIT)).expect("a limit");
        end.set_write_timeout(Some(LIMIT)).expect("a limit");
    }
    (client, server)
}

/// Connections from here ask for marks of congestion.
fn ask_for_marks(netns: &Netns) {
    let set = || std::fs::write("/proc/sys/net/ipv4/tcp_ecn", "1");
    netns.run_in(set).expect("a thread").expect("tcp_ecn");
}

fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"data").expect("sent");
    to.read_exact(&mut [0; 4]).expect("the data");
}

/// What the kernel of one end has in its `TCP_INFO`, in the words of `ss`.
fn known_of(netns: &Netns, end: &TcpStream) -> Vec<String> {
    let near = end.local_addr().expect("an address").port();
    let far = end.peer_addr().expect("an address").port();
    let filter = format!("sport = :{near} and dport = :{far}");
    let ask = || Command::new("ss").args(["-tinoHO", &filter]).output();
    let said = netns.run_in(ask).expect("a thread").expect("ss");
    let text = String::from_utf8_lossy(&said.stdout);
    assert_eq!(text.lines().count(), 1, "{filter}: {said:?}");
    text.split_whitespace().map(str::to_owned).collect()
}

/// Both ends have all options of TCP, and see that the other's packets may be marked.
fn options_arrive(way: &Way, sandbox: &Netns, listener: &TcpListener) {
    for _ in 0..5 {
        let (client, server) = connection(way, listener);
        carry(&client, &server);
        carry(&server, &client);
        let ends = [(&way.from, &client), (sandbox, &server)];
        let scales = ends.map(|(netns, end)| {
            let known = known_of(netns, end);
            for option in ["ts", "sack", "ecn", "ecnseen"] {
                let there = known.iter().any(|word| word == option);
                assert!(there, "{}: no {option}: {known:?}", way.name);
            }
            let scales = known.iter().find_map(|word| word.strip_prefix("wscale:"));
            let (other, own) = scales
                .and_then(|both| both.split_once(','))
                .expect("scales");
            (other.to_owned(), own.to_owned())
        });
        let [client, (other, own)] = scales;
        assert_eq!(client, (own, other), "{}", way.name);
    }
}

/// Sends a large body until nobody takes more of it; returns what was answered meanwhile.
fn upload(stream: &TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    std::thread::scope(|scope| {
        let mut to = stream;
        scope.spawn(move || {
            let piece = vec![7_u8; 64 * 1024];
            for _ in 0..1000 {
                if to.write_all(&piece).is_err() {
                    break;
                }
            }
        });
        let (mut from, mut piece) = (stream, [0; 100]);
        while let Ok(more @ 1..) = from.read(&mut piece) {
            answer.extend_from_slice(&piece[..more]);
        }
        // The other end may have closed it already.
        drop(stream.shutdown(Shutdown::Both));
    });
    answer
}

/// Reads the head of what comes and answers. What still comes is read to its end, or, as many
/// programs have it, left where it is, which resets the connection.
fn answer_early(mut stream: TcpStream, reads_on: bool) {
    stream.read_exact(&mut [0; 1000]).expect("the head");
    stream.write_all(ANSWER).expect("sent");
    if reads_on {
        stream.shutdown(Shutdown::Write).expect("a shutdown");
        let mut piece = vec![0_u8; 64 * 1024];
        while let Ok(1..) = stream.read(&mut piece) {}
    }
}

fn early_answers_arrive(listener: &TcpListener, ways: &[Way], reads_on: bool) {
    for way in ways {
        let (client, server) = connection(way, listener);
        let answer = std::thread::scope(|scope| {
            scope.spawn(move || answer_early(server, reads_on));
            upload(&client)
        });
        let (name, text) = (&way.name, String::from_utf8_lossy(&answer));
        assert_eq!(answer, ANSWER, "{name}, reads on: {reads_on}: {text:?}");
    }
}

/// A byte that is sent as urgent is received as urgent, and is no part of the stream then.
fn urgent_byte_arrives(mut from: &TcpStream, mut to: &TcpStream, name: &str) {
    from.write_all(b"abc").expect("sent");
    let sent = SockRef::from(from).send_out_of_band(b"!");
    assert_eq!(sent.expect("sent"), 1, "{name}");
    from.write_all(b"def").expect("sent");
    let urgent = eventually("the urgent byte", || {
        let mut byte = [0_u8];
        recv(to, &mut byte[..], RecvFlags::OOB).map(|_| byte[0])
    });
    assert_eq!(urgent, b'!', "{name}");
    let mut rest = [0; 6];
    to.read_exact(&mut rest).expect("the rest");
    assert_eq!(&rest, b"abcdef", "{name}");
}

/// All connections that do nothing end when their program is killed.
fn idle_connections_end(cluster: &Cluster, task: &Task) {
    let mut idle = Vec::new();
    for way in ways(cluster, 8000).iter().flatten() {
        for _ in 0..15 {
            let stream = eventually("an answer", || {
                let stream = connect(&way.from, way.to, LIMIT)?;
                ask_on(&stream).map(|_| stream)
            });
            let limit = Some(Duration::from_secs(2));
            stream.set_read_timeout(limit).expect("a limit");
            idle.push((way.name.clone(), stream));
        }
    }
    let pids = cluster.task_pids(&task.node);
    assert_eq!(pids.len(), 1, "{pids:?}");
    cluster
        .run(&task.node, None, &["kill", "-9", &pids[0]])
        .done();
    let killed = Instant::now();
    for (name, stream) in &mut idle {
        let end = stream.read(&mut [0; 10]);
        let ended = match &end {
            Ok(more) => *more == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(ended, "{name}: {end:?}");
    }
    let took = killed.elapsed();
    figure(&format!(
        "{} idle connections ended in {took:?}",
        idle.len()
    ));
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn options_early_answers_urgent_bytes_and_the_end_of_a_program_are_as_on_a_direct_connection() {
    let cluster = swarm(2);
    let task = cluster.web(1).remove(0);
    let listener = second_program(&cluster, &task);
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let direct = [Way {
        name: "direct".to_owned(),
        from: guest,
        to: SocketAddr::new(task.ip, 81),
    }];
    let [frame, local] = ways(&cluster, 8001);
    let sandbox = cluster.netns(&task.node, Some(&task.netns));
    for way in direct.iter().chain(&frame) {
        ask_for_marks(&way.from);
        options_arrive(way, &sandbox, &listener);
    }
    for ways in [&direct[..], &frame[..], &local[..]] {
        early_answers_arrive(&listener, ways, true);
    }
    for ways in [&direct[..], &frame[..]] {
        early_answers_arrive(&listener, ways, false);
        for way in ways {
            let (client, server) = connection(way, &listener);
            urgent_byte_arrives(&client, &server, &way.name);
            urgent_byte_arrives(&server, &client, &way.name);
        }
    }
    idle_connections_end(&cluster, &task);
}
