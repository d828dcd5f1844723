//! Super-frames that the kernel segments, tunnel and all.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use weft_dataplane::InjectError;
use weft_sys::netlink::Netlink;

use crate::common::{nodes, ping, publish, sandbox, transfer};

#[test]
fn super_frames_are_injected_where_the_kernel_knows_tunnels() {
    let [a, b] = nodes(2);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let server = sandbox(2, "10.0.1.3", 1, true);
    publish(&a, 1, &[&client], &[&server], &b, &[]);
    publish(&b, 1, &[&server], &[&client], &a, &[]);
    ping(&client, &server);
    transfer(&client, &server, SocketAddr::new(server.ip, 80), 1 << 28);
    let injected: u64 = a
        .plane
        .counters()
        .iter()
        .map(|c| c.injected.load(Ordering::Relaxed))
        .sum();
    match a.plane.injection() {
        // 256 MiB in frames of at most 64 KiB; slow start sends some smaller.
        None => assert!(injected > 1000, "{injected} super-frames injected"),
        // Before Linux 6.17; the transfer was segmented here.
        Some(InjectError::Unknown(_)) => assert_eq!(injected, 0),
        Some(other) => panic!("{other}"),
    }
}

#[test]
fn the_self_test_leaves_nothing_but_the_device() {
    let [a, _b] = nodes(1);
    let mut links = Netlink::open_in(&a.ns).expect("netlink");
    let names: Vec<String> = links
        .links()
        .expect("links")
        .into_iter()
        .map(|link| link.name)
        .filter(|name| name.starts_with("weftgso"))
        .collect();
    match a.plane.injection() {
        None => assert_eq!(names, ["weftgso0"]),
        Some(_) => assert!(names.is_empty(), "{names:?}"),
    }
    drop(a.plane);
    let left = links.link("weftgso0").expect("links");
    assert!(left.is_none(), "{left:?}");
}
