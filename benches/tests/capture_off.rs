//! Workers allocate nothing for a packet while nobody captures, before and after somebody did.
//! Alone in its program: it counts the allocations of all threads.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_benches::allocations::{Counting, allocations_of_all};
use weft_dataplane::{
    CaptureFilter, Config, Dataplane, FlowEpochs, Port, PortCounters, Snapshot, TunnelOffload,
};
use weft_mesh::ServicesBuilder;
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;
use weft_sys::tap::{Tap, TapConfig};
use weft_vxlan::{NetworkEntry, SwitchBuilder};
use weft_wire::{PortId, Vni, mac_for_ip};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const VNI: Vni = Vni::new(4097).unwrap();

/// A port at 10.0.1.`last`, and a socket behind it.
fn sandbox(last: u8) -> (Arc<Port>, UdpSocket) {
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 1, last));
    let netns = Netns::create_anonymous().expect("a namespace");
    let made = netns.run_in(|| {
        let config = TapConfig {
            mac: Some(mac_for_ip(ip).0),
            mtu: Some(1450),
            persist: false,
            ..TapConfig::new("eth0")
        };
        let tap = Tap::open(&config).expect("a TAP");
        let mut links = Netlink::open().expect("netlink");
        let net = IpNet::new(ip, 24).expect("a prefix");
        links.add_address("eth0", net).expect("an address");
        let socket = UdpSocket::bind((ip, 7)).expect("a socket");
        let limit = Some(Duration::from_secs(5));
        socket.set_read_timeout(limit).expect("a limit");
        (tap, socket)
    });
    let (tap, socket) = made.expect("a thread");
    let port = Port {
        id: PortId(last.into()),
        name: format!("sandbox-{last}").into(),
        vni: VNI,
        mac: mac_for_ip(ip),
        ips: vec![ip],
        tap: Arc::new(tap),
        worker: 0,
        counters: Arc::new(PortCounters::default()),
        shortcut: Default::default(),
    };
    (Arc::new(port), socket)
}

#[test]
fn no_allocation_for_a_packet_unless_somebody_captures() {
    let node = Netns::create_anonymous().expect("a namespace");
    let plane = node.run_in(|| {
        let mut links = Netlink::open().expect("netlink");
        links.set_up("lo", true).expect("loopback");
        Dataplane::start(&Config {
            workers: 1,
            underlay: (Ipv4Addr::LOCALHOST, 4789).into(),
            flows: 100,
            udp_idle: Duration::from_secs(30),
            dscp: Default::default(),
            refused_interfaces: Vec::new(),
            spin: Duration::ZERO,
            journal: None,
            tunnel_offload: TunnelOffload::Off,
            fast_path: false,
            seed: 7,
        })
    });
    let plane = plane.expect("a thread").expect("a data plane");
    let [(a, client), (b, server)] = [sandbox(2), sandbox(3)];
    let mut switch = SwitchBuilder::new();
    switch.network(NetworkEntry {
        vni: VNI,
        mtu: 1450,
        gateways: vec![[10, 0, 1, 1].into()],
    });
    for port in [&a, &b] {
        switch.local(VNI, port.mac, &port.ips, port.id);
    }
    plane.publish(Arc::new(Snapshot {
        epoch: 1,
        switch: switch.build(),
        services: ServicesBuilder::new().build(),
        ports: [&a, &b]
            .map(|p| (p.id, Arc::clone(p)))
            .into_iter()
            .collect(),
        mesh: None,
        flow_epochs: FlowEpochs::default(),
    }));
    let to = server.local_addr().expect("an address");
    let exchange = |times: usize| {
        let mut buffer = [0; 2000];
        for _ in 0..times {
            client.send_to(&[7; 1000], to).expect("sent");
            let (len, from) = server.recv_from(&mut buffer).expect("it arrives");
            server.send_to(&buffer[..len], from).expect("sent back");
            client.recv_from(&mut buffer).expect("the answer arrives");
        }
    };
    // What is made once, at the first packets, does not count.
    exchange(100);
    assert_eq!(allocations_of_all(|| exchange(1000)), 0, "before a capture");

    let reader = plane
        .capture(CaptureFilter::default())
        .expect("nobody else");
    exchange(10);
    let mut seen = 0;
    while seen < 40 {
        // There and back, each out of a sandbox and into one.
        let new = reader.read(Duration::from_secs(5), |record| {
            assert!(record.bytes.len() >= 42, "{record:?}");
        });
        assert!(new > 0, "{seen} of 40 frames");
        seen += new;
    }
    assert_eq!(reader.lost(), 0);
    drop(reader);
    exchange(10);
    assert_eq!(allocations_of_all(|| exchange(1000)), 0, "after a capture");
}
