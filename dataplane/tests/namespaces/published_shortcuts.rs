//! Connections through published ports are carried by the kernel, to a replica of the client's node and
//! to one of another: what comes back is led on to a client that is behind the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_dataplane::{MeshAddresses, MeshPort, Port, PortCounters, Shortcut, Snapshot};
use weft_fastpath::Event;
use weft_mesh::{
    Balancer, FlowState, Limits, Protocol, Replica, ReplicaLoad, Service, ServicesBuilder,
};
use weft_sys::netlink::{MAIN_TABLE, Netlink, Route, Veth};
use weft_sys::netns::Netns;
use weft_sys::offload::{has_feature, set_features};
use weft_sys::tap::{Tap, TapConfig};
use weft_vxlan::{NetworkEntry, SwitchBuilder};
use weft_wire::{Mac, PortId, Vni, mac_for_ip};

use super::merging::{SECOND, add_merging};
use super::service_shortcuts::{expect_reset, stream};
use super::shortcuts::{Exchange, carried, count, eventually, fast_nodes};
use crate::common::{
    Node, Sandbox, VIP, VIP6, VXLAN, gateway, gateways, inside, lead, lead_underlay_to,
    no_detection, of_epoch, prefix_len, sandbox_at, silence, vni,
};

const PUBLISHED: u16 = 8000;
const TARGET: u16 = 80;
const HOST_MAC: Mac = Mac([2, 0x42, 169, 254, 77, 1]);
const MESH_MAC: Mac = Mac([2, 0x42, 169, 254, 77, 2]);
/// Bytes of a transfer.
const TOTAL: usize = 1 << 26;

/// What a device does to packets that leave it; a NIC of an ordinary host cuts none.
const FEATURES: [(&str, bool); 6] = [
    ("tx-tcp-segmentation", false),
    ("tx-tcp-ecn-segmentation", false),
    ("tx-tcp-mangleid-segmentation", false),
    ("tx-tcp6-segmentation", false),
    ("tx-udp_tnl-segmentation", false),
    ("tx-udp_tnl-csum-segmentation", false),
];

/// Addresses on both sides of `weft0`: of the host, and what published ports are sent to.
fn mesh_addresses(like: IpAddr) -> [IpAddr; 2] {
    match like {
        IpAddr::V4(_) => [1, 2].map(|host| IpAddr::from([169, 254, 77, host])),
        IpAddr::V6(_) => [1, 2].map(|host| {
            Ipv6Addr::new(0xfd57, 0x4546, 0x5400, 0, 0, 0, 0xa9fe, 0x4d00 | host).into()
        }),
    }
}

/// The link to the client: the node's end, and the client's.
fn link(like: IpAddr) -> [IpNet; 2] {
    let ends: [IpAddr; 2] = match like {
        IpAddr::V4(_) => [1, 2].map(|host| Ipv4Addr::new(198, 51, 100, host).into()),
        IpAddr::V6(_) => {
            [1, 2].map(|host| Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, host).into())
        }
    };
    ends.map(|ip| IpNet::new(ip, prefix_len(ip)).expect("a prefix"))
}

/// Where the replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Near,
    Far,
}

const PLACES: [Place; 2] = [Place::Far, Place::Near];

/// A node with a published port and a replica, another one with a replica, and a client behind the
/// first.
struct Bed {
    nodes: [Node; 2],
    mesh: [Arc<Port>; 2],
    client: Netns,
    near: Sandbox,
    far: Sandbox,
    like: IpAddr,
    epoch: u64,
}

impl Bed {
    /// In the address family of `like`.
    fn new(like: IpAddr) -> Self {
        let nodes = fast_nodes();
        for node in &nodes {
            add_merging(node);
            lead_underlay_to(node, Some(SECOND));
        }
        let [a, b] = &nodes;
        let client = Netns::create_anonymous().expect("namespace");
        join(a, &client, like);
        lead_to_mesh(a, like);
        let at = |node: &Node, id: u8| {
            let worker = node.plane.worker_for(inside(like, id));
            let sandbox = sandbox_at(id.into(), inside(like, id), worker, true, node.mtu);
            let mut links = Netlink::open_in(&sandbox.ns).expect("netlink");
            let route = default_route(like, gateway(like), "eth0");
            links.set_route(&route).expect("a way outside");
            sandbox
        };
        let (near, far) = (at(a, 3), at(b, 4));
        let mesh = [mesh_port(a, 100, like), mesh_port(b, 101, like)];
        attach(a, &mesh[0]);
        Self {
            mesh,
            client,
            near,
            far,
            nodes,
            like,
            epoch: 0,
        }
    }

