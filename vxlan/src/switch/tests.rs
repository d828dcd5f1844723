use std::net::Ipv4Addr;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use weft_wire::mac_for_ip;

use super::*;
use crate::builder::SwitchBuilder;

const NET: Vni = Vni::new(4097).unwrap();
const OTHER: Vni = Vni::new(4098).unwrap();
const PORT: PortId = PortId(1);
const NEIGHBOR_PORT: PortId = PortId(2);

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);
const NEIGHBOR: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 6);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 7);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 100);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 200);
const BROADCAST: Mac = Mac::BROADCAST;

fn vtep() -> SocketAddr {
    "192.0.2.2:4789".parse().unwrap()
}

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x0a00, 0x100 + last)
}

fn mac(ip: Ipv4Addr) -> Mac {
    mac_for_ip(ip.into())
}

fn switch() -> Switch {
    let mut builder = SwitchBuilder::new();
    builder
        .network(NetworkEntry {
            vni: NET,
            mtu: 1450,
            gateways: vec![GATEWAY.into(), v6(1).into()],
        })
        .local(NET, mac(OWN), &[OWN.into(), v6(5).into()], PORT)
        .local(
            NET,
            mac(NEIGHBOR),
            &[NEIGHBOR.into(), v6(6).into()],
            NEIGHBOR_PORT,
        )
        .remote(NET, mac(REMOTE), &[REMOTE.into(), v6(7).into()], vtep())
        .virtual_ip(NET, VIP.into());
    builder.build()
}

fn egress(frame: &[u8]) -> Egress {
    let ips = [OWN.into(), v6(5).into()];
    let source = PortSource {
        port: PORT,
        mac: mac(OWN),
        ips: &ips,
    };
    let info = frame::parse(frame).unwrap();
    switch().egress(NET, source, frame, &info)
}

fn ingress(frame: &[u8]) -> Ingress {
    ingress_from(vtep(), frame)
}

fn ingress_from(vtep: SocketAddr, frame: &[u8]) -> Ingress {
    switch().ingress(NET, vtep.ip(), frame, &frame::parse(frame).unwrap())
}

fn udp_between(macs: (Mac, Mac), ips: (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs.0.0, macs.1.0)
        .ipv4(ips.0.octets(), ips.1.octets(), 64)
        .udp(4000, 53)
        .write(&mut frame, b"hello")
        .unwrap();
    frame
}

fn udp_to(ip: Ipv4Addr) -> Vec<u8> {
    udp_between((mac(OWN), mac(ip)), (OWN, ip))
}

fn udp6(macs: (Mac, Mac), src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs.0.0, macs.1.0)
        .ipv6(src.octets(), dst.octets(), 64)
        .udp(4000, 53)
        .write(&mut frame, b"hello")
        .unwrap();
    frame
}

fn ping_to(macs: (Mac, Mac), ips: (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs.0.0, macs.1.0)
        .ipv4(ips.0.octets(), ips.1.octets(), 64)
        .icmpv4_echo_request(7, 1)
        .write(&mut frame, b"0123456789")
        .unwrap();
    frame
}

/// An ARP packet; `operation` 1 asks, 2 answers.
fn arp(operation: u8, src: Mac, sender: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let mut frame = BROADCAST.0.to_vec();
    frame.extend_from_slice(&src.0);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&sender.0.0);
    frame.extend_from_slice(&sender.1.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&target.octets());
    frame
}

fn asks(target: Ipv4Addr) -> Vec<u8> {
    arp(1, mac(OWN), (mac(OWN), OWN), target)
}

/// A message of neighbor discovery with a target, of the given type.
fn discovery(kind: u8, src_mac: Mac, src: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let group: Ipv6Addr = "ff02::1:ff00:6".parse().unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(src_mac.0, [0x33, 0x33, 0xff, 0, 0, 6])
        .ipv6(src.octets(), group.octets(), 255)
        .icmpv6_raw(kind, 0, [0; 4])
        // A redirect names a destination behind the target.
        .write(
            &mut frame,
            &target.octets().repeat(1 + usize::from(kind == 137)),
        )
        .unwrap();
    frame
}

fn solicits(target: Ipv6Addr) -> Vec<u8> {
    discovery(135, mac(OWN), v6(5), target)
}

