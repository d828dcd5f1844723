//! Clients of published ports behind a router whose further link is narrower than the underlay.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_lab::OUTSIDE;
use weft_netns_tests::{Cluster, Settings, ask_from, eventually};

use crate::PROGRAM;

#[test]
fn a_download_through_a_narrow_router_completes() {
    downloads_complete(
        false,
        ["192.0.2.1/24", "192.0.2.99/24"],
        "net.ipv4.ip_forward",
    );
}

#[test]
fn a_download_of_ipv6_through_a_narrow_router_completes() {
    downloads_complete(
        true,
        ["2001:db8:99::1/64", "2001:db8:99::99/64"],
        "net.ipv6.conf.all.forwarding",
    );
}

/// The machine outside becomes the router: `near` and `far` are the ends of the narrow link.
fn downloads_complete(ipv6: bool, [near, far]: [&str; 2], forwarding: &str) {
    // Cables of one machine carry a tunnelled super-frame without the length of its segments, and the
    // node that divides it has to have heard of the narrow link.
    let settings = Settings {
        nodes: 2,
        ipv6,
        ..Settings::default()
    };
    let cluster = Cluster::swarm(PROGRAM, &settings);
    cluster.web(2);
    let path = cluster
        .lab()
        .add_netns(OUTSIDE, "far")
        .expect("a namespace");
    let host = |text: &str| text.split('/').next().unwrap_or(text).to_owned();
    let family = if ipv6 { "-6" } else { "-4" };
    let script = format!(
        "set -e
        sysctl -qw {forwarding}=1
        ip link add near mtu 1300 type veth peer name far mtu 1500
        ip link set far netns far
        ip addr add {near} dev near nodad
        ip link set near up
        ip -n far addr add {far} dev far nodad
        ip -n far link set far up
        ip -n far {family} route add default via {}",
        host(near)
    );
    cluster.run(OUTSIDE, None, &["sh", "-c", &script]).done();
    let client = cluster.netns(OUTSIDE, Some(&path));
    let from: IpAddr = host(far).parse().expect("an address");
    for node in ["node1", "node2"] {
        let to = cluster.at(node, 8000);
        eventually("the node answers", || ask_from(&client, from, to, "/"));
    }
    let stray = || ["node1", "node2"].map(|node| cluster.drops(node, "not_a_flow"));
    let before = stray();
    for node in ["node1", "node2"] {
        let to = cluster.at(node, 8000);
        // To either replica: each forgets the narrow way by itself.
        for _ in 0..4 {
            let begun = Instant::now();
            let bytes = ask_from(&client, from, to, "/bytes/1000000");
            let bytes = bytes.map_err(|e| format!("{node}: {e}"));
            let bytes = bytes.expect("a whole answer");
            assert_eq!(bytes.len(), 1_000_000);
            // Where segments are lost again and again it takes half a minute.
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(5), "{node}: {took:?}");
        }
    }
    let fails = if ipv6 { "Ip6FragFails" } else { "IpFragFails" };
    let said = cluster.run(OUTSIDE, None, &["nstat", "-az", fails]).ok();
    assert!(!said.contains(" 0 "), "the router refused nothing: {said}");
    // Every one of the router's errors found its flow.
    assert_eq!(stray(), before);
}
