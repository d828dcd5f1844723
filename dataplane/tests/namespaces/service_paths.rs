//! What belongs to a flow besides its packets: errors, fragments, path MTU. The kernels of both
//! sandboxes judge: they believe only errors about what they sent, and reassemble only what fits.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use weft_sys::netlink::Netlink;
use weft_wire::DropReason;

use crate::common::{Sandbox, VIP, nodes, publish, sandbox, transfer};

const SERVICE: SocketAddr = SocketAddr::new(VIP, 53);

fn socket(sandbox: &Sandbox, port: u16) -> UdpSocket {
    let socket = sandbox
        .ns
        .run_in(|| UdpSocket::bind((sandbox.ip, port)).expect("bind"))
        .expect("thread");
    let timeout = Some(Duration::from_millis(200));
    socket.set_read_timeout(timeout).expect("timeout");
    socket
}

fn set_mtu(sandbox: &Sandbox, mtu: u32) {
    sandbox
        .ns
        .run_in(|| {
            let mut netlink = Netlink::open().expect("netlink");
            netlink.set_mtu("eth0", mtu).expect("mtu");
        })
        .expect("thread");
}

/// Tries until it works; the tables of a worker take effect at its next round.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
    }
}

/// Asks once, and answers with as much as was asked; none when something was lost.
fn exchange(client: &UdpSocket, server: &UdpSocket, question: &[u8]) -> Option<()> {
    match client.send(question) {
        // The kernel has learnt that it is too long: the next one goes in fragments.
        Err(error) if error.raw_os_error() == Some(90) => return None,
        sent => assert_eq!(sent.expect("send"), question.len()),
    }
    let mut buffer = vec![0; 65_536];
    let (len, from) = server.recv_from(&mut buffer).ok()?;
    assert_eq!(&buffer[..len], question);
    server.send_to(&buffer[..len], from).expect("answer");
    let len = client.recv(&mut buffer).ok()?;
    assert_eq!(&buffer[..len], question);
    Some(())
}

#[test]
fn a_closed_port_is_told_by_the_service() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let near = sandbox(2, "10.0.1.3", 1, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    publish(&b, 1, &[&far], &[&client, &near], &a, &[]);
    for (epoch, replica) in [(1, &near), (2, &far)] {
        publish(&a, epoch, &[&client, &near], &[&far], &b, &[replica]);
        // A new client port for each: a flow may outlive a change of tables by a round.
        until("a refusal", || {
            let socket = socket(&client, 0);
            socket.connect(SERVICE).expect("connect");
            socket.send(b"anybody?").expect("send");
            let error = socket.recv(&mut [0; 16]).expect_err("nobody listens");
            (error.kind() == ErrorKind::ConnectionRefused).then_some(())
        });
    }
}

#[test]
fn long_datagrams_cross_in_fragments_both_ways() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let near = sandbox(2, "10.0.1.3", 1, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    publish(&b, 1, &[&far], &[&client, &near], &a, &[]);
    let question: Vec<u8> = (0..20_000_u32).map(|i| (i * 7 / 3) as u8).collect();
    for (epoch, replica) in [(1, &near), (2, &far)] {
        publish(&a, epoch, &[&client, &near], &[&far], &b, &[replica]);
        let server = socket(replica, SERVICE.port());
        let asking = until("the first exchange", || {
            let asking = socket(&client, 0);
            asking.connect(SERVICE).expect("connect");
            exchange(&asking, &server, &question).map(|()| asking)
        });
        for len in [1, 1422, 1423, 8_000, 20_000] {
            for _ in 0..20 {
                let done = exchange(&asking, &server, &question[..len]);
                assert!(done.is_some(), "{len} bytes were lost");
            }
        }
    }
}

#[test]
fn a_client_learns_the_path_mtu_through_the_service() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    publish(&a, 1, &[&client], &[&far], &b, &[&far]);
    publish(&b, 1, &[&far], &[&client], &a, &[]);
    learns_the_path_mtu(&client, &far, SERVICE);
}

#[test]
fn a_client_learns_the_mtu_of_its_network_on_its_own_node_too() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let near = sandbox(2, "10.0.1.3", 1, true);
    publish(&a, 1, &[&client, &near], &[], &b, &[&near]);
    learns_the_path_mtu(&client, &near, SERVICE);
    // And without the service. What the kernel knows, it knows of each address.
    learns_the_path_mtu(&client, &near, SocketAddr::new(near.ip, SERVICE.port()));
}

fn learns_the_path_mtu(client: &Sandbox, replica: &Sandbox, to: SocketAddr) {
    // The interface believes in more than the network carries.
    set_mtu(client, 1500);
    let server = socket(replica, SERVICE.port());
    let asking = socket(client, 0);
    asking.connect(to).expect("connect");
    // Linux sends what fits its interface with DF set. The first is lost and answered with
    // "fragmentation needed"; once the kernel believes that, it sends fragments.
    let question = [0x5a; 1472];
    let drops = &client.port.counters.drops;
    let before = drops.get(DropReason::Oversized);
    until("the path MTU", || exchange(&asking, &server, &question));
    assert!(
        drops.get(DropReason::Oversized) > before,
        "nothing was too long"
    );
    let before = drops.get(DropReason::Oversized);
    assert!(exchange(&asking, &server, &question).is_some());
    assert_eq!(drops.get(DropReason::Oversized), before);
}

#[test]
fn connections_keep_to_the_networks_mtu_whatever_the_interfaces_believe() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    publish(&a, 1, &[&client], &[&far], &b, &[&far]);
    publish(&b, 1, &[&far], &[&client], &a, &[]);
    for end in [&client, &far] {
        set_mtu(end, 9000);
    }
    transfer(&client, &far, SocketAddr::new(VIP, 80), 1 << 24);
    for end in [&client, &far] {
        let drops: Vec<_> = end.port.counters.drops.iter().collect();
        let oversized = end.port.counters.drops.get(DropReason::Oversized);
        assert_eq!(oversized, 0, "{drops:?}");
    }
}
