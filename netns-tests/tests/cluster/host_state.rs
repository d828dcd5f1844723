//! Others write to the kernel of a node, too: what weft made there is put back, and said.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use weft_lab::FAR_ADDRESS;
use weft_netns_tests::{Cluster, ask, ask_from, eventually, figure, hold};
use weft_sys::netns::Netns;

use crate::disks::restart;
use crate::mesh_frame::own_address;
use crate::swarm;

/// What the table of node1 has, without counters and numbers.
fn rules(cluster: &Cluster) -> String {
    let words = ["nft", "-s", "list", "table", "inet", "weft"];
    let text = cluster.run("node1", None, &words).out;
    // Chains are in the order that they were made in.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn here(cluster: &Cluster, words: &[&str]) {
    cluster.run("node1", None, words).done();
}

/// Waits until a command prints `wanted` in a namespace of node1; how long it took.
#[track_caller]
fn back(cluster: &Cluster, netns: Option<&Path>, words: &[&str], wanted: &str) -> Duration {
    let started = Instant::now();
    eventually(wanted, || {
        let said = cluster.run("node1", netns, words).out;
        if said.contains(wanted) {
            Ok(())
        } else {
            Err(format!("{words:?}: {said}"))
        }
    });
    started.elapsed()
}

#[track_caller]
fn warned(cluster: &Cluster, of: &str) {
    eventually("node1 says what was missing", || {
        let said = cluster.weft("node1", &["info"]).out;
        if said.contains("weft put it back") && said.contains(of) {
            Ok(())
        } else {
            Err(said)
        }
    });
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one swarm, and one thing after the other happens to it"
)]
fn what_others_take_from_the_host_is_put_back_within_a_second() {
    let cluster = swarm(1);
    let ipv6 = ["network", "create", "--ipv6", "front"];
    cluster.weft("node1", &ipv6).done();
    let task = cluster.serve_web(1).remove(0);
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let client = cluster.outside();
    let own = own_address(&cluster);
    let published = cluster.at("node1", 8000);
    let far = SocketAddr::new(FAR_ADDRESS.into(), 80);
    let mut held = [
        eventually("the port answers", || hold(&client, published)),
        eventually("the outside answers", || hold(&guest, far)),
    ];
    let said = cluster.weft("node1", &["info"]).out;
    assert!(!said.contains("put it back"), "{said}");
    let before = rules(&cluster);
    for chain in [
        "masquerade",
        "published_in",
        "sandbox_in",
        "untracked_in",
        "8000",
    ] {
        assert!(before.contains(chain), "{before}");
    }

    // A firewall that is loaded again.
    here(&cluster, &["nft", "flush", "ruleset"]);
    let started = Instant::now();
    // Open connections go on meanwhile.
    for held in &mut held {
        held.again().expect("the connection goes on");
    }
    eventually("the rules are back", || {
        let now = rules(&cluster);
        if now == before { Ok(()) } else { Err(now) }
    });
    let took = started.elapsed();
    figure(&format!("rules are back {took:?} after a flush"));
    assert!(took < Duration::from_secs(2), "{took:?}");
    for held in &mut held {
        held.again().expect("the connection goes on");
    }
    let seen = ask_from(&client, own, published, "/client").expect("an answer");
    assert_eq!(seen.trim(), own.to_string(), "replicas see their clients");
    ask(&guest, far, Duration::from_secs(2)).expect("the way out");
    warned(&cluster, "table weft");

    // One chain, and one rule too many.
    here(
        &cluster,
        &["nft", "flush", "chain", "inet", "weft", "sandbox_in"],
    );
    here(
        &cluster,
        &[
            "nft",
            "insert",
            "rule",
            "inet",
            "weft",
            "sandbox_forward",
            "accept",
        ],
    );
    eventually("the rules are back", || {
        let now = rules(&cluster);
        if now == before { Ok(()) } else { Err(now) }
    });

    // Switches.
    for (name, path) in [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        (
            "net.ipv4.conf.weft0.forwarding",
            "/proc/sys/net/ipv4/conf/weft0/forwarding",
        ),
    ] {
        here(&cluster, &["sh", "-c", &format!("echo 0 > {path}")]);
        let took = back(&cluster, None, &["cat", path], "1");
        assert!(took < Duration::from_secs(2), "{name}: {took:?}");
        warned(&cluster, name);
    }

    // The bridge: its address, its ports, itself.
    for (words, look, wanted) in [
        (
            &["ip", "addr", "flush", "dev", "weft_gwbridge"][..],
            &["ip", "addr", "show", "weft_gwbridge"][..],
            "172.18.0.1/16",
        ),
        (
            &["ip", "link", "set", "weft_gwbridge", "down"],
            &["ip", "link", "show", "weft_gwbridge"],
            ",UP",
        ),
        (
            &["ip", "link", "del", "weft_gwbridge"],
            &["ip", "addr", "show", "weft_gwbridge"],
            "172.18.0.1/16",
        ),
        (
            &["ip", "addr", "flush", "dev", "weft0"],
            &["ip", "addr", "show", "weft0"],
            "169.254.77.1/30",
        ),
        (
            &["ip", "link", "set", "weft0", "address", "02:11:22:33:44:55"],
            &["ip", "link", "show", "weft0"],
            "02:42:a9:fe:4d:01",
        ),
        (
            &["ip", "neigh", "del", "169.254.77.2", "dev", "weft0"],
            &["ip", "neigh", "show", "dev", "weft0"],
            "169.254.77.2",
        ),
    ] {
        here(&cluster, words);
        let took = back(&cluster, None, look, wanted);
        assert!(took < Duration::from_secs(3), "{words:?}: {took:?}");
        eventually("the way out", || ask(&guest, far, Duration::from_secs(1)));
        eventually("the port", || {
            ask(&client, published, Duration::from_secs(1))
        });
    }
    let ports = "ip -o link show master weft_gwbridge | sed 's/.*\\(wgw[0-9]*\\).*/\\1/' | while read p; do ip link set $p nomaster; done";
    here(&cluster, &["sh", "-c", ports]);
    eventually("the way out", || ask(&guest, far, Duration::from_secs(1)));
    let locked = back(
        &cluster,
        None,
        &["bridge", "-d", "link", "show"],
        "locked on",
    );
    assert!(locked < Duration::from_secs(3), "{locked:?}");

    // In sandboxes: a link that goes down and comes up has lost its routes.
    for link in ["eth0", "eth1", "eth2"] {
        let flap = format!("ip link set {link} down; ip link set {link} up");
        let netns = Some(task.netns.as_path());
        cluster.run(&task.node, netns, &["sh", "-c", &flap]).done();
    }
    let netns = Some(task.netns.as_path());
    // The table of a network has the number of its interface, and a thousand more.
    for link in ["eth0", "eth2"] {
        let words = ["ip", "-o", "link", "show", link];
        let shown = cluster.run(&task.node, netns, &words).ok();
        let number = shown
            .split(':')
            .next()
            .and_then(|n| n.trim().parse::<u32>().ok());
        let table = (1000 + number.expect("a number")).to_string();
        back(
            &cluster,
            netns,
            &["ip", "route", "show", "table", &table],
            "default via",
        );
    }
    back(
        &cluster,
        netns,
        &["ip", "-6", "route", "show", "table", "all"],
        "default via",
    );
    back(
        &cluster,
        netns,
        &["ip", "route", "show", "default"],
        "via 172.18.0.1",
    );
    eventually("the port", || {
        ask(&client, published, Duration::from_secs(1))
    });
    warned(&cluster, "in a sandbox");
    for held in &mut held[..1] {
        held.again().expect("the connection goes on");
    }
    another_mac_inside_is_named_and_mended_by_the_next_agent(&cluster, &guest, task.ip);
}

