//! Sandboxes, nodes and traffic, all in anonymous namespaces that end with the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_dataplane::{
    Config, Dataplane, FlowEpochs, Port, PortCounters, Shortcut, Snapshot, StartError,
    TunnelOffload, UnderlayRoute,
};
use weft_mesh::{Balancer, Limits, Replica, ReplicaLoad, Service, ServicesBuilder};
use weft_sys::netlink::{Netlink, Veth};
use weft_sys::netns::Netns;
use weft_sys::tap::{Tap, TapConfig};
use weft_vxlan::{NetworkEntry, SwitchBuilder};
use weft_wire::ecn::Dscp;
use weft_wire::{Mac, PortId, Vni, mac_for_ip};

pub(crate) const VXLAN: u16 = 4789;
pub(crate) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 200));
pub(crate) const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0x0a00, 0x01c8));

/// Address family of the nodes' own network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Underlay {
    V4,
    V6,
}

impl Underlay {
    fn node(self, index: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([10, 77, 0, index]),
            Self::V6 => Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, index.into()).into(),
        }
    }

    /// Inner MTU on an underlay of 1500.
    pub(crate) fn mtu(self) -> u16 {
        weft_vxlan::inner_mtu(1500, self == Self::V6)
    }
}

/// Endpoint `host` of the overlay, in the family of `like`: 10.0.1.N, or fd77:1::10.0.1.N.
pub(crate) fn inside(like: IpAddr, host: u8) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::from([10, 0, 1, host]),
        IpAddr::V6(_) => {
            Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0x0a00, 0x0100 | u16::from(host)).into()
        }
    }
}

/// Prefix length of the overlay's subnets.
pub(crate) fn prefix_len(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 24 } else { 64 }
}

pub(crate) fn vni() -> Vni {
    Vni::new(4097).expect("fits")
}

/// A network namespace with one port.
pub(crate) struct Sandbox {
    pub(crate) ns: Netns,
    pub(crate) ip: IpAddr,
    /// Bytes.
    pub(crate) mtu: u16,
    pub(crate) port: Arc<Port>,
}

/// A sandbox with a TAP at `ip`, for an underlay of IPv4.
pub(crate) fn sandbox(id: u32, ip: &str, worker: usize, offload: bool) -> Sandbox {
    let mtu = Underlay::V4.mtu();
    sandbox_at(id, ip.parse().expect("ip"), worker, offload, mtu)
}

/// The same with another MTU.
pub(crate) fn sandbox_at(id: u32, ip: IpAddr, worker: usize, offload: bool, mtu: u16) -> Sandbox {
    let ns = Netns::create_anonymous().expect("namespace");
    let tap = ns
        .run_in(|| {
            let tap = Tap::open(&TapConfig {
                mac: Some(mac_for_ip(ip).0),
                mtu: Some(u32::from(mtu)),
                persist: false,
                offload,
                ..TapConfig::new("eth0")
            })
            .expect("tap");
            let mut netlink = Netlink::open().expect("netlink");
            netlink.set_up("lo", true).expect("lo");
            let net = IpNet::new(ip, prefix_len(ip)).expect("prefix");
            netlink.add_address("eth0", net).expect("address");
            no_detection("eth0");
            netlink.set_up("eth0", true).expect("up");
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
        shortcut: Default::default(),
    });
    Sandbox { ns, ip, mtu, port }
}

/// One data plane and the namespace of its underlay.
pub(crate) struct Node {
    pub(crate) plane: Dataplane,
    pub(crate) underlay: IpAddr,
    /// Inner MTU, bytes.
    pub(crate) mtu: u16,
    pub(crate) ns: Netns,
}

/// Two nodes, 10.77.0.1 and 10.77.0.2, with `workers` each.
pub(crate) fn nodes(workers: usize) -> [Node; 2] {
    nodes_with(workers, Dataplane::start)
}

/// Two nodes on an underlay of that family.
pub(crate) fn nodes_on(underlay: Underlay, workers: usize) -> [Node; 2] {
    let fast = fast_path() && underlay == Underlay::V4;
    start_nodes(underlay, workers, fast, Dataplane::start)
}

/// The same, started by `start`.
pub(crate) fn nodes_with(
    workers: usize,
    start: fn(&Config) -> Result<Dataplane, StartError>,
) -> [Node; 2] {
    start_nodes(Underlay::V4, workers, fast_path(), start)
}

