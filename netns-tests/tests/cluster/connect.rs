//! Namespaces that somebody else made, attached by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;

use weft_netns_tests::{Cluster, LIMIT, Said, eventually, figure, transfer};
use weft_sys::netns::Netns;
use weft_sys::offload::Offloads;

use crate::disks::restart;
use crate::swarm;

const GIB: usize = 1 << 30;

fn address(printed: &serde_json::Value) -> IpAddr {
    let ip = printed["IP"].as_str().expect("an address");
    ip.parse().expect("an address")
}

fn interfaces(cluster: &Cluster, node: &str, netns: &str) -> String {
    let words = ["ip", "-n", netns, "-o", "-4", "address"];
    cluster.run(node, None, &words).ok()
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one swarm, and one thing after the other happens to it"
)]
fn namespaces_are_attached_named_and_detached() {
    let cluster = swarm(2);
    cluster.network("front");
    cluster
        .run("node1", None, &["ip", "netns", "add", "box"])
        .done();
    let connect =
        |node: &str, words: &[&str]| cluster.weft(node, &[&["network", "connect"], words].concat());
    let text = connect(
        "node1",
        &[
            "--name",
            "box",
            "--ip",
            "10.0.1.77",
            "front",
            "/run/netns/box",
        ],
    )
    .ok();
    let printed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(printed["Name"], "box");
    assert_eq!(printed["IP"], "10.0.1.77");
    assert_eq!(printed["MacAddress"], "02:42:0a:00:01:4d");
    assert_eq!(printed["Ifname"], "eth0");
    assert_eq!(printed["Network"], "front");
    assert_eq!(printed["MTU"], 1450);
    assert!(
        printed["EndpointID"]
            .as_str()
            .is_some_and(|id| id.len() == 25),
        "{text}"
    );
    assert!(interfaces(&cluster, "node1", "box").contains("eth0    inet 10.0.1.77/24"));

    // A process's namespace, by its id on the node.
    let mut sleeper = cluster
        .lab()
        .command(
            "node2",
            &["unshare", "-n", "sh", "-c", "echo $$; exec sleep 600"],
        )
        .expect("node2 is up")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a process on node2");
    let mut pid = String::new();
    let mut said = std::io::BufReader::new(sleeper.stdout.take().expect("a pipe"));
    std::io::BufRead::read_line(&mut said, &mut pid).expect("a process id");
    let text = connect(
        "node2",
        &["--name", "process", "--alias", "nick", "front", pid.trim()],
    )
    .ok();
    let other: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let guest = cluster.netns("node1", Some("/run/netns/box".as_ref()));
    // Port 53 is the user's own: a name server in the box is nobody's obstacle, and gets none of
    // the questions that are the resolver's.
    let theirs = guest.run_in(|| {
        let all = (Ipv4Addr::UNSPECIFIED, 53);
        (UdpSocket::bind(all), TcpListener::bind(all))
    });
    let (their_udp, their_tcp) = theirs.expect("the namespace is there");
    let (their_udp, _their_tcp) = (their_udp.expect("udp"), their_tcp.expect("tcp"));
    eventually("they reach each other, by name", || {
        let words = [cluster.program(), "demo-dns", "nick"];
        let found = cluster.run("node1", Some("/run/netns/box".as_ref()), &words);
        let ping = cluster.run(
            "node1",
            Some("/run/netns/box".as_ref()),
            &["ping", "-c", "1", "-W", "1", &address(&other).to_string()],
        );
        let named = found.out.trim() == address(&other).to_string();
        if named && ping.code == 0 {
            Ok(())
        } else {
            Err(Box::new((found, ping)))
        }
    });
    their_udp.set_nonblocking(true).expect("set");
    assert!(their_udp.recv(&mut [0; 512]).is_err());
    drop(guest);

    for (node, words, says) in [
        (
            "node2",
            vec!["--ip", "10.0.1.77", "front", pid.trim()],
            vec!["10.0.1.77", "already in use by endpoint box"],
        ),
        (
            "node2",
            vec!["--ip", "10.9.1.1", "front", pid.trim()],
            vec!["not a host address of network front (10.0.1.0/24)"],
        ),
        (
            "node2",
            vec!["front", "/run/netns/nope"],
            vec![
                "network namespace /run/netns/nope does not exist",
                "ip netns list",
                "this is node node2: if it is on another node",
            ],
        ),
        (
            "node2",
            vec!["front", "/etc/passwd"],
            vec!["/etc/passwd is not a network namespace"],
        ),
        (
            "node2",
            vec!["front", "4000000"],
            vec!["no process 4000000", "this is node node2"],
        ),
        (
            "node2",
            vec!["nope", pid.trim()],
            vec!["no such network: nope"],
        ),
        (
            "node1",
            vec!["--name", "box", "front", "/run/netns/box"],
            vec!["endpoint with name box already exists", "on node node1"],
        ),
    ] {
        connect(node, &words).refused(&says);
    }

    // An interface is its endpoint's under every name.
    let rename = "ip -n box link set eth0 name wan0";
    let words: Vec<&str> = rename.split(' ').collect();
    cluster.run("node1", None, &words).done();
    cluster
        .weft("node1", &["network", "disconnect", "front", "box"])
        .done();
    let left = interfaces(&cluster, "node1", "box");
    assert!(!left.contains("eth") && !left.contains("wan"), "{left}");
    let words = ["ip", "netns", "exec", "box", "nft", "list", "ruleset"];
    assert_eq!(cluster.run("node1", None, &words).ok(), "");
    cluster
        .weft("node1", &["network", "disconnect", "front", "box"])
        .refused(&["no such endpoint: box"]);
    // The address is free again.
    connect(
        "node1",
        &[
            "--name",
            "again",
            "--ip",
            "10.0.1.77",
            "front",
            "/run/netns/box",
        ],
    )
    .done();
    sleeper.kill().expect("it runs");
    sleeper.wait().expect("it was started here");
}

