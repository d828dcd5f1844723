//! A node with two uplinks that routes by source address, as machines of clouds with several
//! interfaces do.

use std::net::IpAddr;

use weft_netns_tests::{ask_from, eventually};

use crate::swarm;

#[test]
fn answers_leave_by_the_uplink_that_the_question_came_in_by() {
    let cluster = swarm(2);
    cluster.web(2);
    let path = cluster
        .lab()
        .add_netns("node1", "isp")
        .expect("a namespace");
    // Only table 77 knows the client.
    let script = "set -e
        ip link add up2 type veth peer name up0 netns isp
        sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.up2.rp_filter=0
        ip addr add 198.51.100.1/24 dev up2
        ip link set up2 up
        ip -n isp link set lo up
        ip -n isp addr add 198.51.100.2/24 dev up0
        ip -n isp addr add 192.0.2.99/32 dev lo
        ip -n isp link set up0 up
        ip route add default via 198.51.100.2 table 77
        ip rule add from 198.51.100.1 lookup 77 pref 1000";
    cluster.run("node1", None, &["sh", "-c", script]).done();
    let isp = cluster.netns("node1", Some(&path));
    let from: IpAddr = "192.0.2.99".parse().expect("an address");
    let to = "198.51.100.1:8000".parse().expect("an address");
    let listener = ["ip", "route", "get", "192.0.2.99", "from", "198.51.100.1"];
    let way = cluster.run("node1", None, &listener).ok();
    assert!(way.contains("dev up2 table 77"), "{way}");
    eventually("the client is answered", || ask_from(&isp, from, to, "/"));
    // By either replica, and a bulk of data.
    for _ in 0..4 {
        let bytes = ask_from(&isp, from, to, "/bytes/1000000").expect("a whole answer");
        assert_eq!(bytes.len(), 1_000_000);
    }
    let rules = || cluster.run("node1", None, &["ip", "rule"]).ok();
    assert!(
        rules().contains("fwmark 0x1000000/0x3f000000 lookup 77"),
        "{}",
        rules()
    );

    // With the rule its repetition goes.
    let words = ["ip", "rule", "del", "pref", "1000", "from", "198.51.100.1"];
    cluster.run("node1", None, &words).done();
    eventually("the mark goes", || {
        let rules = rules();
        if rules.contains("fwmark") {
            Err(rules)
        } else {
            Ok(())
        }
    });
}
