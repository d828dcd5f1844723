use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::PacketBuilder;
use proptest::prelude::*;
use weft_wire::{Frame, frame, mac_for_ip, reply, vnet};

use super::*;
use crate::builder::SwitchBuilder;
use crate::network::NetworkEntry;

const NET: Vni = Vni::new(4097).unwrap();
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 7);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);

fn wide() -> IpAddr {
    "192.0.2.2".parse().unwrap()
}

fn narrow() -> IpAddr {
    "192.0.2.3".parse().unwrap()
}

fn switch() -> Switch {
    let mut builder = SwitchBuilder::new();
    builder
        .network(NetworkEntry {
            vni: NET,
            mtu: 8950,
            gateways: vec![GATEWAY.into(), GATEWAY_V6.into()],
        })
        .path_mtu(wide(), 8950)
        .path_mtu(narrow(), 1450)
        .receives(8950);
    builder.build()
}

fn packet(len: usize, df: bool) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac_for_ip(OWN.into()).0, mac_for_ip(REMOTE.into()).0)
        .ipv4(OWN.octets(), REMOTE.octets(), 64)
        .udp(1, 2)
        .write(&mut frame, &vec![0; len - 28])
        .unwrap();
    frame[20] = if df { 0x40 } else { 0 };
    frame
}

fn packet_v6(len: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let v6 = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).octets();
    PacketBuilder::ethernet2(mac_for_ip(OWN.into()).0, mac_for_ip(REMOTE.into()).0)
        .ipv6(v6(5), v6(7), 64)
        .udp(1, 2)
        .write(&mut frame, &vec![0; len - 48])
        .unwrap();
    frame
}

fn info(frame: &[u8]) -> IpInfo {
    match frame::parse(frame).unwrap() {
        Frame::Ip(info) => info,
        Frame::Arp(_) => panic!("not an IP packet"),
    }
}

fn ask(frame: &[u8], vtep: IpAddr, vnet: &VnetHdr) -> Option<TooBig> {
    switch().too_big(NET, Some(vtep), &info(frame), vnet)
}

fn told(mtu: u16, ip: IpAddr) -> Option<TooBig> {
    let mac = mac_for_ip(GATEWAY.into());
    let answer = Some(Answer::TooBig { mac, ip, mtu });
    Some(TooBig { mtu, answer })
}

#[test]
fn rfc7348_s4_3_overhead() {
    assert_eq!(inner_mtu(1500, false), 1450);
    assert_eq!(inner_mtu(1500, true), 1430);
    assert_eq!(inner_mtu(9000, false), 8950);
    assert_eq!(inner_mtu(40, false), 0);
}

#[test]
fn rfc1191_s6_1_each_way_has_its_own_limit() {
    for df in [true, false] {
        let gateway = GATEWAY.into();
        for (vtep, mtu) in [(wide(), 8950), (narrow(), 1450)] {
            let len = usize::from(mtu);
            assert_eq!(ask(&packet(len, df), vtep, &VnetHdr::NONE), None);
            let told = told(mtu, gateway);
            assert_eq!(ask(&packet(len + 1, df), vtep, &VnetHdr::NONE), told);
        }
    }
    let told = told(1450, GATEWAY_V6.into());
    assert_eq!(ask(&packet_v6(1451), narrow(), &VnetHdr::NONE), told);
    assert_eq!(ask(&packet_v6(1451), wide(), &VnetHdr::NONE), None);
    let mapped: Ipv6Addr = "::ffff:192.0.2.3".parse().unwrap();
    assert_eq!(switch().mtu_to(NET, mapped.into()), Some(1450));
}

#[test]
fn a_super_frame_is_as_large_as_its_segments() {
    let frame = packet(9000, true);
    let vnet = |gso_size| VnetHdr {
        gso_type: vnet::GSO_UDP_L4,
        gso_size,
        ..VnetHdr::NONE
    };
    assert_eq!(ask(&frame, narrow(), &vnet(1422)), None);
    let too_big = told(1450, GATEWAY.into());
    assert_eq!(ask(&frame, narrow(), &vnet(1423)), too_big);
}

#[test]
fn a_network_without_a_gateway_says_nothing_and_an_unknown_one_has_no_limit() {
    let mut builder = SwitchBuilder::new();
    builder.network(NetworkEntry {
        vni: NET,
        mtu: 1450,
        gateways: vec![GATEWAY.into()],
    });
    let switch = builder.build();
    let ask = |vni, frame: &[u8]| switch.too_big(vni, Some(wide()), &info(frame), &VnetHdr::NONE);
    let mute = TooBig {
        mtu: 1450,
        answer: None,
    };
    assert_eq!(ask(NET, &packet_v6(1451)), Some(mute));
    assert_eq!(ask(Vni::new(7).unwrap(), &packet(1451, true)), None);
}

#[test]
fn what_arrives_is_judged_by_the_way_it_came_when_it_can_be_divided() {
    let switch = switch();
    let udp = info(&packet(1451, true));
    let tcp = IpInfo { proto: TCP, ..udp };
    assert_eq!(switch.mtu_from(NET, narrow(), &tcp), Some(1450));
    assert_eq!(switch.mtu_from(NET, narrow(), &udp), Some(8950));
    assert_eq!(switch.mtu_from(NET, wide(), &tcp), Some(8950));
}

#[test]
fn the_answer_names_the_way() {
    let big = packet(1451, true);
    let answer = ask(&big, narrow(), &VnetHdr::NONE).unwrap().answer.unwrap();
    let mut out = [0; reply::MAX_LEN];
    let len = answer.write(&big, &mut out);
    assert_eq!(len, 14 + 576);
    assert_eq!(out[34..36], [3, 4]);
    assert_eq!(out[40..42], 1450_u16.to_be_bytes());
}

proptest! {
    #[test]
    fn nothing_larger_than_the_way_passes(
        network in 1280_u16..=9000,
        way in proptest::option::of(576_u16..=9000),
        len in 48_usize..=9000,
    ) {
        let mut builder = SwitchBuilder::new();
        let vtep = SocketAddr::new(wide(), 4789);
        builder
            .network(NetworkEntry { vni: NET, mtu: network, gateways: vec![GATEWAY.into()] })
            .remote(NET, mac_for_ip(REMOTE.into()), &[REMOTE.into()], vtep);
        if let Some(way) = way {
            builder.path_mtu(wide(), way);
        }
        let limit = usize::from(network.min(way.unwrap_or(u16::MAX)));
        let found = builder.build().too_big(NET, Some(wide()), &info(&packet(len, true)), &VnetHdr::NONE);
        prop_assert_eq!(found.is_some(), len > limit);
    }
}
