//! Sandboxes, nodes and traffic, all in anonymous namespaces that end with the test.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_dataplane::{Config, Dataplane, Port, PortCounters, Snapshot, StartError};
use weft_mesh::{Balancer, Replica, Service, ServicesBuilder};
use weft_sys::netlink::{Netlink, Veth};
use weft_sys::netns::Netns;
use weft_sys::tap::{Tap, TapConfig};
use weft_vxlan::{NetworkEntry, SwitchBuilder};
use weft_wire::{PortId, Vni, mac_for_ip};

pub(crate) const VXLAN: u16 = 4789;
pub(crate) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 200));

pub(crate) fn vni() -> Vni {
    Vni::new(4097).expect("fits")
}

/// A network namespace with one port.
pub(crate) struct Sandbox {
    pub(crate) ns: Netns,
    pub(crate) ip: IpAddr,
    pub(crate) port: Arc<Port>,
}

/// A sandbox with a TAP at `ip`/24.
pub(crate) fn sandbox(id: u32, ip: &str, worker: usize, offload: bool) -> Sandbox {
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

/// One data plane and the namespace of its underlay.
pub(crate) struct Node {
    pub(crate) plane: Dataplane,
    pub(crate) underlay: IpAddr,
    pub(crate) ns: Netns,
}

/// Two nodes, 10.77.0.1 and 10.77.0.2, with `workers` each.
pub(crate) fn nodes(workers: usize) -> [Node; 2] {
    nodes_with(workers, Dataplane::start)
}

/// The same, started by `start`.
pub(crate) fn nodes_with(
    workers: usize,
    start: fn(&Config) -> Result<Dataplane, StartError>,
) -> [Node; 2] {
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
                start(&Config {
                    workers,
                    underlay: SocketAddr::new(underlay, VXLAN),
                    flows: 10_000,
                    udp_idle: Duration::from_secs(30),
                    spin: Duration::from_micros(50),
                    inject: true,
                    seed: 7,
                })
                .expect("data plane")
            })
            .expect("thread");
        Node {
            plane,
            underlay,
            ns,
        }
    })
}

/// Publishes tables in which `here` is local and `there` behind `peer`; `VIP` leads to replicas.
pub(crate) fn publish(
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
    services.vip(vni(), VIP, service).mtu(vni(), 1450);
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

/// Publishes tables with `here` and whatever `more` adds.
pub(crate) fn publish_with(
    node: &Node,
    epoch: u64,
    here: &[&Sandbox],
    more: impl FnOnce(&mut SwitchBuilder),
) {
    let mut switch = SwitchBuilder::new();
    switch.network(NetworkEntry {
        vni: vni(),
        mtu: 1450,
        gateways: vec!["10.0.1.1".parse().expect("ip")],
    });
    for s in here {
        switch.local(vni(), s.port.mac, &[s.ip], s.port.id);
    }
    more(&mut switch);
    node.plane.publish(Arc::new(Snapshot {
        epoch,
        switch: switch.build(),
        services: ServicesBuilder::new().build(),
        ports: here
            .iter()
            .map(|s| (s.port.id, Arc::clone(&s.port)))
            .collect(),
        mesh: None,
    }));
}

/// Bytes that tell their position.
pub(crate) fn pattern(at: usize, out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        let n = (at + i) as u32;
        *byte = (n.wrapping_mul(2_654_435_761) >> 24) as u8;
    }
}

/// Sends `total` bytes from `client` to `to`, accepted by `server`; both ends check everything.
pub(crate) fn transfer(client: &Sandbox, server: &Sandbox, to: SocketAddr, total: usize) {
    transfer_between(&client.ns, &server.ns, server.ip, to, total);
}

/// The same between two namespaces; `server_ip` is the server's own address.
pub(crate) fn transfer_between(
    client: &Netns,
    server: &Netns,
    server_ip: IpAddr,
    to: SocketAddr,
    total: usize,
) {
    let listener = server
        .run_in(|| TcpListener::bind((server_ip, to.port())).expect("bind"))
        .expect("thread");
    let stream = client
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

pub(crate) fn ping(client: &Sandbox, server: &Sandbox) {
    ping_between((&client.ns, client.ip), (&server.ns, server.ip));
}

/// Datagrams of several sizes there and back.
pub(crate) fn ping_between(client: (&Netns, IpAddr), server: (&Netns, IpAddr)) {
    let server_socket = server
        .0
        .run_in(|| UdpSocket::bind((server.1, 7)).expect("bind"))
        .expect("thread");
    let socket = client
        .0
        .run_in(|| UdpSocket::bind((client.1, 0)).expect("bind"))
        .expect("thread");
    for s in [&socket, &server_socket] {
        s.set_read_timeout(Some(Duration::from_secs(5)))
            .expect("timeout");
    }
    for size in [1, 100, 1400, 1422] {
        let sent = vec![size as u8; size];
        socket.send_to(&sent, (server.1, 7)).expect("send");
        let mut buffer = [0; 2000];
        let (n, from) = server_socket
            .recv_from(&mut buffer)
            .expect("request arrives");
        assert_eq!((n, from.ip()), (size, client.1));
        server_socket.send_to(&buffer[..n], from).expect("answer");
        let (n, from) = socket.recv_from(&mut buffer).expect("answer arrives");
        assert_eq!((&buffer[..n], from.ip()), (&sent[..], server.1));
    }
}
