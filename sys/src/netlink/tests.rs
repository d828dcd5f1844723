use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().expect("net")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

fn in_fresh_netns<T: Send>(f: impl FnOnce(&mut Netlink) -> T + Send) -> T {
    let netns = Netns::create_anonymous().expect("netns");
    netns
        .run_in(|| {
            let mut netlink = Netlink::open().expect("netlink");
            netlink.set_up("lo", true).expect("lo");
            f(&mut netlink)
        })
        .expect("run")
}

/// Two namespaces joined by veth, `10.1.0.1/24` on v0 and `10.1.0.2/24` on v1.
fn pair() -> (Netns, Netlink, Netns, Netlink) {
    let (a, b) = (
        Netns::create_anonymous().expect("a"),
        Netns::create_anonymous().expect("b"),
    );
    let mut nl_a = Netlink::open_in(&a).expect("netlink a");
    let mut nl_b = Netlink::open_in(&b).expect("netlink b");
    let veth = Veth {
        name: "v0",
        peer: "v1",
        peer_netns: Some(&b),
        peer_mac: Some([2, 0, 0, 0, 0, 2]),
        mtu: Some(1400),
    };
    assert!(nl_a.add_veth(&veth).expect("veth"));
    assert!(!nl_a.add_veth(&veth).expect("again"));
    nl_a.add_address("v0", net("10.1.0.1/24"))
        .expect("address a");
    nl_b.add_address("v1", net("10.1.0.2/24"))
        .expect("address b");
    nl_a.set_up("v0", true).expect("up a");
    nl_b.set_up("v1", true).expect("up b");
    (a, nl_a, b, nl_b)
}

fn passes(from: &Netns, to: &Netns, dest: &str) {
    let receiver = to
        .run_in(|| UdpSocket::bind(dest).expect("bind"))
        .expect("run");
    receiver
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("timeout");
    let dest = receiver.local_addr().expect("addr");
    let sender = from
        .run_in(|| UdpSocket::bind("0.0.0.0:0").expect("bind"))
        .expect("run");
    sender.send_to(b"hello", dest).expect("send");
    let mut buffer = [0; 16];
    assert_eq!(
        receiver.recv(&mut buffer).expect("datagram came through"),
        5
    );
}

#[test]
fn veth_joins_two_namespaces() {
    let (a, mut nl_a, b, mut nl_b) = pair();
    passes(&a, &b, "10.1.0.2:0");
    let v1 = nl_b.link("v1").expect("link").expect("v1");
    assert_eq!(v1.mac, Some([2, 0, 0, 0, 0, 2]));
    assert_eq!(
        (v1.mtu, v1.up, v1.kind.as_deref()),
        (1400, true, Some("veth"))
    );
    assert!(nl_a.link("v1").expect("link").is_none());
    let v0 = nl_a.link("v0").expect("link").expect("v0");
    assert_eq!((v0.tied_to, v1.tied_to), (Some(v1.index), Some(v0.index)));
    assert!(v0.ethernet && v0.carrier && v1.carrier);
    let path = nl_a.route_to(ip("10.1.0.2")).expect("route");
    assert_eq!((path.mtu, path.index), (1400, v0.index));
    assert_eq!(path.neighbour, Some(ip("10.1.0.2")));
    assert_eq!(
        nl_a.devices_to(None, ip("10.1.0.2")).expect("route"),
        ["v0"]
    );
    nl_b.set_up("v1", false).expect("down");
    assert!(!nl_a.link("v0").expect("link").expect("v0").carrier);
    nl_b.set_up("v1", true).expect("up again");

    nl_a.set_alias("v0", "left end").expect("alias");
    let v0 = nl_a.link("v0").expect("link").expect("v0");
    assert_eq!(v0.alias.as_deref(), Some("left end"));

    nl_a.delete_link("v0").expect("delete");
    nl_a.delete_link("v0").expect("delete twice");
    assert!(nl_b.link("v1").expect("link").is_none());
}

