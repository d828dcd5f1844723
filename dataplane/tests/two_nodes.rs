//! Two data planes joined by a veth, real sandboxes behind them, traffic by the kernel's own
//! sockets. Needs root; everything lives in anonymous namespaces and ends with the test.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_dataplane::{Config, Dataplane, Port, PortCounters, Snapshot};
use weft_mesh::{Balancer, Replica, Service, ServicesBuilder};
use weft_sys::netlink::{Netlink, Veth};
use weft_sys::netns::Netns;
use weft_sys::tap::{Tap, TapConfig};
use weft_vxlan::{NetworkEntry, SwitchBuilder};
use weft_wire::{DropReason, PortId, Vni, mac_for_ip};

const VXLAN: u16 = 4789;
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 200));

fn vni() -> Vni {
    Vni::new(4097).expect("fits")
}

struct Sandbox {
    ns: Netns,
    ip: IpAddr,
    port: Arc<Port>,
}

/// A sandbox with a TAP at `ip`/24.
fn sandbox(id: u32, ip: &str, worker: usize, offload: bool) -> Sandbox {
    let ip: IpAddr = ip.parse().expect("ip");
    let ns = Netns::create_anonymous().expect("namespace");
    let tap = ns
        .run_in(|| {
            let tap = Tap::open(&TapConfig {
                mac: Some(mac_for_ip(ip).0),
                mtu: Some(1450),
                persist: false,
                offload,
                ..TapConfig::new("eth0")
            })
            .expect("tap");
            let mut netlink = Netlink::open().expect("netlink");
            netlink.set_up("lo", true).expect("lo");
            let net = IpNet::new(ip, 24).expect("prefix");
            netlink.add_address("eth0", net).expect("address");
            tap
        })
        .expect("thread");
    let port = Arc::new(Port {
        id: PortId(id),
        name: format!("sandbox-{id}").into(),
        vni: vni(),
        mac: mac_for_ip(ip),
        ips: vec![ip],
        tap: Arc::new(tap),
        worker,
        counters: Arc::new(PortCounters::default()),
    });
    Sandbox { ns, ip, port }
}

struct Node {
    plane: Dataplane,
    underlay: IpAddr,
}

/// Two nodes, 10.77.0.1 and 10.77.0.2, with `workers` each.
fn nodes(workers: usize) -> [Node; 2] {
    let spaces = [(); 2].map(|()| Netns::create_anonymous().expect("namespace"));
    spaces[0]
        .run_in(|| {
            let mut netlink = Netlink::open().expect("netlink");
            netlink
                .add_veth(&Veth {
                    name: "up0",
                    peer: "up0",
                    peer_netns: Some(&spaces[1]),
                    peer_mac: None,
                    mtu: None,
                })
                .expect("veth");
        })
        .expect("thread");
    let mut index = 0;
    spaces.map(|ns| {
        index += 1;
        let underlay = IpAddr::V4(Ipv4Addr::new(10, 77, 0, index));
        let plane = ns
            .run_in(|| {
                let mut netlink = Netlink::open().expect("netlink");
                netlink
                    .add_address("up0", IpNet::new(underlay, 24).expect("prefix"))
                    .expect("address");
                netlink.set_up("up0", true).expect("up");
                Dataplane::start(&Config {
                    workers,
                    underlay: SocketAddr::new(underlay, VXLAN),
                    flows: 10_000,
                    udp_idle: Duration::from_secs(30),
                    seed: 7,
                })
                .expect("data plane")
            })
            .expect("thread");
        Node { plane, underlay }
    })
}

