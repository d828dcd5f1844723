//! Virtio headers that a sandbox makes up. A device of its own, bridged to `eth0`, carries them past
//! its kernel as they are, as `PACKET_VNET_HDR` does.

use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;
use weft_sys::tap::{Tap, TapConfig};
use weft_wire::DropReason::BadOffload;
use weft_wire::{VnetHdr, checksum, vnet};

use super::frames::{ETH, encapsulated, fragment4, insert, put, settle, tcp4, udp4, udp6};
use super::from_port::{Stage, from_node};
use super::port_cases::{FAR, L4, L4_V6, ME, NEAR};
use super::{all, one_more};

/// A name, the header, and the frame to one of the two.
type Case = (&'static str, VnetHdr, fn(u8) -> Vec<u8>);

const fn needs(csum_start: u16, csum_offset: u16) -> VnetHdr {
    VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        csum_start,
        csum_offset,
        ..VnetHdr::NONE
    }
}

const fn super_frame(gso_type: u8, gso_size: u16, csum: VnetHdr) -> VnetHdr {
    VnetHdr {
        gso_type,
        gso_size,
        hdr_len: 54,
        ..csum
    }
}

const UDP4: u16 = L4 as u16;
const UDP6: u16 = L4_V6 as u16;

fn long_udp(to: u8) -> Vec<u8> {
    udp4(ME, to, &[7; 400])
}

fn long_tcp(to: u8) -> Vec<u8> {
    let frame = put(tcp4(ME, to), L4 + 13, &[0x10]);
    let len = frame.len();
    settle(insert(frame, len, &[7; 400]))
}

/// What kernels let through to the port; more of it is in `wire/src/offload`.
const CASES: &[Case] = &[
    // The sum of everything from the destination on becomes the half of the source.
    ("the source address", needs(28, 0), |to| {
        udp4(ME, to, b"xyz")
    }),
    ("the destination address", needs(30, 0), |to| {
        udp4(ME, to, b"xyz")
    }),
    ("the ports", needs(UDP4, 0), long_udp),
    ("the UDP length", needs(UDP4, 4), long_udp),
    ("TCP's field in UDP", needs(UDP4, 16), long_udp),
    ("UDP's field in TCP", needs(UDP4, 6), long_tcp),
    ("the source address, in TCP", needs(28, 0), long_tcp),
    (
        "the source address of IPv6",
        needs(ETH as u16 + 20, 8),
        |to| udp6(ME, to, b"xyz"),
    ),
    ("the ports of IPv6", needs(UDP6, 2), |to| {
        udp6(ME, to, b"xyz")
    }),
    ("where options begin", needs(UDP4, 6), |to| {
        settle(put(insert(udp4(ME, to, b"x"), L4, &[1; 8]), ETH, &[0x47]))
    }),
    ("a fragment", needs(UDP4, 6), |to| {
        let frame = long_udp(to);
        fragment4(&frame, 7, 0, true, &frame[L4..L4 + 64])
    }),
    ("a later fragment", needs(UDP4, 6), |to| {
        fragment4(&long_udp(to), 7, 64, false, &[7; 64])
    }),
    (
        "segments of a fragment",
        super_frame(vnet::GSO_UDP_L4, 100, needs(UDP4, 6)),
        |to| {
            let frame = long_udp(to);
            fragment4(&frame, 8, 0, true, &frame[L4..])
        },
    ),
];

/// Bridges a device of the test's own to the sandbox's; what is written there leaves by `eth0`.
fn bridged(ns: &Netns) -> Tap {
    ns.run_in(|| {
        let mut netlink = Netlink::open().expect("netlink");
        let quiet = |name: &str| {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
            std::fs::write(path, "1").expect("a kernel with IPv6");
        };
        quiet("default");
        let tap = Tap::open(&TapConfig {
            persist: false,
            ..TapConfig::new("evil0")
        })
        .expect("tap");
        assert!(netlink.add_bridge("br0").expect("bridge"));
        quiet("br0");
        // Else the bridge wonders about its own address from elsewhere.
        netlink.set_mac("eth0", [2, 0, 0, 0, 0, 7]).expect("mac");
        for port in ["eth0", "evil0"] {
            netlink.set_master(port, Some("br0")).expect("a port");
        }
        netlink.set_up("br0", true).expect("up");
        tap
    })
    .expect("thread")
}

fn write(tap: &Tap, vnet: &VnetHdr, frame: &[u8]) -> std::io::Result<usize> {
    let mut header = [0; VnetHdr::LEN];
    vnet.emit(&mut header);
    tap.write(&[&header[..], frame].concat())
}

#[test]
fn no_header_changes_what_was_checked() {
    let mut stage = Stage::new();
    let evil = bridged(&stage.me.ns);
    for (name, vnet, frame) in CASES {
        for to in [NEAR, FAR] {
            let drops = &stage.me.port.counters.drops;
            let before = all(drops);
            write(&evil, vnet, &frame(to)).expect(name);
            one_more(drops, &before, BadOffload, name);
            stage.fence(name);
        }
    }
    assert!(stage.node.plane.alive());
}

/// The same frames with headers that are in order, and a tunnel of the sandbox's own.
#[test]
fn headers_that_are_in_order_arrive_finished() {
    let mut stage = Stage::new();
    let evil = bridged(&stage.me.ns);
    let partial = |frame: Vec<u8>, l4: usize, field: usize| {
        let Ok(weft_wire::Frame::Ip(info)) = weft_wire::frame::parse(&frame) else {
            unreachable!("an IP packet");
        };
        let len = info.len - info.l4;
        let sum = checksum::pseudo_header(info.src, info.dst, info.proto, len);
        put(frame, l4 + field, &sum.to_be_bytes())
    };
    let inner = udp4(ME, NEAR, b"in a tunnel");
    let tunnel = |inner: &[u8]| {
        let mut outer = udp4(ME, FAR, &encapsulated(8, 77, inner));
        outer[L4 + 6..L4 + 8].fill(0);
        outer
    };
    let at = (L4 + 8 + 8) as u16;
    let cases = [
        (needs(UDP4, 6), partial(long_udp(FAR), L4, 6), long_udp(FAR)),
        (
            needs(UDP4, 16),
            partial(long_tcp(FAR), L4, 16),
            finished(long_tcp(FAR)),
        ),
        (
            needs(UDP6, 6),
            partial(udp6(ME, FAR, b"xyz"), L4_V6, 6),
            udp6(ME, FAR, b"xyz"),
        ),
        (
            needs(at + UDP4, 6),
            tunnel(&partial(inner.clone(), L4, 6)),
            tunnel(&inner),
        ),
    ];
    let before = all(&stage.me.port.counters.drops);
    for (i, (vnet, frame, whole)) in cases.iter().enumerate() {
        write(&evil, vnet, frame).expect("write");
        let foreign = |seen: &[u8]| from_node(seen) && !seen.ends_with(whole);
        let what = format!("case {i}");
        stage.underlay.nothing_before(whole, foreign, &what);
    }
    assert_eq!(all(&stage.me.port.counters.drops), before);
}

/// The TCP checksum that a device would have written.
fn finished(mut frame: Vec<u8>) -> Vec<u8> {
    let Ok(weft_wire::Frame::Ip(info)) = weft_wire::frame::parse(&frame) else {
        unreachable!("an IP packet");
    };
    let len = info.len - info.l4;
    let sum = checksum::pseudo_header(info.src, info.dst, info.proto, len);
    frame[L4 + 16..L4 + 18].copy_from_slice(&sum.to_be_bytes());
    checksum::complete(&mut frame, L4, 16).expect("inside");
    frame
}
