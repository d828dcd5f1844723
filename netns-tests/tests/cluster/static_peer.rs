//! The kernel's own vxlan device as a static peer.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_netns_tests::{Cluster, eventually, figure, transfer};
use weft_sys::netlink::{Netlink, Vxlan};
use weft_sys::netns::Netns;

use crate::swarm;

const PEER: &str = "10.0.1.200";
const PEER_MAC: &str = "02:42:0a:00:01:c8";
const MAC: [u8; 6] = [0x02, 0x42, 0x0a, 0x00, 0x01, 0xc8];
const TOTAL: usize = 64 << 20;

/// A vxlan device on the machine outside, whose unknown destinations are behind node1.
fn kernel_vxlan(cluster: &Cluster, vni: u32) {
    let (local, vtep) = (cluster.addr("outside"), cluster.addr("node1"));
    let mut links = Netlink::open_in(&cluster.outside()).expect("a netlink socket");
    let device = Vxlan {
        name: "vx0",
        vni,
        local,
        port: 4789,
        learning: false,
        udp_checksum: true,
    };
    assert!(links.add_vxlan(&device).expect("a vxlan device"));
    links.set_mac("vx0", MAC).expect("a MAC address");
    links.set_mtu("vx0", 1450).expect("an MTU");
    links
        .append_fdb("vx0", [0; 6], vtep)
        .expect("a forwarding entry");
    let ip: IpAddr = PEER.parse().expect("an address");
    links
        .add_address("vx0", IpNet::new(ip, 24).expect("a prefix"))
        .expect("an address");
    links.set_up("vx0", true).expect("the device comes up");
}

/// One datagram each way, many times.
fn udp_echo(server: &Netns, client: &Netns, at: IpAddr) {
    let bind = |netns: &Netns, at: SocketAddr| {
        let socket = netns
            .run_in(|| UdpSocket::bind(at))
            .expect("a thread")
            .expect("a port");
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a limit");
        socket
    };
    let to = SocketAddr::new(at, 6000);
    let (server, client) = (
        bind(server, to),
        bind(client, "0.0.0.0:0".parse().expect("any")),
    );
    client.connect(to).expect("a route");
    let mut buffer = [0; 2048];
    for size in (1..=1422).step_by(29).chain([1422]) {
        let data: Vec<u8> = (0..size).map(|i| (i * 7 + size) as u8).collect();
        client.send(&data).expect("sent");
        let (length, from) = server.recv_from(&mut buffer).expect("received");
        assert_eq!(&buffer[..length], data, "{size} bytes there");
        server.send_to(&buffer[..length], from).expect("sent back");
        let length = client.recv(&mut buffer).expect("received back");
        assert_eq!(&buffer[..length], data, "{size} bytes back");
    }
}

/// The maximum segment size that the kernel uses towards `to`.
fn segment_size(client: &Netns, to: SocketAddr, server: &Netns) -> u32 {
    let listener = server
        .run_in(|| std::net::TcpListener::bind(to))
        .expect("a thread")
        .expect("a port");
    let stream = client
        .run_in(|| std::net::TcpStream::connect(to))
        .expect("a thread")
        .expect("a connection");
    let accepted = listener.accept().expect("a connection");
    let size = socket2::SockRef::from(&stream)
        .tcp_mss()
        .expect("TCP_MAXSEG");
    drop(accepted);
    size
}

fn vni_of(cluster: &Cluster, network: &str) -> u32 {
    let rows = cluster.rows(&["network", "ls"]);
    let row = rows.iter().find(|n| n["Name"] == network);
    let vni = row.and_then(|n| n["VNI"].as_u64()).expect("a VNI");
    u32::try_from(vni).expect("24 bits")
}

