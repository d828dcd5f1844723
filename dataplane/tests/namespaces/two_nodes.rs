//! Two data planes joined by a veth, real sandboxes behind them, traffic by the kernel's own
//! sockets.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::{VIP, VXLAN, nodes, nodes_by_themselves, ping, publish, sandbox, transfer};
use weft_dataplane::Dataplane;
use weft_sys::netlink::Netlink;
use weft_sys::udp::{RecvBatch, SendBatch, VxlanSocket};
use weft_wire::frame::{Frame, parse};
use weft_wire::rewrite::{Side, rewrite_endpoint, set_macs};
use weft_wire::{DropReason, mac_for_ip};

#[test]
fn a_gibibyte_arrives_intact_with_offloads() {
    across(true, 1 << 30);
}

#[test]
fn a_gibibyte_arrives_intact_without_offloads() {
    across(false, 1 << 30);
}

fn across(offload: bool, total: usize) {
    let [a, b] = nodes(2);
    let client = sandbox(
        1,
        "10.0.1.2",
        a.plane.worker_for("10.0.1.2".parse().expect("ip")),
        offload,
    );
    let server = sandbox(
        2,
        "10.0.1.3",
        b.plane.worker_for("10.0.1.3".parse().expect("ip")),
        offload,
    );
    publish(&a, 1, &[&client], &[&server], &b, &[]);
    publish(&b, 1, &[&server], &[&client], &a, &[]);
    ping(&client, &server);
    transfer(&client, &server, SocketAddr::new(server.ip, 80), total);
    transfer(&server, &client, SocketAddr::new(client.ip, 80), total / 16);
    for node in [&a, &b] {
        for worker in node.plane.counters() {
            let drops: Vec<_> = worker.underlay.iter().collect();
            assert!(drops.is_empty(), "{drops:?}");
        }
    }
}

#[test]
fn two_sandboxes_of_one_node() {
    let [a, b] = nodes(2);
    let x = sandbox(1, "10.0.1.2", 0, true);
    let y = sandbox(2, "10.0.1.3", 1, true);
    publish(&a, 1, &[&x, &y], &[], &b, &[]);
    ping(&x, &y);
    transfer(&x, &y, SocketAddr::new(y.ip, 80), 1 << 28);
}

#[test]
fn a_vip_leads_to_local_and_remote_replicas_whatever_worker_reads_them() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let near = sandbox(2, "10.0.1.3", 1, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    let vip = SocketAddr::new(VIP, 80);
    publish(&b, 1, &[&far], &[&client, &near], &a, &[]);
    for (epoch, replica) in [(1, &near), (2, &far), (3, &near)] {
        publish(&a, epoch, &[&client, &near], &[&far], &b, &[replica]);
        for _ in 0..20 {
            transfer(&client, replica, vip, 100_000);
        }
        transfer(&client, replica, vip, 1 << 26);
    }
}

#[test]
fn a_replica_reaches_itself_through_its_own_service() {
    let [a, b] = nodes(2);
    let only = sandbox(1, "10.0.1.3", 1, true);
    publish(&a, 1, &[&only], &[], &b, &[&only]);
    let vip = SocketAddr::new(VIP, 80);
    for total in [0, 1, 100_000, 1 << 24] {
        transfer(&only, &only, vip, total);
    }
}