/// Two nodes that leave nothing to the kernel: how they carry packets themselves is what is tested.
pub(crate) fn nodes_by_themselves(
    workers: usize,
    start: fn(&Config) -> Result<Dataplane, StartError>,
) -> [Node; 2] {
    start_nodes(Underlay::V4, workers, false, start)
}

fn start_nodes(
    family: Underlay,
    workers: usize,
    fast: bool,
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
        let underlay = family.node(index);
        let plane = ns
            .run_in(|| {
                let mut netlink = Netlink::open().expect("netlink");
                netlink
                    .add_address(
                        "up0",
                        IpNet::new(underlay, prefix_len(underlay)).expect("prefix"),
                    )
                    .expect("address");
                netlink.set_up("up0", true).expect("up");
                start(&Config {
                    workers,
                    underlay: SocketAddr::new(underlay, VXLAN),
                    flows: 10_000,
                    udp_idle: Duration::from_secs(30),
                    dscp: Dscp::default(),
                    refused_interfaces: Vec::new(),
                    spin: Duration::from_micros(50),
                    journal: None,
                    tunnel_offload: TunnelOffload::On,
                    fast_path: fast,
                    seed: 7,
                })
                .expect("data plane")
            })
            .expect("thread");
        let node = Node {
            plane,
            underlay,
            mtu: family.mtu(),
            ns,
        };
        if fast {
            lead_underlay(&node);
        }
        node
    })
}

/// Whether flows take shortcuts where they can: the whole suite runs once without and once with, as
/// the test program `fast_path`.
fn fast_path() -> bool {
    module_path!().starts_with("fast_path")
}

/// Waits for the kernel's flow cache and puts it in front of a node's underlay.
pub(crate) fn lead_underlay(node: &Node) {
    lead_underlay_to(node, None);
}

/// The same, with flows that go to the other node's second port.
pub(crate) fn lead_underlay_to(node: &Node, second_port: Option<u16>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while node.plane.fast_path().is_none() {
        assert!(Instant::now() < deadline, "the self-test does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    node.plane
        .fast_path()
        .expect("there")
        .expect("a flow cache");
    let cache = node.plane.flow_cache().expect("a flow cache");
    let mut links = Netlink::open_in(&node.ns).expect("netlink");
    cache.attach_underlay(&mut links, "up0").expect("attached");
    let device = links.link_index("up0").expect("the link");
    let others = (1..=2).map(|index| Ipv4Addr::new(10, 77, 0, index));
    node.plane.set_underlay_routes(others.map(|other| {
        let route = UnderlayRoute {
            device,
            next_hop: other,
            second_port,
        };
        (other, route)
    }));
}

/// A device without an address of its own, of which it would tell others beside the frames of a test.
pub(crate) fn silence(ns: &Netns, name: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode");
    let set = || std::fs::write(path, "1");
    ns.run_in(set).expect("thread").expect("a kernel with IPv6");
}

/// Gives a sandbox its second device, and its flows the shortcut, where the node has one.
pub(crate) fn lead(node: &Node, sandbox: &Sandbox) {
    let Some(cache) = node.plane.flow_cache() else {
        return;
    };
    if sandbox.port.shortcut.load().is_some() {
        return;
    }
    let number = u16::try_from(sandbox.port.id.0).expect("small");
    let name = format!("host{number}");
    let mut links = Netlink::open_in(&node.ns).expect("netlink");
    links
        .add_veth(&Veth {
            name: &name,
            peer: "eth1",
            peer_netns: Some(&sandbox.ns),
            peer_mac: None,
            mtu: None,
        })
        .expect("veth");
    silence(&node.ns, &name);
    links.set_up(&name, true).expect("up");
    let mut inside = Netlink::open_in(&sandbox.ns).expect("netlink");
    let at = format!("172.18.0.{number}/16").parse().expect("an address");
    inside.add_address("eth1", at).expect("address");
    let loose = || std::fs::write("/proc/sys/net/ipv4/conf/eth1/rp_filter", "2");
    sandbox.ns.run_in(loose).expect("thread").expect("loose");
    silence(&sandbox.ns, "eth1");
    inside.set_up("eth1", true).expect("up");
    cache
        .attach_sandbox(number, (&mut inside, "eth0"), (&mut links, &name))
        .expect("attached");
    let second = inside.link("eth1").expect("asked").expect("the link");
    let shortcut = Shortcut {
        number,
        second: second.index,
        second_mac: Mac(second.mac.expect("an Ethernet device")),
        host_end: links.link_index(&name).expect("the link"),
    };
    sandbox.port.shortcut.store(Some(Arc::new(shortcut)));
}

/// The overlay's gateway in the family of `like`.
pub(crate) fn gateway(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => inside(like, 1),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 1).into(),
    }
}

