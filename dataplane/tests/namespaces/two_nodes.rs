//! Two data planes joined by a veth, real sandboxes behind them, traffic by the kernel's own
//! sockets.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::common::{VIP, nodes, ping, publish, sandbox, transfer};
use weft_sys::netlink::Netlink;
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
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while drops.get(DropReason::SpoofedIp) == 0 {
        assert!(
            std::time::Instant::now() < deadline,
            "{:?}",
            drops.iter().collect::<Vec<_>>()
        );
        std::thread::yield_now();
    }
}
