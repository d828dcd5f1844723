//! The Linux kernel's own vxlan device on the other side: super-datagrams, unfinished inner
//! checksums, ARP from the wire, outer checksums on and off.

use std::net::{IpAddr, SocketAddr};

use crate::common::{
    Underlay, VIP, VIP6, VXLAN, echo, inside, no_detection, nodes_on, ping_between, prefix_len,
    publish_with, sandbox_at, transfer_between, vni,
};
use ipnet::IpNet;
use weft_sys::netlink::{Netlink, Vxlan};
use weft_wire::mac_for_ip;

/// What the two sides leave to others.
#[derive(Debug, Clone, Copy)]
struct Has {
    /// The kernel's device writes outer checksums.
    udp_checksum: bool,
    /// The sandbox has offloads.
    offload: bool,
}

const ALL: Has = Has {
    udp_checksum: true,
    offload: true,
};
const NO_CHECKSUM: Has = Has {
    udp_checksum: false,
    ..ALL
};
const NO_OFFLOAD: Has = Has {
    offload: false,
    ..ALL
};

fn exchange(has: Has) {
    exchange_on(Underlay::V4, VIP, has);
}

/// `like` says the family inside.
fn exchange_on(underlay: Underlay, like: IpAddr, has: Has) {
    let [a, b] = nodes_on(underlay, 2);
    // Node b gives its namespace to the kernel's device.
    let kernel = b.ns.try_clone().expect("namespace");
    drop(b.plane);
    let (peer, own) = (inside(like, 50), inside(like, 2));
    let here = sandbox_at(1, own, a.plane.worker_for(own), has.offload, a.mtu);
    publish_with(&a, 1, &[&here], |switch| {
        let vtep = SocketAddr::new(b.underlay, VXLAN);
        switch.remote(vni(), mac_for_ip(peer), &[peer], vtep);
    });
    kernel
        .run_in(|| {
            let mut netlink = Netlink::open().expect("netlink");
            netlink
                .add_vxlan(&Vxlan {
                    name: "vx0",
                    vni: vni().get(),
                    local: b.underlay,
                    port: VXLAN,
                    learning: false,
                    udp_checksum: has.udp_checksum,
                })
                .expect("vxlan");
            netlink.set_mac("vx0", mac_for_ip(peer).0).expect("mac");
            netlink.set_mtu("vx0", a.mtu.into()).expect("mtu");
            no_detection("vx0");
            netlink.append_fdb("vx0", [0; 6], a.underlay).expect("fdb");
            netlink
                .add_address("vx0", IpNet::new(peer, prefix_len(peer)).expect("prefix"))
                .expect("address");
            netlink.set_up("vx0", true).expect("up");
            netlink.set_up("lo", true).expect("lo");
        })
        .expect("thread");
    // The peer speaks first: its ARP request, or solicitation, has to be answered from the wire.
    ping_between((&kernel, peer), (&here.ns, own), a.mtu);
    ping_between((&here.ns, own), (&kernel, peer), a.mtu);
    assert!(echo(&kernel, own) && echo(&here.ns, peer));
    let total = 1 << 26;
    transfer_between(&kernel, &here.ns, own, SocketAddr::new(own, 80), total);
    transfer_between(&here.ns, &kernel, peer, SocketAddr::new(peer, 80), total);
    for worker in a.plane.counters() {
        let drops: Vec<_> = worker
            .underlay
            .iter()
            // The kernel announces itself by multicast when its device comes up.
            .filter(|(r, _)| *r != weft_wire::DropReason::Multicast)
            .collect();
        assert!(drops.is_empty(), "{drops:?}");
    }
}

#[test]
fn with_outer_checksums() {
    exchange(ALL);
}

#[test]
fn without_outer_checksums() {
    exchange(NO_CHECKSUM);
}

#[test]
fn without_offloads_in_the_sandbox() {
    exchange(NO_OFFLOAD);
}

#[test]
fn ipv6_inside_ipv4() {
    exchange_on(Underlay::V4, VIP6, ALL);
}

#[test]
fn ipv4_inside_ipv6_without_outer_checksums() {
    exchange_on(Underlay::V6, VIP, NO_CHECKSUM);
}

#[test]
fn ipv6_inside_ipv6() {
    exchange_on(Underlay::V6, VIP6, ALL);
}

#[test]
fn ipv6_inside_ipv6_without_offloads_in_the_sandbox() {
    exchange_on(Underlay::V6, VIP6, NO_OFFLOAD);
}
