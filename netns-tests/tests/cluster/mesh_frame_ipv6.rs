//! Published ports over IPv6 through the frame front end: what is particular to that family.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use weft_netns_tests::{Cluster, Settings, ask_from, eventually, get, hold};

use crate::mesh_frame::{over_ipv6, own_address};
use crate::published::serve;
use crate::{PROGRAM, swarm};

/// The client that a replica behind port `to` sees, as soon as one answers.
fn seen(cluster: &Cluster, from: IpAddr, to: SocketAddr) -> IpAddr {
    let client = cluster.outside();
    let answer = eventually("the port answers", || {
        ask_from(&client, from, to, "/client").map_err(|e| e.to_string())
    });
    answer.trim().parse().expect("an address")
}

#[test]
fn connections_outlive_their_port_and_options_hold_for_both_families() {
    let cluster = over_ipv6(2);
    let ports = [
        "-p",
        "8000:80",
        "-p",
        "published=8001,target=81,client_address=node",
        "-p",
        "published=8002,target=82,client_address=proxy-v1",
        "--replicas",
        "2",
    ];
    serve(&cluster, "web", &ports, &[80, 81]);
    let own = own_address(&cluster);
    let client = cluster.outside();
    for node in ["node1", "node2"] {
        assert_eq!(seen(&cluster, own, cluster.at(node, 8000)), own, "{node}");
        let other = seen(&cluster, own, cluster.at(node, 8001));
        assert!(other.to_string().starts_with("10.0.0."), "{node}: {other}");
    }
    let mut held = hold(&client, cluster.at("node1", 8000)).expect("a connection");
    let update = |words: &[&str]| {
        let words = [&["service", "update"], words, &["web"]].concat();
        cluster.weft("node1", &words).done();
    };
    update(&["--publish-add", "8003:80", "--publish-rm", "8000:80"]);
    assert_eq!(seen(&cluster, own, cluster.at("node1", 8003)), own);
    eventually("port 8000 is refused", || {
        get(&client, cluster.at("node1", 8000)).map_or(Ok(()), Err)
    });
    held.again()
        .expect("the connection goes on without its port");
    serve(&cluster, "other", &["-p", "8000:80"], &[80]);
    assert_eq!(seen(&cluster, own, cluster.at("node1", 8000)), own);
    held.again().expect("and when another service has it");
    cluster.weft("node1", &["service", "rm", "other"]).done();
    held.again().expect("and when that is gone");
}

#[test]
fn programs_that_know_ipv4_only_answer_clients_of_ipv6() {
    let cluster = over_ipv6(2);
    let script = format!("exec {PROGRAM} demo-http --port 80 --ipv4");
    let words = [
        &["service", "create", "--name", "web", "-p", "8000:80"][..],
        &["--replicas", "2", "host", "sh", "-c", &script],
    ];
    cluster.weft("node1", &words.concat()).done();
    let own = own_address(&cluster);
    for node in ["node1", "node2"] {
        for _ in 0..4 {
            let seen = seen(&cluster, own, cluster.at(node, 8000));
            assert!(seen.to_string().starts_with("10.0.0."), "{node}: {seen}");
        }
    }
}

#[test]
fn neighbours_with_link_local_addresses_are_accepted_by_the_node() {
    let cluster = swarm(1);
    cluster.web(1);
    let address = |machine: &str| -> (SocketAddrV6, u32) {
        let said = cluster.run(
            machine,
            None,
            &[
                "ip", "-j", "-6", "address", "show", "dev", "eth0", "scope", "link",
            ],
        );
        let links: serde_json::Value = serde_json::from_str(&said.ok()).expect("JSON");
        let link = links
            .as_array()
            .and_then(|links| links.iter().find(|l| l["ifname"] == "eth0"))
            .expect("eth0");
        let ip = link["addr_info"][0]["local"].as_str().expect("an address");
        let said = cluster.run(machine, None, &["cat", "/sys/class/net/eth0/ifindex"]);
        let index = said.ok().trim().parse().expect("a number");
        let ip = ip.parse().expect("an address");
        (SocketAddrV6::new(ip, 8000, 0, index), index)
    };
    let (mut to, _) = address("node1");
    let (_, index) = address("outside");
    to.set_scope_id(index);
    let client = cluster.outside();
    eventually("the port answers", || get(&client, to.into()));
}

#[test]
fn the_host_stays_a_host_and_nothing_is_left_when_the_node_leaves() {
    let cluster = over_ipv6(1);
    cluster.web(1);
    let own = own_address(&cluster);
    assert_eq!(seen(&cluster, own, cluster.at("node1", 8000)), own);
    let sysctl = |name: &str| {
        let name = format!("net.ipv6.conf.{name}");
        let said = cluster.run("node1", None, &["sysctl", "-n", &name]);
        said.ok().trim().to_owned()
    };
    assert_eq!(sysctl("all.forwarding"), "1");
    assert_eq!(sysctl("eth0.forwarding"), "0");
    assert_eq!(sysctl("eth0.accept_ra"), "1");
    let rules = || {
        let said = cluster.run("node1", None, &["nft", "list", "ruleset"]);
        said.ok()
    };
    assert!(rules().contains("published6"), "{}", rules());
    cluster.weft("node1", &["swarm", "leave", "--force"]).done();
    assert!(!rules().contains("published"), "{}", rules());
    let links = cluster.run("node1", None, &["ip", "-6", "address"]).ok();
    assert!(!links.contains("fd57:4546"), "{links}");
}

#[test]
fn without_ipv6_on_the_host_all_else_works() {
    let cluster = Cluster::bare(
        PROGRAM,
        &Settings {
            nodes: 1,
            ..Settings::default()
        },
    );
    let off = ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"];
    cluster.run("node1", None, &off).done();
    cluster.init("node1");
    cluster.wait_ready(1);
    cluster.web(1);
    let own = own_address(&cluster);
    assert_eq!(seen(&cluster, own, cluster.at("node1", 8000)), own);
    let doctor = cluster.weft("node1", &["doctor", "-v"]).out;
    assert!(doctor.contains("IPv6 is off on this host"), "{doctor}");
    assert!(!doctor.contains("replicas do not see"), "{doctor}");
}
