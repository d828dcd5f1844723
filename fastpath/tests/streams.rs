//! The programs in real namespaces: two nodes, each with a sandbox. What the programs do not carry
//! goes by a link that joins the two sandboxes, in place of the workers. Needs root; all namespaces
//! are anonymous and end with the test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant as Clock};

use weft_fastpath::{Event, FlowCache, FlowKey, InEntry, OutEntry, RecordPool, Scope, Way};
use weft_sys::clock::monotonic_nanos;
use weft_sys::netlink::{Netlink, Veth};
use weft_sys::netns::Netns;
use weft_wire::{FiveTuple, Instant, Mac, Vni};

const NETWORK: u32 = 3;
const LIMIT: Duration = Duration::from_secs(20);

/// One node and its sandbox.
struct Node {
    /// Lives as long as somebody holds it.
    _host: Netns,
    sandbox: Netns,
    cache: FlowCache,
    pool: RecordPool,
    underlay: u32,
    host_end: u32,
    second: u32,
    ip: Ipv4Addr,
    task: [IpAddr; 2],
}

fn vni() -> Vni {
    Vni::new(4097).unwrap()
}

fn set(netns: &Netns, name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    netns
        .run_in(|| std::fs::write(&path, value))
        .unwrap()
        .unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Two nodes; the sandboxes have addresses of both families.
fn nodes() -> [Node; 2] {
    let hosts = [(); 2].map(|()| Netns::create_anonymous().unwrap());
    let sandboxes = [(); 2].map(|()| Netns::create_anonymous().unwrap());
    let mut links = Netlink::open_in(&hosts[0]).unwrap();
    join(&mut links, "under0", ("under0", &hosts[1]), 1500);
    let mut links = Netlink::open_in(&sandboxes[0]).unwrap();
    join(&mut links, "eth0", ("eth0", &sandboxes[1]), 1450);
    let mut number = 0_u8;
    let [a, b] = hosts;
    let [c, d] = sandboxes;
    [(a, c), (b, d)].map(|(host, sandbox)| {
        number += 1;
        let ip = Ipv4Addr::new(192, 0, 2, number);
        let task: [IpAddr; 2] = [
            Ipv4Addr::new(10, 0, 0, number).into(),
            format!("fd00::{number}").parse().unwrap(),
        ];
        let mut links = Netlink::open_in(&host).unwrap();
        links
            .add_address("under0", format!("{ip}/24").parse().unwrap())
            .unwrap();
        join(&mut links, "host1", ("eth1", &sandbox), 1500);
        let mut inside = Netlink::open_in(&sandbox).unwrap();
        for (at, prefix) in task.into_iter().zip([24, 64]) {
            set(&sandbox, "ipv6/conf/eth0/accept_dad", "0");
            inside
                .add_address("eth0", format!("{at}/{prefix}").parse().unwrap())
                .unwrap();
        }
        // The loose filter refuses what comes by a device without an address.
        let at = format!("172.18.0.{number}/16").parse().unwrap();
        inside.add_address("eth1", at).unwrap();
        set(&sandbox, "ipv4/conf/eth1/rp_filter", "2");
        let cache = FlowCache::load().unwrap();
        cache.attach_underlay(&mut links, "under0").unwrap();
        cache
            .attach_sandbox(number.into(), (&mut inside, "eth0"), (&mut links, "host1"))
            .unwrap();
        let pool = RecordPool::new(0..16);
        Node {
            underlay: links.link_index("under0").unwrap(),
            host_end: links.link_index("host1").unwrap(),
            second: inside.link_index("eth1").unwrap(),
            _host: host,
            sandbox,
            cache,
            pool,
            ip,
            task,
        }
    })
}

fn join(links: &mut Netlink, name: &str, peer: (&str, &Netns), mtu: u32) {
    links
        .add_veth(&Veth {
            name,
            peer: peer.0,
            peer_netns: Some(peer.1),
            peer_mac: None,
            mtu: Some(mtu),
        })
        .unwrap();
    links.set_up(name, true).unwrap();
    let mut other = Netlink::open_in(peer.1).unwrap();
    other.set_up(peer.0, true).unwrap();
}

impl Node {
    /// Enters both directions of a flow that `flow` says as this node's sandbox sends it.
    fn enter(&mut self, number: u16, flow: FiveTuple, other: Ipv4Addr) -> weft_fastpath::RecordId {
        let record = self.pool.open(&self.cache.records).unwrap();
        let mut installer = self.cache.installer().unwrap();
        let scope = Scope::Out(number);
        let epoch = self.cache.epochs.get(NETWORK) + 1;
        let way = Way::Remote {
            device: self.underlay,
            next_hop: other,
            from: SocketAddrV4::new(self.ip, 50_000),
            to: SocketAddrV4::new(other, 4789),
            vni: vni(),
            dst_mac: Mac([2, 0, 0, 0, 0, 1]),
            src_mac: Mac([2, 0, 0, 0, 0, 2]),
            dscp: weft_wire::ecn::Dscp::Fixed(0),
        };
        let out = OutEntry {
            record,
            network: NETWORK,
            epoch,
            second: self.second,
            largest: 1450,
            way,
        };
        installer.put_out(FlowKey { scope, flow }, out).unwrap();
        let inward = InEntry {
            record,
            network: NETWORK,
            epoch,
            device: self.host_end,
            from: other,
            to: SocketAddrV4::new(self.ip, 4789),
        };
        let key = FlowKey {
            scope: Scope::In(vni()),
            flow: flow.reversed(),
        };
        installer.put_in(key, inward).unwrap();
        record
    }

    fn count(&self, event: Event) -> u64 {
        self.cache.events().unwrap().get(event)
    }
}

fn tuple(from: SocketAddr, to: SocketAddr) -> FiveTuple {
    FiveTuple {
        src: from.ip(),
        dst: to.ip(),
        sport: from.port(),
        dport: to.port(),
        proto: 6,
    }
}

/// An open connection from the first sandbox to the second.
fn connect(nodes: &[Node; 2], family: usize) -> [TcpStream; 2] {
    let at = SocketAddr::new(nodes[1].task[family], 0);
    let listener = nodes[1]
        .sandbox
        .run_in(|| TcpListener::bind(at))
        .unwrap()
        .unwrap();
    let to = listener.local_addr().unwrap();
    let near = nodes[0].sandbox.run_in(|| {
        let limit = Clock::now() + LIMIT;
        loop {
            match TcpStream::connect_timeout(&to, Duration::from_secs(1)) {
                Ok(stream) => return stream,
                Err(error) => assert!(Clock::now() < limit, "{error}"),
            }
        }
    });
    let near = near.unwrap();
    let (far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
    }
    [near, far]
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut word = seed | 1;
    (0..len)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            (word >> 32) as u8
        })
        .collect()
}

