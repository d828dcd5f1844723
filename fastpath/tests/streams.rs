//! The programs in real namespaces: what goes by them, and what must not. What they do not carry
//! goes by a link that joins the two sandboxes, in place of the workers. Needs root; all namespaces
//! are anonymous and end with the test.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant as Clock};

use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use weft_fastpath::selftest::{Family, Partner};
use weft_fastpath::testing::{Bed, Connection, Patience, exchange, pattern, receive, send};
use weft_fastpath::{Event, EventCounts, FlowCache, Traffic};
use weft_sys::clock::monotonic_nanos;
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;
use weft_sys::offload::set_features;
use weft_wire::Instant;

const LIMIT: Duration = Duration::from_secs(20);

/// A few super-frames.
const FEW: usize = 100_000;
/// Hundreds of them.
const MANY: usize = 30_000_000;
/// Of a socket; the kernel takes up to twice as much.
const BUFFER: usize = 1_000_000;

/// The programs, with an agent that lives.
fn loaded() -> FlowCache {
    let cache = FlowCache::load().unwrap();
    cache.heartbeat.beat(Instant(monotonic_nanos()));
    cache
}

fn bed(cache: &FlowCache) -> Bed<'_> {
    let mut bed = Bed::new(cache).unwrap();
    bed.add_ipv6().unwrap();
    bed
}

fn patience() -> Patience {
    Patience::new(LIMIT, LIMIT * 3)
}

/// A connection whose sockets the programs have seen; its entries are stale yet.
fn seen<'a>(bed: &Bed<'a>, family: Family, partner: Partner) -> ([TcpStream; 2], Connection<'a>) {
    let streams = bed.connect(family, patience()).unwrap();
    let connection = bed.enter(&streams, partner).unwrap();
    exchange(&streams, FEW, patience()).unwrap();
    (streams, connection)
}

/// A connection between nodes that the programs carry.
fn carried<'a>(bed: &Bed<'a>) -> ([TcpStream; 2], Connection<'a>) {
    let (streams, connection) = seen(bed, Family::V4, Partner::OtherNode);
    connection.turn_valid();
    exchange(&streams, FEW, patience()).unwrap();
    (streams, connection)
}

fn count(cache: &FlowCache, event: Event) -> u64 {
    cache.events().unwrap().get(event)
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Clock::now() + LIMIT;
    while !is_so() {
        assert!(Clock::now() < end, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sends many bytes one way; `halfway` is called when half of them have arrived and the others have
/// not all been sent.
fn transfer([near, far]: &[TcpStream; 2], halfway: impl FnOnce()) {
    // Buffers would grow until they hold the other half.
    SockRef::from(near).set_send_buffer_size(BUFFER).unwrap();
    SockRef::from(far).set_recv_buffer_size(BUFFER).unwrap();
    let bytes = pattern(MANY, 3);
    let (first, rest) = bytes.split_at(MANY / 2);
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(near, &bytes, patience()));
        receive(far, first, patience()).unwrap();
        halfway();
        receive(far, rest, patience()).unwrap();
        sender.join().unwrap().unwrap();
    });
}

/// In the middle of a transfer that the programs carry, `end` makes entries stale: from then on all
/// goes by the slow link, and arrives.
fn goes_back_at_once(end: impl FnOnce(&FlowCache, &Connection<'_>)) {
    let cache = loaded();
    let bed = bed(&cache);
    let (streams, connection) = carried(&bed);
    let (before, stale) = (count(&cache, Event::Out), count(&cache, Event::Stale));
    let mut at_the_end = 0;
    transfer(&streams, || {
        end(&cache, &connection);
        at_the_end = count(&cache, Event::Out);
    });
    assert!(at_the_end > before + 100, "{before} {at_the_end}");
    // A program on each processor may have looked at the entry before.
    let late = count(&cache, Event::Out) - at_the_end;
    let processors = thread::available_parallelism().unwrap().get();
    assert!(late <= processors as u64, "{late} after the end");
    assert!(count(&cache, Event::Stale) > stale + 100);
    assert_eq!(count(&cache, Event::Failed), 0);
}

/// Packets that the programs have carried out of the first sandbox, when it owes its partner nothing.
fn settled([near, far]: &[TcpStream; 2], connection: &Connection<'_>) -> u64 {
    // Its acknowledgements go with the byte.
    send(near, &[7], patience()).unwrap();
    receive(far, &[7], patience()).unwrap();
    connection.records()[0].traffic.out_packets
}

fn is_ended(mut stream: &TcpStream) -> bool {
    stream.read(&mut [0]).unwrap() == 0
}

/// A packet in the middle of a connection, with a checksum that no receiver answers.
fn segment(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 64)
        .tcp(from.port(), to.port(), 1, 64_000)
        .ack(1)
        .write(&mut packet, b"forged")
        .unwrap();
    let last = packet.last_mut().unwrap();
    *last ^= 1;
    packet
}

