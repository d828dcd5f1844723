use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::id::EndpointId;
use weft_model::objects::Mac;
use weft_sys::netlink::{MAIN_TABLE, Netlink, Veth};
use weft_sys::nft;
use weft_sys::tap::{Tap, TapError};

use super::gwbridge::{Egress, GatewayBridge};
use super::*;
use crate::names::{BRIDGE, DNS_ADDR, MESH_IFNAME, MESH_IP, MESH_IP6, TABLE};

fn net(text: &str) -> IpNet {
    text.parse().expect("net")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

/// A named namespace that is removed whatever happens.
struct Named {
    dir: tempfile::TempDir,
}

impl Named {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("dir"),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("ns")
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        Sandbox::remove(self.path()).expect("remove");
    }
}

fn anonymous() -> Sandbox {
    Sandbox {
        netns: Netns::create_anonymous().expect("netns"),
    }
}

/// One endpoint for each name that an interface is made with.
fn endpoint(ifname: &str) -> EndpointId {
    EndpointId(format!("of-{ifname}"))
}

fn port(ifname: &str, host: &str, gateways: &[&str]) -> PortConfig {
    let host = net(host);
    PortConfig {
        endpoint: endpoint(ifname),
        ifname: ifname.to_owned(),
        mac: Mac::for_ip(host.addr()),
        ips: vec![host],
        gateways: gateways.iter().map(|g| ip(g)).collect(),
        mtu: 1450,
    }
}

fn output_in(sandbox: &Sandbox, command: &str) -> String {
    let mut words = command.split(' ');
    let run = || {
        Command::new(words.next().expect("program"))
            .args(words)
            .output()
            .expect("run")
            .stdout
    };
    String::from_utf8(sandbox.netns.run_in(run).expect("enter")).expect("text")
}

#[test]
fn a_sandbox_is_made_taken_up_and_removed() {
    let named = Named::new();
    let sandbox = Sandbox::open_or_create(named.path()).expect("create");
    assert!(
        sandbox
            .netlink()
            .expect("nl")
            .link("lo")
            .expect("lo")
            .expect("lo")
            .up
    );
    let again = Sandbox::open_or_create(named.path()).expect("take up");
    assert!(again.netns().same_as(sandbox.netns()).expect("stat"));
    let opened = Sandbox::open(named.path().to_str().expect("text")).expect("open");
    assert!(opened.netns().same_as(sandbox.netns()).expect("stat"));
    assert!(matches!(
        Sandbox::create(named.path()),
        Err(SandboxError::Netns(NetnsError::Exists { .. }))
    ));
    let own = Sandbox::open(&std::process::id().to_string()).expect("by pid");
    assert!(
        own.netns()
            .same_as(&Netns::current().expect("current"))
            .expect("stat")
    );

    Sandbox::remove(named.path()).expect("remove");
    std::fs::write(named.path(), "left by a crash").expect("write");
    Sandbox::open_or_create(named.path()).expect("over a stale file");
}