#[test]
fn interfaces_of_others_stay_when_connecting_fails() {
    let cluster = swarm(1);
    cluster.network("front");
    let run = |words: &[&str]| cluster.run("node1", None, words).ok();
    run(&["ip", "netns", "add", "box"]);
    let veth = "ip -n box link add eth0 type veth peer name peer0";
    run(&veth.split(' ').collect::<Vec<_>>());
    for (ifname, says) in [
        ("eth0", "interface eth0 exists in the namespace already"),
        ("lo", "interface lo exists in the namespace already"),
        ("eth1", "interface eth1 is kept for the gateway bridge"),
    ] {
        let words = ["network", "connect", "--name", "box", "--ifname", ifname];
        cluster
            .weft(
                "node1",
                &[words.as_slice(), &["front", "/run/netns/box"]].concat(),
            )
            .refused(&[says, "leave --ifname out"]);
    }
    let links = run(&["ip", "-n", "box", "-o", "link"]);
    assert!(
        links.contains("eth0@peer0") && links.contains("lo:"),
        "{links}"
    );
    // Nothing is allocated, and the next free name is taken.
    let words = [
        "network",
        "connect",
        "--name",
        "box",
        "front",
        "/run/netns/box",
    ];
    let said = cluster.weft("node1", &words).ok();
    assert!(said.contains("\"Ifname\": \"eth2\""), "{said}");
    assert!(said.contains("\"IP\": \"10.0.1.2\""), "{said}");
    let words = ["network", "disconnect", "front", "box"];
    cluster.weft("node1", &words).done();
    let links = run(&["ip", "-n", "box", "-o", "link"]);
    assert!(links.contains("eth0@peer0"), "{links}");
    assert!(!links.contains("eth2"), "{links}");
}

/// Attaches a namespace of node2 that has this name, under the same name.
fn attach(cluster: &Cluster, name: &str) -> Said {
    let netns = format!("/run/netns/{name}");
    let words = ["network", "connect", "--name", name, "front", &netns];
    cluster.weft("node2", &words)
}

/// Does with a namespace what a person would whose command has failed, until node1 reaches it.
fn attach_at_last(cluster: &Cluster, name: &str) {
    eventually("it is attached", || {
        let info = cluster.weft("node2", &["info"]);
        let half = format!("endpoint {name} is not attached");
        if info.out.contains(&half) {
            let words = ["network", "disconnect", "front", name];
            cluster.weft("node2", &words).done();
        }
        let said = attach(cluster, name);
        let shown = interfaces(cluster, "node2", name);
        let line = shown.lines().find(|line| line.contains(" 10.0.1."));
        let ip = line.and_then(|line| line.split([' ', '/']).find(|w| w.starts_with("10.0.1.")));
        let words = ["ping", "-c", "1", "-W", "1", ip.unwrap_or("127.0.0.254")];
        let ping = cluster.run("node1", Some("/run/netns/client".as_ref()), &words);
        let there = said.code == 0 || said.err.contains("already exists");
        if there && ip.is_some() && ping.code == 0 {
            Ok(())
        } else {
            Err(Box::new((info, said, ping)))
        }
    });
}

