//! Hosts and clients that are set up in ways of their own: strict filters of sources, packets with a
//! short life, a resolver that is named by its link, clients inside.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV6, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Socket, Type};
use weft_lab::FAR_ADDRESS;
use weft_netns_tests::{Cluster, LIMIT, Task, eventually, get};
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;

use crate::published::{serve, udp_answers, udp_server};
use crate::service::resolver;
use crate::swarm;

const NODES: [&str; 2] = ["node1", "node2"];

/// How often something is asked that either replica may answer.
const OFTEN: usize = 6;

/// Only packets that came the way that answers go are taken, by the node and in its sandboxes.
fn filter_sources(cluster: &Cluster, tasks: &[Task]) {
    let script = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done; \
        cat /proc/sys/net/ipv4/conf/*/rp_filter | sort -u";
    let words = ["sh", "-c", script];
    for node in NODES {
        assert_eq!(cluster.run(node, None, &words).ok(), "1\n", "{node}");
    }
    for task in tasks {
        let said = cluster.run(&task.node, Some(&task.netns), &words).ok();
        assert_eq!(said, "1\n", "{}", task.name);
    }
}

/// A connection whose packets live for so many hops, and what the port says on it.
fn ask_with_ttl(client: &Netns, to: SocketAddr, ttl: u32) -> io::Result<String> {
    let connect = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_ttl_v4(ttl)?;
        socket.connect_timeout(&to.into(), LIMIT)?;
        io::Result::Ok(TcpStream::from(socket))
    };
    let mut stream = client.run_in(connect)??;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The node is the last router before the replica, wherever that is.
fn nodes_are_routers(cluster: &Cluster, client: &Netns) {
    let strays = || NODES.map(|node| cluster.drops(node, "not_a_flow"));
    let before = strays();
    for node in NODES {
        let to = cluster.at(node, 8000);
        let short = ask_with_ttl(client, to, 1).map_err(|e| e.kind());
        assert_eq!(short, Err(ErrorKind::HostUnreachable), "{node}");
        for ttl in [2, 3] {
            for _ in 0..OFTEN {
                let answer = ask_with_ttl(client, to, ttl).expect("an answer");
                assert!(answer.contains("Hello from web-80 "), "{node}: {answer}");
            }
        }
    }
    assert_eq!(strays(), before);
}

/// Gives node1 a link called `br-lan` with a resolver behind it that has no address but that of the
/// link, and no other resolver. Short names are looked up below `corp.test` there.
fn resolver_on_a_link(cluster: &Cluster, stop: &Arc<AtomicBool>) {
    let path = cluster
        .lab()
        .add_netns("node1", "lan")
        .expect("a namespace");
    // Whatever file the name leads to, the node sees another one in its place.
    let script = "set -e
        ip link add br-lan type veth peer name lan0 netns lan
        ip addr add fe80::1/64 dev br-lan nodad
        ip link set br-lan up
        ip -n lan addr add fe80::53/64 dev lan0 nodad
        ip -n lan link set lan0 up
        echo 'search corp.test' > /run/resolv.conf
        echo 'nameserver fe80::53%br-lan' >> /run/resolv.conf
        file=$(readlink -m /etc/resolv.conf)
        mkdir -p $(dirname $file)
        [ -e $file ] || : > $file
        mount --bind /run/resolv.conf $file";
    cluster.run("node1", None, &["sh", "-c", script]).done();
    let lan = cluster.netns("node1", Some(&path));
    let link = Netlink::open_in(&lan).and_then(|mut links| links.link_index("lan0"));
    let ip = "fe80::53".parse().expect("an address");
    let at = SocketAddrV6::new(ip, 53, 0, link.expect("lan0"));
    resolver(&lan, at.into(), Arc::clone(stop));
}

/// The C library of the task on node1 asks for a name of one word as it is, and then as the node's
/// own programs would.
fn looks_short_names_up(cluster: &Cluster) {
    let words = ["pgrep", "-f", "name web-80$"];
    let pid = cluster.run("node1", None, &words).ok();
    let enter = ["nsenter", "-t", pid.trim(), "-m", "-n"];
    let words = [&enter[..], &["getent", "hosts", "intranet"]].concat();
    eventually("the name is found", || {
        let said = cluster.run("node1", None, &words);
        let found: Vec<&str> = said.out.split_whitespace().collect();
        if found.starts_with(&["203.0.113.7", "intranet.corp.test"]) {
            Ok(())
        } else {
            Err(said)
        }
    });
}

#[test]
fn strict_hosts_short_lives_and_clients_inside_are_served() {
    let cluster = swarm(2);
    let stop = Arc::<AtomicBool>::default();
    resolver_on_a_link(&cluster, &stop);
    cluster.network("front");
    let options = ["--network", "front", "--replicas", "2"];
    let ports = ["-p", "8000:80", "-p", "5353:5353/udp"];
    let tasks = serve(&cluster, "web", &[options, ports].concat(), &[80]);
    for task in &tasks {
        let sandbox = cluster.netns(&task.node, Some(&task.netns));
        udp_server(&sandbox, 5353, "datagram", Arc::clone(&stop));
    }
    let client = cluster.outside();
    let guests = [("node1", "a"), ("node2", "b")];
    let guests = guests.map(|(node, name)| cluster.guest(node, name, "front").0);
    let far = SocketAddr::new(FAR_ADDRESS.into(), 80);
    let vip = SocketAddr::new(cluster.vip("web", "front"), 80);

    let all_are_served = || {
        for node in NODES {
            let (tcp, udp) = (cluster.at(node, 8000), cluster.at(node, 5353));
            // A sandbox reaches the ports of its own node and of the other one.
            for from in [&client, &guests[0], &guests[1]] {
                eventually("the port answers", || get(from, tcp));
                for _ in 0..OFTEN {
                    get(from, tcp).expect("the port");
                    udp_answers(from, udp, "datagram");
                }
            }
        }
        for guest in &guests {
            eventually("the virtual address answers", || get(guest, vip));
            for _ in 0..OFTEN {
                get(guest, vip).expect("the virtual address");
            }
            get(guest, far).expect("the way out");
        }
        for task in &tasks {
            let sandbox = cluster.netns(&task.node, Some(&task.netns));
            get(&sandbox, far).expect("the way out of a task");
        }
    };
    all_are_served();
    nodes_are_routers(&cluster, &client);
    filter_sources(&cluster, &tasks);
    all_are_served();

    let own = tasks.iter().find(|task| task.node == "node1");
    let own = own.expect("a task on node1");
    let found = eventually("the resolver on the link answers", || {
        cluster.lookup(own, "www.example.test", false)
    });
    assert_eq!(found, ["203.0.113.7"]);
    looks_short_names_up(&cluster);
    stop.store(true, Ordering::Relaxed);
}
