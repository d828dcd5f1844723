//! Exchanges of datagrams are carried by the kernel; streams of them, and those of which nothing comes
//! back, are not.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etherparse::PacketBuilder;
use weft_fastpath::Event;
use weft_sys::netlink::Netlink;
use weft_sys::tap::{Tap, TapConfig};
use weft_wire::{VnetHdr, vnet};

use super::shortcuts::{carried, count, eventually, fast_nodes, pair};
use crate::common::{Node, Sandbox, VIP6, inside, publish, sandbox, sandbox_at};

const LIMIT: Duration = Duration::from_secs(5);

/// Two sockets that ask and answer. The server's has no partner of its own.
pub(crate) struct Echo {
    pub(crate) near: UdpSocket,
    pub(crate) far: UdpSocket,
}

impl Echo {
    fn open(client: &Sandbox, server: &Sandbox) -> Self {
        Self::open_by(client, server, server.ip)
    }

    /// By an address that leads to the server.
    pub(crate) fn open_by(client: &Sandbox, server: &Sandbox, ip: IpAddr) -> Self {
        Self::open_at(client, (server, server.ip), ip)
    }

    /// With a server that is bound to `at`.
    fn open_at(client: &Sandbox, (server, at): (&Sandbox, IpAddr), ip: IpAddr) -> Self {
        let far = bind(server, SocketAddr::new(at, 0));
        let near = bind(client, SocketAddr::new(client.ip, 0));
        let port = far.local_addr().expect("an address").port();
        near.connect((ip, port)).expect("a way");
        Self { near, far }
    }

    pub(crate) fn times(&self, times: u8) {
        for i in 0..times {
            self.near.send(&[i; 64]).expect("a request");
            answer(&self.far, &[i; 64]);
            let mut got = [0; 100];
            let len = self.near.recv(&mut got).expect("an answer arrives");
            assert_eq!(got[..len], [!i; 64]);
        }
    }

    /// One more attempt; whether there was an answer.
    fn is_answered(&self, patience: Duration) -> bool {
        for socket in [&self.near, &self.far] {
            socket.set_read_timeout(Some(patience)).expect("a limit");
        }
        self.near.send(&[7; 64]).expect("a request");
        let mut got = [0; 100];
        let arrived = self.far.recv_from(&mut got);
        if let Ok((len, from)) = arrived {
            self.far.send_to(&got[..len], from).expect("an answer");
        }
        let is_answered = self.near.recv(&mut got).is_ok();
        for socket in [&self.near, &self.far] {
            socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        }
        is_answered
    }

    /// Forgets what has arrived.
    fn drain(&self) {
        for socket in [&self.near, &self.far] {
            let limit = Some(Duration::from_millis(100));
            socket.set_read_timeout(limit).expect("a limit");
            while socket.recv(&mut [0; 100]).is_ok() {}
            socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        }
    }
}

pub(crate) fn bind(sandbox: &Sandbox, at: SocketAddr) -> UdpSocket {
    let open = || UdpSocket::bind(at).expect("bind");
    let socket = sandbox.ns.run_in(open).expect("thread");
    socket.set_read_timeout(Some(LIMIT)).expect("a limit");
    socket
}

/// Answers the request, which has to be this one.
pub(crate) fn answer(server: &UdpSocket, request: &[u8]) {
    let mut got = [0; 100];
    let (len, from) = server.recv_from(&mut got).expect("a request arrives");
    assert_eq!(&got[..len], request);
    let answer: Vec<u8> = request.iter().map(|byte| !byte).collect();
    server.send_to(&answer, from).expect("an answer");
}

/// A firewall that names the device, as that of a router does.
pub(crate) fn refuse_second_device(sandbox: &Sandbox) {
    let rules = "add table t\n\
                 add chain t c { type filter hook input priority 0; }\n\
                 add rule t c iifname eth1 drop\n";
    let nft = || Command::new("nft").arg(rules).output().expect("nft");
    let said = sandbox.ns.run_in(nft).expect("thread");
    assert!(said.status.success(), "{said:?}");
}

/// Rounds of all workers.
fn rounds(node: &Node) -> u64 {
    let workers = node.plane.counters().iter();
    workers.map(|w| w.rounds.load(Ordering::Relaxed)).sum()
}

