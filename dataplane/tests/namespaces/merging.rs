//! An underlay whose devices deliver packets of its MTU, as a NIC does: the kernel merges what flows
//! bring at a second port, and what it does not carry reaches the workers all the same.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weft_fastpath::Event;
use weft_sys::netlink::Netlink;
use weft_sys::offload::{has_feature, set_features};
use weft_wire::loopback::Loopback;

use super::shortcuts::{Exchange, carried, count, eventually, fast_nodes};
use crate::common::{Node, Sandbox, VXLAN, lead_underlay_to, publish, sandbox, transfer};

const MERGING: &str = "merge0";
pub(crate) const SECOND: u16 = 4790;

/// Bytes of a full segment on an underlay of 1500.
const SEGMENT: u64 = 1398;
const TOTAL: usize = 1 << 26;

/// Nothing is segmented by the device, and what arrives is merged.
const FEATURES: [(&str, bool); 8] = [
    ("tx-tcp-segmentation", false),
    ("tx-tcp-ecn-segmentation", false),
    ("tx-tcp-mangleid-segmentation", false),
    ("tx-tcp6-segmentation", false),
    ("tx-udp_tnl-segmentation", false),
    ("tx-udp_tnl-csum-segmentation", false),
    ("tx-udp-segmentation", false),
    ("rx-gro", true),
];

/// Gives a node the device at which its kernel merges, and the second port.
pub(crate) fn add_merging(node: &Node) {
    let cache = node.plane.flow_cache().expect("a flow cache");
    let mut links = Netlink::open_in(&node.ns).expect("netlink");
    links.add_vxlan_external(MERGING, SECOND).expect("made");
    links.set_arp(MERGING, false).expect("no ARP");
    cache.attach_sink(&mut links, MERGING).expect("closed");
    links.set_up(MERGING, true).expect("up");
    cache.second_port.open(at(node, SECOND), VXLAN);
    node.plane.set_decapsulation(true);
}

fn at(node: &Node, port: u16) -> SocketAddrV4 {
    let ip = node.underlay.to_string().parse();
    SocketAddrV4::new(ip.expect("an underlay of IPv4"), port)
}

/// Two such nodes, and a sandbox on each.
fn pair() -> ([Node; 2], [Sandbox; 2]) {
    let nodes = fast_nodes();
    for node in &nodes {
        let is_plain = node.ns.run_in(|| {
            set_features("up0", &FEATURES).expect("switched");
            FEATURES.iter().all(|(feature, on)| {
                let has = has_feature("up0", feature).expect("asked");
                has == *on
            })
        });
        assert!(is_plain.expect("a thread"), "this kernel's veth is no NIC");
        add_merging(node);
        lead_underlay_to(node, Some(SECOND));
    }
    let [a, b] = &nodes;
    let inside = |host| IpAddr::from([10, 0, 1, host]);
    let client = sandbox(1, "10.0.1.2", a.plane.worker_for(inside(2)), true);
    let server = sandbox(2, "10.0.1.3", b.plane.worker_for(inside(3)), true);
    publish(a, 1, &[&client], &[&server], b, &[]);
    publish(b, 1, &[&server], &[&client], a, &[]);
    (nodes, [client, server])
}

/// Datagrams that workers have read, of any size.
fn read_by_workers(node: &Node) -> u64 {
    let workers = node.plane.counters().iter();
    workers
        .map(|w| w.rx_datagrams.load(Ordering::Relaxed))
        .sum()
}

#[test]
fn bulk_is_merged_before_the_kernel_carries_it() {
    let ([a, b], [client, server]) = pair();
    transfer(&client, &server, SocketAddr::new(server.ip, 80), TOTAL);
    let segments = TOTAL as u64 / SEGMENT;
    let (merged, by_workers) = (count(&b, Event::In), read_by_workers(&b));
    // More than nothing: most of it is the kernel's.
    assert!(merged > TOTAL as u64 / 65_536 / 2, "{merged}");
    assert!(merged < segments / 4, "{merged} of {segments}");
    assert!(by_workers < segments / 4, "{by_workers} of {segments}");
    for node in [&a, &b] {
        assert_eq!(count(node, Event::Failed), 0);
        assert_eq!(count(node, Event::OtherNode), 0);
    }
    eventually("flows that are over leave nothing", || {
        carried(&a) + carried(&b) == 0
    });
}

#[test]
fn what_is_not_carried_goes_on_to_the_workers() {
    let ([a, b], [client, server]) = pair();
    let mut exchange = Exchange::open_by(&client, &server, server.ip);
    exchange.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    let before = [count(&a, Event::Out), count(&b, Event::In)];
    exchange.times(10);
    assert!(count(&b, Event::In) >= before[1] + 10);
    // The far node has no entries any more, and the near one goes on by its own.
    server.port.shortcut.store(None);
    eventually("its entries are deleted", || carried(&b) == 0);
    let before = [count(&a, Event::Out), count(&b, Event::In)];
    let read = read_by_workers(&b);
    exchange.times(30);
    assert!(count(&a, Event::Out) >= before[0] + 30);
    assert_eq!(count(&b, Event::In), before[1]);
    assert!(read_by_workers(&b) >= read + 30);
    // Super-frames, too, arrive whole.
    transfer(&client, &server, SocketAddr::new(server.ip, 80), TOTAL);
    assert!(count(&a, Event::Out) > before[0] + 30 + 500);
    assert_eq!(count(&b, Event::In), before[1]);
    assert_eq!(count(&b, Event::Failed), 0);
}

#[test]
fn a_question_to_the_second_port_is_answered_while_it_is_open() {
    let ([a, b], _sandboxes) = pair();
    eventually("tables are there", || {
        a.plane.is_settled() && b.plane.is_settled()
    });
    let said = Loopback {
        answer: false,
        number: 7,
        nonce: 0xabcd,
        short: false,
        tell: false,
        len: 64,
    };
    let ask = || {
        assert!(a.plane.send_loopback_to(at(&b, SECOND).into(), said));
        let end = Instant::now() + Duration::from_secs(1);
        loop {
            let heard = a.plane.receive_loopback();
            if heard.is_some() || Instant::now() > end {
                return heard.map(|heard| (heard.from, heard.said));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let answer = Some((b.underlay, said.answered()));
    assert_eq!(ask(), answer);
    let cache = b.plane.flow_cache().expect("a flow cache");
    cache.second_port.close();
    assert_eq!(ask(), None, "it is the other device's, and nobody's");
    // Of another node: what passes by is left alone.
    let other = Ipv4Addr::new(10, 77, 0, 9);
    cache
        .second_port
        .open(SocketAddrV4::new(other, SECOND), VXLAN);
    assert_eq!(ask(), None);
    cache.second_port.open(at(&b, SECOND), VXLAN);
    assert_eq!(ask(), answer);
}
