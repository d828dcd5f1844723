//! Datagrams to published ports and past them: addresses of answers, no replica, many clients, every
//! length.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft_netns_tests::{Cluster, LIMIT, eventually, get};
use weft_sys::netns::Netns;

use crate::published::{add_ipv6, rows_at, serve, udp_answers, udp_server};
use crate::swarm;

fn socket(netns: &Netns, to: SocketAddr) -> UdpSocket {
    let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    let socket = netns
        .run_in(|| UdpSocket::bind((any, 0)))
        .expect("a thread")
        .expect("a port");
    let limit = Some(Duration::from_millis(500));
    socket.set_read_timeout(limit).expect("a limit");
    socket.connect(to).expect("a route");
    socket
}

/// Waits until the kernel says that nobody is there.
#[track_caller]
fn is_refused(netns: &Netns, to: SocketAddr) {
    let socket = socket(netns, to);
    eventually("datagrams are refused", || {
        let mut buffer = [0; 100];
        match socket.send(b"?").and_then(|_| socket.recv(&mut buffer)) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            other => Err(format!("{to}: {other:?}")),
        }
    });
}

fn another_address(cluster: &Cluster) -> IpAddr {
    let own = cluster.addr("node1").to_string();
    let links = cluster
        .run("node1", None, &["ip", "-o", "-4", "address"])
        .ok();
    let line = links
        .lines()
        .find(|line| line.contains(&format!(" {own}/")));
    let device = line.and_then(|line| line.split_whitespace().nth(1));
    let device = device.expect("a device with the address");
    let words = ["ip", "address", "add", "10.77.0.201/24", "dev", device];
    cluster.run("node1", None, &words).done();
    "10.77.0.201".parse().expect("an address")
}

#[test]
fn datagrams_are_answered_as_a_kernel_would() {
    let cluster = swarm(1);
    cluster.network("front");
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let options = [
        "-p",
        "5353:5353/udp",
        "-p",
        "published=5354,target=5353,protocol=udp,mode=host",
    ];
    let start = || {
        let tasks = cluster.tasks("dns");
        let sandbox = cluster.netns("node1", Some(&tasks[0].netns));
        let stop = Arc::<AtomicBool>::default();
        udp_server(&sandbox, 5353, "datagram", Arc::clone(&stop));
        stop
    };
    serve(&cluster, "dns", &options, &[80]);
    // A replica runs, and nothing in it takes datagrams yet.
    let (client, own) = (cluster.outside(), cluster.netns("node1", None));
    for port in [5353, 5354] {
        is_refused(&client, SocketAddr::new(cluster.addr("node1"), port));
        is_refused(&own, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    is_refused(&guest, cluster.at("node1", 5353));
    let stop = start();
    let second = another_address(&cluster);
    let v6 = [1, 201].map(|last| add_ipv6(&cluster, "node1", last));
    add_ipv6(&cluster, "outside", 254);
    let first = cluster.addr("node1");
    let local = ["127.0.0.1", "127.0.0.2", "::1", "172.18.0.1"];
    let local = local.map(|ip| ip.parse::<IpAddr>().expect("an address"));
    for port in [5353, 5354] {
        let at = |ip| SocketAddr::new(ip, port);
        for ip in [first, second, v6[0], v6[1]] {
            udp_answers(&client, at(ip), "datagram");
            udp_answers(&own, at(ip), "datagram");
        }
        for ip in local {
            udp_answers(&own, at(ip), "datagram");
        }
        // From behind the bridge, by the node's own addresses.
        udp_answers(&guest, at(first), "datagram");
        udp_answers(&guest, at(second), "datagram");
    }
    // One socket that asks two addresses has two conversations.
    let both = socket(&client, SocketAddr::new(first, 5353));
    for ip in [first, second, first] {
        both.connect(SocketAddr::new(ip, 5353)).expect("a route");
        both.send(b"?").expect("sent");
        both.recv(&mut [0; 100])
            .unwrap_or_else(|e| panic!("{ip}: {e}"));
    }

    stop.store(true, Ordering::Relaxed);
    cluster.weft("node1", &["service", "scale", "dns=0"]).done();
    let published = SocketAddr::new(first, 5353);
    is_refused(&client, published);
    is_refused(&own, published);
    let rows = rows_at(&cluster, "node1", &["mesh", "ls"]);
    let row = rows.iter().find(|row| row["Port"] == 5353).expect("a row");
    assert!(row["State"].to_string().contains("no replica"), "{row}");
    cluster.weft("node1", &["service", "scale", "dns=1"]).done();
    let stop = start();
    udp_answers(&client, published, "datagram");
    stop.store(true, Ordering::Relaxed);
}

#[test]
fn more_clients_than_a_thousand_wait_for_their_answers() {
    const CLIENTS: usize = 1500;
    let cluster = swarm(1);
    serve(&cluster, "slow", &["-p", "5353:5353/udp"], &[80]);
    let task = cluster.tasks("slow").remove(0);
    let sandbox = cluster.netns("node1", Some(&task.netns));
    let server = sandbox
        .run_in(|| UdpSocket::bind("0.0.0.0:5353"))
        .expect("a thread")
        .expect("the port is free");
    let limit = Some(Duration::from_millis(500));
    server.set_read_timeout(limit).expect("a limit");
    let client = cluster.outside();
    let to = SocketAddr::new(cluster.addr("node1"), 5353);
    udp_waits(&client, &server, to);
    let clients: Vec<UdpSocket> = (0..CLIENTS).map(|_| socket(&client, to)).collect();
    // Nobody has an answer before all have asked.
    let mut asked = Vec::new();
    for client in &clients {
        client.send(b"?").expect("sent");
        let mut buffer = [0; 100];
        asked.push(server.recv_from(&mut buffer).expect("it arrives").1);
    }
    for from in asked {
        server.send_to(b"!", from).expect("sent");
    }
    let answered = clients.iter().filter(|c| c.recv(&mut [0; 100]).is_ok());
    assert_eq!(answered.count(), CLIENTS);
}

/// Waits until the port leads to the server.
fn udp_waits(client: &Netns, server: &UdpSocket, to: SocketAddr) {
    let first = socket(client, to);
    eventually("the port is open", || {
        let mut buffer = [0; 100];
        drop(first.send(b"?"));
        server.recv_from(&mut buffer).map_err(|e| e.to_string())
    });
    // Stragglers of the attempts.
    while server.recv_from(&mut [0; 100]).is_ok() {}
}

/// Nothing, a byte, what a packet of the underlay holds and a byte more, a jumbo frame, and about and
/// exactly what a datagram of IPv4 holds.
const LENGTHS: [usize; 7] = [0, 1, 1472, 1473, 9000, 65_000, 65_507];

/// Sends back what comes, until `stop`.
fn echo(netns: &Netns, stop: Arc<AtomicBool>) {
    let server = netns
        .run_in(|| UdpSocket::bind("0.0.0.0:5353"))
        .expect("a thread")
        .expect("the port is free");
    let limit = Some(Duration::from_millis(100));
    server.set_read_timeout(limit).expect("a limit");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((length, from)) = server.recv_from(&mut buffer) {
                drop(server.send_to(&buffer[..length], from));
            }
        }
    });
}