/// Sends `len` bytes in each direction at once; they arrive as they were sent.
fn exchange(streams: &[TcpStream; 2], len: usize) {
    let sent = [pattern(len, 1), pattern(len, 2)];
    thread::scope(|scope| {
        for (mut stream, bytes) in streams.iter().zip(&sent) {
            scope.spawn(move || stream.write_all(bytes).unwrap());
        }
        for (mut stream, bytes) in streams.iter().zip(sent.iter().rev()) {
            scope.spawn(move || {
                let mut got = vec![0; len];
                stream.read_exact(&mut got).unwrap();
                assert!(got == *bytes, "the bytes are others");
            });
        }
    });
}

#[test]
fn a_stream_goes_by_the_programs_and_arrives_whole() {
    let mut nodes = nodes();
    for family in [0, 1] {
        let streams = connect(&nodes, family);
        exchange(&streams, 100_000);
        let before = nodes.each_ref().map(|node| node.cache.events().unwrap());
        let [near, far] = streams.each_ref().map(|s| s.local_addr().unwrap());
        let others = [nodes[1].ip, nodes[0].ip];
        let flows = [tuple(near, far), tuple(far, near)];
        let mut records = Vec::new();
        for (i, node) in nodes.iter_mut().enumerate() {
            node.cache.heartbeat.beat(Instant(monotonic_nanos()));
            records.push(node.enter(i as u16 + 1, flows[i], others[i]));
        }
        // Stale entries carry nothing, but see whose flow it is.
        exchange(&streams, 100_000);
        for (i, node) in nodes.iter().enumerate() {
            assert_eq!(node.count(Event::Out), before[i].get(Event::Out));
            assert!(node.count(Event::Stale) > before[i].get(Event::Stale));
            node.cache
                .epochs
                .set(NETWORK, node.cache.epochs.get(NETWORK) + 1);
        }
        exchange(&streams, 30_000_000);
        for (i, node) in nodes.iter().enumerate() {
            for event in [Event::Out, Event::In] {
                let count = node.count(event) - before[i].get(event);
                assert!(count > 100, "node {i}, family {family}: {event:?} {count}");
            }
            let record = node.cache.records.read(records[i]);
            assert!(record.traffic.out_bytes > 20_000_000, "{record:?}");
            assert!(record.traffic.in_bytes > 20_000_000, "{record:?}");
            assert_eq!(node.count(Event::Failed), 0);
        }
    }
}