/// Sends packets of any flow by a sandbox's second device, past its first one.
fn forge(sandbox: &Netns, flows: &[[SocketAddrV4; 2]]) {
    let hop = Ipv4Addr::new(172, 18, 0, 9);
    let mut links = Netlink::open_in(sandbox).unwrap();
    links
        .set_neighbour("eth1", hop.into(), [2, 0, 0, 0, 0, 9])
        .unwrap();
    let send = || {
        // IPPROTO_RAW: the packet has headers of its own.
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
        socket.bind_device(Some(b"eth1")).unwrap();
        for [from, to] in flows {
            let packet = segment(*from, *to);
            let sent = socket.send_to(&packet, &SocketAddrV4::new(hop, 0).into());
            assert_eq!(sent.unwrap(), packet.len());
        }
    };
    sandbox.run_in(send).unwrap();
}

/// Between nodes. The kernel takes IPv6 out of a tunnel from Linux 6.3 on: the tests of that have
/// names of their own, so that `cargo xtask kernels` can leave them out on older ones.
fn goes_by_the_programs(family: Family) {
    let cache = loaded();
    let bed = bed(&cache);
    let (streams, connection) = seen(&bed, family, Partner::OtherNode);
    // Stale entries carry nothing, but see whose flow it is.
    for record in connection.records() {
        assert_eq!((record.traffic, record.bound), (Traffic::default(), false));
    }
    let before = cache.events().unwrap();
    assert!(before.get(Event::Stale) > 0);
    connection.turn_valid();
    exchange(&streams, MANY, patience()).unwrap();
    is_carried_both_ways(&cache, &connection, &before);
}

/// Most of many bytes, and nothing was lost.
fn is_carried_both_ways(cache: &FlowCache, connection: &Connection<'_>, before: &EventCounts) {
    for event in [Event::Out, Event::In] {
        let count = count(cache, event) - before.get(event);
        assert!(count > 200, "{event:?} {count}");
    }
    for record in connection.records() {
        assert!(record.traffic.out_bytes > 20_000_000, "{record:?}");
        assert!(record.traffic.in_bytes > 20_000_000, "{record:?}");
    }
    assert_eq!(count(cache, Event::Failed), 0);
}

#[test]
fn a_stream_goes_by_the_programs_and_arrives_whole() {
    goes_by_the_programs(Family::V4);
}

#[test]
fn a_stream_goes_by_the_programs_and_arrives_whole_in_ipv6() {
    goes_by_the_programs(Family::V6);
}

#[test]
fn a_stream_within_a_node_goes_from_sandbox_to_sandbox() {
    let cache = loaded();
    let bed = bed(&cache);
    for family in [Family::V4, Family::V6] {
        let (streams, connection) = seen(&bed, family, Partner::SameNode);
        let before = count(&cache, Event::Local);
        connection.turn_valid();
        exchange(&streams, MANY, patience()).unwrap();
        assert!(count(&cache, Event::Local) > before + 200, "{family}");
        for record in connection.records() {
            assert!(record.traffic.out_bytes > 20_000_000, "{record:?}");
            assert_eq!(record.traffic.in_bytes, 0, "{record:?}");
        }
        assert_eq!(count(&cache, Event::Out), 0);
    }
}

/// The receiving kernel believes a checksum that a device is to complete. So here it is completed
/// before the address is another one, and then after that, and checked.
fn has_the_replicas_address(family: Family) {
    let cache = loaded();
    let bed = bed(&cache);
    for complete in ["nowhere", "eth1", "under0"] {
        for i in [0, 1] {
            let off = || set_features(complete, &[("tx-checksum-ip-generic", false)]).unwrap();
            match complete {
                "eth1" => bed.sandbox(i).run_in(off).unwrap(),
                "under0" => bed.node(i).run_in(off).unwrap(),
                _ => {}
            }
        }
        let streams = bed.connect(family, patience()).unwrap();
        let connection = bed.enter_rewritten(&streams).unwrap();
        exchange(&streams, FEW, patience()).unwrap();
        let before = cache.events().unwrap();
        connection.turn_valid();
        exchange(&streams, MANY, patience()).unwrap();
        is_carried_both_ways(&cache, &connection, &before);
        // What one has sent, the other one has acknowledged: the last of it in a moment.
        wait_until("both know how far they are", || {
            let [near, far] = connection.records().map(|record| record.sent.unwrap());
            (near.end, far.end) == (far.ack, near.ack)
        });
    }
}