/// An exchange between the nodes enters, and the workers sleep from then on.
fn is_carried([a, b]: &[Node; 2], echo: &Echo) {
    echo.times(3);
    assert_eq!(carried(a) + carried(b), 0, "three requests are none");
    echo.times(20);
    assert_eq!((carried(a), carried(b)), (1, 1));
    let events = [Event::Out, Event::In];
    let before = events.map(|event| [count(a, event), count(b, event)]);
    let rounds_before = rounds(a);
    echo.times(100);
    let after = events.map(|event| [count(a, event), count(b, event)]);
    for (after, before) in after.as_flattened().iter().zip(before.as_flattened()) {
        assert!(*after >= before + 100, "{after} after {before}");
    }
    let slept = rounds(a) - rounds_before;
    assert!(slept < 50, "workers slept: {slept}");
    for node in [a, b] {
        assert_eq!(count(node, Event::Failed), 0);
    }
}

#[test]
fn an_exchange_of_datagrams_is_carried_by_the_kernel() {
    let (nodes, [client, server]) = pair();
    is_carried(&nodes, &Echo::open(&client, &server));
    let port = &client.port.counters;
    eventually("what was carried is counted", || {
        let frames = [&port.tx_frames, &port.rx_frames];
        frames.map(|frames| frames.load(Ordering::Relaxed) >= 123) == [true; 2]
    });
}

#[test]
fn a_server_of_all_addresses_answers_by_the_kernel() {
    let (nodes, [client, server]) = pair();
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let echo = Echo::open_at(&client, (&server, any), server.ip);
    is_carried(&nodes, &echo);
}

#[test]
fn an_exchange_is_carried_without_offloads_and_in_ipv6() {
    let like = [IpAddr::from([10, 0, 1, 0]), VIP6];
    for (ip, offload) in [(like[0], false), (like[1], true), (like[1], false)] {
        let nodes = fast_nodes();
        let [a, b] = &nodes;
        let at = |node: &Node, id: u8| {
            let ip = inside(ip, id);
            let worker = node.plane.worker_for(ip);
            sandbox_at(id.into(), ip, worker, offload, node.mtu)
        };
        let (client, server) = (at(a, 2), at(b, 3));
        publish(a, 1, &[&client], &[&server], b, &[]);
        publish(b, 1, &[&server], &[&client], a, &[]);
        is_carried(&nodes, &Echo::open(&client, &server));
    }
}

#[test]
fn two_sandboxes_of_one_node_exchange_datagrams_by_the_kernel() {
    for worker in [0, 1] {
        let ([a, b], [client, _server]) = pair();
        let other = sandbox(3, "10.0.1.4", worker, true);
        publish(&a, 2, &[&client, &other], &[], &b, &[]);
        let echo = Echo::open(&client, &other);
        echo.times(3);
        assert_eq!(carried(&a), 0, "three requests are none");
        echo.times(20);
        assert!(carried(&a) >= 2, "both directions");
        let before = count(&a, Event::Local);
        echo.times(100);
        let local = count(&a, Event::Local) - before;
        // One may meet the look of a worker.
        assert!(local >= 190, "{local}");
        assert_eq!(count(&a, Event::Failed), 0);
    }
}

#[test]
fn a_stream_of_datagrams_stays_with_the_workers() {
    let ([a, b], [client, server]) = pair();
    let counted = |node| count(node, Event::Out) + count(node, Event::In);
    let Echo { near, far } = Echo::open(&client, &server);
    for _ in 0..20_000 {
        near.send(&[1; 64]).expect("the kernel takes it");
    }
    far.recv(&mut [0; 100]).expect("some of them arrive");
    // One with an answer for sixteen.
    let Echo { near, far } = Echo::open(&client, &server);
    for _ in 0..200 {
        for i in 0..16 {
            near.send(&[i; 64]).expect("the kernel takes it");
        }
        for _ in 0..15 {
            far.recv(&mut [0; 100]).expect("it arrives");
        }
        answer(&far, &[15; 64]);
        near.recv(&mut [0; 100]).expect("the answer arrives");
    }
    for node in [&a, &b] {
        assert_eq!(carried(node), 0);
    }
    assert_eq!([&a, &b].map(counted), [0; 2]);
}

#[test]
fn an_exchange_that_becomes_a_stream_leaves_the_kernel() {
    let ([a, b], [client, server]) = pair();
    let echo = Echo::open(&client, &server);
    echo.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    eventually("both ends give it back", || {
        for _ in 0..50 {
            echo.near.send(&[1; 64]).expect("the kernel takes it");
        }
        carried(&a) + carried(&b) == 0
    });
    echo.drain();
    let before = [count(&a, Event::Out), count(&b, Event::In)];
    echo.times(50);
    let after = [count(&a, Event::Out), count(&b, Event::In)];
    assert_eq!(after, before, "and it is held back for a while");
}