    fn server(&self, place: Place) -> &Sandbox {
        match place {
            Place::Near => &self.near,
            Place::Far => &self.far,
        }
    }

    /// From now on the published port leads there, or nowhere.
    fn lead_to(&mut self, replica: Option<Place>) {
        self.epoch += 1;
        let replica = replica.map(|place| self.server(place));
        let [a, b] = &self.nodes;
        self.publish((a, 0), (&self.near, &self.far), b, replica);
        self.publish((b, 1), (&self.far, &self.near), a, replica);
    }

    /// The node's own address on the overlay.
    fn node_ip(&self, index: usize) -> IpAddr {
        inside(self.like, [250, 251][index])
    }

    fn publish(
        &self,
        (node, index): (&Node, usize),
        (here, there): (&Sandbox, &Sandbox),
        peer: &Node,
        replica: Option<&Sandbox>,
    ) {
        lead(node, here);
        let port = &self.mesh[index];
        let (own, other) = (self.node_ip(index), self.node_ip(1 - index));
        let vtep = SocketAddr::new(peer.underlay, VXLAN);
        let mut switch = SwitchBuilder::new();
        switch.network(NetworkEntry {
            vni: vni(),
            mtu: node.mtu,
            gateways: gateways(),
        });
        switch.local(vni(), here.port.mac, &[here.ip], here.port.id);
        switch.remote(vni(), there.port.mac, &[there.ip], vtep);
        switch.local(vni(), mac_for_ip(own), &[own], port.id);
        switch.remote(vni(), mac_for_ip(other), &[other], vtep);
        switch.vtep(peer.underlay);
        let mut services = ServicesBuilder::new();
        let service = services.service(Service {
            id: "s".into(),
            name: "web".into(),
            local_first: false,
            balancer: Balancer::default(),
            limits: Limits::default(),
            in_gap: false,
            replicas: replica
                .iter()
                .map(|s| Replica {
                    key: u64::from(s.port.id.0),
                    vni: vni(),
                    ip: s.ip,
                    mac: s.port.mac,
                    local: s.port.id == here.port.id,
                    draining: false,
                    load: Arc::new(ReplicaLoad::with_workers(2)),
                })
                .collect(),
        });
        services
            .publish(Protocol::Tcp, PUBLISHED, service, TARGET)
            .mtu(vni(), node.mtu);
        let ports = [&here.port, port];
        node.plane.publish(Arc::new(Snapshot {
            epoch: self.epoch,
            switch: switch.build(),
            services: services.build(),
            ports: ports.map(|p| (p.id, Arc::clone(p))).into_iter().collect(),
            mesh: Some(self.mesh_of(port, own)),
            flow_epochs: of_epoch(self.epoch),
        }));
    }

    fn mesh_of(&self, port: &Port, own: IpAddr) -> MeshPort {
        let family = |like: IpAddr| {
            let [host_ip, mesh_ip] = mesh_addresses(like);
            MeshAddresses {
                mesh_ip,
                node_ip: if like.is_ipv4() == own.is_ipv4() {
                    own
                } else {
                    inside(like, 252)
                },
                host_ip,
            }
        };
        let subnets = [VIP, VIP6].map(|ip| IpNet::new(ip, prefix_len(ip)).expect("a prefix"));
        MeshPort {
            port: port.id,
            mesh_mac: MESH_MAC,
            vni: vni(),
            node_mac: mac_for_ip(own),
            v4: family(VIP),
            v6: self.like.is_ipv6().then(|| family(VIP6)),
            subnets: subnets.into(),
        }
    }

    /// A connection of the client to the published port; the near end is the client's.
    fn open(&self, place: Place) -> Exchange {
        let at = SocketAddr::new(self.server(place).ip, TARGET);
        let listen = || TcpListener::bind(at).expect("bind");
        let listener = self.server(place).ns.run_in(listen).expect("thread");
        let to = SocketAddr::new(link(self.like)[0].addr(), PUBLISHED);
        let limit = Duration::from_secs(5);
        let connect = || TcpStream::connect_timeout(&to, limit).expect("connect");
        let near = self.client.run_in(connect).expect("thread");
        let (far, from) = listener.accept().expect("accept");
        assert_eq!(from.ip(), link(self.like)[1].addr(), "it sees its client");
        for stream in [&near, &far] {
            stream.set_nodelay(true).expect("no delay");
            stream.set_read_timeout(Some(limit)).expect("a limit");
        }
        Exchange { near, far }
    }

