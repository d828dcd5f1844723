//! Established flows are carried by the kernel, and by the workers again as soon as something about
//! them is another thing.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weft_dataplane::{CaptureFilter, Config, Dataplane};
use weft_fastpath::Event;

use super::datagram_shortcuts::refuse_second_device;
use crate::common::{Node, Sandbox, lead_underlay, nodes_with, publish, sandbox, transfer};

/// Two nodes with the kernel's flow cache.
pub(crate) fn fast_nodes() -> [Node; 2] {
    let nodes = nodes_with(2, |config| {
        Dataplane::start(&Config {
            fast_path: true,
            ..config.clone()
        })
    });
    for node in &nodes {
        lead_underlay(node);
    }
    nodes
}

/// Two nodes with the kernel's flow cache, and a sandbox on each.
pub(crate) fn pair() -> ([Node; 2], [Sandbox; 2]) {
    let nodes = fast_nodes();
    let [a, b] = &nodes;
    let at = |host| IpAddr::from([10, 0, 1, host]);
    let client = sandbox(1, "10.0.1.2", a.plane.worker_for(at(2)), true);
    let server = sandbox(2, "10.0.1.3", b.plane.worker_for(at(3)), true);
    tables(&nodes, &client, &server, 1);
    (nodes, [client, server])
}

fn tables([a, b]: &[Node; 2], client: &Sandbox, server: &Sandbox, epoch: u64) {
    publish(a, epoch, &[client], &[server], b, &[]);
    publish(b, epoch, &[server], &[client], a, &[]);
}

pub(crate) fn count(node: &Node, event: Event) -> u64 {
    let cache = node.plane.flow_cache().expect("a flow cache");
    cache.events().expect("counters").get(event)
}

/// Flows that the kernel carries for a node.
pub(crate) fn carried(node: &Node) -> u64 {
    let workers = node.plane.counters().iter();
    workers.map(|w| w.shortcuts.load(Ordering::Relaxed)).sum()
}

pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection between two sandboxes, by which small messages go there and back.
pub(crate) struct Exchange {
    pub(crate) near: TcpStream,
    pub(crate) far: TcpStream,
}

impl Exchange {
    fn open(client: &Sandbox, server: &Sandbox) -> Self {
        Self::open_by(client, server, server.ip)
    }

    /// By an address that leads to the server.
    pub(crate) fn open_by(client: &Sandbox, server: &Sandbox, ip: IpAddr) -> Self {
        let at = SocketAddr::new(server.ip, 0);
        let listen = || TcpListener::bind(at).expect("bind");
        let listener = server.ns.run_in(listen).expect("thread");
        let port = listener.local_addr().expect("an address").port();
        let to = SocketAddr::new(ip, port);
        let limit = Duration::from_secs(5);
        let connect = || TcpStream::connect_timeout(&to, limit).expect("connect");
        let near = client.ns.run_in(connect).expect("thread");
        let (far, _) = listener.accept().expect("accept");
        for stream in [&near, &far] {
            stream.set_nodelay(true).expect("no delay");
            stream.set_read_timeout(Some(limit)).expect("a limit");
        }
        Self { near, far }
    }

    pub(crate) fn times(&mut self, times: u8) {
        let mut got = [0; 64];
        for i in 0..times {
            self.near.write_all(&[i; 64]).expect("a request");
            self.far.read_exact(&mut got).expect("it arrives");
            assert_eq!(got, [i; 64]);
            self.far.write_all(&[!i; 64]).expect("an answer");
            self.near.read_exact(&mut got).expect("it arrives");
            assert_eq!(got, [!i; 64]);
        }
    }
}

#[test]
fn bulk_is_carried_by_the_kernel_and_counted_for_its_port() {
    const TOTAL: usize = 1 << 28;
    let ([a, b], [client, server]) = pair();
    transfer(&client, &server, SocketAddr::new(server.ip, 80), TOTAL);
    transfer(&server, &client, SocketAddr::new(client.ip, 80), TOTAL);
    for node in [&a, &b] {
        for event in [Event::Out, Event::In] {
            let count = count(node, event);
            assert!(count > 2_000, "{event:?}: {count}");
        }
        assert_eq!(count(node, Event::Failed), 0);
        eventually("flows that are over leave nothing", || carried(node) == 0);
    }
    for sandbox in [&client, &server] {
        let counters = &sandbox.port.counters;
        for bytes in [&counters.tx_bytes, &counters.rx_bytes] {
            let bytes = bytes.load(Ordering::Relaxed) as usize;
            assert!((TOTAL..TOTAL + TOTAL / 8).contains(&bytes), "{bytes}");
        }
    }
}

#[test]
fn a_kept_connection_is_carried_by_the_kernel() {
    let ([a, b], [client, server]) = pair();
    let mut exchange = Exchange::open(&client, &server);
    exchange.times(3);
    assert_eq!(carried(&a) + carried(&b), 0, "three requests are none");
    exchange.times(20);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    let before = [Event::Out, Event::In].map(|event| count(&a, event));
    let rounds = a.plane.counters().iter();
    let rounds: u64 = rounds.map(|w| w.rounds.load(Ordering::Relaxed)).sum();
    exchange.times(100);
    for (event, before) in [Event::Out, Event::In].into_iter().zip(before) {
        assert!(count(&a, event) >= before + 100, "{event:?}");
    }
    let after = a.plane.counters().iter();
    let after: u64 = after.map(|w| w.rounds.load(Ordering::Relaxed)).sum();
    assert!(after - rounds < 50, "workers slept: {}", after - rounds);
}