#[test]
fn requests_that_do_not_arrive_go_back_to_the_workers() {
    let ([a, b], [client, server]) = pair();
    let echo = Echo::open(&client, &server);
    echo.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    refuse_second_device(&server);
    assert!(!echo.is_answered(Duration::from_millis(50)));
    eventually("a worker delivers it", || {
        echo.is_answered(Duration::from_millis(50))
    });
    let before = count(&b, Event::In);
    echo.drain();
    echo.times(50);
    assert_eq!(count(&b, Event::In), before, "and it stays there");
}

#[test]
fn answers_that_do_not_arrive_go_back_to_the_workers() {
    let ([a, b], [client, server]) = pair();
    let echo = Echo::open(&client, &server);
    echo.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    refuse_second_device(&client);
    // Both directions look well, but who is not answered asks again slowly.
    eventually("a worker delivers it", || {
        echo.is_answered(Duration::from_millis(700))
    });
    let before = count(&a, Event::In);
    echo.drain();
    echo.times(50);
    assert_eq!(count(&a, Event::In), before, "and it stays there");
}

#[test]
fn a_server_that_ends_is_reported_to_its_client() {
    let ([a, b], [client, server]) = pair();
    let echo = Echo::open(&client, &server);
    echo.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    let Echo { near, far } = echo;
    drop(far);
    near.send(&[1; 64]).expect("the kernel takes it");
    let error = near.recv(&mut [0; 100]).expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn what_leaves_in_fragments_passes_by_the_workers() {
    let ([a, b], [client, server]) = pair();
    let echo = Echo::open(&client, &server);
    echo.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    let before = count(&a, Event::Out);
    // In fragments.
    echo.near.send(&[5; 5000]).expect("the kernel takes it");
    let mut got = [0; 6000];
    assert_eq!(echo.far.recv(&mut got).expect("it arrives"), 5000);
    assert_eq!(got[..5000], [5; 5000]);
    assert_eq!(count(&a, Event::Out), before);
    echo.times(10);
    assert!(count(&a, Event::Out) >= before + 10);
}

/// A device of the sandbox's own, bridged to its second one: what is written there leaves by that as it
/// is, with whatever offload it asks for.
fn bridged(sandbox: &Sandbox) -> Tap {
    let make = || {
        let mut netlink = Netlink::open().expect("netlink");
        let tap = Tap::open(&TapConfig {
            persist: false,
            ..TapConfig::new("evil0")
        })
        .expect("tap");
        assert!(netlink.add_bridge("br0").expect("bridge"));
        for port in ["eth1", "evil0"] {
            netlink.set_master(port, Some("br0")).expect("a port");
            netlink.set_up(port, true).expect("up");
        }
        netlink.set_up("br0", true).expect("up");
        tap
    };
    sandbox.ns.run_in(make).expect("thread")
}

#[test]
fn a_frame_that_no_socket_has_made_is_not_carried() {
    let ([a, b], [client, server]) = pair();
    let echo = Echo::open(&client, &server);
    echo.times(30);
    assert_eq!((carried(&a), carried(&b)), (1, 1));
    let (IpAddr::V4(from), IpAddr::V4(to)) = (client.ip, server.ip) else {
        unreachable!("the harness has IPv4");
    };
    let port = |socket: &UdpSocket| socket.local_addr().expect("an address").port();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(from.octets(), to.octets(), 64)
        .udp(port(&echo.near), port(&echo.far));
    let mut frame = Vec::new();
    builder.write(&mut frame, b"in order").expect("in memory");
    let evil = bridged(&client);
    // As it is, and with a checksum to be completed over its own source address.
    let over_source = VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        csum_start: 28,
        csum_offset: 0,
        ..VnetHdr::NONE
    };
    for asked in [VnetHdr::NONE, over_source] {
        let before = [Event::NoSocket, Event::Out].map(|event| count(&a, event));
        let mut header = [0; VnetHdr::LEN];
        asked.emit(&mut header);
        eventually("it is seen", || {
            let written = evil.write(&[&header[..], &frame[..]].concat());
            assert!(written.is_ok(), "{written:?}");
            count(&a, Event::NoSocket) > before[0]
        });
        assert_eq!(count(&a, Event::Out), before[1], "{asked:?}");
    }
    let mut got = [0; 100];
    let limit = Some(Duration::from_millis(100));
    echo.far.set_read_timeout(limit).expect("a limit");
    assert!(echo.far.recv(&mut got).is_err(), "{got:?}");
}
