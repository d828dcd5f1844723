//! A port whose kernel takes nothing: the drop is the receiver's, whichever way the frame came.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use weft_sys::netlink::Netlink;
use weft_wire::DropReason::{self, Multicast, TapFull};

use crate::common::{Sandbox, VIP, nodes, publish, sandbox};

/// But for what its kernel says to groups by itself, whenever it likes.
fn drops(sandbox: &Sandbox) -> Vec<(DropReason, u64)> {
    let all = sandbox.port.counters.drops.iter();
    all.filter(|(reason, _)| *reason != Multicast).collect()
}

#[test]
fn what_a_port_does_not_take_counts_there_by_every_way() {
    let [a, b] = nodes(1);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let deaf = sandbox(2, "10.0.1.3", 0, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    publish(&a, 1, &[&client, &deaf], &[&far], &b, &[&deaf]);
    publish(&b, 1, &[&far], &[&client, &deaf], &a, &[]);
    Netlink::open_in(&deaf.ns)
        .expect("netlink")
        .set_up("eth0", false)
        .expect("down");
    let mut expected = drops(&deaf);
    let before = [drops(&client), drops(&far)];
    let ways: [(&str, &Sandbox, IpAddr); 3] = [
        ("from a neighbour", &client, deaf.ip),
        ("from another node", &far, deaf.ip),
        ("through a service", &client, VIP),
    ];
    for (what, from, to) in ways {
        let send = || {
            let socket = UdpSocket::bind((from.ip, 0)).expect("bind");
            socket.send_to(b"x", (to, 9)).expect("send");
        };
        from.ns.run_in(send).expect("thread");
        match expected.iter_mut().find(|(reason, _)| *reason == TapFull) {
            Some((_, count)) => *count += 1,
            None => expected.push((TapFull, 1)),
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while drops(&deaf) != expected {
            assert!(Instant::now() < deadline, "{what}: {:?}", drops(&deaf));
            std::thread::yield_now();
        }
    }
    assert_eq!([drops(&client), drops(&far)], before);
    for worker in a.plane.counters() {
        assert_eq!(worker.underlay.get(TapFull), 0);
    }
}
