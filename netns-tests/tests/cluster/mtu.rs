//! Sandboxes follow the MTU of the underlay, also while they use it.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use weft_netns_tests::{Cluster, Settings, eventually, receive_pattern, send_pattern, transfer};
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;

use crate::PROGRAM;

/// What a round of the endless stream carries.
const ROUND: usize = 1 << 20;

struct Guest {
    netns: Netns,
    ip: IpAddr,
}

impl Guest {
    /// MTU of its interface, in bytes.
    fn mtu(&self) -> u32 {
        let mut links = Netlink::open_in(&self.netns).expect("netlink");
        let link = links.link("eth0").expect("an answer");
        link.expect("its interface").mtu
    }
}

fn swarm(mtu: u32) -> (Cluster, [Guest; 2]) {
    let cluster = Cluster::swarm(
        PROGRAM,
        &Settings {
            nodes: 2,
            mtu,
            ..Settings::default()
        },
    );
    cluster.network("front");
    let guests = [("node1", "a"), ("node2", "b")].map(|(node, name)| {
        let (netns, printed) = cluster.guest(node, name, "front");
        assert_eq!(printed["MTU"], mtu - 50, "{printed}");
        let ip = printed["IP"].as_str().expect("an address");
        Guest {
            netns,
            ip: ip.parse().expect("an address"),
        }
    });
    eventually("they reach each other", || {
        let words = ["ping", "-c", "1", "-W", "1", &guests[1].ip.to_string()];
        let said = cluster.run("node1", Some("/run/netns/a".as_ref()), &words);
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    (cluster, guests)
}

/// Sets the MTU of the cable at a node.
fn set_uplink(cluster: &Cluster, node: &str, mtu: u32) {
    let mut links = Netlink::open_in(&cluster.netns(node, None)).expect("netlink");
    links.set_mtu("eth0", mtu).expect("an MTU");
}

/// Sets the MTU of a node's route to the others.
fn route_mtu(cluster: &Cluster, node: &str, mtu: u32) {
    let words = ["ip", "route", "change", "10.77.0.0/24", "dev", "eth0"];
    let own = cluster.addr(node).to_string();
    let mtu = mtu.to_string();
    let words = [&words[..], &["src", &own, "mtu", &mtu]].concat();
    cluster.run(node, None, &words).done();
}

fn exchange(mtu: u32) {
    let (cluster, [a, b]) = swarm(mtu);
    assert_eq!((a.mtu(), b.mtu()), (mtu - 50, mtu - 50));
    let _took = transfer(&a.netns, &b.netns, SocketAddr::new(b.ip, 5000), 64 << 20);
    // The largest packet arrives, and one byte more cannot be sent.
    let ping = |bytes: u32| {
        let (size, to) = ((bytes - 28).to_string(), b.ip.to_string());
        let words = ["ping", "-M", "do", "-c", "1", "-W", "2", "-s"];
        let words = [&words[..], &[&size, &to]].concat();
        cluster.run("node1", Some("/run/netns/a".as_ref()), &words)
    };
    ping(mtu - 50).done();
    assert_ne!(ping(mtu - 49).code, 0);
    for node in ["node1", "node2"] {
        assert_eq!(cluster.drops(node, "oversized"), 0, "{node}");
    }
    let inspected = cluster.inspect("network", "front");
    assert_eq!(inspected["MTU"], mtu - 50, "{inspected}");
}

#[test]
fn an_underlay_of_1400_bytes() {
    exchange(1400);
}

#[test]
fn an_underlay_of_9000_bytes() {
    exchange(9000);
}

#[test]
fn a_stream_goes_on_while_the_underlay_shrinks_and_grows() {
    let (cluster, [a, b]) = swarm(1500);
    let to = SocketAddr::new(b.ip, 5000);
    let listener = b.netns.run_in(|| TcpListener::bind(to)).expect("a thread");
    let listener = listener.expect("the port is free");
    let stream = a.netns.run_in(|| TcpStream::connect(to)).expect("a thread");
    let stream = stream.expect("the server answers");
    let (accepted, _) = listener.accept().expect("the connection is there");
    for end in [&stream, &accepted] {
        let limit = Some(Duration::from_secs(20));
        end.set_read_timeout(limit).expect("a limit");
        end.set_write_timeout(limit).expect("a limit");
    }
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let progress = |what: &str| {
        let from = rounds.load(Ordering::Relaxed);
        eventually(what, || {
            let at = rounds.load(Ordering::Relaxed);
            if at > from + 8 {
                Ok(())
            } else {
                Err(at - from)
            }
        });
    };
    let segment = || SockRef::from(&stream).tcp_mss().expect("TCP_MAXSEG");
    let follows = |(mtu, other): (u32, u32), what: &str| {
        eventually(what, || {
            let seen = (a.mtu(), b.mtu(), segment());
            // 20 bytes for IP, 20 for TCP and 12 for its timestamps.
            let wanted = (mtu, other, mtu - 52);
            if seen == wanted { Ok(()) } else { Err(seen) }
        });
        progress(what);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                send_pattern(&stream, ROUND);
            }
            stream
                .shutdown(std::net::Shutdown::Write)
                .expect("the stream ends");
        });
        scope.spawn(|| {
            let mut next = [0];
            while accepted.peek(&mut next).expect("the stream goes on") > 0 {
                receive_pattern(&accepted, ROUND);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        // A failed assertion must not leave the sender sending.
        let _stop = StopOnDrop(&stop);
        follows((1450, 1450), "at first");
        // Only one side's device: the other node has to be told.
        set_uplink(&cluster, "node2", 1400);
        follows((1350, 1350), "the receiver's node shrank");
        set_uplink(&cluster, "node2", 1500);
        follows((1450, 1450), "it is back");
        // Only the sender's route: the way back stays as it is.
        route_mtu(&cluster, "node1", 1360);
        follows((1310, 1450), "the sender's route shrank");
        route_mtu(&cluster, "node1", 1500);
        follows((1450, 1450), "it is back, too");
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