pub(crate) fn gateways() -> Vec<IpAddr> {
    vec![gateway(VIP), gateway(VIP6)]
}

/// Link-local addresses are usable at once, too.
pub(crate) fn no_detection(ifname: &str) {
    let path = format!("/proc/sys/net/ipv6/conf/{ifname}/accept_dad");
    std::fs::write(path, "0").expect("a kernel with IPv6");
}

/// Echo requests of the kernel's own: answered or not.
pub(crate) fn echo(from: &Netns, to: IpAddr) -> bool {
    from.run_in(|| {
        Command::new("ping")
            .args(["-n", "-c", "1", "-W", "3", &to.to_string()])
            .output()
            .expect("ping")
            .status
            .success()
    })
    .expect("thread")
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
    for sandbox in here {
        lead(node, sandbox);
    }
    let mut switch = SwitchBuilder::new();
    switch.network(NetworkEntry {
        vni: vni(),
        mtu: node.mtu,
        gateways: gateways(),
    });
    switch.virtual_ip(vni(), VIP);
    switch.virtual_ip(vni(), VIP6);
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
        limits: Limits::default(),
        in_gap: false,
        replicas: vip
            .iter()
            .map(|s| Replica {
                key: u64::from(s.port.id.0),
                vni: vni(),
                ip: s.ip,
                mac: s.port.mac,
                local: here.iter().any(|h| h.port.id == s.port.id),
                draining: false,
                // No node has more workers.
                load: Arc::new(ReplicaLoad::with_workers(2)),
            })
            .collect(),
    });
    services.vip(vni(), VIP, service).mtu(vni(), node.mtu);
    services.vip(vni(), VIP6, service);
    node.plane.publish(Arc::new(Snapshot {
        epoch,
        switch: switch.build(),
        services: services.build(),
        ports: here
            .iter()
            .map(|s| (s.port.id, Arc::clone(&s.port)))
            .collect(),
        mesh: None,
        flow_epochs: of_epoch(epoch),
    }));
}

/// Publishes tables with `here` and whatever `more` adds.
pub(crate) fn publish_with(
    node: &Node,
    epoch: u64,
    here: &[&Sandbox],
    more: impl FnOnce(&mut SwitchBuilder),
) {
    for sandbox in here {
        lead(node, sandbox);
    }
    let mut switch = SwitchBuilder::new();
    switch.network(NetworkEntry {
        vni: vni(),
        mtu: node.mtu,
        gateways: gateways(),
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
        flow_epochs: of_epoch(epoch),
    }));
}

/// Tables of another epoch say other things of every network.
pub(crate) fn of_epoch(epoch: u64) -> FlowEpochs {
    let mut epochs = FlowEpochs::default();
    epochs.change_all(u32::try_from(epoch).expect("small"));
    epochs
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

/// A child that another test starts holds copies of all sockets until it runs its program.
fn listen(at: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match TcpListener::bind(at) {
            Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other.expect("bind"),
        }
    }
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
        .run_in(|| listen((server_ip, to.port()).into()))
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
    ping_between((&client.ns, client.ip), (&server.ns, server.ip), client.mtu);
}

/// Datagrams of several sizes there and back, up to the MTU.
pub(crate) fn ping_between(client: (&Netns, IpAddr), server: (&Netns, IpAddr), mtu: u16) {
    let headers = if client.1.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let largest = usize::from(mtu) - headers;
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
    // The last one leaves in fragments.
    for size in [1, 100, 1300, largest, 5000] {
        let sent = vec![size as u8; size];
        socket.send_to(&sent, (server.1, 7)).expect("send");
        let mut buffer = [0; 8000];
        let (n, from) = server_socket
            .recv_from(&mut buffer)
            .expect("request arrives");
        assert_eq!((n, from.ip()), (size, client.1));
        server_socket.send_to(&buffer[..n], from).expect("answer");
        let (n, from) = socket.recv_from(&mut buffer).expect("answer arrives");
        assert_eq!((&buffer[..n], from.ip()), (&sent[..], server.1));
    }
}
