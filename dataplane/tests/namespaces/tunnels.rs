//! Tunnels that sandboxes make over the overlay: a kernel may leave the checksum of the packet inside
//! to the device, and the virtio header then points into the payload.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use weft_sys::netlink::{Netlink, Vxlan};

use crate::common::{Sandbox, nodes, ping_between, publish, sandbox, transfer_between};

/// 1450 less what VXLAN over IPv4 takes.
const MTU: u16 = 1400;

/// A vxlan device over `eth0` whose packets all go to `peer`.
fn tunnel(of: &Sandbox, peer: IpAddr, ip: IpAddr) {
    let mut netlink = Netlink::open_in(&of.ns).expect("netlink");
    let device = Vxlan {
        name: "vx0",
        vni: 77,
        local: of.ip,
        port: 4789,
        learning: true,
        udp_checksum: true,
    };
    assert!(netlink.add_vxlan(&device).expect("vxlan"));
    netlink.set_mtu("vx0", MTU.into()).expect("mtu");
    netlink.append_fdb("vx0", [0; 6], peer).expect("fdb");
    let net = IpNet::new(ip, 24).expect("prefix");
    netlink.add_address("vx0", net).expect("address");
    netlink.set_up("vx0", true).expect("up");
}

#[test]
fn vxlan_inside_the_overlay_carries_what_it_is_given() {
    let [a, b] = nodes(1);
    let here = sandbox(1, "10.0.1.2", 0, true);
    let near = sandbox(2, "10.0.1.3", 0, true);
    let far = sandbox(3, "10.0.1.4", 0, true);
    publish(&a, 1, &[&here, &near], &[&far], &b, &[]);
    publish(&b, 1, &[&far], &[&here, &near], &a, &[]);
    for (other, net) in [(&near, 1), (&far, 2)] {
        let [left, right] = [1, 2].map(|host| IpAddr::from(Ipv4Addr::new(192, 168, net, host)));
        tunnel(&here, other.ip, left);
        tunnel(other, here.ip, right);
        ping_between((&here.ns, left), (&other.ns, right), MTU);
        let to = SocketAddr::new(right, 80);
        transfer_between(&here.ns, &other.ns, right, to, 4 << 20);
        let to = SocketAddr::new(left, 80);
        transfer_between(&other.ns, &here.ns, left, to, 4 << 20);
        let mut netlink = Netlink::open_in(&here.ns).expect("netlink");
        netlink.delete_link("vx0").expect("delete");
    }
    for sandbox in [&here, &near, &far] {
        let drops = &sandbox.port.counters.drops;
        assert_eq!(drops.get(weft_wire::DropReason::BadOffload), 0);
        assert_eq!(drops.get(weft_wire::DropReason::Oversized), 0);
    }
}