    /// Packets that the kernel carried to the replica, and back.
    fn packets(&self, place: Place) -> [u64; 2] {
        let [a, b] = &self.nodes;
        match place {
            Place::Near => [count(a, Event::Local); 2],
            Place::Far => [
                count(a, Event::Out).min(count(b, Event::In)),
                count(b, Event::Out).min(count(a, Event::In)),
            ],
        }
    }

    fn settle(&self) {
        eventually("flows that are over leave nothing", || {
            self.nodes.iter().all(|node| carried(node) == 0)
        });
    }
}

fn default_route(like: IpAddr, via: IpAddr, dev: &str) -> Route {
    let all: IpAddr = match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Route {
        dest: IpNet::new(all, 0).expect("a prefix"),
        gateway: Some(via),
        dev: Some(dev.to_owned()),
        table: MAIN_TABLE,
        onlink: false,
    }
}

/// Puts the client behind a node that forwards.
fn join(node: &Node, client: &Netns, like: IpAddr) {
    let [own, its] = link(like);
    let mut links = Netlink::open_in(&node.ns).expect("netlink");
    links
        .add_veth(&Veth {
            name: "out0",
            peer: "eth0",
            peer_netns: Some(client),
            peer_mac: None,
            mtu: None,
        })
        .expect("veth");
    let mut inside = Netlink::open_in(client).expect("netlink");
    for (ns, links, name, net) in [
        (&node.ns, &mut links, "out0", own),
        (client, &mut inside, "eth0", its),
    ] {
        ns.run_in(|| no_detection(name)).expect("thread");
        links.add_address(name, net).expect("address");
        links.set_up(name, true).expect("up");
    }
    let forward = || {
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{name}"), "1").expect("a setting");
        }
    };
    node.ns.run_in(forward).expect("thread");
}

/// Has the node send what comes for the published port to the mesh address.
fn lead_to_mesh(node: &Node, like: IpAddr) {
    let [_, mesh] = mesh_addresses(like);
    let to = SocketAddr::new(mesh, PUBLISHED);
    let [family, version] = if like.is_ipv4() {
        ["ip", "ipv4"]
    } else {
        ["ip6", "ipv6"]
    };
    let rules = format!(
        "add table inet t\n\
         add chain inet t c {{ type nat hook prerouting priority dstnat; }}\n\
         add rule inet t c meta nfproto {version} iifname out0 tcp dport {PUBLISHED} \
         dnat {family} to {to}\n"
    );
    let nft = || Command::new("nft").arg(&rules).output().expect("nft");
    let said = node.ns.run_in(nft).expect("thread");
    assert!(said.status.success(), "{said:?}");
}

/// `weft0` of a node.
fn mesh_port(node: &Node, id: u32, like: IpAddr) -> Arc<Port> {
    let open = || {
        Tap::open(&TapConfig {
            mac: Some(HOST_MAC.0),
            mtu: Some(u32::from(node.mtu)),
            persist: false,
            up: false,
            ..TapConfig::new("weft0")
        })
    };
    let tap = node.ns.run_in(open).expect("thread").expect("weft0");
    silence(&node.ns, "weft0");
    node.ns.run_in(|| no_detection("weft0")).expect("thread");
    let mut links = Netlink::open_in(&node.ns).expect("netlink");
    let [host, mesh] = mesh_addresses(like);
    let len = if like.is_ipv4() { 30 } else { 126 };
    let net = IpNet::new(host, len).expect("a prefix");
    links.add_address("weft0", net).expect("address");
    links.set_up("weft0", true).expect("up");
    links
        .set_neighbour("weft0", mesh, MESH_MAC.0)
        .expect("a neighbour");
    let node_ip = inside(like, if id == 100 { 250 } else { 251 });
    Arc::new(Port {
        id: PortId(id),
        name: "mesh".into(),
        vni: Vni::new(0).expect("fits"),
        mac: MESH_MAC,
        ips: Vec::new(),
        tap: Arc::new(tap),
        worker: node.plane.worker_for(node_ip),
        counters: Arc::new(PortCounters::default()),
        shortcut: Default::default(),
    })
}

