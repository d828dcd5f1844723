//! IPv6 inside the overlay, and under it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use ipnet::IpNet;
use weft_netns_tests::{Cluster, Settings, eventually, figure, get, transfer};
use weft_sys::netlink::{Netlink, Vxlan};
use weft_sys::netns::Netns;

use crate::{PROGRAM, swarm};

const TOTAL: usize = 64 << 20;

fn joined_by_ipv6(nodes: u8) -> Settings {
    Settings {
        nodes,
        ipv6: true,
        ..Settings::default()
    }
}

fn over_ipv6(nodes: u8) -> Cluster {
    Cluster::swarm(PROGRAM, &joined_by_ipv6(nodes))
}

/// The same of two nodes that have the routes of a VPN which takes everything, private ranges among
/// it: they are no claims to what a swarm chooses from.
fn beside_a_full_tunnel() -> Cluster {
    let cluster = Cluster::bare(PROGRAM, &joined_by_ipv6(2));
    let gateway = cluster.addr("outside").to_string();
    for node in ["node1", "node2"] {
        for dest in ["2000::/3", "fc00::/7"] {
            let route = ["ip", "route", "add", dest, "via", &gateway];
            cluster.run(node, None, &route).done();
        }
    }
    cluster.init("node1");
    let token = cluster.token();
    cluster.join("node2", &token).done();
    cluster.wait_ready(2);
    cluster
}

/// A namespace with both of its addresses.
struct Guest {
    node: &'static str,
    path: String,
    netns: Netns,
    v4: IpAddr,
    v6: IpAddr,
}

fn guest(cluster: &Cluster, node: &'static str, name: &str, mtu: u64) -> Guest {
    let (netns, printed) = cluster.guest(node, name, "front");
    assert_eq!(printed["MTU"], mtu);
    let ips = printed["IPs"].as_array().expect("a list");
    let ips: Vec<IpAddr> = ips
        .iter()
        .map(|ip| {
            ip.as_str()
                .and_then(|ip| ip.parse().ok())
                .expect("an address")
        })
        .collect();
    let [v4, v6] = ips[..] else {
        unreachable!("one address of each family: {ips:?}");
    };
    assert!(v4.is_ipv4() && v6.is_ipv6(), "{ips:?}");
    assert_eq!(printed["IP"], ips[0].to_string());
    Guest {
        node,
        path: format!("/run/netns/{name}"),
        netns,
        v4,
        v6,
    }
}

impl Guest {
    fn reaches(&self, cluster: &Cluster, to: IpAddr) {
        eventually("a ping is answered", || {
            let words = ["ping", "-n", "-c", "1", "-W", "1", &to.to_string()];
            let said = cluster.run(self.node, Some(Path::new(&self.path)), &words);
            if said.code == 0 { Ok(()) } else { Err(said) }
        });
    }
}

fn arrives_intact(client: &Netns, server: &Netns, to: SocketAddr) {
    let took = transfer(client, server, to, TOTAL);
    let rate = TOTAL as f64 * 8.0 / took.as_secs_f64() / 1e9;
    figure(&format!("64 MiB to {to}: {rate:.2} Gbit/s (debug build)"));
}

/// Asks the sandbox's resolver; sorted texts of the records.
fn records(netns: &Netns, name: &str, kind: RecordType) -> Result<BTreeSet<String>, String> {
    let socket = netns
        .run_in(|| UdpSocket::bind("127.0.0.1:0"))
        .expect("a thread")
        .expect("a port");
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a limit");
    socket.connect("127.0.0.11:53").expect("a route");
    let mut question = Message::query();
    let name = Name::from_ascii(name).expect("a name");
    question.add_query(Query::query(name, kind));
    let question = question.to_vec().expect("a question can be written");
    socket.send(&question).map_err(|e| e.to_string())?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).map_err(|e| e.to_string())?;
    let answer = Message::from_vec(&buffer[..length]).map_err(|e| e.to_string())?;
    if answer.metadata.response_code != ResponseCode::NoError {
        return Err(answer.metadata.response_code.to_string());
    }
    Ok(answer
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::A(a) => a.0.to_string(),
            RData::AAAA(aaaa) => aaaa.0.to_string(),
            other => other.to_string(),
        })
        .collect())
}

