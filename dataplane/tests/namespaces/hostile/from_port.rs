//! What a sandbox may send, as root of its own kernel, and gets nowhere.

use std::net::{SocketAddr, UdpSocket};

use weft_sys::netlink::Netlink;
use weft_wire::DropReason::Oversized;

use super::frames::{ETH, cut, fragment4, insert, mac, pong4, put, settle, udp4, udp6, v6};
use super::port_cases::{
    CHAINS, Case, DISCOVERY, FAR, IDENTITY, KINDS, L4, LENGTHS, ME, NEAR, chain,
};
use super::{Raw, all, one_more, quiet_sandbox, silent_sandbox};
use crate::common::{Node, Sandbox, VIP, VXLAN, inside, nodes, publish_with, vni};

/// A sandbox, its neighbour, and somebody who listens in the place of another node.
pub(super) struct Stage {
    pub(super) node: Node,
    pub(super) me: Sandbox,
    _near: Sandbox,
    sender: Raw,
    neighbour: Raw,
    pub(super) underlay: Raw,
    /// Takes what arrives, so that the kernel there does not refuse it.
    _vtep: UdpSocket,
    fences: u16,
}

impl Stage {
    pub(super) fn new() -> Self {
        let [node, peer] = nodes(1);
        let (me, near) = (
            quiet_sandbox(&node, VIP, ME),
            silent_sandbox(&node, VIP, NEAR),
        );
        drop(peer.plane);
        let vtep = SocketAddr::new(peer.underlay, VXLAN);
        publish_with(&node, 1, &[&me, &near], |switch| {
            for s in [&me, &near] {
                switch.local(vni(), s.port.mac, &s.port.ips, s.port.id);
            }
            let far = [inside(VIP, FAR), v6(FAR).into()];
            switch.remote(vni(), weft_wire::Mac(mac(FAR)), &far, vtep);
        });
        let bind = || UdpSocket::bind(vtep).expect("bind");
        let mut stage = Self {
            sender: Raw::speaking(&me),
            neighbour: Raw::open(&near.ns),
            underlay: Raw::open(&peer.ns),
            _vtep: peer.ns.run_in(bind).expect("thread"),
            node,
            me,
            _near: near,
            fences: 0,
        };
        stage.fence("at first");
        stage
    }

    /// Reads at both what they got until now: nothing but the fences.
    pub(super) fn fence(&mut self, what: &str) {
        self.fences += 1;
        let [near, far] = [NEAR, FAR].map(|to| pong4(ME, to, self.fences));
        self.sender.send(&near).expect("send");
        self.sender.send(&far).expect("send");
        let foreign = |frame: &[u8]| frame[6..12] != mac(NEAR) || frame[..6] == mac(NEAR);
        self.neighbour.nothing_before(&near, foreign, what);
        self.underlay.nothing_before(&far, from_node, what);
    }

    fn run(mut self, cases: &[Case]) {
        for (name, reason, frame) in cases {
            for to in [NEAR, FAR] {
                let drops = &self.me.port.counters.drops;
                let before = all(drops);
                let frame = frame(to);
                self.sender.send(&frame).expect(name);
                one_more(drops, &before, *reason, name);
                self.fence(name);
            }
        }
        assert!(self.node.plane.alive());
    }
}

/// UDP of the node, as its peer sees it.
pub(super) fn from_node(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[ETH + 9] == 17 && frame[ETH + 12..ETH + 16] == [10, 77, 0, 1]
}

#[test]
fn nobody_speaks_in_the_name_of_another() {
    Stage::new().run(IDENTITY);
}

#[test]
fn nobody_lies_about_neighbours() {
    Stage::new().run(DISCOVERY);
}

#[test]
fn lengths_that_do_not_add_up_end_at_the_port() {
    Stage::new().run(LENGTHS);
}

#[test]
fn chains_of_headers_end() {
    Stage::new().run(CHAINS);
}

#[test]
fn what_weft_does_not_carry_ends_at_the_port() {
    Stage::new().run(KINDS);
}

#[test]
fn the_kernel_sends_no_frame_without_an_ethernet_header() {
    let stage = Stage::new();
    for len in [0, 1, 13] {
        let sent = stage.sender.send(&cut(udp4(ME, NEAR, b"x"), len));
        assert!(sent.is_err(), "{len} bytes were sent");
    }
}

#[test]
fn a_jumbo_frame_reaches_nobody() {
    let mut stage = Stage::new();
    Netlink::open_in(&stage.me.ns)
        .expect("netlink")
        .set_mtu("eth0", 60_000)
        .expect("mtu");
    let drops = &stage.me.port.counters.drops;
    for (len, to) in [1451 - 28, 9000, 50_000]
        .iter()
        .flat_map(|len| [(*len, NEAR), (*len, FAR)])
    {
        for frame in [
            udp4(ME, to, &vec![7; len]),
            udp6(ME, to, &vec![7; len]),
            fragment4(
                &udp4(ME, to, b""),
                3,
                0,
                true,
                &vec![7; len.next_multiple_of(8) + 8],
            ),
        ] {
            let before = all(drops);
            stage.sender.send(&frame).expect("send");
            one_more(drops, &before, Oversized, "a jumbo frame");
        }
    }
    stage.fence("a jumbo frame");
}

/// Odd, but allowed: what is strict above must not be stricter than the rules.
#[test]
fn odd_frames_that_are_in_order_arrive_as_they_were() {
    let mut stage = Stage::new();
    let mut seven = [60, 0, 1, 4, 0, 0, 0, 0].repeat(7);
    seven[6 * 8] = 17;
    for (name, frame) in [
        (
            "forty bytes of IPv4 options",
            settle(put(
                insert(udp4(ME, NEAR, b"x"), L4, &[1; 40]),
                ETH,
                &[0x4f],
            )),
        ),
        ("seven IPv6 extension headers", chain(NEAR, &seven, 60)),
        ("no payload", udp4(ME, NEAR, b"")),
        (
            "an unknown protocol",
            settle(put(udp4(ME, NEAR, b"x"), ETH + 9, &[253])),
        ),
        (
            "a TTL of 0",
            settle(put(udp4(ME, NEAR, b"x"), ETH + 8, &[0])),
        ),
    ] {
        let before = all(&stage.me.port.counters.drops);
        stage.sender.send(&frame).expect(name);
        let foreign = |frame: &[u8]| frame[6..12] == mac(ME);
        stage.neighbour.nothing_before(&frame, foreign, name);
        assert_eq!(all(&stage.me.port.counters.drops), before, "{name}");
    }
}