#[test]
fn other_tables_hold_for_the_next_packet() {
    let (nodes, [client, server]) = pair();
    let [a, b] = &nodes;
    let mut exchange = Exchange::open(&client, &server);
    exchange.times(30);
    assert_eq!((carried(a), carried(b)), (1, 1));
    // The same places, but by tables of another epoch: the flow is looked at again.
    for epoch in 2..20 {
        let before = count(a, Event::Out);
        tables(&nodes, &client, &server, epoch);
        exchange.times(30);
        assert!(count(a, Event::Out) > before, "it is carried again");
    }
    assert!(count(a, Event::Stale) > 0);
    // The server is nowhere: nothing reaches it any more.
    publish(a, 20, &[&client], &[], b, &[]);
    let before = [count(a, Event::Out), count(b, Event::In)];
    exchange
        .near
        .write_all(&[1; 64])
        .expect("the kernel takes it");
    let limit = Some(Duration::from_millis(300));
    exchange.far.set_read_timeout(limit).expect("a limit");
    exchange.far.read(&mut [0; 64]).expect_err("it is dropped");
    assert_eq!([count(a, Event::Out), count(b, Event::In)], before);
    let drops = client.port.counters.drops.iter().map(|(_, n)| n);
    assert!(drops.sum::<u64>() > 0, "and counted");
    // And there again: the same connection goes on.
    publish(a, 21, &[&client], &[&server], b, &[]);
    let limit = Some(Duration::from_secs(5));
    exchange.far.set_read_timeout(limit).expect("a limit");
    exchange
        .far
        .read_exact(&mut [0; 64])
        .expect("it is sent again");
    exchange.times(10);
}

#[test]
fn two_sandboxes_of_one_node_are_joined_by_the_kernel() {
    let ([a, b], [client, _server]) = pair();
    let other = sandbox(3, "10.0.1.4", 1, true);
    publish(&a, 2, &[&client, &other], &[], &b, &[]);
    transfer(&client, &other, SocketAddr::new(other.ip, 80), 1 << 28);
    let local = count(&a, Event::Local);
    assert!(local > 1_000, "{local}");
    assert_eq!(count(&a, Event::Failed), 0);
    eventually("flows that are over leave nothing", || carried(&a) == 0);
    let bytes = other.port.counters.rx_bytes.load(Ordering::Relaxed);
    assert!(bytes > 1 << 28, "{bytes}");
}

#[test]
fn a_capture_sees_every_frame() {
    let ([a, _b], [client, server]) = pair();
    let mut exchange = Exchange::open(&client, &server);
    exchange.times(30);
    assert_eq!(carried(&a), 1);
    let before = count(&a, Event::Out);
    let capture = a.plane.capture(CaptureFilter::default()).expect("free");
    exchange.times(10);
    let mut frames = 0;
    eventually("every frame is there", || {
        capture.read(Duration::from_millis(50), |_| frames += 1);
        frames >= 20
    });
    assert_eq!(count(&a, Event::Out), before);
    drop(capture);
    exchange.times(10);
    assert!(
        count(&a, Event::Out) >= before + 10,
        "and the kernel goes on"
    );
}

#[test]
fn a_sandbox_that_loses_its_devices_is_served_by_the_workers() {
    let ([a, b], [client, server]) = pair();
    let mut exchange = Exchange::open(&client, &server);
    exchange.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    client.port.shortcut.store(None);
    eventually("its entries are deleted", || carried(&a) == 0);
    let counts = || [Event::Out, Event::In].map(|event| count(&a, event));
    let before = counts();
    exchange.times(30);
    assert_eq!(counts(), before, "none is made anew");
}

#[test]
fn a_flow_whose_packets_do_not_arrive_goes_back_to_the_workers() {
    let ([a, b], [client, server]) = pair();
    let mut exchange = Exchange::open(&client, &server);
    exchange.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    refuse_second_device(&server);
    // The client sends the next request again and again, which is nobody's news but its own.
    exchange.times(1);
    let before = [count(&a, Event::Out), count(&b, Event::In)];
    exchange.times(50);
    let after = [count(&a, Event::Out), count(&b, Event::In)];
    assert_eq!(after, before, "and it stays there");
    assert!(count(&a, Event::NoSocket) > 50);
}

#[test]
fn a_receiver_that_has_nothing_to_send_again_is_reached_by_its_worker_too() {
    let ([a, b], [client, server]) = pair();
    let mut exchange = Exchange::open(&client, &server);
    exchange.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    // By now the client has acknowledged the last answer, so the server is as silent as can be.
    std::thread::sleep(Duration::from_millis(500));
    refuse_second_device(&server);
    let before = [count(&a, Event::NoSocket), count(&b, Event::NoSocket)];
    exchange.times(1);
    exchange.times(20);
    let after = [count(&a, Event::NoSocket), count(&b, Event::NoSocket)];
    assert!(
        after[0] > before[0] && after[1] > before[1],
        "{before:?} {after:?}"
    );
}
