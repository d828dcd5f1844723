//! What a sandbox, and a stranger on the underlay, can do with the gateway bridge and the mesh
//! address behind the published ports: nothing but what these are for.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use etherparse::PacketBuilder;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use weft_lab::FAR_ADDRESS;
use weft_netns_tests::{Cluster, ask, connect, eventually, figure, get};
use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;

use crate::published::serve;
use crate::swarm;

/// What got through: all of it is told, not the first alone.
#[derive(Debug, Default)]
struct Holes(Vec<String>);

impl Holes {
    fn unless(&mut self, held: bool, what: impl std::fmt::Display) {
        if !held {
            self.0.push(what.to_string());
        }
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{:#?}", self.0);
    }
}

/// A sandbox of its own with a port on an overlay network and one on the gateway bridge.
struct Guest {
    netns: Netns,
    ip: Ipv4Addr,
    mac: [u8; 6],
    gateway_ip: Ipv4Addr,
    gateway_mac: String,
}

fn guest(cluster: &Cluster, node: &str, name: &str, network: &str) -> Guest {
    let (netns, printed) = cluster.guest(node, name, network);
    let text = |key: &str| printed[key].as_str().expect("a text").to_owned();
    let mac: Vec<u8> = text("MacAddress")
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect();
    let mut links = Netlink::open_in(&netns).expect("netlink");
    let found = links.addresses("eth1").expect("the gateway bridge");
    let gateway_ip = found.iter().find_map(|net| match net.addr() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    let link = links.link("eth1").expect("netlink").expect("eth1");
    let gateway_mac = link.mac.expect("an address").map(|b| format!("{b:02x}"));
    Guest {
        netns,
        ip: text("IP").parse().expect("an address"),
        mac: mac.try_into().expect("six bytes"),
        gateway_ip: gateway_ip.expect("an address on the bridge"),
        gateway_mac: gateway_mac.join(":"),
    }
}

fn in_sandbox(guest: &Guest, words: &[&str]) -> bool {
    guest
        .netns
        .run_in(|| {
            std::process::Command::new(words[0])
                .args(&words[1..])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status()
        })
        .expect("a thread")
        .expect("the program is there")
        .success()
}

fn vni(cluster: &Cluster, network: &str) -> u32 {
    let network: Value = cluster.inspect("network", network);
    let vni = network["VNI"].as_u64().expect("a VNI");
    u32::try_from(vni).expect("24 bits")
}

/// A datagram of one sandbox to port 9000 of another, as `vtep` would send it to the data path of
/// `node`.
fn forged(vtep: IpAddr, node: IpAddr, vni: u32, from: &Guest, to: &Guest) -> Vec<u8> {
    let [vtep, node] = [vtep, node].map(|ip| match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => unreachable!("an IPv4 lab"),
    });
    let mut inner = vec![0x08, 0, 0, 0];
    inner.extend(&vni.to_be_bytes()[1..]);
    inner.push(0);
    PacketBuilder::ethernet2(from.mac, to.mac)
        .ipv4(from.ip.octets(), to.ip.octets(), 64)
        .udp(9000, 9000)
        .write(&mut inner, b"forged")
        .expect("a frame");
    let mut outer = Vec::new();
    PacketBuilder::ipv4(vtep.octets(), node.octets(), 64)
        .udp(55_555, 4789)
        .write(&mut outer, &inner)
        .expect("a datagram");
    outer
}

/// Sends packets with headers of their own.
fn send_raw(from: &Netns, packets: &[(IpAddr, Vec<u8>)]) {
    let send = || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
        for (to, packet) in packets {
            socket.send_to(packet, &SocketAddr::new(*to, 0).into())?;
        }
        io::Result::Ok(())
    };
    from.run_in(send).expect("a thread").expect("a raw socket");
}

fn listen(guest: &Guest) -> UdpSocket {
    let bind = || UdpSocket::bind((guest.ip, 9000));
    let socket = guest.netns.run_in(bind).expect("a thread").expect("a port");
    let patience = Some(Duration::from_secs(5));
    socket.set_read_timeout(patience).expect("a limit");
    socket
}

/// How many forged datagrams came before an honest one that was sent after them.
fn forged_before_honest(socket: &UdpSocket, honest: &Guest, to: &Guest) -> usize {
    let send = || UdpSocket::bind((honest.ip, 0))?.send_to(b"honest", (to.ip, 9000));
    honest.netns.run_in(send).expect("a thread").expect("sent");
    let (mut count, mut buffer) = (0, [0; 64]);
    loop {
        let len = socket.recv(&mut buffer).expect("the honest datagram");
        match &buffer[..len] {
            b"forged" => count += 1,
            other => {
                assert_eq!(other, b"honest");
                return count;
            }
        }
    }
}

