//! `weft doctor` on nodes that are well, and on one that is alone.

use serde_json::Value;
use weft_netns_tests::{Cluster, eventually};
use weft_sys::offload::set_segments_tunnels;

use crate::swarm;

fn checks(cluster: &Cluster, node: &str) -> Vec<Value> {
    let text = cluster.weft(node, &["doctor", "--format", "json"]).ok();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a row is JSON"))
        .collect()
}

fn find<'a>(checks: &'a [Value], name: &str) -> Option<&'a Value> {
    checks.iter().find(|check| check["Name"] == name)
}

#[test]
fn the_doctor_looks_at_everything_and_names_what_is_wrong() {
    let mut cluster = swarm(2);
    cluster.network("front");
    let (_guest, _) = cluster.guest("node1", "a", "front");
    let seen = eventually("node1 knows the way to node2", || {
        let seen = checks(&cluster, "node1");
        let way = find(&seen, "mtu to 10.77.0.2").is_some();
        if way { Ok(seen) } else { Err(seen) }
    });
    for name in [
        "kernel",
        "tun",
        "manager",
        "workers",
        "path",
        "segments",
        "self-test udp-segment",
        "self-test udp-gro",
        "self-test tap-tcp-write",
        "self-test tap-udp-write",
        "port a",
        "port mesh",
        "mtu",
        "mtu to 10.77.0.2",
        "node node2",
        "gateway wall",
        "gossip keys",
        "door of manager",
        "door of gossip",
        "data directory",
        "journal of flows",
        "store of the manager",
    ] {
        let check = find(&seen, name).unwrap_or_else(|| panic!("no check {name}: {seen:#?}"));
        assert_eq!(check["Health"], "ok", "{check}");
        assert_eq!(check["Next"], "", "{check}");
    }
    a_device_that_does_not_segment_tunnels_is_named(&cluster);
    let table = cluster.weft("node1", &["doctor"]).ok();
    assert!(
        table
            .lines()
            .last()
            .is_some_and(|l| l.ends_with(" checks ok (-v shows them)")),
        "{table}"
    );

    cluster.lab_mut().kill_node("node1").expect("node1 dies");
    eventually("node2 misses its manager, which is a failure", || {
        let said = cluster.weft("node2", &["doctor"]);
        let says = |health: &str, words: &str| {
            let mut lines = said.out.lines();
            lines.any(|line| line.starts_with(health) && line.contains(words))
        };
        // Gossip notices by itself, and calls the node what people call it.
        let silent = says("warn", "node node1: it does not answer");
        if said.code == 1 && says("fail", "manager") && silent {
            Ok(())
        } else {
            Err(said)
        }
    });
}

/// Most devices of clouds: they segment UDP, but not TCP inside of it.
fn a_device_that_does_not_segment_tunnels_is_named(cluster: &Cluster) {
    let says = |words: &'static str| {
        eventually(words, || {
            let checks = checks(cluster, "node1");
            let found = find(&checks, "self-test tunnel-gso").cloned();
            let found = found.expect("the check is there");
            let named = found["Found"].to_string().contains("behind eth0");
            // Before Linux 6.17 super-frames never leave that way.
            let old = found["Health"] == "warn" && found["Next"].to_string().contains("6.17");
            if old || named == (words == "eth0 is named") {
                Ok(())
            } else {
                Err(found)
            }
        });
    };
    let switch = |on| {
        let netns = cluster.netns("node1", None);
        let switched = netns.run_in(|| set_segments_tunnels("eth0", on));
        switched.expect("a thread").expect("eth0 can");
    };
    says("eth0 segments tunnels");
    switch(false);
    says("eth0 is named");
    switch(true);
    says("eth0 segments tunnels");
}