fn dropped(reason: DropReason) -> Egress {
    Egress::Drop(reason)
}

#[test]
fn known_destinations() {
    assert_eq!(egress(&udp_to(NEIGHBOR)), Egress::Local(NEIGHBOR_PORT));
    assert_eq!(egress(&udp_to(REMOTE)), Egress::Remote(vtep()));
    assert_eq!(egress(&udp_to(VIP)), Egress::Virtual);
    assert_eq!(egress(&udp_to(NOBODY)), dropped(DropReason::UnknownMac));
    let frame = udp6((mac(OWN), mac(REMOTE)), v6(5), v6(7));
    assert_eq!(egress(&frame), Egress::Remote(vtep()));
}

#[test]
fn networks_do_not_see_each_other() {
    let switch = switch();
    assert!(switch.lookup(NET, mac(REMOTE)).is_some());
    assert_eq!(switch.lookup(OTHER, mac(REMOTE)), None);
    assert_eq!(switch.neighbor(OTHER, REMOTE.into()), None);
    assert!(switch.network(OTHER).is_none());
}

#[test]
fn a_port_speaks_for_itself_only() {
    let other = mac(NEIGHBOR);
    let frame = udp_between((other, mac(REMOTE)), (OWN, REMOTE));
    assert_eq!(egress(&frame), dropped(DropReason::SpoofedMac));
    let frame = udp_between((mac(OWN), mac(REMOTE)), (NEIGHBOR, REMOTE));
    assert_eq!(egress(&frame), dropped(DropReason::SpoofedIp));
    let frame = udp6((mac(OWN), mac(REMOTE)), v6(6), v6(7));
    assert_eq!(egress(&frame), dropped(DropReason::SpoofedIp));
    let frame = arp(1, other, (mac(OWN), OWN), REMOTE);
    assert_eq!(egress(&frame), dropped(DropReason::SpoofedMac));
    let frame = arp(1, mac(OWN), (other, OWN), REMOTE);
    assert_eq!(egress(&frame), dropped(DropReason::SpoofedMac));
    let frame = arp(1, mac(OWN), (mac(OWN), NEIGHBOR), REMOTE);
    assert_eq!(egress(&frame), dropped(DropReason::SpoofedIp));
    let frame = discovery(135, mac(OWN), v6(6), v6(7));
    assert_eq!(egress(&frame), dropped(DropReason::SpoofedIp));
}

#[test]
fn rfc4291_appendix_a_own_link_local_address_is_accepted() {
    let own: Ipv6Addr = "fe80::42:aff:fe00:105".parse().unwrap();
    assert_eq!(link_local(mac(OWN)), own);
    assert_eq!(link_local_owner(own.into()), Some(mac(OWN)));
    assert_eq!(link_local_owner(v6(5).into()), None);
    let frame = udp6((mac(OWN), mac(REMOTE)), own, v6(7));
    assert_eq!(egress(&frame), Egress::Remote(vtep()));
    let other = link_local(mac(NEIGHBOR));
    let frame = udp6((mac(OWN), mac(REMOTE)), other, v6(7));
    assert_eq!(egress(&frame), dropped(DropReason::SpoofedIp));
    // Others are found by theirs.
    let expected = Answer::NeighborAdvert {
        mac: mac(NEIGHBOR),
        ip: other,
        router: false,
    };
    assert_eq!(egress(&solicits(other)), Egress::Answer(expected));
    let nobody = link_local(mac(NOBODY));
    assert_eq!(
        egress(&solicits(nobody)),
        dropped(DropReason::UnknownNeighbor)
    );
}

#[test]
fn arp_is_answered_from_the_tables() {
    for ip in [NEIGHBOR, REMOTE, VIP, GATEWAY] {
        let expected = Answer::Arp { mac: mac(ip), ip };
        assert_eq!(egress(&asks(ip)), Egress::Answer(expected), "{ip}");
    }
    assert_eq!(egress(&asks(NOBODY)), dropped(DropReason::UnknownNeighbor));
    // RFC 5227: a probe for somebody else's address is told of the conflict.
    let probe = arp(1, mac(OWN), (mac(OWN), Ipv4Addr::UNSPECIFIED), NEIGHBOR);
    assert!(matches!(egress(&probe), Egress::Answer(Answer::Arp { .. })));
}