/// Publishes tables in which `here` is local and `there` behind `peer`; `VIP` leads to replicas.
fn publish(
    node: &Node,
    epoch: u64,
    here: &[&Sandbox],
    there: &[&Sandbox],
    peer: &Node,
    vip: &[&Sandbox],
) {
    let mut switch = SwitchBuilder::new();
    switch.network(NetworkEntry {
        vni: vni(),
        mtu: 1450,
        gateways: vec!["10.0.1.1".parse().expect("ip")],
    });
    switch.virtual_ip(vni(), VIP);
    for s in here {
        switch.local(vni(), s.port.mac, &[s.ip], s.port.id);
    }
    for s in there {
        let vtep = SocketAddr::new(peer.underlay, VXLAN);
        switch.remote(vni(), s.port.mac, &[s.ip], vtep);
    }
    switch.vtep(peer.underlay);
    let mut services = ServicesBuilder::new();
    let service = services.service(Service {
        id: "s".into(),
        name: "web".into(),
        local_first: false,
        balancer: Balancer::default(),
        replicas: vip
            .iter()
            .map(|s| Replica {
                key: u64::from(s.port.id.0),
                vni: vni(),
                ip: s.ip,
                mac: s.port.mac,
                local: here.iter().any(|h| h.port.id == s.port.id),
                weight: 1,
                draining: false,
                load: Arc::default(),
            })
            .collect(),
    });
    services.vip(vni(), VIP, service);
    node.plane.publish(Arc::new(Snapshot {
        epoch,
        switch: switch.build(),
        services: services.build(),
        ports: here
            .iter()
            .map(|s| (s.port.id, Arc::clone(&s.port)))
            .collect(),
        mesh: None,
    }));
}

/// Bytes that tell their position.
fn pattern(at: usize, out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        let n = (at + i) as u32;
        *byte = (n.wrapping_mul(2_654_435_761) >> 24) as u8;
    }
}

/// Sends `total` bytes from `client` to `to`, accepted by `server`; both ends check everything.
fn transfer(client: &Sandbox, server: &Sandbox, to: SocketAddr, total: usize) {
    let listener = server
        .ns
        .run_in(|| TcpListener::bind((server.ip, to.port())).expect("bind"))
        .expect("thread");
    let stream = client
        .ns
        .run_in(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("connect"))
        .expect("thread");
    let (accepted, _) = listener.accept().expect("accept");
    for s in [&stream, &accepted] {
        s.set_read_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
        s.set_write_timeout(Some(Duration::from_secs(20)))
            .expect("timeout");
    }
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut stream = stream;
            let mut chunk = vec![0; 256 * 1024];
            let mut sent = 0;
            while sent < total {
                let n = chunk.len().min(total - sent);
                pattern(sent, &mut chunk[..n]);
                stream.write_all(&chunk[..n]).expect("write");
                sent += n;
            }
            stream
                .shutdown(std::net::Shutdown::Write)
                .expect("shutdown");
            let mut rest = Vec::new();
            stream
                .read_to_end(&mut rest)
                .expect("the other side closes");
            assert_eq!(rest, b"done");
        });
        let mut accepted = accepted;
        let mut got = 0;
        let mut chunk = vec![0; 256 * 1024];
        let mut expected = vec![0; 256 * 1024];
        loop {
            let n = accepted.read(&mut chunk).expect("read");
            if n == 0 {
                break;
            }
            pattern(got, &mut expected[..n]);
            assert!(chunk[..n] == expected[..n], "bytes differ after {got}");
            got += n;
        }
        assert_eq!(got, total);
        accepted.write_all(b"done").expect("write");
    });
}

fn ping(client: &Sandbox, server: &Sandbox) {
    let server_socket = server
        .ns
        .run_in(|| UdpSocket::bind((server.ip, 7)).expect("bind"))
        .expect("thread");
    let socket = client
        .ns
        .run_in(|| UdpSocket::bind((client.ip, 0)).expect("bind"))
        .expect("thread");
    for s in [&socket, &server_socket] {
        s.set_read_timeout(Some(Duration::from_secs(5)))
            .expect("timeout");
    }
    for size in [1, 100, 1400, 1422] {
        let sent = vec![size as u8; size];
        socket.send_to(&sent, (server.ip, 7)).expect("send");
        let mut buffer = [0; 2000];
        let (n, from) = server_socket
            .recv_from(&mut buffer)
            .expect("request arrives");
        assert_eq!((n, from.ip()), (size, client.ip));
        server_socket.send_to(&buffer[..n], from).expect("answer");
        let (n, from) = socket.recv_from(&mut buffer).expect("answer arrives");
        assert_eq!((&buffer[..n], from.ip()), (&sent[..], server.ip));
    }
}