#[test]
fn overlay_ports_answer_the_way_they_were_asked() {
    let sandbox = anonymous();
    assert_eq!(sandbox.first_free_ifname().expect("name"), "eth0");
    let first = sandbox
        .add_port(&port("eth0", "10.0.1.5/24", &["10.0.1.1"]))
        .expect("eth0");
    assert_eq!(sandbox.first_free_ifname().expect("name"), "eth2");
    let _second = sandbox
        .add_port(&port("eth2", "10.0.2.5/24", &["10.0.2.1"]))
        .expect("eth2");
    assert_eq!(sandbox.first_free_ifname().expect("name"), "eth3");
    assert_eq!(first.name(), "eth0");
    assert!(!sandbox.has_own_way_out().expect("routes"));

    let asked = output_in(&sandbox, "ip route get 203.0.113.7 from 10.0.1.5");
    let table = |ifname| {
        let mut netlink = sandbox.netlink().expect("nl");
        1000 + netlink.link_index(ifname).expect("there")
    };
    let of_eth0 = table("eth0");
    let way = format!("via 10.0.1.1 dev eth0 table {of_eth0}");
    assert!(asked.contains(&way), "{asked}");
    let asked = output_in(&sandbox, "ip route get 203.0.113.7 from 10.0.2.5");
    let of_eth2 = table("eth2");
    let way = format!("via 10.0.2.1 dev eth2 table {of_eth2}");
    assert!(asked.contains(&way), "{asked}");
    let asked = output_in(&sandbox, "ip route get 10.0.2.9 from 10.0.2.5");
    assert!(
        asked.contains("dev eth2") && !asked.contains("via"),
        "{asked}"
    );
    let link = output_in(&sandbox, "ip addr show eth0");
    for part in ["mtu 1450", "02:42:0a:00:01:05", "10.0.1.5/24", "qlen 5000"] {
        assert!(link.contains(part), "{part} in {link}");
    }
    assert!(!link.contains("inet6"), "{link}");

    // Another agent takes it up, with another address.
    drop(first);
    let tap = sandbox
        .add_port(&port("eth0", "10.0.1.6/24", &["10.0.1.1"]))
        .expect("again");
    let addresses = sandbox
        .netlink()
        .expect("nl")
        .addresses("eth0")
        .expect("addresses");
    assert_eq!(addresses, [net("10.0.1.6/24")]);
    drop(tap);

    sandbox
        .remove_port("eth0", &endpoint("eth0"))
        .expect("remove");
    sandbox
        .remove_port("eth0", &endpoint("eth0"))
        .expect("twice");
    let mut netlink = sandbox.netlink().expect("nl");
    assert!(netlink.link("eth0").expect("link").is_none());
    let tables: Vec<u32> = netlink
        .rules()
        .expect("rules")
        .iter()
        .map(|r| r.table)
        .collect();
    assert!(
        !tables.contains(&of_eth0) && tables.contains(&of_eth2),
        "{tables:?}"
    );
}

/// Whoever is root in the sandbox may give interfaces other names, even each other's.
#[test]
fn a_renamed_interface_is_known_and_removed() {
    let sandbox = anonymous();
    let config = port("eth0", "10.0.1.5/24", &["10.0.1.1"]);
    let tap = sandbox.add_port(&config).expect("eth0");
    output_in(&sandbox, "ip link set eth0 name wan0");
    output_in(&sandbox, "ip link add eth0 type veth peer name eth9");
    assert_eq!(tap.name_by_now().expect("there"), "wan0");
    set_port_mtu(&tap, 1400).expect("by its name of now");
    let mut netlink = sandbox.netlink().expect("nl");
    assert_eq!(netlink.link("wan0").expect("wan0").expect("wan0").mtu, 1400);

    let wan0 = netlink.link_index("wan0").expect("wan0");
    output_in(&sandbox, "ip addr del 10.0.1.5/24 dev wan0");
    let lost = keep_port(&sandbox.netns, &config).expect("kept");
    assert!(lost.iter().any(|l| l.contains("10.0.1.5")), "{lost:?}");
    let addresses = netlink.addresses("wan0").expect("addresses");
    assert_eq!(addresses, [net("10.0.1.5/24")]);

    // The next agent takes it up, and makes no second one.
    drop(tap);
    let tap = sandbox.add_port(&config).expect("again");
    assert_eq!(tap.name(), "wan0");
    assert_eq!(netlink.link_index("wan0").expect("wan0"), wan0);
    assert_eq!(keep_port(&sandbox.netns, &config).expect("kept"), [""; 0]);
    let links = sandbox.claimed_ports().expect("links");
    assert_eq!(links, [("wan0".to_owned(), endpoint("eth0"))]);

    drop(tap);
    sandbox
        .remove_port("eth0", &endpoint("eth0"))
        .expect("gone");
    assert!(netlink.link("wan0").expect("links").is_none());
    assert!(netlink.link("eth0").expect("links").is_some(), "not ours");
    let rules = netlink.rules().expect("rules");
    assert!(!rules.iter().any(|rule| rule.table == 1000 + wan0));
}