/// Puts the program in front of `weft0`.
fn attach(node: &Node, port: &Port) {
    let cache = node.plane.flow_cache().expect("a flow cache");
    let mut links = Netlink::open_in(&node.ns).expect("netlink");
    cache.attach_mesh(&mut links, "weft0").expect("attached");
    let index = links.link_index("weft0").expect("the link");
    let shortcut = Shortcut::of_mesh(index, HOST_MAC);
    port.shortcut.store(Some(Arc::new(shortcut)));
}

/// Both ways, whole and carried by the kernel.
fn bulk(bed: &Bed, place: Place) {
    let exchange = bed.open(place);
    for (way, [from, to]) in [
        [&exchange.near, &exchange.far],
        [&exchange.far, &exchange.near],
    ]
    .into_iter()
    .enumerate()
    {
        let before = bed.packets(place)[way];
        stream(from, to, TOTAL);
        let packets = bed.packets(place)[way] - before;
        // Super-frames of 64 KiB at most; what comes first is the workers'.
        let least = TOTAL as u64 / 65_536 / 2;
        assert!(packets > least, "{place:?}, way {way}: {packets}");
    }
    for node in &bed.nodes {
        assert_eq!(count(node, Event::Failed), 0, "{place:?}");
        assert_eq!(count(node, Event::OtherNode), 0, "{place:?}");
    }
    drop(exchange);
    bed.settle();
}

fn bulk_in_family(like: IpAddr) {
    let mut bed = Bed::new(like);
    for place in PLACES {
        bed.lead_to(Some(place));
        bulk(&bed, place);
    }
    // The way to the client cuts nothing: it gets what leaves the host as packets of their own.
    let is_plain = bed.nodes[0].ns.run_in(|| {
        set_features("out0", &FEATURES).expect("switched");
        FEATURES.iter().all(|(feature, on)| {
            let has = has_feature("out0", feature).expect("asked");
            has == *on
        })
    });
    assert!(is_plain.expect("a thread"), "this kernel's veth is no NIC");
    for place in PLACES {
        bed.lead_to(Some(place));
        bulk(&bed, place);
    }
}

#[test]
fn bulk_through_a_published_port_is_carried_both_ways() {
    bulk_in_family(VIP);
}

#[test]
fn bulk_through_a_published_port_is_carried_in_ipv6_too() {
    bulk_in_family(VIP6);
}

#[test]
fn other_tables_send_it_to_the_workers_and_back_to_the_kernel() {
    let mut bed = Bed::new(VIP);
    for place in PLACES {
        bed.lead_to(Some(place));
        let mut exchange = bed.open(place);
        exchange.times(30);
        let before = bed.packets(place);
        exchange.times(30);
        for (before, after) in before.into_iter().zip(bed.packets(place)) {
            assert!(after >= before + 30, "{place:?}: {before} {after}");
        }
        // Its first packet finds it stale: what is lost on the way is sent again.
        for _ in 0..5 {
            bed.lead_to(Some(place));
            let before = bed.packets(place);
            exchange.times(30);
            let after = bed.packets(place);
            assert!(after > before, "{place:?}: it is carried again");
        }
        assert!(count(&bed.nodes[0], Event::Stale) > 0, "{place:?}");
        drop(exchange);
        bed.settle();
    }
}

#[test]
fn without_the_second_ports_device_the_workers_have_all_of_it() {
    let mut bed = Bed::new(VIP);
    bed.nodes[0].plane.set_decapsulation(false);
    bed.lead_to(Some(Place::Far));
    let mut exchange = bed.open(Place::Far);
    exchange.times(30);
    let [a, _] = &bed.nodes;
    let counts = || [Event::Out, Event::In].map(|event| count(a, event));
    let before = counts();
    exchange.times(30);
    assert_eq!(counts(), before);
    assert_eq!(carried(a), 0);
}

#[test]
fn both_ends_of_a_published_connection_are_reset_when_the_replica_is_gone() {
    let mut bed = Bed::new(VIP);
    for place in PLACES {
        bed.lead_to(Some(place));
        let mut exchange = bed.open(place);
        exchange.times(30);
        // More than makes a difference: resets need the numbers that the kernel saw last.
        stream(&exchange.near, &exchange.far, 1 << 26);
        exchange.times(1);
        assert!(carried(&bed.nodes[0]) > 0, "{place:?}");
        bed.lead_to(None);
        expect_reset(&exchange.near);
        bed.settle();
        let (rows, complete) = bed.nodes[0].plane.flows().collect(100, |_| true);
        assert!(complete);
        let mut rows = rows.iter();
        assert!(rows.all(|row| row.state != FlowState::Established));
    }
}