#[test]
fn a_gibibyte_arrives_intact_with_offloads() {
    across(true, 1 << 30);
}

#[test]
fn a_gibibyte_arrives_intact_without_offloads() {
    across(false, 1 << 30);
}

fn across(offload: bool, total: usize) {
    let [a, b] = nodes(2);
    let client = sandbox(
        1,
        "10.0.1.2",
        a.plane.worker_for("10.0.1.2".parse().unwrap()),
        offload,
    );
    let server = sandbox(
        2,
        "10.0.1.3",
        b.plane.worker_for("10.0.1.3".parse().unwrap()),
        offload,
    );
    publish(&a, 1, &[&client], &[&server], &b, &[]);
    publish(&b, 1, &[&server], &[&client], &a, &[]);
    ping(&client, &server);
    transfer(&client, &server, SocketAddr::new(server.ip, 80), total);
    transfer(&server, &client, SocketAddr::new(client.ip, 80), total / 16);
    for node in [&a, &b] {
        for worker in node.plane.counters() {
            let drops: Vec<_> = worker.underlay.iter().collect();
            assert!(drops.is_empty(), "{drops:?}");
        }
    }
}

#[test]
fn two_sandboxes_of_one_node() {
    let [a, b] = nodes(2);
    let x = sandbox(1, "10.0.1.2", 0, true);
    let y = sandbox(2, "10.0.1.3", 1, true);
    publish(&a, 1, &[&x, &y], &[], &b, &[]);
    ping(&x, &y);
    transfer(&x, &y, SocketAddr::new(y.ip, 80), 1 << 28);
}

#[test]
fn a_vip_leads_to_local_and_remote_replicas_whatever_worker_reads_them() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let near = sandbox(2, "10.0.1.3", 1, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    let vip = SocketAddr::new(VIP, 80);
    publish(&b, 1, &[&far], &[&client, &near], &a, &[]);
    for (epoch, replica) in [(1, &near), (2, &far), (3, &near)] {
        publish(&a, epoch, &[&client, &near], &[&far], &b, &[replica]);
        for _ in 0..20 {
            transfer(&client, replica, vip, 100_000);
        }
        transfer(&client, replica, vip, 1 << 26);
    }
}

#[test]
fn a_refused_connection_goes_to_the_next_replica_and_ends_refused_when_there_is_none() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let near = sandbox(2, "10.0.1.3", 1, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    publish(&b, 1, &[&far], &[&client, &near], &a, &[]);
    publish(&a, 1, &[&client, &near], &[&far], &b, &[&near, &far]);
    let vip = SocketAddr::new(VIP, 80);
    // Only one of the two listens; half of the first choices are refused.
    for serving in [&near, &far] {
        for _ in 0..10 {
            transfer(&client, serving, vip, 10_000);
        }
    }
    let error = client
        .ns
        .run_in(|| TcpStream::connect_timeout(&vip, Duration::from_secs(5)).expect_err("refused"))
        .expect("thread");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn foreign_senders_and_unknown_addresses_are_counted() {
    let [a, b] = nodes(1);
    let x = sandbox(1, "10.0.1.2", 0, true);
    publish(&a, 1, &[&x], &[], &b, &[]);
    x.ns.run_in(|| {
        let mut netlink = Netlink::open().expect("netlink");
        netlink
            .add_address("eth0", "10.0.1.77/32".parse().expect("net"))
            .expect("address");
        let spoof = UdpSocket::bind(("10.0.1.77", 0)).expect("bind");
        netlink
            .set_neighbour(
                "eth0",
                "10.0.1.1".parse().expect("ip"),
                mac_for_ip("10.0.1.1".parse().expect("ip")).0,
            )
            .expect("neighbour");
        spoof.send_to(b"x", "10.0.1.1:9").expect("send");
    })
    .expect("thread");
    let drops = &x.port.counters.drops;
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while drops.get(DropReason::SpoofedIp) == 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            drops.iter().collect::<Vec<_>>()
        );
        std::thread::yield_now();
    }
}
