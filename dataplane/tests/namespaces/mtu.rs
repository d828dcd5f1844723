//! Underlays of several MTUs, and ways that carry less than the network: senders are told.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_dataplane::Snapshot;
use weft_mesh::{Balancer, Limits, Replica, Service, ServicesBuilder};
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;
use weft_vxlan::{NetworkEntry, SwitchBuilder};
use weft_wire::DropReason;

use crate::common::{Node, Sandbox, VIP, VXLAN, nodes, of_epoch, sandbox, transfer, vni};

/// What carries what, in bytes.
struct Sizes {
    underlay: u32,
    network: u16,
    path: u16,
}

fn set_mtu(netns: &Netns, name: &str, mtu: u32) {
    let mut netlink = Netlink::open_in(netns).expect("netlink");
    netlink.set_mtu(name, mtu).expect("mtu");
}

/// Two nodes with a sandbox each, which know each other.
fn pair(sizes: &Sizes) -> ([Node; 2], [Sandbox; 2]) {
    let nodes = nodes(2);
    let sandboxes = [
        sandbox(1, "10.0.1.2", 0, true),
        sandbox(2, "10.0.1.3", 1, true),
    ];
    for node in &nodes {
        set_mtu(&node.ns, "up0", sizes.underlay);
    }
    for sandbox in &sandboxes {
        set_mtu(&sandbox.ns, "eth0", sizes.network.into());
    }
    let [a, b] = &nodes;
    let [here, there] = &sandboxes;
    publish(a, here, there, b, sizes);
    publish(b, there, here, a, sizes);
    (nodes, sandboxes)
}

/// Tables in which `here` is local and `there`, the one replica of `VIP`, behind `peer`.
fn publish(node: &Node, here: &Sandbox, there: &Sandbox, peer: &Node, sizes: &Sizes) {
    let mut switch = SwitchBuilder::new();
    switch
        .network(NetworkEntry {
            vni: vni(),
            mtu: sizes.network,
            gateways: vec!["10.0.1.1".parse().expect("ip")],
        })
        .virtual_ip(vni(), VIP)
        .local(vni(), here.port.mac, &[here.ip], here.port.id)
        .remote(
            vni(),
            there.port.mac,
            &[there.ip],
            SocketAddr::new(peer.underlay, VXLAN),
        )
        .path_mtu(peer.underlay, sizes.path);
    let mut services = ServicesBuilder::new();
    let service = services.service(Service {
        id: "s".into(),
        name: "web".into(),
        local_first: false,
        balancer: Balancer::default(),
        limits: Limits::default(),
        in_gap: false,
        replicas: vec![Replica {
            key: 1,
            vni: vni(),
            ip: there.ip,
            mac: there.port.mac,
            local: false,
            draining: false,
            load: Arc::default(),
        }],
    });
    services.vip(vni(), VIP, service);
    node.plane.publish(Arc::new(Snapshot {
        epoch: 1,
        switch: switch.build(),
        services: services.build(),
        ports: [(here.port.id, Arc::clone(&here.port))]
            .into_iter()
            .collect(),
        mesh: None,
        flow_epochs: of_epoch(1),
    }));
}

fn underlay_drops(node: &Node) -> Vec<(DropReason, u64)> {
    let workers = node.plane.counters().iter();
    workers.flat_map(|w| w.underlay.iter()).collect()
}

#[test]
fn streams_fill_narrow_and_wide_underlays() {
    for (underlay, inner) in [(1400, 1350), (9000, 8950), (65_535, 65_485)] {
        let (nodes, [client, server]) = pair(&Sizes {
            underlay,
            network: inner,
            path: inner,
        });
        transfer(&client, &server, SocketAddr::new(server.ip, 80), 1 << 26);
        transfer(&client, &server, SocketAddr::new(VIP, 80), 1 << 26);
        datagram(&client, &server, usize::from(inner) - 28);
        for node in &nodes {
            assert_eq!(underlay_drops(node), [], "underlay of {underlay}");
        }
    }
}

/// One datagram of so many bytes arrives.
fn datagram(client: &Sandbox, server: &Sandbox, len: usize) {
    let server_socket = server
        .ns
        .run_in(|| UdpSocket::bind((server.ip, 9)).expect("bind"))
        .expect("thread");
    let socket = client
        .ns
        .run_in(|| UdpSocket::bind((client.ip, 0)).expect("bind"))
        .expect("thread");
    server_socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("timeout");
    socket
        .send_to(&vec![7; len], (server.ip, 9))
        .expect("it fits");
    let mut buffer = vec![0; 70_000];
    let n = server_socket.recv(&mut buffer).expect("it arrives");
    assert_eq!(n, len);
}

#[test]
fn a_stream_finds_the_mtu_of_a_narrow_way() {
    let (nodes, [client, server]) = pair(&Sizes {
        underlay: 1400,
        network: 8950,
        path: 1350,
    });
    transfer(&client, &server, SocketAddr::new(server.ip, 80), 1 << 26);
    transfer(&client, &server, SocketAddr::new(VIP, 80), 1 << 26);
    transfer(&server, &client, SocketAddr::new(client.ip, 80), 1 << 22);
    assert!(client.port.counters.drops.get(DropReason::Oversized) > 0);
    for node in &nodes {
        // Nothing came as far as the kernel's own refusal.
        assert_eq!(underlay_drops(node), []);
    }
}

#[test]
fn a_sender_of_datagrams_learns_the_mtu_of_a_narrow_way() {
    let (_nodes, [client, server]) = pair(&Sizes {
        underlay: 1400,
        network: 8950,
        path: 1350,
    });
    // The replica's address, and the service's, which the answer has to quote.
    for to in [server.ip, VIP] {
        let socket = client
            .ns
            .run_in(|| UdpSocket::bind((client.ip, 0)).expect("bind"))
            .expect("thread");
        socket.connect((to, 9)).expect("connect");
        assert_eq!(path_mtu(&socket), 8950);
        socket.send(&[0; 2000]).expect("nobody has objected yet");
        let deadline = Instant::now() + Duration::from_secs(5);
        while path_mtu(&socket) != 1350 {
            assert!(
                Instant::now() < deadline,
                "{to}: {}, {:?}",
                path_mtu(&socket),
                client.port.counters.drops.iter().collect::<Vec<_>>()
            );
            std::thread::yield_now();
        }
    }
    // Now the kernel knows to fragment what is larger.
    let (n, from): (usize, IpAddr) = received(&client, &server, 2000);
    assert_eq!((n, from), (2000, client.ip));
}

fn received(client: &Sandbox, server: &Sandbox, len: usize) -> (usize, IpAddr) {
    let server_socket = server
        .ns
        .run_in(|| UdpSocket::bind((server.ip, 9)).expect("bind"))
        .expect("thread");
    server_socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("timeout");
    let socket = client
        .ns
        .run_in(|| UdpSocket::bind((client.ip, 0)).expect("bind"))
        .expect("thread");
    socket
        .send_to(&vec![7; len], (server.ip, 9))
        .expect("in fragments");
    let mut buffer = [0; 9000];
    let (n, from) = server_socket.recv_from(&mut buffer).expect("whole again");
    (n, from.ip())
}

/// What the kernel takes for the MTU to a connected socket's peer (`IP_MTU`).
fn path_mtu(socket: &UdpSocket) -> u32 {
    rustix::net::sockopt::ip_mtu(socket.as_fd()).expect("IP_MTU")
}
