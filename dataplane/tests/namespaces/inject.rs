//! Super-frames that the kernel segments, tunnel and all.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use weft_dataplane::{Dataplane, InjectError};
use weft_sys::netlink::Netlink;

use crate::common::{nodes, nodes_by_themselves, ping, publish, sandbox, transfer};

/// What the self-test found.
fn verdict(plane: &Dataplane) -> Result<(), &InjectError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(verdict) = plane.injection() {
            return verdict;
        }
        assert!(Instant::now() < deadline, "the self-test does not end");
        std::thread::yield_now();
    }
}

#[test]
fn super_frames_are_injected_where_the_kernel_knows_tunnels() {
    let [a, b] = nodes_by_themselves(2, Dataplane::start);
    let client = sandbox(1, "10.0.1.2", 0, true);
    let server = sandbox(2, "10.0.1.3", 1, true);
    publish(&a, 1, &[&client], &[&server], &b, &[]);
    publish(&b, 1, &[&server], &[&client], &a, &[]);
    ping(&client, &server);
    let verdict = verdict(&a.plane);
    transfer(&client, &server, SocketAddr::new(server.ip, 80), 1 << 28);
    let injected = || -> u64 {
        let counters = a.plane.counters();
        let each = counters.iter().map(|c| c.injected.load(Ordering::Relaxed));
        each.sum()
    };
    let before = injected();
    match verdict {
        // 256 MiB in frames of at most 64 KiB; slow start sends some smaller.
        Ok(()) => assert!(before > 1000, "{before} super-frames injected"),
        // Before Linux 6.17; the transfer was segmented here.
        Err(InjectError::Unknown(_)) => assert_eq!(before, 0),
        Err(other) => panic!("{other}"),
    }
    // A device on the way leaves the segmentation of tunnels to the kernel.
    a.plane.segment_for([b.underlay]);
    transfer(&client, &server, SocketAddr::new(server.ip, 81), 1 << 26);
    assert_eq!(injected(), before);
    // Another node's is none of this one's business.
    a.plane.segment_for([client.ip]);
    transfer(&client, &server, SocketAddr::new(server.ip, 82), 1 << 26);
    assert!(verdict.is_err() || injected() > before);
}

#[test]
fn the_self_test_compares_and_leaves_nothing_but_the_device() {
    let [a, _b] = nodes(1);
    let passed = verdict(&a.plane).is_ok();
    let prices = a.plane.prices();
    assert_eq!(prices.is_some(), passed, "{prices:?}");
    if let Some(prices) = prices {
        // 64 KiB are neither written nor checksummed in no time, nor in a tenth of a second.
        for nanos in [prices.injected_ns, prices.segmented_ns] {
            assert!((1_000..100_000_000).contains(&nanos), "{prices:?}");
        }
    }
    // These nodes have it forced.
    assert!(!a.plane.segments_are_cheaper());
    assert_eq!(a.plane.choice().starts_with("tunnel offload"), passed);
    let mut links = Netlink::open_in(&a.ns).expect("netlink");
    let names: Vec<String> = links
        .links()
        .expect("links")
        .into_iter()
        .map(|link| link.name)
        .filter(|name| name.starts_with("weftgso"))
        .collect();
    let expected: &[&str] = if passed { &["weftgso0"] } else { &[] };
    assert_eq!(names, expected);
    drop(a.plane);
    let left = links.link("weftgso0").expect("links");
    assert!(left.is_none(), "{left:?}");
}