#[test]
fn what_others_made_is_neither_taken_nor_removed() {
    let sandbox = anonymous();
    let mut netlink = sandbox.netlink().expect("nl");
    netlink
        .add_veth(&Veth {
            name: "eth0",
            peer: "peer0",
            peer_netns: None,
            peer_mac: None,
            mtu: None,
        })
        .expect("veth");
    for (ifname, why) in [
        ("eth0", "exists in the namespace already"),
        ("lo", "exists in the namespace already"),
        ("eth1", "is kept for the gateway bridge"),
    ] {
        let error = sandbox.check_free(ifname).expect_err(ifname).to_string();
        assert!(error.contains(why) && error.contains("--ifname"), "{error}");
    }
    sandbox.check_free("eth2").expect("nobody has it");
    let config = port("eth0", "10.0.1.5/24", &["10.0.1.1"]);
    assert!(matches!(
        sandbox.add_port(&config),
        Err(SandboxError::Tap(_))
    ));
    sandbox
        .remove_port("eth0", &endpoint("eth0"))
        .expect("stays");
    let kind = netlink.link("eth0").expect("link").and_then(|l| l.kind);
    assert_eq!(kind.as_deref(), Some("veth"));
}

#[test]
fn both_families_have_their_own_way_back() {
    let sandbox = anonymous();
    let mut config = port("eth0", "10.0.1.5/24", &["10.0.1.1", "fd00:1::1"]);
    config.ips.push(net("fd00:1::5/64"));
    let _tap = sandbox.add_port(&config).expect("eth0");
    let asked = output_in(&sandbox, "ip -6 route get 2001:db8::7 from fd00:1::5");
    assert!(asked.contains("via fd00:1::1 dev eth0"), "{asked}");
    for name in [
        "accept_ra",
        "autoconf",
        "accept_dad",
        "dad_transmits",
        "disable_ipv6",
    ] {
        let path = format!("/proc/sys/net/ipv6/conf/eth0/{name}");
        let shown = output_in(&sandbox, &format!("cat {path}"));
        assert_eq!(shown.trim(), "0", "{name}");
    }
    // Usable at once, the link-local address too, and no address but these.
    let shown = output_in(&sandbox, "ip -6 -o addr show dev eth0");
    assert!(!shown.contains("tentative"), "{shown}");
    assert!(shown.contains("fd00:1::5/64 scope global"), "{shown}");
    assert!(
        shown.contains("fe80::42:aff:fe00:105/64 scope link"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 2, "{shown}");
    let routes = output_in(&sandbox, "ip -6 route show dev eth0");
    assert!(!routes.contains("default"), "{routes}");
}

#[test]
fn a_port_that_fails_leaves_nothing() {
    let sandbox = anonymous();
    let config = port("eth0", "10.0.1.5/24", &["10.9.9.9"]);
    let error = sandbox.add_port(&config).expect_err("unreachable gateway");
    assert!(error.to_string().contains("via 10.9.9.9"), "{error}");
    assert_eq!(sandbox.first_free_ifname().expect("name"), "eth0");
}

/// A name server of the sandbox has port 53 of every address, and names still resolve.
#[test]
fn resolver_sockets_leave_port_53_to_others() {
    let sandbox = anonymous();
    let DnsSockets { udp, tcp, way } = sandbox.dns_sockets().expect("sockets");
    let all = (Ipv4Addr::UNSPECIFIED, DNS_ADDR.port());
    let theirs = sandbox.netns.run_in(|| {
        let udp = UdpSocket::bind(all).expect("udp");
        (udp, TcpListener::bind(all).expect("tcp"))
    });
    let (their_udp, _their_tcp) = theirs.expect("enter");
    let ask = || {
        let client = UdpSocket::bind("127.0.0.1:0").expect("a client");
        client.connect(DNS_ADDR).expect("connect");
        client.send(b"udp").expect("sent");
        (client, TcpStream::connect(DNS_ADDR).expect("connect"))
    };
    let (client, mut stream) = sandbox.netns.run_in(ask).expect("enter");
    udp.set_nonblocking(false).expect("blocking");
    tcp.set_nonblocking(false).expect("blocking");
    let mut bytes = [0; 16];
    let (len, from) = udp.recv_from(&mut bytes).expect("asked");
    assert_eq!(&bytes[..len], b"udp");
    udp.send_to(b"answer", from).expect("answered");
    // It is connected: what does not come from where it asked is not taken.
    let len = client.recv(&mut bytes).expect("an answer");
    assert_eq!(&bytes[..len], b"answer");
    stream.write_all(b"tcp").expect("write");
    stream.shutdown(std::net::Shutdown::Write).expect("ended");
    let (mut server, _) = tcp.accept().expect("accept");
    let mut text = String::new();
    server.read_to_string(&mut text).expect("read");
    server.write_all(b"answer").expect("write");
    drop(server);
    text.clear();
    stream.read_to_string(&mut text).expect("read");
    assert_eq!(text, "answer");
    their_udp.set_nonblocking(true).expect("set");
    assert!(their_udp.recv(&mut bytes).is_err(), "nothing went astray");

    let way = way.expect("nft is there");
    assert_eq!(way.keep().expect("looked"), None);
    output_in(&sandbox, "nft flush ruleset");
    assert!(way.keep().expect("set again").is_some());
    assert_eq!(way.keep().expect("looked"), None);
    output_in(&sandbox, "nft flush chain ip weft_dns output");
    assert!(way.keep().expect("set again").is_some());
    sandbox.netns.run_in(ask).expect("enter");
    udp.recv_from(&mut bytes).expect("asked");
    sandbox.remove_way_to_resolver().expect("gone");
    assert_eq!(output_in(&sandbox, "nft list ruleset"), "");
}

/// Another test may start a program at this moment: until its child has become that program, the child
/// has a copy of every descriptor, that of the device too.
fn open_closed_mesh_tap(mtu: u32) -> Tap {
    let begun = std::time::Instant::now();
    loop {
        match open_mesh_tap(mtu) {
            Err(SandboxError::Tap(TapError::Busy { .. })) if begun.elapsed().as_secs() < 10 => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            opened => return opened.expect("taken up"),
        }
    }
}

#[test]
fn the_mesh_tap_is_made_once_and_taken_up() {
    let host = anonymous();
    host.netns
        .run_in(|| {
            let tap = open_mesh_tap(1450).expect("weft0");
            assert!(matches!(
                open_mesh_tap(1450),
                Err(SandboxError::Tap(TapError::Busy { .. }))
            ));
            drop(tap);
            let tap = open_closed_mesh_tap(1400);
            let mut netlink = Netlink::open().expect("nl");
            assert_eq!(
                netlink.route_to(MESH_IP.into()).expect("route").dev,
                MESH_IFNAME
            );
            assert!(netlink.route_to(MESH_IP6.into()).is_err());
            for _ in 0..2 {
                add_mesh_ipv6().expect("IPv6");
                let route = netlink.route_to(MESH_IP6.into()).expect("route");
                assert_eq!(route.dev, MESH_IFNAME);
            }
            drop(tap);
            let off = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
            std::fs::write(off, "1").expect("a setting");
            let tap = open_closed_mesh_tap(1400);
            let why = add_mesh_ipv6().expect_err("IPv6 is off");
            assert!(why.contains("disable_ipv6"), "{why}");
            drop(tap);
            remove_mesh_tap().expect("remove");
            remove_mesh_tap().expect("twice");
            assert!(netlink.link(MESH_IFNAME).expect("link").is_none());
        })
        .expect("enter");
}

/// A host with an uplink to a machine outside, at 192.168.7.1.
fn host_with_uplink() -> (Sandbox, Sandbox) {
    let (host, outside) = (anonymous(), anonymous());
    let (mut nl, mut nl_out) = (host.netlink().expect("nl"), outside.netlink().expect("nl"));
    nl.set_up("lo", true).expect("lo");
    nl.add_veth(&Veth {
        name: "up0",
        peer: "out0",
        peer_netns: Some(&outside.netns),
        peer_mac: None,
        mtu: None,
    })
    .expect("veth");
    nl.add_address("up0", net("192.168.7.2/24"))
        .expect("address");
    nl.set_up("up0", true).expect("up");
    nl_out
        .add_address("out0", net("192.168.7.1/24"))
        .expect("address");
    nl_out.set_up("out0", true).expect("up");
    nl_out.set_up("lo", true).expect("lo");
    nl.set_route(&weft_sys::netlink::Route {
        dest: net("0.0.0.0/0"),
        gateway: Some(ip("192.168.7.1")),
        dev: Some("up0".to_owned()),
        table: MAIN_TABLE,
        onlink: false,
    })
    .expect("default route");
    (host, outside)
}

fn pings(sandbox: &Sandbox, dest: &str) -> bool {
    output_in(sandbox, &format!("ping -c 1 -W 1 {dest}")).contains(" 0% packet loss")
}

#[test]
fn sandboxes_reach_the_outside_but_not_each_other() {
    let (host, outside) = host_with_uplink();
    let (a, b) = (anonymous(), anonymous());
    host.netns
        .run_in(|| {
            let bridge = GatewayBridge::ensure(None, Arc::default()).expect("bridge");
            let at = "192.168.7.1:4789".parse().expect("an address");
            bridge.spare_tracking(at).expect("notrack");
            assert_eq!(bridge.egress(), &Egress::On);
            assert_eq!(bridge.subnet().to_string(), "172.18.0.1/16");
            assert_eq!(
                bridge.connect(&a).expect("a").expect("a wall").to_string(),
                "172.18.0.2"
            );
            assert_eq!(
                bridge.connect(&b).expect("b").expect("a wall").to_string(),
                "172.18.0.3"
            );
            assert_eq!(
                bridge
                    .connect(&a)
                    .expect("a again")
                    .expect("a wall")
                    .to_string(),
                "172.18.0.2"
            );

            // The next agent takes up what is there.
            let bridge = GatewayBridge::ensure(None, Arc::default()).expect("again");
            let c = anonymous();
            assert_eq!(
                bridge.connect(&c).expect("c").expect("a wall").to_string(),
                "172.18.0.4"
            );
            bridge.disconnect(&c).expect("disconnect");
            bridge.disconnect(&c).expect("twice");
            bridge.forget_gone().expect("forget");
            assert_eq!(
                bridge
                    .connect(&b)
                    .expect("b again")
                    .expect("a wall")
                    .to_string(),
                "172.18.0.3"
            );
        })
        .expect("enter");
    assert!(!a.has_own_way_out().expect("routes"));
    let way = output_in(&a, "ip route show default");
    assert!(way.contains("via 172.18.0.1 dev eth1"), "{way}");
    // The answer finds its way because the source is the host's own address.
    assert!(pings(&a, "192.168.7.1"));
    assert!(!outside.has_own_way_out().expect("routes"));
    assert!(pings(&a, "172.18.0.1"));
    assert!(!pings(&a, "172.18.0.3"));

    let table = output_in(&host, "nft list table inet weft");
    assert_eq!(table.matches("masquerade").count(), 1, "{table}");
    host.netns
        .run_in(|| {
            for _ in 0..2 {
                GatewayBridge::teardown().expect("teardown");
                assert!(nft::list_table("inet", TABLE).expect("list").is_none());
                assert!(
                    Netlink::open()
                        .expect("nl")
                        .link(BRIDGE)
                        .expect("link")
                        .is_none()
                );
            }
        })
        .expect("enter");
    assert!(
        a.netlink()
            .expect("nl")
            .link(GATEWAY_IFNAME)
            .expect("link")
            .is_none()
    );
}

#[test]
fn the_bridge_avoids_ranges_of_the_host() {
    let (host, _outside) = host_with_uplink();
    let mut nl = host.netlink().expect("nl");
    nl.add_address("up0", net("172.18.9.9/24"))
        .expect("address");
    host.netns
        .run_in(|| {
            let wanted = "172.18.0.0/16".parse().expect("net");
            let error = GatewayBridge::ensure(Some(wanted), Arc::default()).expect_err("taken");
            assert!(
                error.to_string().contains("overlaps 172.18.9.0/24 on up0"),
                "{error}"
            );
            let bridge = GatewayBridge::ensure(None, Arc::default()).expect("bridge");
            assert_eq!(bridge.subnet().to_string(), "172.19.0.1/16");
            let wanted = "172.30.0.0/24".parse().expect("net");
            let bridge = GatewayBridge::ensure(Some(wanted), Arc::default()).expect("moved");
            assert_eq!(bridge.subnet().to_string(), "172.30.0.1/24");
            let addresses = Netlink::open()
                .expect("nl")
                .addresses(BRIDGE)
                .expect("addresses");
            assert!(!addresses.contains(&net("172.19.0.1/16")), "{addresses:?}");
        })
        .expect("enter");
}
