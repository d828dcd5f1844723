//! What the other tests do over IPv4, with IPv6 inside, outside, and both: streams, datagrams, pings,
//! virtual addresses, refusals.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::common::{
    Node, Sandbox, Underlay, VIP, VIP6, echo, gateway, inside, nodes_on, ping, publish, sandbox_at,
    transfer,
};

/// Sandbox `host` on `node`, in the family of `like`.
fn guest(node: &Node, like: IpAddr, host: u8, offload: bool) -> Sandbox {
    let ip = inside(like, host);
    let worker = node.plane.worker_for(ip);
    sandbox_at(host.into(), ip, worker, offload, node.mtu)
}

fn nothing_was_dropped(nodes: &[&Node]) {
    for node in nodes {
        for worker in node.plane.counters() {
            let drops: Vec<_> = worker.underlay.iter().collect();
            assert!(drops.is_empty(), "{drops:?}");
        }
    }
}

fn across(underlay: Underlay, like: IpAddr, offload: bool) {
    const TOTAL: usize = 1 << 27;
    let [a, b] = nodes_on(underlay, 2);
    let client = guest(&a, like, 2, offload);
    let server = guest(&b, like, 3, offload);
    publish(&a, 1, &[&client], &[&server], &b, &[]);
    publish(&b, 1, &[&server], &[&client], &a, &[]);
    ping(&client, &server);
    assert!(echo(&client.ns, server.ip), "the other sandbox");
    assert!(echo(&client.ns, gateway(like)), "the gateway");
    transfer(&client, &server, SocketAddr::new(server.ip, 80), TOTAL);
    transfer(&server, &client, SocketAddr::new(client.ip, 80), TOTAL / 4);
    nothing_was_dropped(&[&a, &b]);
}

#[test]
fn ipv6_inside_ipv4_arrives_intact() {
    across(Underlay::V4, VIP6, true);
}

#[test]
fn ipv4_inside_ipv6_arrives_intact() {
    across(Underlay::V6, VIP, true);
}

#[test]
fn ipv6_inside_ipv6_arrives_intact() {
    across(Underlay::V6, VIP6, true);
}

#[test]
fn ipv6_inside_ipv6_arrives_intact_without_offloads() {
    across(Underlay::V6, VIP6, false);
}

#[test]
fn a_virtual_address_of_ipv6_leads_to_local_and_remote_replicas() {
    let [a, b] = nodes_on(Underlay::V6, 2);
    let client = guest(&a, VIP6, 2, true);
    let near = guest(&a, VIP6, 3, true);
    let far = guest(&b, VIP6, 4, true);
    let vip = SocketAddr::new(VIP6, 80);
    publish(&b, 1, &[&far], &[&client, &near], &a, &[]);
    for (epoch, replica) in [(1, &near), (2, &far), (3, &near)] {
        publish(&a, epoch, &[&client, &near], &[&far], &b, &[replica]);
        for _ in 0..20 {
            transfer(&client, replica, vip, 100_000);
        }
        transfer(&client, replica, vip, 1 << 25);
        datagrams(&client, replica);
    }
    assert!(echo(&client.ns, VIP6), "the virtual address answers pings");
    // A replica that is chosen for its own request.
    publish(&a, 4, &[&client, &near], &[&far], &b, &[&near]);
    transfer(&near, &near, vip, 1 << 22);
}

/// One datagram to the virtual address and back from there, several times.
fn datagrams(client: &Sandbox, replica: &Sandbox) {
    let bind = |s: &Sandbox, port| {
        let socket =
            s.ns.run_in(|| UdpSocket::bind((s.ip, port)).expect("bind"))
                .expect("thread");
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("timeout");
        socket
    };
    let (from, to) = (bind(client, 0), bind(replica, 7));
    let vip = SocketAddr::new(VIP6, 7);
    let mut buffer = [0; 2000];
    for size in [0, 1, 1000, 1382] {
        from.send_to(&vec![7; size], vip).expect("send");
        let (n, peer) = to.recv_from(&mut buffer).expect("request");
        assert_eq!((n, peer.ip()), (size, client.ip));
        to.send_to(&buffer[..n], peer).expect("answer");
        let (n, peer) = from.recv_from(&mut buffer).expect("answer arrives");
        assert_eq!((n, peer), (size, vip));
    }
}

/// The IPv6 address of a port with both families may be steered to another worker than the port's.
#[test]
fn a_client_whose_worker_is_not_the_one_of_its_ipv6_address_reaches_virtual_addresses() {
    let [a, b] = nodes_on(Underlay::V4, 2);
    let client_ip = inside(VIP6, 2);
    let other = 1 - a.plane.worker_for(client_ip);
    let client = sandbox_at(2, client_ip, other, true, a.mtu);
    let far = guest(&b, VIP6, 4, true);
    publish(&a, 1, &[&client], &[&far], &b, &[&far]);
    publish(&b, 1, &[&far], &[&client], &a, &[]);
    for _ in 0..10 {
        transfer(&client, &far, SocketAddr::new(VIP6, 80), 1 << 20);
    }
    datagrams(&client, &far);
    // And what is not the balancer's still goes straight through.
    transfer(&client, &far, SocketAddr::new(far.ip, 80), 1 << 22);
    ping(&client, &far);
}

#[test]
fn refusals_are_retried_and_end_in_icmpv6() {
    let [a, b] = nodes_on(Underlay::V6, 2);
    let client = guest(&a, VIP6, 2, true);
    let near = guest(&a, VIP6, 3, true);
    let far = guest(&b, VIP6, 4, true);
    publish(&b, 1, &[&far], &[&client, &near], &a, &[]);
    publish(&a, 1, &[&client, &near], &[&far], &b, &[&near, &far]);
    let vip = SocketAddr::new(VIP6, 80);
    for serving in [&near, &far] {
        for _ in 0..10 {
            transfer(&client, serving, vip, 10_000);
        }
    }
    let connect = || {
        client
            .ns
            .run_in(|| TcpStream::connect_timeout(&vip, Duration::from_secs(5)))
            .expect("thread")
            .expect_err("nobody listens")
            .kind()
    };
    assert_eq!(connect(), ErrorKind::ConnectionRefused);
    // Without a replica the data plane answers itself: a reset, and port unreachable for datagrams.
    publish(&a, 2, &[&client, &near], &[&far], &b, &[]);
    assert_eq!(connect(), ErrorKind::ConnectionRefused);
    let socket = client
        .ns
        .run_in(|| UdpSocket::bind((client.ip, 0)).expect("bind"))
        .expect("thread");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("timeout");
    socket.connect((VIP6, 7)).expect("a route");
    socket.send(b"anybody?").expect("send");
    let error = socket.recv(&mut [0; 10]).expect_err("nobody");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}