/// What a box calls itself is its owner's business: nobody hears it by another address than its own.
fn another_mac_inside_is_named_and_mended_by_the_next_agent(
    cluster: &Cluster,
    guest: &Netns,
    task: IpAddr,
) {
    let to = SocketAddr::new(task, 80);
    let ask = || ask(guest, to, Duration::from_secs(1));
    eventually("the task answers", ask);
    let spoofed = || cluster.drops("node1", "spoofed_mac");
    let before = spoofed();
    let mac = ["link", "set", "eth0", "address", "02:11:22:33:44:55"];
    here(cluster, &[&["ip", "-n", "guest"], &mac[..]].concat());
    ask().expect_err("it is not its address");
    assert!(spoofed() > before);
    restart(cluster, "node1");
    eventually("the task answers again", ask);
}

/// A host with docker or ufw: what is forwarded is dropped, but for what others need.
#[test]
fn a_host_that_drops_what_it_forwards_is_named_and_its_listeners_take_over() {
    let cluster = swarm(1);
    cluster.web(1);
    let (guest, _) = cluster.guest("node1", "guest", "front");
    let client = cluster.outside();
    let own = own_address(&cluster);
    let published = cluster.at("node1", 8000);
    let far = SocketAddr::new(FAR_ADDRESS.into(), 80);
    eventually("the port answers", || {
        ask(&client, published, Duration::from_secs(1))
    });
    let front_end = || cluster.rows(&["mesh", "ls"])[0]["FrontEnd"].clone();
    assert_eq!(front_end(), "frame");

    let docker = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; iifname docker0 accept; oifname docker0 ct state established,related accept; }; }";
    here(&cluster, &["nft", docker]);
    eventually("the listener takes over", || match front_end() {
        now if now == "socket" => Ok(()),
        now => Err(now),
    });
    // What the front end translated is on its way out of the kernel.
    eventually("the listener answers", || {
        ask(&client, published, Duration::from_secs(1))
    });
    for _ in 0..3 {
        ask(&client, published, Duration::from_secs(1)).expect("an answer");
    }
    let named = "chain FORWARD of table ip filter drops";
    let rule = "nft insert rule ip filter FORWARD oifname \"weft0\" accept";
    for words in [
        &["why", "8000"][..],
        &["why", "web"],
        &["doctor"],
        &["info"],
    ] {
        // Columns wrap.
        let said = cluster.weft("node1", words).out.replace('\n', " ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(named), "{words:?}: {said}");
        assert!(said.contains(rule), "{words:?}: {said}");
    }
    ask(&guest, far, Duration::from_secs(1)).expect_err("the way out is closed");

    for device in ["weft0", "weft_gwbridge"] {
        for way in ["iifname", "oifname"] {
            let rule = [
                "nft", "insert", "rule", "ip", "filter", "FORWARD", way, device, "accept",
            ];
            here(&cluster, &rule);
        }
    }
    eventually("replicas see their clients again", || {
        let seen = ask_from(&client, own, published, "/client").map_err(|e| e.to_string())?;
        if front_end() == "frame" && seen.trim() == own.to_string() {
            Ok(())
        } else {
            Err(seen)
        }
    });
    eventually("the way out", || ask(&guest, far, Duration::from_secs(1)));
    eventually("nothing is wrong", || {
        let said = cluster.weft("node1", &["info"]).out;
        if said.contains(named) {
            Err(said)
        } else {
            Ok(())
        }
    });
}