/// Five datagrams of UDP inside VXLAN, made by hand on the machine outside, to port 7000 of an
/// endpoint: of five flows, as those of one may be merged before they are looked up.
fn inject(cluster: &Cluster, vni: u32, (mac, from): ([u8; 6], IpAddr), to: IpAddr) {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        unreachable!("the networks of this test are of IPv4");
    };
    let [a, b, c, d] = to.octets();
    let [_, x, y, z] = vni.to_be_bytes();
    let datagram = |port: u16| {
        let mut datagram = vec![8, 0, 0, 0, x, y, z, 0];
        etherparse::PacketBuilder::ethernet2(mac, [2, 0x42, a, b, c, d])
            .ipv4(from.octets(), to.octets(), 64)
            .udp(port, 7000)
            .write(&mut datagram, b"injected")
            .expect("it fits");
        datagram
    };
    let socket = cluster
        .outside()
        .run_in(|| UdpSocket::bind("0.0.0.0:0"))
        .expect("a thread")
        .expect("a port");
    let vtep = SocketAddr::new(cluster.addr("node1"), 4789);
    for port in 7000..7005 {
        socket.send_to(&datagram(port), vtep).expect("sent");
    }
}

/// A peer of one network: what it sends into another, and in the names of others, ends at the node.
fn speaks_for_itself_only(cluster: &Cluster, guest: &Netns, own: IpAddr) {
    let (other, printed) = cluster.guest("node1", "other", "back");
    let (_, near) = cluster.guest("node1", "near", "front");
    let ip = |printed: &serde_json::Value| -> IpAddr {
        let ip = printed["IP"].as_str().expect("an address");
        ip.parse().expect("an address")
    };
    let (to, near) = (ip(&printed), ip(&near));
    let listen = |netns: &Netns| {
        let socket = netns
            .run_in(|| UdpSocket::bind("0.0.0.0:7000"))
            .expect("a thread")
            .expect("a port");
        socket.set_nonblocking(true).expect("a mode");
        socket
    };
    let (there, here) = (listen(&other), listen(guest));
    let peer: IpAddr = PEER.parse().expect("an address");
    let heard = |socket: &UdpSocket| socket.recv(&mut [0; 64]).is_ok();
    for (reason, vni, from, to) in [
        ("other_peer", vni_of(cluster, "back"), (MAC, peer), to),
        ("foreign_source", vni_of(cluster, "front"), (MAC, near), own),
    ] {
        let before = cluster.drops("node1", reason);
        inject(cluster, vni, from, to);
        eventually("all five are counted", || {
            let dropped = cluster.drops("node1", reason) - before;
            if dropped == 5 { Ok(()) } else { Err(dropped) }
        });
    }
    assert!(!heard(&there), "from a peer of another network");
    assert!(!heard(&here), "in the name of a neighbour");
    inject(cluster, vni_of(cluster, "front"), (MAC, peer), own);
    for n in 0..5 {
        eventually("the peer itself is heard", || {
            if heard(&here) { Ok(()) } else { Err(n) }
        });
    }
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one swarm, and one thing after the other happens to it"
)]
fn the_kernels_vxlan_device_is_a_peer() {
    let cluster = swarm(2);
    cluster.network("front");
    cluster.network("back");
    let (guest, printed) = cluster.guest("node1", "guest", "front");
    let own: IpAddr = printed["IP"]
        .as_str()
        .expect("an address")
        .parse()
        .expect("an address");
    kernel_vxlan(&cluster, vni_of(&cluster, "front"));
    let peer = cluster.outside();
    let peer_ip: IpAddr = PEER.parse().expect("an address");

    let ping = |from: &str| {
        let to = if from == "outside" { own } else { peer_ip };
        let words = ["ping", "-c", "1", "-W", "1", &to.to_string()];
        let netns = (from != "outside").then_some("/run/netns/guest".as_ref());
        cluster.run(from, netns, &words)
    };
    // Unknown to the cluster it is not heard.
    assert_ne!(ping("outside").code, 0);
    assert!(cluster.drops("node1", "unknown_vtep") > 0);

    let vtep = cluster.addr("outside").to_string();
    let add = [
        "network", "peer", "add", "--ip", PEER, "--mac", PEER_MAC, "--vtep", &vtep, "front",
    ];
    cluster.weft("node1", &add).done();
    cluster
        .weft("node1", &add)
        .refused(&[PEER, "already in use by the static peer behind 10.77.0.254"]);
    let listed = cluster
        .weft("node1", &["network", "peer", "ls", "front"])
        .ok();
    for word in [PEER, PEER_MAC, vtep.as_str()] {
        assert!(listed.contains(word), "{listed}");
    }
    for from in ["outside", "node1"] {
        eventually("pings are answered", || {
            let said = ping(from);
            if said.code == 0 { Ok(()) } else { Err(said) }
        });
    }

    let (there, here) = (SocketAddr::new(peer_ip, 5000), SocketAddr::new(own, 5000));
    for (name, client, server, to) in [
        ("sandbox to kernel", &guest, &peer, there),
        ("kernel to sandbox", &peer, &guest, here),
    ] {
        // 1450 less 20 for IP, 20 for TCP and 12 for its timestamps.
        assert_eq!(segment_size(client, to, server), 1398, "{name}");
        let took = transfer(client, server, to, TOTAL);
        let rate = TOTAL as f64 * 8.0 / took.as_secs_f64() / 1e9;
        figure(&format!("64 MiB {name}: {rate:.2} Gbit/s (debug build)"));
    }
    udp_echo(&peer, &guest, peer_ip);
    udp_echo(&guest, &peer, own);
    speaks_for_itself_only(&cluster, &guest, own);

    cluster
        .weft("node1", &["network", "peer", "rm", "front", PEER])
        .done();
    let listed = cluster
        .weft("node1", &["network", "peer", "ls", "front"])
        .ok();
    assert!(!listed.contains(PEER), "{listed}");
    let before = cluster.drops("node1", "unknown_vtep");
    eventually("the peer is not heard any more", || {
        let said = ping("outside");
        let dropped = cluster.drops("node1", "unknown_vtep");
        if said.code != 0 && dropped > before {
            Ok(())
        } else {
            Err((said, dropped))
        }
    });
    assert_ne!(ping("node1").code, 0);
    cluster
        .weft("node1", &["network", "peer", "rm", "front", PEER])
        .refused(&["no such static peer: 10.0.1.200"]);

    // Who takes over the address of a peer is found at once: his neighbours are told.
    const OTHER_MAC: &str = "02:aa:bb:cc:dd:20";
    let add = add.map(|word| if word == PEER_MAC { OTHER_MAC } else { word });
    cluster.weft("node1", &add).done();
    let neighbour = || {
        let words = ["ip", "-n", "guest", "neigh", "show", PEER];
        cluster.run("node1", None, &words).ok()
    };
    eventually("the guest knows the peer", || {
        ping("node1");
        let known = neighbour();
        if known.contains(OTHER_MAC) {
            Ok(())
        } else {
            Err(known)
        }
    });
    cluster
        .weft("node1", &["network", "peer", "rm", "front", PEER])
        .done();
    let path = cluster.lab().add_netns("node2", "heir");
    let path = path.unwrap_or_else(|e| panic!("{e:#}"));
    let netns = path.display().to_string();
    let connect = [
        "network", "connect", "--name", "heir", "--ip", PEER, "front", &netns,
    ];
    cluster.weft("node2", &connect).done();
    let since = Instant::now();
    eventually("the heir is found", || {
        let said = ping("node1");
        if said.code == 0 {
            Ok(())
        } else {
            Err((said, neighbour()))
        }
    });
    // Twenty seconds and more where nobody is told.
    assert!(since.elapsed() < Duration::from_secs(10), "{}", neighbour());
    assert!(neighbour().contains(PEER_MAC), "{}", neighbour());
}
