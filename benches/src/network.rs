//! A switch with many endpoints.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use weft_vxlan::{NetworkEntry, Switch, SwitchBuilder};
use weft_wire::{PortId, Vni, mac_for_ip};

use crate::frames::address;

/// The network of [`switch`].
pub const NET: Vni = Vni::new(4097).expect("24 bits");

/// A switch of one network. Endpoint 1 is local; the others, up to `endpoints`, are spread over
/// 100 VTEPs.
#[must_use]
pub fn switch(endpoints: u32) -> Switch {
    let mut builder = SwitchBuilder::new();
    builder.network(NetworkEntry {
        vni: NET,
        mtu: 1450,
        gateways: vec![IpAddr::V4(Ipv4Addr::new(10, 255, 255, 254))],
    });
    let ip = IpAddr::V4(address(1));
    builder.local(NET, mac_for_ip(ip), &[ip], PortId(1));
    for n in 2..=endpoints {
        let ip = IpAddr::V4(address(n));
        let vtep = Ipv4Addr::from_bits(0xc000_0200 + n % 100);
        builder.vtep(vtep.into()).remote(
            NET,
            mac_for_ip(ip),
            &[ip],
            SocketAddr::from((vtep, 4789)),
        );
    }
    builder.build()
}
