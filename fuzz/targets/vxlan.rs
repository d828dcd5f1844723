//! Datagrams from the underlay and frames from a port, through a small switch. Input: one byte
//! that chooses the sender, then a VXLAN datagram; the frame inside is also sent from a port.

#![no_main]

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use weft_vxlan::{
    Answer, Destination, Egress, Ingress, NetworkEntry, PortSource, Switch, SwitchBuilder,
};
use weft_wire::{DropReason, Frame, Mac, PortId, Vni, frame, mac_for_ip};

struct World {
    switch: Switch,
    vni: Vni,
    ips: [IpAddr; 2],
    mac: Mac,
    /// A static peer of the first network, a node.
    vtep: SocketAddr,
    node: SocketAddr,
    other: Vni,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let vni = Vni::new(4097).expect("24 bits");
        let vtep = SocketAddr::new(ip("192.0.2.2"), 4789);
        let node = SocketAddr::new(ip("192.0.2.3"), 4789);
        let other = Vni::new(4098).expect("24 bits");
        let ips = [ip("10.0.1.5"), ip("fd00::5")];
        let mac = mac_for_ip(ips[0]);
        let mut builder = SwitchBuilder::new();
        builder
            .network(NetworkEntry {
                vni,
                mtu: 1450,
                gateways: vec![ip("10.0.1.1"), ip("fd00::1")],
            })
            .local(vni, mac, &ips, PortId(1))
            .local(
                vni,
                mac_for_ip(ip("10.0.1.6")),
                &[ip("10.0.1.6")],
                PortId(2),
            )
            .remote(
                vni,
                mac_for_ip(ip("10.0.1.7")),
                &[ip("10.0.1.7"), ip("fd00::7")],
                vtep,
            )
            .remote(vni, mac_for_ip(ip("10.0.1.8")), &[ip("10.0.1.8")], node)
            .vtep(node.ip())
            .network(NetworkEntry {
                vni: other,
                mtu: 1450,
                gateways: Vec::new(),
            })
            .local(
                other,
                mac_for_ip(ip("10.0.2.5")),
                &[ip("10.0.2.5")],
                PortId(3),
            )
            .virtual_ip(vni, ip("10.0.1.100"));
        World {
            switch: builder.build(),
            vni,
            ips,
            mac,
            vtep,
            node,
            other,
        }
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, datagram)) = data.split_first() else {
        return;
    };
    let world = world();
    let from = match choice & 3 {
        0 => IpAddr::from([198, 51, 100, 1]),
        1 => world.node.ip(),
        _ => world.vtep.ip(),
    };
    match world.switch.admit(from, datagram) {
        Err(reason) => {
            if choice & 3 == 0 {
                assert_eq!(reason, DropReason::UnknownVtep);
            }
        }
        Ok((vni, inner)) => {
            assert!(vni == world.vni || (vni == world.other && choice & 3 == 1));
            ingress(world, vni, from, &datagram[inner]);
        }
    }
    if let Some(inner) = datagram.get(8..) {
        egress(world, inner);
        let mut own = inner.to_vec();
        if choice & 4 != 0 && own.len() >= 12 {
            own[6..12].copy_from_slice(&world.mac.0);
            egress(world, &own);
        }
    }
});

fn ingress(world: &World, vni: Vni, from: IpAddr, bytes: &[u8]) {
    let Ok(parsed) = frame::parse(bytes) else {
        return;
    };
    match world.switch.ingress(vni, from, bytes, &parsed) {
        Ingress::Local(port) => {
            let found = world.switch.lookup(vni, frame::dst_mac(bytes));
            assert_eq!(found, Some(Destination::Local(port)));
            let Frame::Ip(info) = parsed else {
                panic!("ARP is never delivered");
            };
            let behind = |mac| match world.switch.lookup(vni, mac) {
                Some(Destination::Remote(vtep)) => Some(vtep.ip() == from),
                Some(Destination::Local(_)) => Some(false),
                None => None,
            };
            if let Some(owner) = world.switch.neighbor(vni, info.src) {
                // An address of a service or gateway has no place.
                assert_eq!(behind(owner), Some(true));
            }
            assert_ne!(behind(frame::src_mac(bytes)), Some(false));
        }
        Ingress::Virtual => assert!(!frame::dst_mac(bytes).is_multicast()),
        Ingress::Answer(answer) => write(answer, bytes),
        Ingress::Drop(_) => {}
    }
}

fn egress(world: &World, bytes: &[u8]) {
    let Ok(parsed) = frame::parse(bytes) else {
        return;
    };
    let source = PortSource {
        port: PortId(1),
        mac: world.mac,
        ips: &world.ips,
    };
    let verdict = world.switch.egress(world.vni, source, bytes, &parsed);
    if !matches!(verdict, Egress::Drop(_)) {
        assert_eq!(frame::src_mac(bytes), world.mac);
    }
    match verdict {
        Egress::Local(_) | Egress::Remote(_) | Egress::Virtual | Egress::Routed => {
            assert!(matches!(parsed, Frame::Ip(_)), "ARP is never delivered");
            assert!(!frame::dst_mac(bytes).is_multicast());
        }
        Egress::Answer(answer) => write(answer, bytes),
        Egress::Drop(_) => {}
    }
}

fn write(answer: Answer, bytes: &[u8]) {
    let mut out = vec![0; bytes.len().max(128)];
    let len = answer.write(bytes, &mut out);
    assert!(len > 0, "{answer:?} was not written");
    assert!(frame::parse(&out[..len]).is_ok());
    assert_eq!(
        frame::dst_mac(&out),
        match frame::parse(bytes) {
            Ok(Frame::Arp(arp)) => arp.sender_mac,
            _ => frame::src_mac(bytes),
        }
    );
}