#[test]
fn a_sandbox_reaches_the_outside_and_what_is_published() {
    let cluster = swarm(3);
    cluster.network("front");
    cluster.network("back");
    let attacker = guest(&cluster, "node1", "attacker", "front");
    let neighbour = guest(&cluster, "node1", "neighbour", "front");
    let partner = guest(&cluster, "node3", "partner", "back");
    let victims = [
        guest(&cluster, "node1", "victim1", "back"),
        guest(&cluster, "node2", "victim2", "back"),
    ];
    // Whatever others accept.
    for node in ["node1", "node2"] {
        let others = "table inet others { \
            chain a { type filter hook prerouting priority -400; policy accept; accept; }; \
            chain b { type filter hook forward priority -400; policy accept; accept; }; \
            chain c { type filter hook input priority -400; policy accept; accept; }; }";
        cluster.run(node, None, &["nft", others]).done();
    }
    eventually("the partner reaches the victims", || {
        let reaches = |v: &Guest| in_sandbox(&partner, &["ping", "-c1", "-W1", &v.ip.to_string()]);
        if victims.iter().all(reaches) {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    let mut holes = Holes::default();
    injection(&mut holes, &cluster, &attacker, &partner, &victims);
    router_advertisements(&mut holes, &cluster, &attacker);
    ports_of_nodes(&mut holes, &cluster, &attacker);
    other_sandboxes(&mut holes, &cluster, &attacker, &neighbour);
    let wall = cluster.weft("node1", &["doctor"]).out;
    let line = wall.lines().find(|l| l.contains("gateway wall"));
    figure(line.unwrap_or("the doctor does not look at the wall"));
    holes.none();
}

fn bridge_mac(cluster: &Cluster) -> String {
    let mut links = Netlink::open_in(&cluster.netns("node1", None)).expect("netlink");
    let bridge = links.link("weft_gwbridge").expect("netlink");
    let mac = bridge.and_then(|link| link.mac).expect("an address");
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Where a sandbox sends what is for the gateway.
fn gateway_at(sandbox: &Guest, mac: &str) {
    let words = ["ip", "neigh", "replace", "172.18.0.1", "lladdr", mac];
    let words = [&words[..], &["dev", "eth1", "nud", "permanent"]].concat();
    assert!(in_sandbox(sandbox, &words));
}

/// VXLAN with the source of another node, from a sandbox that may send raw packets.
fn injection(
    holes: &mut Holes,
    cluster: &Cluster,
    attacker: &Guest,
    partner: &Guest,
    victims: &[Guest; 2],
) {
    let back = vni(cluster, "back");
    let vtep = cluster.addr("node3");
    for (node, victim) in ["node1", "node2"].into_iter().zip(victims) {
        let to = cluster.addr(node);
        let packet = forged(vtep, to, back, partner, victim);
        let five = vec![(to, packet); 5];
        let socket = listen(victim);
        // The frame is as the node that it claims to be of would send it.
        send_raw(&cluster.netns("node3", None), &five);
        assert_eq!(forged_before_honest(&socket, partner, victim), 5);
        for filter in ["0", "2"] {
            for name in ["all", "weft_gwbridge"] {
                let setting = format!("net.ipv4.conf.{name}.rp_filter={filter}");
                let said = cluster.run("node1", None, &["sysctl", "-qw", &setting]);
                said.done();
            }
            send_raw(&attacker.netns, &five);
            let came = forged_before_honest(&socket, partner, victim);
            holes.unless(
                came == 0,
                format!("{came} of 5 to {node} with rp_filter {filter}"),
            );
        }
        // Frames for a group that no bridge forwards are received on the port itself.
        let groups = ["00", "02", "0e"];
        for group in groups {
            gateway_at(attacker, &format!("01:80:c2:00:00:{group}"));
            send_raw(&attacker.netns, &five);
            let came = forged_before_honest(&socket, partner, victim);
            holes.unless(came == 0, format!("{came} of 5 to {node} by group {group}"));
        }
        gateway_at(attacker, &bridge_mac(cluster));
    }
}

/// A sandbox that says it is a router.
fn router_advertisements(holes: &mut Holes, cluster: &Cluster, attacker: &Guest) {
    // RFC 4861 section 4.2, with a prefix to make addresses of (section 4.6.2).
    let mut body = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend([
        3, 4, 64, 0xc0, 0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    body.extend(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0).octets());
    let index = Netlink::open_in(&attacker.netns)
        .and_then(|mut links| links.link_index("eth1"))
        .expect("eth1");
    // An address that may be used at once.
    let words = ["ip", "-6", "address", "add", "fe80::bad/64", "dev", "eth1"];
    assert!(in_sandbox(attacker, &[&words[..], &["nodad"]].concat()));
    let all_nodes = SocketAddrV6::new("ff02::1".parse().expect("an address"), 0, 0, index);
    let send = || {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_if_v6(index)?;
        for _ in 0..3 {
            socket.send_to(&body, &SocketAddr::V6(all_nodes).into())?;
        }
        io::Result::Ok(())
    };
    attacker
        .netns
        .run_in(send)
        .expect("a thread")
        .expect("sent");
    // What is sent after them was received after them.
    assert!(in_sandbox(attacker, &["ping", "-c1", "-W1", "172.18.0.1"]));
    let routes = cluster
        .run("node1", None, &["ip", "-6", "route", "show", "default"])
        .ok();
    holes.unless(!routes.contains("weft_gwbridge"), routes);
    let links = cluster
        .run("node1", None, &["ip", "-6", "-o", "address"])
        .ok();
    let has = |name: &str| links.lines().any(|line| line.contains(name));
    holes.unless(!has("gwbridge") && !has(" wgw"), &links);
}

/// Nothing of the node but what is published, and nothing of the cluster of any node.
fn ports_of_nodes(holes: &mut Holes, cluster: &Cluster, attacker: &Guest) {
    let second = Duration::from_secs(1);
    let host = cluster.netns("node1", None);
    let bind = || std::net::TcpListener::bind("0.0.0.0:5555");
    let _own = host.run_in(bind).expect("a thread").expect("a free port");
    let bridge: IpAddr = "172.18.0.1".parse().expect("an address");
    let nodes = ["node1", "node2", "node3"].map(|node| cluster.addr(node));
    let mut closed: Vec<SocketAddr> = nodes.map(|ip| SocketAddr::new(ip, 7946)).into();
    closed.push(cluster.at("node1", 2377));
    closed.extend([5555, 2377, 7946].map(|port| SocketAddr::new(bridge, port)));
    closed.push(cluster.at("node1", 5555));
    for to in closed {
        let reached = connect(&attacker.netns, to, second).is_ok();
        holes.unless(!reached, format!("a sandbox reaches {to}"));
    }
    let far = SocketAddr::new(FAR_ADDRESS.into(), 80);
    get(&attacker.netns, far).expect("the outside");
    // A node's own programs reach a sandbox, as Docker's do.
    let ip = attacker.gateway_ip.to_string();
    cluster
        .run("node1", None, &["ping", "-c1", "-W1", &ip])
        .done();
}

/// Neither another sandbox's ports, nor its name at the bridge.
fn other_sandboxes(holes: &mut Holes, cluster: &Cluster, attacker: &Guest, neighbour: &Guest) {
    let outside = cluster.outside();
    let node1 = cluster.addr("node1").to_string();
    let words = ["ip", "route", "add", "172.18.0.0/16", "via", &node1];
    cluster.run("outside", None, &words).done();
    let bind = || {
        let tcp = std::net::TcpListener::bind("0.0.0.0:6379")?;
        let udp = UdpSocket::bind("0.0.0.0:6379")?;
        udp.set_read_timeout(Some(Duration::from_millis(300)))?;
        io::Result::Ok((tcp, udp))
    };
    let bound = neighbour.netns.run_in(bind).expect("a thread");
    let (_tcp, udp) = bound.expect("free ports");
    let to = SocketAddr::new(neighbour.gateway_ip.into(), 6379);
    for netns in [&outside, &attacker.netns] {
        let reached = connect(netns, to, Duration::from_secs(1));
        holes.unless(reached.is_err(), "an unpublished port of a sandbox");
        let send = || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            (0..3).try_for_each(|_| socket.send_to(b"x", to).map(drop))
        };
        netns.run_in(send).expect("a thread").expect("sent");
        let came = udp.recv(&mut [0; 8]).is_ok();
        holes.unless(!came, "a datagram to an unpublished port of a sandbox");
    }
    let ip = neighbour.gateway_ip.to_string();
    let pinged = cluster.run("outside", None, &["ping", "-c1", "-W1", &ip]);
    holes.unless(pinged.code != 0, "the outside pings a sandbox");

    // The attacker takes the neighbour's address and says so.
    let far = SocketAddr::new(FAR_ADDRESS.into(), 80);
    get(&neighbour.netns, far).expect("the outside");
    let net = format!("{ip}/16");
    assert!(in_sandbox(
        attacker,
        &["ip", "address", "add", &net, "dev", "eth1"]
    ));
    assert!(in_sandbox(
        attacker,
        &["ip", "neigh", "flush", "dev", "eth1"]
    ));
    in_sandbox(
        attacker,
        &["ip", "neigh", "del", "172.18.0.1", "dev", "eth1"],
    );
    let mac = &neighbour.gateway_mac;
    for spoofed_mac in [false, true] {
        if spoofed_mac {
            let words = ["ip", "link", "set", "eth1", "address", mac];
            assert!(in_sandbox(attacker, &words));
            gateway_at(attacker, &bridge_mac(cluster));
        }
        let words = ["ping", "-c2", "-i0.2", "-W1", "-I", &ip, "172.18.0.1"];
        let answered = in_sandbox(attacker, &words);
        holes.unless(!answered, "the host answers a borrowed address");
        let known = ["ip", "neigh", "show", &ip, "dev", "weft_gwbridge"];
        let known = cluster.run("node1", None, &known).ok();
        let fixed = known.contains(mac) && known.contains("PERMANENT");
        holes.unless(fixed, known);
        let fdb = cluster
            .run(
                "node1",
                None,
                &["bridge", "fdb", "show", "br", "weft_gwbridge"],
            )
            .ok();
        holes.unless(fdb.matches(mac.as_str()).count() == 1, fdb);
        let out = ask(&neighbour.netns, far, Duration::from_secs(1));
        holes.unless(out.is_ok(), "the neighbour has no way out");
    }
}

#[test]
fn a_port_is_published_where_it_was_published() {
    let cluster = swarm(3);
    let node3 = format!("{}:8003:80", cluster.addr("node3"));
    let options = [
        "-p",
        "127.0.0.1:8001:80",
        "-p",
        &node3,
        "-p",
        "8000:80",
        "-p",
        "53:53/udp",
    ];
    serve(&cluster, "web", &options, &[80]);
    cluster.network("other");
    let attacker = guest(&cluster, "node2", "attacker", "other");
    let outside = cluster.outside();
    let second = Duration::from_secs(1);
    let public = cluster.at("node2", 8000);
    for netns in [&outside, &attacker.netns] {
        eventually("the public port answers", || get(netns, public));
    }
    let own = cluster.netns("node2", None);
    get(&own, "127.0.0.1:8001".parse().expect("an address")).expect("the host's own port");
    // Node3 hears of the service by itself.
    let one = cluster.at("node3", 8003);
    eventually("the port on one address answers", || get(&outside, one));
    let bridge = "172.18.0.1:8000".parse().expect("an address");
    get(&attacker.netns, bridge).expect("a published port by the bridge's address");

    let node2 = cluster.addr("node2").to_string();
    let route = ["ip", "route", "add", "169.254.77.0/30", "via", &node2];
    cluster.run("outside", None, &route).done();
    for (machine, address) in [("node2", "fd77::2/64"), ("outside", "fd77::254/64")] {
        let words = ["ip", "address", "add", address, "dev", "eth0", "nodad"];
        cluster.run(machine, None, &words).done();
    }
    let route = [
        "ip",
        "-6",
        "route",
        "add",
        "fd57:4546:5400::/48",
        "via",
        "fd77::2",
    ];
    cluster.run("outside", None, &route).done();
    let mut holes = Holes::default();
    for port in [8001, 8003, 8000] {
        let hidden = ["169.254.77.2", "fd57:4546:5400::a9fe:4d02"];
        for ip in hidden.map(|ip| ip.parse::<IpAddr>().expect("an address")) {
            let to = SocketAddr::new(ip, port);
            let reached = connect(&outside, to, second).is_ok();
            holes.unless(!reached, format!("{to} from outside"));
            if ip.is_ipv4() {
                let reached = connect(&attacker.netns, to, second);
                holes.unless(reached.is_err(), format!("{to} from a sandbox"));
            }
        }
    }
    // A local user who is not the agent has the listeners, as everybody.
    let program = cluster.program().to_owned();
    let nobody = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        &program,
        "demo-get",
    ];
    for (url, there) in [("169.254.77.2:8003", false), ("127.0.0.1:8001", true)] {
        let words = [&nobody[..], &[url]].concat();
        let said = cluster.run("node2", None, &words);
        let text = format!("a local user: {url} answers {there}, {said:?}");
        holes.unless((said.code == 0) == there, text);
    }
    holes.none();
}
