//! Connections to published ports that are open while something around them ends: their service,
//! their node, their program, or the patience of the host's connection tracking.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use weft_netns_tests::{Cluster, Held, LIMIT, connect, eventually, get, hold};
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
        Ok::<_, io::Error>(TcpStream::from(socket))
    };
    let mut stream = client.run_in(connect).expect("a thread").expect("a server");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let request = format!("GET /bytes/{ANSWER} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    stream
}

/// Reads an answer to its end so slowly that the program which gave it has ended before.
fn read_slowly(stream: &mut TcpStream) -> Result<usize, (usize, io::Error)> {
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
    assert!(untracked(&cluster).contains("packets 0 "));
    nothing_leaves_untranslated(&cluster, &sandbox, (&server, &quiet));
}

fn untracked(cluster: &Cluster) -> String {
    let script = "nft list counter inet weft published_untracked";
    cluster.run("node1", None, &["sh", "-c", script]).ok()
}

/// What a rule of the machine outside, found by its text, has counted so far.
fn outside_counted(cluster: &Cluster, rule: &str) -> String {
    let words = ["nft", "list", "table", "inet", "seen"];
    let said = cluster.run("outside", None, &words).ok();
    let line = said.lines().find(|line| line.contains(rule));
    line.expect("the rule").trim().to_owned()
}

/// Segments that no window has room for, and a connection that the kernel was told to forget: the
/// client hears of the node alone.
fn nothing_leaves_untranslated(
    cluster: &Cluster,
    sandbox: &Netns,
    (mut server, mut client): (&TcpStream, &TcpStream),
) {
    let rules = "table inet seen { chain in { \
        type filter hook prerouting priority -300; policy accept; \
        ip saddr 169.254.77.0/30 counter; \
        tcp sport 8001 tcp sequence 0x40000000 counter; }; }";
    cluster.run("outside", None, &["nft", rules]).done();
    server.set_read_timeout(Some(LIMIT)).expect("a limit");
    send_far_segments(sandbox, server);
    eventually("such a segment arrives", || {
        let counted = outside_counted(cluster, "1073741824");
        if counted.contains("packets 0 ") {
            Err(counted)
        } else {
            Ok(())
        }
    });
    assert!(untracked(cluster).contains("packets 0 "));
    client.write_all(b"still there?").expect("sent");
    server.read_exact(&mut [0; 12]).expect("it goes on");

    forget_connections(&cluster.netns("node1", None));
    server.write_all(b"push").expect("sent");
    eventually("what is not known is dropped", || {
        let counted = untracked(cluster);
        if counted.contains("packets 0 ") {
            Err(counted)
        } else {
            Ok(())
        }
    });
    // The client's next packet brings it back.
    client.write_all(b"here").expect("sent");
    let mut heard = [0; 4];
    server.read_exact(&mut heard).expect("the client");
    assert_eq!(&heard, b"here");
    client.read_exact(&mut heard).expect("the server");
    assert_eq!(&heard, b"push");
    let counted = outside_counted(cluster, "169.254.77.0/30");
    assert!(counted.contains("packets 0 "), "{counted}");
}

/// From the server of a connection to its client, far from where the stream is.
fn send_far_segments(sandbox: &Netns, server: &TcpStream) {
    let ends = (server.local_addr(), server.peer_addr());
    let (SocketAddr::V4(from), SocketAddr::V4(to)) =
        (ends.0.expect("an address"), ends.1.expect("an address"))
    else {
        unreachable!("an IPv4 lab");
    };
    let send = || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
        // The sandbox routes by source.
        socket.bind(&SocketAddr::new(IpAddr::V4(*from.ip()), 0).into())?;
        for sequence in [1, 0x4000_0000, 0x8000_0000, 0xc000_0000] {
            let mut packet = Vec::new();
            PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64)
                .tcp(from.port(), to.port(), sequence, 64_000)
                .ack(1)
                .write(&mut packet, b"far")
                .map_err(io::Error::other)?;
            socket.send_to(&packet, &SocketAddr::V4(to).into())?;
        }
        io::Result::Ok(())
    };
    sandbox.run_in(send).expect("a thread").expect("sent");
}