fn answers(netns: &Netns, name: &str, kind: RecordType, wanted: &[IpAddr]) {
    let wanted: BTreeSet<String> = wanted.iter().map(IpAddr::to_string).collect();
    eventually("the name has the addresses", || {
        match records(netns, name, kind) {
            Ok(found) if found == wanted => Ok(()),
            other => Err((name.to_owned(), other)),
        }
    });
}

/// `….ip6.arpa` (RFC 3596 section 2.5).
fn reverse(ip: IpAddr) -> String {
    let IpAddr::V6(ip) = ip else {
        unreachable!("{ip} is not IPv6")
    };
    let nibbles = ip.octets().into_iter().rev();
    let nibbles = nibbles.map(|o| format!("{:x}.{:x}.", o & 15, o >> 4));
    nibbles.collect::<String>() + "ip6.arpa"
}

/// Addresses of a service's tasks and its virtual ones, IPv4 first.
fn addresses(cluster: &Cluster) -> ([Vec<IpAddr>; 2], [IpAddr; 2]) {
    let parse = |text: &serde_json::Value| -> IpAddr {
        text.as_str()
            .and_then(|t| t.parse().ok())
            .expect("an address")
    };
    let network = &cluster.inspect("network", "front")["Id"];
    let service = cluster.inspect("service", "web");
    let vips = service["Endpoint"]["VirtualIPs"].as_array();
    let vips: Vec<IpAddr> = vips
        .expect("a list")
        .iter()
        .filter(|v| v["NetworkID"] == *network)
        .filter_map(|v| v["Addr"].as_str()?.parse::<IpNet>().ok())
        .map(|addr| addr.addr())
        .collect();
    let tasks: Vec<IpAddr> = cluster
        .rows(&["service", "ps", "web"])
        .iter()
        .flat_map(|row| {
            row["Addresses"][0]["IPs"]
                .as_array()
                .expect("a list")
                .clone()
        })
        .map(|ip| parse(&ip))
        .collect();
    let vips = vips.try_into().expect("a virtual address of each family");
    let (v4, v6) = tasks.into_iter().partition(IpAddr::is_ipv4);
    ([v4, v6], vips)
}

#[test]
fn a_cluster_joined_by_ipv6_carries_both_families() {
    let cluster = beside_a_full_tunnel();
    assert_eq!(cluster.addr("node2").to_string(), "fd77::2");
    cluster
        .weft("node1", &["network", "create", "--ipv6", "front"])
        .done();
    // 1500 less 70 of outer headers.
    let a = guest(&cluster, "node1", "a", 1430);
    let b = guest(&cluster, "node2", "b", 1430);
    let network = cluster.inspect("network", "front");
    let subnets = network["IPAM"]["Config"].as_array().expect("a list");
    assert_eq!(subnets.len(), 2, "{network:#}");
    for to in [b.v6, b.v4] {
        a.reaches(&cluster, to);
        arrives_intact(&a.netns, &b.netns, SocketAddr::new(to, 5000));
    }
    let gateway = subnets[1]["Gateway"].as_str().expect("a gateway");
    a.reaches(&cluster, gateway.parse().expect("an address"));

    let tasks = cluster.serve_web(2);
    assert_eq!(tasks.len(), 2, "{tasks:?}");
    let ([tasks4, tasks6], [vip4, vip6]) = addresses(&cluster);
    assert_eq!((tasks4.len(), tasks6.len()), (2, 2));
    answers(&a.netns, "web", RecordType::A, &[vip4]);
    answers(&a.netns, "web", RecordType::AAAA, &[vip6]);
    answers(&a.netns, "tasks.web", RecordType::AAAA, &tasks6);
    answers(&a.netns, "tasks.web", RecordType::A, &tasks4);
    answers(&a.netns, "b", RecordType::AAAA, &[b.v6]);
    for (ip, name) in [(b.v6, "b.front."), (vip6, "web.front.")] {
        let found = records(&a.netns, &reverse(ip), RecordType::PTR).expect("an answer");
        assert!(found.contains(name), "{ip}: {found:?}");
    }

    // Both replicas, at the virtual addresses, from another node and from their own.
    for client in [&a.netns, &b.netns] {
        for vip in [vip6, vip4] {
            let mut seen = BTreeSet::new();
            eventually("both replicas answer at the virtual address", || {
                let answer = get(client, SocketAddr::new(vip, 80)).map_err(|e| e.to_string())?;
                seen.insert(answer);
                if seen.len() == 2 {
                    Ok(())
                } else {
                    Err(format!("{seen:?}"))
                }
            });
        }
    }
    a.reaches(&cluster, vip6);
    // A published port is accepted at the nodes' IPv6 addresses.
    let outside = cluster.outside();
    for node in ["node1", "node2"] {
        eventually("the published port answers", || {
            get(&outside, cluster.at(node, 8000))
        });
    }

    // A new agent takes everything up again.
    cluster
        .lab()
        .kill_agent("node1")
        .expect("node1 has an agent");
    cluster.wait_ready(2);
    a.reaches(&cluster, b.v6);
    eventually("the virtual address answers again", || {
        get(&a.netns, SocketAddr::new(vip6, 80))
    });
}