#[test]
fn a_refused_connection_goes_to_the_next_replica_and_ends_refused_when_there_is_none() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let near = sandbox(2, "10.0.1.3", 1, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    publish(&b, 1, &[&far], &[&client, &near], &a, &[]);
    publish(&a, 1, &[&client, &near], &[&far], &b, &[&near, &far]);
    let vip = SocketAddr::new(VIP, 80);
    // Only one of the two listens; half of the first choices are refused.
    for serving in [&near, &far] {
        for _ in 0..10 {
            transfer(&client, serving, vip, 10_000);
        }
    }
    let error = client
        .ns
        .run_in(|| TcpStream::connect_timeout(&vip, Duration::from_secs(5)).expect_err("refused"))
        .expect("thread");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn foreign_senders_and_unknown_addresses_are_counted() {
    let [a, b] = nodes(1);
    let x = sandbox(1, "10.0.1.2", 0, true);
    publish(&a, 1, &[&x], &[], &b, &[]);
    x.ns.run_in(|| {
        let mut netlink = Netlink::open().expect("netlink");
        netlink
            .add_address("eth0", "10.0.1.77/32".parse().expect("net"))
            .expect("address");
        let spoof = UdpSocket::bind(("10.0.1.77", 0)).expect("bind");
        netlink
            .set_neighbour(
                "eth0",
                "10.0.1.1".parse().expect("ip"),
                mac_for_ip("10.0.1.1".parse().expect("ip")).0,
            )
            .expect("neighbour");
        spoof.send_to(b"x", "10.0.1.1:9").expect("send");
    })
    .expect("thread");
    let drops = &x.port.counters.drops;
    let deadline = Instant::now() + Duration::from_secs(5);
    while drops.get(DropReason::SpoofedIp) == 0 {
        assert!(
            Instant::now() < deadline,
            "{:?}",
            drops.iter().collect::<Vec<_>>()
        );
        std::thread::yield_now();
    }
}

#[test]
fn traffic_passes_where_the_kernel_does_not_segment() {
    let [a, b] = nodes_by_themselves(2, Dataplane::start_unsegmented);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let server = sandbox(2, "10.0.1.3", 1, true);
    publish(&a, 1, &[&client], &[&server], &b, &[]);
    publish(&b, 1, &[&server], &[&client], &a, &[]);
    ping(&client, &server);
    transfer(&client, &server, SocketAddr::new(server.ip, 80), 1 << 26);
    let workers = a.plane.counters();
    let sent: u64 = workers
        .iter()
        .map(|w| w.tx_datagrams.load(Ordering::Relaxed))
        .sum();
    assert!(
        sent > (1 << 26) / 1450,
        "{sent} messages, so some were trains"
    );
    assert!(a.plane.alive() && b.plane.alive());
}

/// GRO on a physical device merges datagrams that look alike outside, whatever is inside.
#[test]
fn a_reply_that_was_merged_with_another_workers_frame_reaches_its_flow() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let bystander = sandbox(2, "10.0.1.3", 1, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    publish(&a, 1, &[&client, &bystander], &[&far], &b, &[&far]);
    // The replica's node is this test.
    drop(b.plane);
    let node =
        b.ns.run_in(|| VxlanSocket::bind(SocketAddr::new(b.underlay, VXLAN)).expect("bind"))
            .expect("thread");
    let socket = client
        .ns
        .run_in(|| UdpSocket::bind((client.ip, 0)).expect("bind"))
        .expect("thread");
    let port = socket.local_addr().expect("address").port();
    let beside = bystander
        .ns
        .run_in(|| UdpSocket::bind((bystander.ip, port)).expect("bind"))
        .expect("thread");
    for s in [&socket, &beside] {
        s.set_read_timeout(Some(Duration::from_secs(5)))
            .expect("timeout");
    }
    let vip = SocketAddr::new(VIP, 7);
    let mut recv = RecvBatch::new(4);
    // Later ones may be the kernel's, which leaves the inner checksum to the receiver.
    let mut first = None;
    for round in 0..20 {
        socket.send_to(b"to and fro", vip).expect("send");
        let deadline = Instant::now() + Duration::from_secs(5);
        let request = loop {
            if recv.recv(&node).expect("receive") > 0 {
                let message = recv.message(0).expect("message");
                break recv.arena()[message.range].to_vec();
            }
            assert!(Instant::now() < deadline, "the request does not arrive");
            std::thread::yield_now();
        };
        let request = first.get_or_insert(request);
        let reply = swapped(request, client.ip);
        let other = swapped(request, bystander.ip);
        let mut batch = SendBatch::with_capacity(1, 2);
        batch.piece(0, 0..other.len());
        batch.piece(1, 0..reply.len());
        let to = SocketAddr::new(a.underlay, VXLAN);
        batch.push(to, Some(u16::try_from(other.len()).expect("short")));
        assert_eq!(batch.flush(&node, &[&other, &reply]).sent, 1);
        let mut buffer = [0; 100];
        let (n, from) = socket.recv_from(&mut buffer).expect("the reply arrives");
        assert_eq!(
            (&buffer[..n], from),
            (&b"to and fro"[..], vip),
            "round {round}"
        );
        let (n, from) = beside.recv_from(&mut buffer).expect("its own frame");
        assert_eq!((n, from), (10, SocketAddr::new(far.ip, 7)));
    }
}

/// The answer to an encapsulated datagram, sent to `ip`.
fn swapped(packet: &[u8], ip: std::net::IpAddr) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let frame = &mut packet[8..];
    let Frame::Ip(info) = parse(frame).expect("a frame") else {
        unreachable!("not an IP frame: {frame:?}");
    };
    assert!(rewrite_endpoint(
        frame,
        &info,
        Side::Source,
        info.dst,
        Some(info.dport),
        false
    ));
    assert!(rewrite_endpoint(
        frame,
        &info,
        Side::Destination,
        ip,
        Some(info.sport),
        false
    ));
    set_macs(frame, mac_for_ip(info.dst), mac_for_ip(ip));
    packet
}