/// Has a kernel forget all connections that it tracks, as `conntrack -F` does.
fn forget_connections(node: &Netns) {
    const AF_NETLINK: i32 = 16;
    const NETLINK_NETFILTER: i32 = 12;
    // NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_DELETE.
    const DELETE: u16 = (1 << 8) | 2;
    // NLM_F_REQUEST and NLM_F_ACK.
    const FLAGS: u16 = 1 | 4;
    let mut message = Vec::from(20_u32.to_ne_bytes());
    message.extend(DELETE.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    // A number, a sender, and which connections: all.
    message.extend([0; 12]);
    let ask = || {
        let protocol = Some(Protocol::from(NETLINK_NETFILTER));
        let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, protocol)?;
        socket.send(&message)?;
        let mut answer = [0; 64];
        let length = socket.read(&mut answer)?;
        io::Result::Ok((length, answer))
    };
    let (length, answer) = node.run_in(ask).expect("a thread").expect("an answer");
    // NLMSG_ERROR without an error.
    assert!(length >= 20, "{length}");
    assert_eq!(answer[4..6], 2_u16.to_ne_bytes());
    assert_eq!(answer[16..20], [0; 4]);
}

/// What a reader takes at once.
const PIECE: usize = 60_000;

/// A connection whose server was asked and has begun to answer, the first piece read.
fn begun(client: &Netns, to: SocketAddr) -> TcpStream {
    eventually("an answer begins", || {
        let mut stream = connect(client, to, LIMIT)?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut vec![0; PIECE])?;
        io::Result::Ok(stream)
    })
}

/// Reads the rest of an answer of so many bytes, a piece in each `pause`, and its end.
fn read_in_pieces(mut stream: &TcpStream, total: usize, pause: Duration) {
    let mut piece = vec![0; PIECE];
    for read in (PIECE..total).step_by(PIECE) {
        std::thread::sleep(pause);
        let more = stream.read_exact(&mut piece);
        assert!(more.is_ok(), "after {read} of {total} bytes: {more:?}");
    }
    let end = stream.read(&mut piece);
    assert!(matches!(end, Ok(0)), "the end: {end:?}");
}

/// Whoever connects without a question, to look whether the program is there, is no client of it.
#[test]
fn what_a_program_sends_just_before_it_exits_arrives() {
    let cluster = swarm(1);
    let program = "use IO::Socket::INET; \
        my $l = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1) or die; \
        my $c; \
        do { $c = $l->accept or die } until sysread($c, my $asked, 1); \
        print $c 'x' x 3000000; \
        exit 0";
    let words = ["service", "create", "-d", "--name", "once", "-p", "8000:80"];
    let command = ["--restart-condition", "none", "host", "perl", "-e", program];
    cluster
        .weft("node1", &[&words[..], &command].concat())
        .done();
    let stream = begun(&cluster.outside(), cluster.at("node1", 8000));
    read_in_pieces(&stream, 3_000_000, Duration::from_millis(20));
    eventually("the task is complete", || {
        let rows = cluster.rows(&["service", "ps", "once"]);
        if rows.len() == 1 && rows[0]["State"] == "Complete" {
            Ok(())
        } else {
            Err(rows)
        }
    });
}