#[test]
fn attachments_that_a_killed_agent_was_making_are_whole_or_can_be_made_again() {
    let cluster = swarm(2);
    cluster.network("front");
    cluster.guest("node1", "client", "front");
    let used = || {
        let used = cluster.inspect("network", "front")["Addresses"]["Used"].as_u64();
        used.expect("a number")
    };
    let before = used();
    let names: Vec<String> = (1..=8).map(|n| format!("box{n}")).collect();
    let made = cluster.lab().add_netnses("node2", &names);
    made.unwrap_or_else(|e| panic!("{e:#}"));
    std::thread::scope(|scope| {
        let (sender, ends) = mpsc::channel();
        for name in &names {
            let (sender, cluster) = (sender.clone(), &cluster);
            scope.spawn(move || {
                // Those that are under way fail.
                drop(attach(cluster, name));
                let _enough = sender.send(());
            });
        }
        for _ in 0..2 {
            ends.recv_timeout(LIMIT).expect("an attachment");
        }
        restart(&cluster, "node2");
    });
    for name in &names {
        attach_at_last(&cluster, name);
    }
    // Nothing is left of what was begun.
    assert_eq!(used(), before + 8);
    let said = cluster.weft("node2", &["info"]).ok();
    assert!(!said.contains("not attached"), "{said}");
    let links = |words: &[&str], kind: &str| {
        let shown = cluster.run("node2", None, words).ok();
        shown.lines().filter(|line| line.contains(kind)).count()
    };
    for name in &names {
        // One to the network, one to the outside, and `lo`.
        let words = ["ip", "-n", name, "-o", "link"];
        assert_eq!(links(&words, ": "), 3, "{name}");
    }
    assert_eq!(links(&["ip", "-o", "link"], "master weft_gwbridge"), 8);
}

fn guests(cluster: &Cluster) -> [(Netns, IpAddr); 2] {
    cluster.network("front");
    let (a, first) = cluster.guest("node1", "a", "front");
    let (b, second) = cluster.guest("node2", "b", "front");
    let (first, second) = (address(&first), address(&second));
    eventually("they reach each other", || {
        let words = ["ping", "-c", "1", "-W", "1", &second.to_string()];
        let said = cluster.run("node1", Some("/run/netns/a".as_ref()), &words);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    [(a, first), (b, second)]
}

fn gigabits(bytes: usize, took: std::time::Duration) -> f64 {
    bytes as f64 * 8.0 / took.as_secs_f64() / 1e9
}

#[test]
fn a_gibibyte_arrives_intact_with_offloads() {
    let cluster = swarm(2);
    let [(a, _), (b, to)] = guests(&cluster);
    let took = transfer(&a, &b, SocketAddr::new(to, 5000), GIB);
    figure(&format!(
        "1 GiB with offloads: {:.2} Gbit/s (debug build)",
        gigabits(GIB, took)
    ));
}

#[test]
#[ignore = "second tier: the data plane has it in tests of its own"]
fn a_gibibyte_arrives_intact_without_offloads() {
    let cluster = swarm(2);
    let [(a, _), (b, to)] = guests(&cluster);
    for netns in [&a, &b] {
        let off = Offloads {
            tx_checksum: false,
            tso: false,
            gso: false,
            gro: false,
        };
        netns
            .run_in(|| off.apply("eth0"))
            .expect("a thread in the sandbox")
            .expect("offloads can be switched");
        let now = netns
            .run_in(|| Offloads::of("eth0"))
            .expect("a thread in the sandbox");
        assert_eq!(now.expect("offloads can be read"), off);
    }
    let took = transfer(&a, &b, SocketAddr::new(to, 5000), GIB);
    figure(&format!(
        "1 GiB without offloads: {:.2} Gbit/s (debug build)",
        gigabits(GIB, took)
    ));
}