#[test]
fn addresses_of_ipv6_are_chosen_and_refused() {
    let cluster = swarm(2);
    let create = |words: &[&str]| cluster.weft("node1", &[&["network", "create"], words].concat());
    create(&["--subnet", "fd05::/64", "front"]).done();
    create(&["--subnet", "fd05::/48", "wide"]).refused(&["fd05::/48 overlaps with fd05::/64"]);
    create(&["--subnet", "fd06::/120", "small"]).refused(&["use /96 or larger"]);
    let a = guest(&cluster, "node1", "a", 1450);
    assert_eq!(a.v6.to_string(), "fd05::a00:102");
    let path = cluster.lab().add_netns("node2", "b").expect("a namespace");
    let path = path.display().to_string();
    let connect = ["network", "connect", "--ip", "fd05::b", "front", &path];
    let text = cluster.weft("node2", &connect).ok();
    let printed: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(printed["IPs"], serde_json::json!(["10.0.1.3", "fd05::b"]));
    let b = cluster.netns("node2", Some(Path::new(&path)));
    let to: SocketAddr = "[fd05::b]:5000".parse().expect("an address");
    a.reaches(&cluster, to.ip());
    arrives_intact(&a.netns, &b, to);
    let again = ["network", "connect", "--ip", "fd05::b", "front", &a.path];
    cluster
        .weft("node1", &again)
        .refused(&["fd05::b", "already in use"]);
    let words = [
        "ip", "-n", "b", "-6", "-o", "address", "show", "dev", "eth0",
    ];
    let shown = cluster.run("node2", None, &words).ok();
    assert!(shown.contains("fd05::b/64 scope global"), "{shown}");
    assert!(!shown.contains("tentative"), "{shown}");
}

#[test]
fn the_kernels_vxlan_device_is_a_peer_over_ipv6() {
    let cluster = over_ipv6(1);
    cluster
        .weft(
            "node1",
            &["network", "create", "--subnet", "fd05::/64", "front"],
        )
        .done();
    let own = guest(&cluster, "node1", "a", 1430);
    let vni = cluster
        .rows(&["network", "ls"])
        .into_iter()
        .find(|n| n["Name"] == "front");
    let vni = vni.and_then(|n| n["VNI"].as_u64()).expect("a VNI");
    let peer: IpAddr = "fd05::c8".parse().expect("an address");
    let (local, vtep) = (cluster.addr("outside"), cluster.addr("node1"));
    let outside = cluster.outside();
    let mut links = Netlink::open_in(&outside).expect("a netlink socket");
    let device = Vxlan {
        name: "vx0",
        vni: u32::try_from(vni).expect("24 bits"),
        local,
        port: 4789,
        learning: false,
        udp_checksum: true,
    };
    assert!(links.add_vxlan(&device).expect("a vxlan device"));
    let mac = [0x02, 0x42, 0, 0, 0, 0xc8];
    links.set_mac("vx0", mac).expect("a MAC address");
    links.set_mtu("vx0", 1430).expect("an MTU");
    links
        .append_fdb("vx0", [0; 6], vtep)
        .expect("a forwarding entry");
    let net = IpNet::new(peer, 64).expect("a prefix");
    links.add_address("vx0", net).expect("an address");
    links.set_up("vx0", true).expect("the device comes up");

    let (ip, vtep) = (peer.to_string(), local.to_string());
    let mac = "02:42:00:00:00:c8";
    let add = [
        "network", "peer", "add", "--ip", &ip, "--mac", mac, "--vtep", &vtep, "front",
    ];
    cluster.weft("node1", &add).done();
    own.reaches(&cluster, peer);
    let (there, here) = (SocketAddr::new(peer, 5000), SocketAddr::new(own.v6, 5000));
    arrives_intact(&own.netns, &outside, there);
    arrives_intact(&outside, &own.netns, here);
}