#[test]
fn a_kernel_vxlan_carries_frames_to_a_fixed_peer() {
    let (a, mut nl_a, b, mut nl_b) = pair();
    let ends = [(&mut nl_a, "10.1.0.1", 1u8), (&mut nl_b, "10.1.0.2", 2u8)];
    for (netlink, local, n) in ends {
        let vxlan = Vxlan {
            name: "vx0",
            vni: 4096,
            local: ip(local),
            port: 4789,
            learning: false,
            udp_checksum: true,
        };
        assert!(netlink.add_vxlan(&vxlan).expect("vxlan"));
        assert!(!netlink.add_vxlan(&vxlan).expect("again"));
        netlink.set_mac("vx0", [2, 0x42, 10, 9, 0, n]).expect("mac");
        netlink.set_mtu("vx0", 1350).expect("mtu");
        netlink.set_txqueuelen("vx0", 2000).expect("txqueuelen");
        netlink
            .add_address("vx0", net(&format!("10.9.0.{n}/24")))
            .expect("address");
        netlink.set_up("vx0", true).expect("up");
        let peer = 3 - n;
        let (peer_mac, vtep) = ([2, 0x42, 10, 9, 0, peer], ip(&format!("10.1.0.{peer}")));
        netlink.append_fdb("vx0", peer_mac, vtep).expect("fdb");
        netlink
            .append_fdb("vx0", [0; 6], vtep)
            .expect("default fdb");
        netlink
            .set_neighbour("vx0", ip(&format!("10.9.0.{peer}")), peer_mac)
            .expect("neigh");
        assert_eq!(
            netlink
                .link("vx0")
                .expect("link")
                .expect("vx0")
                .kind
                .as_deref(),
            Some("vxlan")
        );
    }
    passes(&a, &b, "10.9.0.2:0");
}

#[test]
fn isolated_bridge_ports_reach_the_bridge_but_not_each_other() {
    let hub = Netns::create_anonymous().expect("hub");
    let mut nl = Netlink::open_in(&hub).expect("netlink");
    assert!(nl.add_bridge("br0").expect("bridge"));
    assert!(!nl.add_bridge("br0").expect("again"));
    nl.add_address("br0", net("172.18.0.1/16"))
        .expect("address");
    nl.set_up("br0", true).expect("up");
    let leaves: Vec<Netns> = (2..4)
        .map(|n| {
            let leaf = Netns::create_anonymous().expect("leaf");
            let name = format!("p{n}");
            let veth = Veth {
                name: &name,
                peer: "eth1",
                peer_netns: Some(&leaf),
                peer_mac: Some([2, 0, 0, 0, 0, n]),
                mtu: None,
            };
            nl.add_veth(&veth).expect("veth");
            nl.set_master(&name, Some("br0")).expect("master");
            nl.lock_port(&name).expect("locked");
            let mac = [2, 0, 0, 0, 0, n];
            nl.set_bridge_fdb(&name, mac).expect("fdb");
            assert!(nl.link(&name).expect("link").expect("port").locked);
            nl.set_up(&name, true).expect("up");
            let mut inside = Netlink::open_in(&leaf).expect("netlink");
            inside
                .add_address("eth1", net(&format!("172.18.0.{n}/16")))
                .expect("address");
            inside.set_up("eth1", true).expect("up");
            leaf
        })
        .collect();
    let bridge = nl.link_index("br0").expect("index");
    assert_eq!(
        nl.link("p2").expect("link").expect("p2").master,
        Some(bridge)
    );
    for leaf in &leaves {
        passes(leaf, &hub, "172.18.0.1:0");
    }
    let shown = hub
        .run_in(|| {
            Command::new("bridge")
                .args(["-d", "link"])
                .output()
                .expect("bridge")
                .stdout
        })
        .expect("run");
    let shown = String::from_utf8(shown).expect("text");
    assert_eq!(shown.matches("isolated on").count(), 2, "{shown}");
    // A ping from one leaf to the other finds nobody: its ARP request is not forwarded.
    let reached = leaves[0]
        .run_in(|| {
            let args = ["-c", "1", "-W", "1", "172.18.0.3"];
            Command::new("ping")
                .args(args)
                .output()
                .expect("ping")
                .status
                .success()
        })
        .expect("run");
    assert!(!reached);
    nl.set_master("p2", None).expect("leave");
    assert_eq!(nl.link("p2").expect("link").expect("p2").master, None);
}