#[test]
fn rfc5227_s1_1_own_address_is_not_answered() {
    let probe = arp(1, mac(OWN), (mac(OWN), Ipv4Addr::UNSPECIFIED), OWN);
    let announcement = arp(1, mac(OWN), (mac(OWN), OWN), OWN);
    let reply = arp(2, mac(OWN), (mac(OWN), OWN), NEIGHBOR);
    for frame in [probe, announcement, reply] {
        assert_eq!(egress(&frame), dropped(DropReason::Multicast));
    }
}

#[test]
fn neighbor_solicitations_are_answered_from_the_tables() {
    for (last, ip, router) in [(6, NEIGHBOR, false), (7, REMOTE, false), (1, GATEWAY, true)] {
        let expected = Answer::NeighborAdvert {
            mac: mac(ip),
            ip: v6(last),
            router,
        };
        assert_eq!(egress(&solicits(v6(last))), Egress::Answer(expected));
    }
    assert_eq!(
        egress(&solicits(v6(99))),
        dropped(DropReason::UnknownNeighbor)
    );
}

#[test]
fn rfc4862_s5_4_duplicate_address_detection_stays_silent() {
    let probe = discovery(135, mac(OWN), Ipv6Addr::UNSPECIFIED, v6(5));
    assert_eq!(egress(&probe), dropped(DropReason::Multicast));
    assert_eq!(egress(&solicits(v6(5))), dropped(DropReason::Multicast));
}

#[test]
fn rfc4861_s4_nobody_advertises_through_the_switch() {
    for kind in [133, 134, 136, 137] {
        let mut frame = discovery(kind, mac(OWN), v6(5), v6(6));
        assert_eq!(egress(&frame), dropped(DropReason::Multicast), "{kind}");
        // Not to one host either.
        frame[..6].copy_from_slice(&mac(NEIGHBOR).0);
        assert_eq!(egress(&frame), dropped(DropReason::Multicast), "{kind}");
        assert_eq!(
            ingress(&frame),
            Ingress::Drop(DropReason::Multicast),
            "{kind}"
        );
    }
}