fn every_length_comes_back(netns: &Netns, to: SocketAddr, way: &str) {
    let first = socket(netns, to);
    eventually("a datagram comes back", || {
        first.send(b"?").and_then(|_| first.recv(&mut [0; 100]))
    });
    // Late answers to these attempts are nothing to another socket.
    let client = socket(netns, to);
    client.set_read_timeout(Some(LIMIT)).expect("a limit");
    let sent: Vec<u8> = (0..65_507_u32).map(|i| (i * 7 / 3) as u8).collect();
    let mut buffer = vec![0; 65_536];
    for length in LENGTHS {
        for _ in 0..3 {
            let asked = client.send(&sent[..length]);
            assert_eq!(asked.expect("sent"), length, "{way}");
            let back = client.recv(&mut buffer);
            let whole = matches!(&back, Ok(back) if buffer[..*back] == sent[..length]);
            assert!(whole, "{way}: {length} bytes: {back:?}");
        }
    }
}

#[test]
fn datagrams_of_every_length_come_back_by_every_way_also_to_the_replica_itself() {
    let cluster = swarm(2);
    cluster.network("front");
    let options = ["--network", "front", "-p", "8000:80", "-p", "5353:5353/udp"];
    let task = serve(&cluster, "echo", &options, &[80]).remove(0);
    let sandbox = cluster.netns(&task.node, Some(&task.netns));
    let stop = Arc::<AtomicBool>::default();
    echo(&sandbox, Arc::clone(&stop));
    let client = cluster.outside();
    let vip = cluster.vip("echo", "front");
    for (node, name) in [("node1", "a"), ("node2", "b")] {
        let own = cluster.netns(node, None);
        let (guest, _) = cluster.guest(node, name, "front");
        let address = cluster.addr(node);
        let local = Ipv4Addr::LOCALHOST.into();
        for (from, to, way) in [
            (&client, address, "outside by"),
            (&own, local, "localhost of"),
            (&guest, vip, "the virtual address from"),
            (&guest, task.ip, "the task from"),
            (&guest, address, "a sandbox by"),
            (&sandbox, address, "itself by"),
        ] {
            let way = format!("{way} {node}");
            every_length_comes_back(from, SocketAddr::new(to, 5353), &way);
        }
        // The only replica is its own client.
        let to = cluster.at(node, 8000);
        eventually("the replica answers itself", || get(&sandbox, to));
        for _ in 0..6 {
            let answer = get(&sandbox, to).expect("an answer");
            assert!(answer.contains("echo-80"), "{node}: {answer}");
        }
    }
    stop.store(true, Ordering::Relaxed);
}

#[test]
fn datagrams_of_sandboxes_to_the_data_paths_port_outside_are_masqueraded() {
    let cluster = swarm(1);
    cluster.network("front");
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let outside = cluster.outside();
    for port in [4788, 4789] {
        let server = outside
            .run_in(|| UdpSocket::bind(("0.0.0.0", port)))
            .expect("a thread")
            .expect("the port is free");
        let limit = Some(Duration::from_millis(500));
        server.set_read_timeout(limit).expect("a limit");
        let client = socket(&guest, SocketAddr::new(cluster.addr("outside"), port));
        let from = eventually("the datagram arrives", || {
            client.send(b"?").map_err(|e| e.to_string())?;
            let (_, from) = server.recv_from(&mut [0; 100]).map_err(|e| e.to_string())?;
            Ok::<_, String>(from)
        });
        assert_eq!(from.ip(), cluster.addr("node1"), "port {port}");
        server.send_to(b"!", from).expect("sent");
        client.recv(&mut [0; 100]).expect("an answer");
    }
}