#[test]
fn addresses_are_listed_and_removed_in_both_families() {
    in_fresh_netns(|nl| {
        nl.add_bridge("br0").expect("bridge");
        nl.set_up("br0", true).expect("up");
        let (v4, v6) = (net("10.2.0.1/24"), net("fd00:2::1/64"));
        for _ in 0..2 {
            nl.add_address("br0", v6).expect("v6");
            nl.add_address("br0", v4).expect("v4");
        }
        let found = nl.addresses("br0").expect("list");
        assert_eq!(found.first(), Some(&v4));
        assert!(found.contains(&v6));
        for _ in 0..2 {
            nl.delete_address("br0", v4).expect("delete");
        }
        assert!(!nl.addresses("br0").expect("list").contains(&v4));
    });
}

#[test]
fn routes_and_rules_lead_through_other_tables() {
    in_fresh_netns(|nl| {
        nl.add_bridge("br0").expect("bridge");
        nl.set_up("br0", true).expect("up");
        nl.add_address("br0", net("10.3.0.5/24")).expect("address");
        let main = Route {
            dest: net("0.0.0.0/0"),
            gateway: Some(ip("10.3.0.1")),
            dev: Some("br0".to_owned()),
            table: MAIN_TABLE,
            onlink: false,
        };
        let other = Route {
            gateway: Some(ip("10.3.0.254")),
            table: 1000,
            ..main.clone()
        };
        for _ in 0..2 {
            nl.set_route(&main).expect("main");
            nl.set_route(&other).expect("table 1000");
        }
        let routes = nl.routes().expect("routes");
        assert!(routes.contains(&main), "{routes:?}");
        assert!(routes.contains(&other), "{routes:?}");
        assert!(
            routes
                .iter()
                .any(|r| r.dest == net("10.3.0.0/24") && r.gateway.is_none())
        );

        let rule = Rule::by_source(net("10.3.0.5/32"), 1000, 100);
        let mark = Mark {
            value: 0x100,
            mask: 0xf00,
        };
        let marked = Rule::by_mark(mark, true, 1001, 101);
        for _ in 0..2 {
            nl.add_rule(&rule).expect("rule");
            nl.add_rule(&marked).expect("rule");
        }
        assert!(nl.rules().expect("rules").contains(&marked));
        nl.delete_rule(&marked).expect("gone");
        assert!(!nl.rules().expect("rules").contains(&marked));
        assert_eq!(
            nl.rules()
                .expect("rules")
                .iter()
                .filter(|r| **r == rule)
                .count(),
            1
        );
        let shown = Command::new("ip")
            .args(["route", "get", "8.8.8.8", "from", "10.3.0.5"])
            .output()
            .expect("ip");
        let shown = String::from_utf8(shown.stdout).expect("text");
        assert!(shown.contains("via 10.3.0.254"), "{shown}");
        let path = nl.route_to(ip("8.8.8.8")).expect("path");
        assert_eq!(
            (path.gateway, path.dev.as_str()),
            (Some(ip("10.3.0.1")), "br0")
        );
        assert_eq!(path.neighbour, path.gateway);
        assert_eq!((path.src, path.mtu), (Some(ip("10.3.0.5")), 1500));
        let words = "route add 10.4.0.0/16 via 10.3.0.1 dev br0 mtu 1400";
        let status = Command::new("ip").args(words.split(' ')).status();
        assert!(status.expect("ip").success());
        let paths = nl
            .routes_to(None, [ip("8.8.8.8"), ip("10.4.0.9"), ip("2001:db8::1")])
            .expect("paths");
        let mtus: Vec<_> = paths.iter().map(|(ip, path)| (*ip, path.mtu)).collect();
        assert_eq!(mtus, [(ip("8.8.8.8"), 1500), (ip("10.4.0.9"), 1400)]);

        for _ in 0..2 {
            nl.delete_rule(&rule).expect("delete rule");
        }
        assert!(!nl.rules().expect("rules").contains(&rule));

        let v6 = Route {
            dest: net("::/0"),
            gateway: None,
            dev: Some("br0".to_owned()),
            table: MAIN_TABLE,
            onlink: false,
        };
        nl.set_route(&v6).expect("v6");
        assert!(nl.routes().expect("routes").contains(&v6));
    });
}