/// The program does as web servers do: asked to end, it takes nothing new, and finishes its answers.
#[test]
#[ignore = "second tier: it waits out the time that open connections are given"]
fn long_answers_of_replicas_that_end_arrive_whole() {
    let cluster = swarm(2);
    let program = "use IO::Socket::INET; \
        my $end = 0; $SIG{TERM} = sub { $end = 1 }; \
        my $l = IO::Socket::INET->new(LocalPort => 80, Listen => 9, ReuseAddr => 1) or die; \
        while (!$end) { \
            my $c = $l->accept or next; \
            if (fork) { close $c; next } \
            sysread($c, my $asked, 1) or exit 1; \
            print $c 'x' x 6000000; \
            exit 0 \
        } \
        close $l; \
        1 while wait() > 0; \
        exit 0";
    let words = ["service", "create", "--name", "long", "-p", "8000:80"];
    let command = ["--replicas", "2", "host", "perl", "-e", program];
    cluster
        .weft("node1", &[&words[..], &command].concat())
        .done();
    let client = cluster.outside();
    let nodes = ["node1", "node2"].map(|node| cluster.at(node, 8000));
    let streams: Vec<TcpStream> = (0..6).map(|at| begun(&client, nodes[at % 2])).collect();
    std::thread::scope(|scope| {
        for stream in &streams {
            // Longer than connections that are open may go on.
            let pause = Duration::from_millis(120);
            scope.spawn(move || read_in_pieces(stream, 6_000_000, pause));
        }
        cluster
            .weft("node1", &["service", "scale", "long=1"])
            .done();
    });
    eventually("one of them is left", || match cluster.tasks("long") {
        left if left.len() == 1 => Ok(()),
        left => Err(left),
    });
}

/// By the nodes, by the first one's localhost, and by the virtual address.
fn ways(cluster: &Cluster, service: &str) -> Vec<(&'static str, Netns, SocketAddr)> {
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8000);
    let vip = SocketAddr::new(cluster.vip(service, "front"), 80);
    vec![
        ("by node1", cluster.outside(), cluster.at("node1", 8000)),
        ("by node2", cluster.outside(), cluster.at("node2", 8000)),
        ("by localhost", cluster.netns("node1", None), local),
        ("by the virtual address", guest, vip),
    ]
}

/// One connection to each of so many replicas, by their names.
fn one_to_each<T>(
    count: usize,
    open: impl Fn() -> io::Result<(String, T)>,
) -> impl Iterator<Item = (String, T)> {
    let mut held = BTreeMap::new();
    eventually("each replica answers", || {
        let (name, connection) = open().map_err(|e| e.to_string())?;
        held.entry(name).or_insert(connection);
        if held.len() == count {
            Ok(())
        } else {
            Err(format!("{:?}", held.keys()))
        }
    });
    held.into_iter()
}

/// What a program says on a connection: whether it was asked to end, and its name.
fn says(mut stream: &TcpStream) -> io::Result<(String, String)> {
    stream.write_all(b"?")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let said = line.trim_end().split_once(' ');
    let (word, name) = said.ok_or(ErrorKind::UnexpectedEof)?;
    Ok((word.to_owned(), name.to_owned()))
}