#[test]
fn a_stream_to_a_service_has_its_replicas_address_on_the_way() {
    has_the_replicas_address(Family::V4);
}

#[test]
fn a_stream_to_a_service_has_its_replicas_address_on_the_way_in_ipv6() {
    has_the_replicas_address(Family::V6);
}

#[test]
fn a_socket_that_is_bound_to_a_device_stays_on_the_slow_link() {
    let cache = loaded();
    let bed = bed(&cache);
    let streams = bed.connect(Family::V4, patience()).unwrap();
    for stream in &streams {
        SockRef::from(stream).bind_device(Some(b"eth0")).unwrap();
    }
    let connection = bed.enter(&streams, Partner::OtherNode).unwrap();
    connection.turn_valid();
    exchange(&streams, MANY, patience()).unwrap();
    for record in connection.records() {
        assert_eq!((record.traffic, record.bound), (Traffic::default(), true));
    }
    assert!(count(&cache, Event::NoSocket) > 200);
}

#[test]
fn a_new_epoch_ends_the_fast_path_of_a_transfer_at_once() {
    goes_back_at_once(|_, connection| connection.turn_stale());
}

#[test]
fn a_heartbeat_that_stops_ends_the_fast_path_of_a_transfer_at_once() {
    goes_back_at_once(|cache, _| cache.heartbeat.stop());
}

#[test]
fn the_end_of_a_stream_goes_by_the_slow_link() {
    let cache = loaded();
    let bed = bed(&cache);
    let (streams, connection) = carried(&bed);
    let before = settled(&streams, &connection);
    let [near, far] = &streams;
    near.shutdown(Shutdown::Write).unwrap();
    assert!(is_ended(far));
    assert_eq!(connection.records()[0].traffic.out_packets, before);
    // What still comes the other way goes by the programs.
    let before = connection.records()[1].traffic.out_bytes;
    send(far, &pattern(FEW, 4), patience()).unwrap();
    receive(near, &pattern(FEW, 4), patience()).unwrap();
    assert!(connection.records()[1].traffic.out_bytes > before + FEW as u64);
    far.shutdown(Shutdown::Write).unwrap();
    assert!(is_ended(near));
}

#[test]
fn a_reset_goes_by_the_slow_link() {
    let cache = loaded();
    let bed = bed(&cache);
    let (streams, connection) = carried(&bed);
    let before = settled(&streams, &connection);
    let [near, mut far] = streams;
    SockRef::from(&near)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(near);
    let error = far.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(connection.records()[0].traffic.out_packets, before);
}

#[test]
fn what_a_sandbox_forges_into_its_second_device_is_not_forwarded() {
    let cache = loaded();
    let bed = bed(&cache);
    // Flows without a socket: nothing but forged packets is of them.
    let near = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 1000);
    let far = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 2000);
    let connection = bed.enter_flows([near.into(), far.into()], Partner::OtherNode);
    let connection = connection.unwrap();
    connection.turn_valid();
    let other_port = SocketAddrV4::new(*far.ip(), 2001);
    let other_ip = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 3), 1000);
    let forged = [
        [near, far],
        [other_port, near],
        [far, other_ip],
        [other_ip, near],
    ];
    // The last one is the sandbox's own: it shows that the others were seen.
    forge(bed.sandbox(1), &forged);
    forge(bed.sandbox(1), &[[far, near]]);
    wait_until("the own packet leaves", || count(&cache, Event::Out) > 0);
    let records = connection.records();
    assert_eq!(records.map(|record| record.traffic.out_packets), [0, 1]);
    // And the first sandbox may not speak for the second one.
    forge(bed.sandbox(0), &[[far, near], [near, far]]);
    wait_until("the own packet leaves", || count(&cache, Event::Out) > 1);
    let records = connection.records();
    assert_eq!(records.map(|record| record.traffic.out_packets), [1, 1]);
    assert_eq!(count(&cache, Event::Out), 2);
}