#[test]
fn a_vxlan_of_no_network_has_its_port_while_it_is_up() {
    in_fresh_netns(|nl| {
        let port = 4790;
        let bind = || UdpSocket::bind(("0.0.0.0", port));
        assert!(nl.add_vxlan_external("merge0", port).expect("made"));
        assert!(!nl.add_vxlan_external("merge0", port).expect("again"));
        let link = nl.link("merge0").expect("asked").expect("there");
        assert_eq!((link.kind.as_deref(), link.up), (Some("vxlan"), false));
        let taken = bind().expect("it has it only from then on");
        nl.set_up("merge0", true).expect_err("somebody has it");
        drop(taken);
        nl.set_up("merge0", true).expect("up");
        let error = bind().expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // Its frames are those of Ethernet: programs stand in front of it as of any other one.
        assert!(link.ethernet);
        nl.delete_link("merge0").expect("deleted");
        bind().expect("free");
        nl.add_bridge("merge0").expect("bridge");
        let error = nl.add_vxlan_external("merge0", port).expect_err("taken");
        assert!(
            error.to_string().contains("is not a vxlan but a bridge"),
            "{error}"
        );
    });
}

#[test]
fn errors_say_what_and_on_which_object() {
    in_fresh_netns(|nl| {
        let error = nl.set_up("no-such0", true).expect_err("missing");
        assert!(
            matches!(&error, NetlinkError::NoLink { name } if name == "no-such0"),
            "{error}"
        );
        nl.add_bridge("br0").expect("bridge");
        let vxlan = Vxlan {
            name: "br0",
            vni: 1,
            local: ip("10.0.0.1"),
            port: 4789,
            learning: false,
            udp_checksum: true,
        };
        let error = nl.add_vxlan(&vxlan).expect_err("taken");
        assert_eq!(
            error.to_string(),
            "interface br0 exists and is not a vxlan but a bridge: \
             remove it with `ip link del br0` or choose another name"
        );
        let error = nl.route_to(ip("203.0.113.9")).expect_err("no route");
        assert!(
            error
                .to_string()
                .starts_with("cannot find a route to 203.0.113.9: "),
            "{error}"
        );
        assert!(nl.addresses("nope").is_err());
    });
}

#[test]
fn routes_of_packets_from_an_address_follow_rules_about_it() {
    in_fresh_netns(|nl| {
        let words = [
            "link add br0 type bridge",
            "addr add 10.3.0.5/24 dev br0",
            "link set br0 up",
            "route add 10.4.0.0/16 via 10.3.0.1 dev br0",
            "route add 10.4.0.0/16 via 10.3.0.77 dev br0 table 77",
            "rule add from 10.3.0.5 lookup 77 priority 77",
        ];
        for words in words {
            let status = Command::new("ip").args(words.split(' ')).status();
            assert!(status.expect("ip").success(), "{words}");
        }
        for (from, next) in [(None, "10.3.0.1"), (Some(ip("10.3.0.5")), "10.3.0.77")] {
            let paths = nl.routes_to(from, [ip("10.4.0.9")]).expect("paths");
            let path = paths.get(&ip("10.4.0.9")).expect("a route");
            assert_eq!(path.neighbour, Some(ip(next)), "from {from:?}");
            let devices = nl.devices_to(from, ip("10.4.0.9"));
            assert_eq!(devices.expect("a route"), ["br0"]);
        }
    });
}