/// A program that was asked to end goes on until one of its clients has had enough.
#[test]
#[ignore = "second tier: it waits out the time that open connections are given"]
fn connections_live_through_a_smaller_scale_and_a_drained_node_until_their_program_ends() {
    let cluster = swarm(3);
    cluster.network("front");
    let program = "use IO::Socket::INET; use IO::Select; \
        my $word = 'serves'; $SIG{TERM} = sub { $word = 'ends' }; \
        my $l = IO::Socket::INET->new(LocalPort => 80, Listen => 64, ReuseAddr => 1) or die; \
        my $all = IO::Select->new($l); \
        while (1) { \
            for my $c ($all->can_read) { \
                if ($c == $l) { my $new = $l->accept; $all->add($new) if $new; next } \
                my $asked; \
                if (!sysread($c, $asked, 100)) { $all->remove($c); close $c; next } \
                exit 0 if $asked eq '!'; \
                syswrite $c, \"$word $ENV{WEFT_TASK_NAME}\\n\" \
            } \
        }";
    let words = ["service", "create", "--name", "held", "--network", "front"];
    let options = ["--replicas", "3", "-p", "8000:80"];
    let patience = ["--stop-grace-period", "30s"];
    let command = ["host", "perl", "-e", program];
    let all = [&words[..], &options, &patience, &command].concat();
    cluster.weft("node1", &all).done();
    let tasks = cluster.tasks("held");
    let ways = ways(&cluster, "held");
    let open = |from: &Netns, to: SocketAddr| {
        let stream = connect(from, to, LIMIT)?;
        says(&stream).map(|(_, name)| (name, stream))
    };
    let mut held = Vec::new();
    for (way, from, to) in &ways {
        let each = one_to_each(tasks.len(), || open(from, *to));
        held.extend(each.map(|(name, stream)| (*way, name, stream)));
    }

    cluster
        .weft("node1", &["service", "scale", "-d", "held=2"])
        .done();
    let left = eventually("one is to end", || match cluster.tasks("held") {
        left if left.len() == 2 => Ok(left),
        left => Err(left),
    });
    let drain = ["node", "update", "--availability", "drain", &left[1].node];
    cluster.weft("node1", &drain).done();
    let stays = &left[0].name;
    let mut asked = BTreeSet::new();
    eventually("two programs were asked to end", || {
        for (way, name, stream) in &held {
            let (word, by) = says(stream).unwrap_or_else(|e| panic!("{way}, {name}: {e}"));
            assert_eq!(by, *name, "{way}: the same replica");
            if word == "ends" {
                asked.insert(name);
            }
        }
        if asked.len() == 2 {
            Ok(())
        } else {
            Err(asked.clone())
        }
    });
    assert!(!asked.contains(stays), "{asked:?}");
    for (way, from, to) in &ways {
        for _ in 0..3 {
            let (by, _) = eventually("another one answers", || open(from, *to));
            assert!(!asked.contains(&by), "{way}: {by} takes nothing new");
        }
    }

    for name in &asked {
        let mut its = held.iter().filter(|(_, of, _)| of == *name);
        let (_, _, stream) = its.next().expect("a connection");
        let mut stream: &TcpStream = stream;
        stream.write_all(b"!").expect("sent");
    }
    for (way, name, stream) in &held {
        if asked.contains(name) {
            let mut stream: &TcpStream = stream;
            let end = stream.read(&mut [0; 10]);
            assert!(matches!(end, Ok(0)), "{way}, {name}: {end:?}");
        } else {
            says(stream).unwrap_or_else(|e| panic!("{way}, {name}: {e}"));
        }
    }
}

/// Nobody waits for such a node: it may be anybody's by now. Whoever has a connection to it is told.
#[test]
fn connections_to_a_node_that_is_removed_by_force_are_reset_and_others_go_on() {
    let cluster = swarm(2);
    let tasks = cluster.web(2);
    let (here, there) = (&tasks[0], &tasks[1]);
    assert_eq!(
        (here.node.as_str(), there.node.as_str()),
        ("node1", "node2")
    );
    let mut ways = ways(&cluster, "web");
    ways.retain(|(way, _, _)| *way != "by node2");
    let mut held: Vec<(&str, String, Held)> = Vec::new();
    for (way, from, to) in &ways {
        let each = one_to_each(2, || {
            let held = hold(from, *to)?;
            let name = held.answer.split(' ').nth(2).unwrap_or_default();
            Ok((name.to_owned(), held))
        });
        held.extend(each.map(|(name, held)| (*way, name, held)));
    }
    let remove = ["node", "rm", "--force", "node2"];
    cluster.weft("node1", &remove).done();
    for (way, name, held) in &mut held {
        if *name == here.name {
            held.again().unwrap_or_else(|e| panic!("{way}: {e}"));
            continue;
        }
        eventually("the client is told", || match held.again() {
            Ok(()) => Err("it goes on"),
            Err(e) => {
                assert_ne!(e.kind(), ErrorKind::WouldBlock, "{way}: silence");
                Ok(())
            }
        });
    }
    for (way, from, to) in &ways {
        for _ in 0..5 {
            get(from, *to).unwrap_or_else(|e| panic!("a new connection {way}: {e}"));
        }
    }
    eventually("its task is replaced", || match cluster.tasks("web") {
        now if now.len() == 2 && now.iter().all(|task| task.node == "node1") => Ok(()),
        now => Err(now),
    });
    for (way, name, held) in &mut held {
        if *name == here.name {
            held.again().unwrap_or_else(|e| panic!("{way}: {e}"));
        }
    }
    // What it runs is its own matter from now on; it knows.
    eventually("the node says so", || {
        let said = cluster.weft("node2", &["info"]);
        if said.out.contains("was removed from swarm") {
            Ok(())
        } else {
            Err(said)
        }
    });
}