#[test]
fn groups_are_not_flooded() {
    let frame = udp_between((mac(OWN), BROADCAST), (OWN, Ipv4Addr::BROADCAST));
    assert_eq!(egress(&frame), dropped(DropReason::Multicast));
    assert_eq!(ingress(&frame), Ingress::Drop(DropReason::Multicast));
    // DHCP has no address yet; that is no spoofing.
    let dhcp = udp_between(
        (mac(OWN), BROADCAST),
        (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
    );
    assert_eq!(egress(&dhcp), dropped(DropReason::Multicast));
    let unicast = udp_between((mac(OWN), mac(REMOTE)), (Ipv4Addr::UNSPECIFIED, REMOTE));
    assert_eq!(egress(&unicast), dropped(DropReason::SpoofedIp));
}

#[test]
fn the_gateway_answers_ping_and_routes_nothing() {
    let macs = (mac(OWN), mac(GATEWAY));
    let ping = ping_to(macs, (OWN, GATEWAY));
    assert_eq!(egress(&ping), Egress::Answer(Answer::Echo));
    let beyond = ping_to(macs, (OWN, Ipv4Addr::new(10, 0, 2, 9)));
    assert_eq!(egress(&beyond), Egress::Routed, "whoever asks has to know");
    assert_eq!(ingress(&beyond), Ingress::Drop(DropReason::OtherNetwork));
    let udp = udp_between(macs, (OWN, GATEWAY));
    assert_eq!(egress(&udp), dropped(DropReason::OtherNetwork));
    let mut fragment = ping;
    fragment[20] = 0x20;
    assert_eq!(egress(&fragment), dropped(DropReason::Fragment));
}

#[test]
fn from_the_underlay_to_ports_of_this_node_only() {
    let from = |ip| udp_between((mac(REMOTE), mac(ip)), (REMOTE, ip));
    assert_eq!(ingress(&from(OWN)), Ingress::Local(PORT));
    assert_eq!(ingress(&from(VIP)), Ingress::Virtual);
    assert_eq!(ingress(&from(REMOTE)), Ingress::Drop(DropReason::Hairpin));
    assert_eq!(
        ingress(&from(NOBODY)),
        Ingress::Drop(DropReason::UnknownMac)
    );
    assert_eq!(
        ingress(&from(GATEWAY)),
        Ingress::Drop(DropReason::OtherNetwork)
    );
    let ping = ping_to((mac(REMOTE), mac(GATEWAY)), (REMOTE, GATEWAY));
    assert_eq!(ingress(&ping), Ingress::Answer(Answer::Echo));
}

#[test]
fn a_kernel_peer_may_ask_for_what_is_here() {
    let asks = |target| arp(1, mac(REMOTE), (mac(REMOTE), REMOTE), target);
    for ip in [OWN, VIP, GATEWAY] {
        let expected = Answer::Arp { mac: mac(ip), ip };
        assert_eq!(ingress(&asks(ip)), Ingress::Answer(expected));
    }
    // Its own VTEP, or another, answers for these.
    assert_eq!(ingress(&asks(REMOTE)), Ingress::Drop(DropReason::Multicast));
    assert_eq!(
        ingress(&asks(NOBODY)),
        Ingress::Drop(DropReason::UnknownNeighbor)
    );
    let solicit = |target| discovery(135, mac(REMOTE), v6(7), target);
    let expected = Answer::NeighborAdvert {
        mac: mac(OWN),
        ip: v6(5),
        router: false,
    };
    assert_eq!(ingress(&solicit(v6(5))), Ingress::Answer(expected));
    assert_eq!(
        ingress(&solicit(v6(7))),
        Ingress::Drop(DropReason::Multicast)
    );
}

#[test]
fn datagrams_are_admitted_from_known_vteps_for_known_networks() {
    let switch = switch();
    let mut datagram = [0; 8].to_vec();
    vxlan::emit(NET, datagram.first_chunk_mut().unwrap());
    datagram.extend_from_slice(&udp_to(NEIGHBOR));
    let from = vtep().ip();
    assert_eq!(switch.admit(from, &datagram), Ok((NET, 8..datagram.len())));
    // A dual-stack socket names IPv4 senders by mapped addresses.
    let mapped: IpAddr = "::ffff:192.0.2.2".parse().unwrap();
    assert!(switch.admit(mapped, &datagram).is_ok());
    let stranger: IpAddr = "192.0.2.9".parse().unwrap();
    assert_eq!(
        switch.admit(stranger, &datagram),
        Err(DropReason::UnknownVtep)
    );
    assert_eq!(
        switch.admit(from, &datagram[..7]),
        Err(DropReason::Truncated)
    );
    assert_eq!(
        switch.admit(from, &datagram[..21]),
        Err(DropReason::Truncated)
    );
    let mut flags = datagram.clone();
    flags[0] = 0;
    assert_eq!(switch.admit(from, &flags), Err(DropReason::BadVxlanHeader));
    vxlan::emit(OTHER, datagram.first_chunk_mut().unwrap());
    assert_eq!(switch.admit(from, &datagram), Err(DropReason::UnknownVni));
}

#[test]
fn a_static_peer_speaks_on_its_own_networks_only() {
    let node: IpAddr = "192.0.2.3".parse().unwrap();
    let network = |vni| NetworkEntry {
        vni,
        mtu: 1450,
        gateways: Vec::new(),
    };
    let mut builder = SwitchBuilder::new();
    builder
        .network(network(NET))
        .network(network(OTHER))
        .remote(NET, mac(REMOTE), &[REMOTE.into()], vtep())
        .vtep(node)
        .remote(NET, mac(NOBODY), &[NOBODY.into()], (node, 4789).into());
    let switch = builder.build();
    let mut datagram = [0; 8].to_vec();
    datagram.extend_from_slice(&udp_to(OWN));
    let mut from = |vtep, vni| {
        vxlan::emit(vni, datagram.first_chunk_mut().unwrap());
        switch.admit(vtep, &datagram).map(|(vni, _)| vni)
    };
    assert_eq!(from(vtep().ip(), NET), Ok(NET));
    let mapped: IpAddr = "::ffff:192.0.2.2".parse().unwrap();
    for peer in [vtep().ip(), mapped] {
        assert_eq!(from(peer, OTHER), Err(DropReason::OtherPeer));
    }
    // A node may have endpoints on any network.
    assert_eq!(from(node, OTHER), Ok(OTHER));
    let unknown = Vni::new(77).unwrap();
    assert_eq!(from(vtep().ip(), unknown), Err(DropReason::UnknownVni));
}

#[test]
fn what_is_known_to_be_elsewhere_is_no_source() {
    let there = mac(REMOTE);
    let client = Ipv4Addr::new(203, 0, 113, 9);
    let from = |macs, src| ingress(&udp_between((macs, mac(OWN)), (src, OWN)));
    let from6 = |macs, src| ingress(&udp6((macs, mac(OWN)), src, v6(5)));
    // Its own, one that nobody knows, and a client of a published port behind it.
    for (mac, src) in [
        (there, REMOTE),
        (mac(NOBODY), NOBODY),
        (there, NOBODY),
        (mac(NOBODY), REMOTE),
        (there, client),
    ] {
        assert_eq!(from(mac, src), Ingress::Local(PORT), "{mac:?} {src}");
    }
    let foreign = Ingress::Drop(DropReason::ForeignSource);
    for known in [OWN, NEIGHBOR, VIP, GATEWAY] {
        for (mac, src) in [
            (mac(known), known),
            (there, known),
            (mac(NOBODY), known),
            (mac(known), REMOTE),
            (mac(known), client),
        ] {
            assert_eq!(from(mac, src), foreign, "{mac:?} {src}");
        }
    }
    assert_eq!(from6(there, v6(7)), Ingress::Local(PORT));
    assert_eq!(from6(there, v6(6)), foreign);
    assert_eq!(from6(mac(NEIGHBOR), v6(7)), foreign);
    // Link-local addresses say themselves whose they are.
    assert_eq!(from6(there, link_local(there)), Ingress::Local(PORT));
    assert_eq!(from6(there, link_local(mac(NOBODY))), Ingress::Local(PORT));
    assert_eq!(from6(there, link_local(mac(NEIGHBOR))), foreign);
    // What one node may say another may not.
    let other: SocketAddr = "192.0.2.3:4789".parse().unwrap();
    for frame in [
        udp_between((there, mac(OWN)), (REMOTE, OWN)),
        udp_between((mac(NOBODY), mac(OWN)), (REMOTE, OWN)),
        udp_between((there, mac(OWN)), (client, OWN)),
        udp6((there, mac(OWN)), v6(7), v6(5)),
        udp6((mac(NOBODY), mac(OWN)), link_local(there), v6(5)),
    ] {
        assert_eq!(ingress_from(other, &frame), foreign);
    }
    let mapped: SocketAddr = "[::ffff:192.0.2.2]:4789".parse().unwrap();
    let own = udp_between((there, mac(OWN)), (REMOTE, OWN));
    assert_eq!(ingress_from(mapped, &own), Ingress::Local(PORT));
}

#[test]
fn the_stronger_claim_stays() {
    let mut builder = SwitchBuilder::new();
    let thief = mac(NOBODY);
    builder
        .network(NetworkEntry {
            vni: NET,
            mtu: 1450,
            gateways: vec![GATEWAY.into()],
        })
        .local(NET, mac(OWN), &[OWN.into()], PORT)
        .remote(NET, mac(OWN), &[OWN.into()], vtep())
        .remote(NET, thief, &[GATEWAY.into(), OWN.into()], vtep())
        .local(NET, mac(GATEWAY), &[GATEWAY.into()], PORT);
    let switch = builder.build();
    assert_eq!(switch.lookup(NET, mac(OWN)), Some(Destination::Local(PORT)));
    assert_eq!(switch.neighbor(NET, OWN.into()), Some(mac(OWN)));
    assert_eq!(switch.neighbor(NET, GATEWAY.into()), Some(mac(GATEWAY)));
    assert_eq!(switch.lookup(NET, mac(GATEWAY)), None);
    assert_eq!(switch.lookup(NET, thief), Some(Destination::Remote(vtep())));
}

#[test]
fn answers_are_written() {
    let mut out = [0; 2048];
    let written = |frame: &[u8], out: &mut [u8]| match egress(frame) {
        Egress::Answer(answer) => answer.write(frame, out),
        other => panic!("{other:?}"),
    };
    let len = written(&asks(REMOTE), &mut out);
    assert_eq!(len, 42);
    assert_eq!(out[22..28], mac(REMOTE).0);
    assert_eq!(frame::dst_mac(&out), mac(OWN));
    let len = written(&solicits(v6(7)), &mut out);
    assert_eq!(len, 86);
    assert_eq!(frame::src_mac(&out), mac(REMOTE));
    let ping = ping_to((mac(OWN), mac(GATEWAY)), (OWN, GATEWAY));
    assert_eq!(written(&ping, &mut out), ping.len());
    assert_eq!(frame::src_mac(&out), mac(GATEWAY));
    assert_eq!(out[34], 0, "echo reply");
    assert_eq!(written(&ping, &mut out[..ping.len() - 1]), 0);
    // An answer to something else than what was asked is none.
    assert_eq!(Answer::Echo.write(&asks(REMOTE), &mut out), 0);
    assert_eq!(Answer::Echo.write(&[], &mut out), 0);
}

proptest! {
    #[test]
    fn the_underlay_never_reaches_the_underlay(
        dst in any::<u8>(),
        src in any::<[u8; 4]>(),
        dst_ip in any::<[u8; 4]>(),
    ) {
        let dst = mac(Ipv4Addr::new(10, 0, 1, dst));
        let frame = udp_between((mac(REMOTE), dst), (src.into(), dst_ip.into()));
        match ingress(&frame) {
            Ingress::Local(port) => prop_assert!(port == PORT || port == NEIGHBOR_PORT),
            Ingress::Virtual => prop_assert_eq!(dst, mac(VIP)),
            Ingress::Answer(answer) => prop_assert_eq!(answer, Answer::Echo),
            Ingress::Drop(_) => {}
        }
    }

    /// Whoever is known, here or there, is heard from where the tables place him, by both of his
    /// addresses, and from nowhere else.
    #[test]
    fn nothing_arrives_in_a_foreign_name(
        places in prop::collection::vec(0_u8..4, 4),
        (by, mac_of, ip_of) in (0_u8..3, 0_usize..6, 0_usize..6),
        ipv6 in any::<bool>(),
    ) {
        let vteps = [1_u8, 2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 4789)));
        let ip = |i: usize| Ipv4Addr::new(10, 0, 1, 20 + i as u8);
        let ip6 = |i: usize| v6(20 + i as u16);
        let mut builder = SwitchBuilder::new();
        builder.local(NET, mac(OWN), &[OWN.into(), v6(5).into()], PORT);
        for vtep in vteps {
            builder.vtep(vtep.ip());
        }
        for (i, place) in places.iter().enumerate() {
            let ips = [ip(i).into(), ip6(i).into()];
            match vteps.get(usize::from(*place)) {
                Some(vtep) => builder.remote(NET, mac(ip(i)), &ips, *vtep),
                None => builder.local(NET, mac(ip(i)), &ips, NEIGHBOR_PORT),
            };
        }
        let macs = (mac(ip(mac_of)), mac(OWN));
        let frame = if ipv6 {
            udp6(macs, ip6(ip_of), v6(5))
        } else {
            udp_between(macs, (ip(ip_of), OWN))
        };
        let vtep = vteps[usize::from(by)].ip();
        let got = builder.build().ingress(NET, vtep, &frame, &frame::parse(&frame).unwrap());
        // The last two are known to nobody.
        let may = |i: usize| places.get(i).is_none_or(|place| *place == by);
        prop_assert_eq!(
            got,
            if may(mac_of) && may(ip_of) {
                Ingress::Local(PORT)
            } else {
                Ingress::Drop(DropReason::ForeignSource)
            }
        );
    }

    #[test]
    fn nothing_leaves_a_port_under_a_foreign_address(
        src in any::<[u8; 6]>(),
        src_ip in any::<[u8; 4]>(),
    ) {
        let frame = udp_between((Mac(src), mac(REMOTE)), (src_ip.into(), REMOTE));
        let own = Mac(src) == mac(OWN) && src_ip == OWN.octets();
        prop_assert_eq!(egress(&frame) == Egress::Remote(vtep()), own);
        let frame = udp_between((mac(OWN), mac(REMOTE)), (src_ip.into(), REMOTE));
        let own = src_ip == OWN.octets();
        prop_assert_eq!(egress(&frame) == Egress::Remote(vtep()), own);
    }
}
