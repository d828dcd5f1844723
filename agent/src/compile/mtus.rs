//! How large inner packets may be on the ways to the other nodes.
//!
//! Three things bound a packet to a VTEP: the route (its MTU, a learnt path MTU, the device), the
//! device of the node behind it, which that node gossips, and what VXLAN adds.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Ports are never narrower, in bytes: IPv6 does not work below (RFC 8200 section 5). Where a way
/// carries less, its packets are answered one by one.
const LEAST_PORT_MTU: u16 = 1280;

/// Ways are never narrower, in bytes: every host must take such packets (RFC 791 section 3.1), and
/// kernels do not believe in less.
const LEAST_PATH_MTU: u16 = 576;

/// In bytes of inner IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mtus {
    /// What ports are set to: the widest way there is.
    pub(crate) port: u16,
    /// The most that can arrive in one datagram.
    pub(crate) receives: u16,
    /// To each VTEP.
    pub(crate) paths: BTreeMap<IpAddr, u16>,
}

impl Mtus {
    /// By the MTU of the data path's own `device` and that of the route to each VTEP, all of outer
    /// packets, and what the nodes behind `announced` VTEPs say their devices take. `ipv6` says of
    /// which family the underlay is.
    pub(crate) fn of(
        device: u32,
        routes: &BTreeMap<IpAddr, u32>,
        ipv6: bool,
        announced: &BTreeMap<IpAddr, u32>,
    ) -> Self {
        let inner = |outer: u32| {
            let outer = u16::try_from(outer).unwrap_or(u16::MAX);
            weft_vxlan::inner_mtu(outer, ipv6)
        };
        let receives = inner(device);
        let paths: BTreeMap<IpAddr, u16> = routes
            .iter()
            .map(|(vtep, route)| {
                let told = announced.get(vtep).copied().filter(|mtu| *mtu > 0);
                let outer = (*route).min(told.unwrap_or(u32::MAX));
                (*vtep, inner(outer).max(LEAST_PATH_MTU))
            })
            .collect();
        let widest = paths.values().copied().max().unwrap_or(receives);
        Self {
            port: widest.max(LEAST_PORT_MTU),
            receives,
            paths,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 77, 0, last])
    }

    fn of(
        device: u32,
        routes: &[(u8, u32)],
        ipv6: bool,
        announced: &BTreeMap<IpAddr, u32>,
    ) -> Mtus {
        let routes = routes.iter().map(|(n, mtu)| (ip(*n), *mtu)).collect();
        Mtus::of(device, &routes, ipv6, announced)
    }

    #[test]
    fn a_lone_node_goes_by_its_device() {
        for (device, inner) in [(1400, 1350), (1500, 1450), (9000, 8950), (65_536, 65_485)] {
            let mtus = of(device, &[], false, &BTreeMap::new());
            assert_eq!((mtus.port, mtus.receives), (inner, inner));
        }
        assert_eq!(of(1500, &[], true, &BTreeMap::new()).port, 1430);
    }

    #[test]
    fn ports_take_what_the_widest_way_carries_and_each_way_has_its_own() {
        let mtus = of(9000, &[(2, 9000), (3, 1400)], false, &BTreeMap::new());
        assert_eq!((mtus.port, mtus.receives), (8950, 8950));
        assert_eq!(mtus.paths, [(ip(2), 8950), (ip(3), 1350)].into());
        let mtus = of(9000, &[(3, 1400)], false, &BTreeMap::new());
        assert_eq!((mtus.port, mtus.receives), (1350, 8950));
    }

    #[test]
    fn the_device_on_the_other_side_counts_too() {
        let announced = [(ip(2), 1500), (ip(3), 0), (ip(9), 100)].into();
        let mtus = of(9000, &[(2, 9000), (3, 9000)], false, &announced);
        assert_eq!(mtus.paths, [(ip(2), 1450), (ip(3), 8950)].into());
    }

    #[test]
    fn nothing_is_narrower_than_hosts_can_live_with() {
        let mtus = of(600, &[(2, 300)], false, &BTreeMap::new());
        assert_eq!((mtus.port, mtus.receives), (1280, 550));
        assert_eq!(mtus.paths, [(ip(2), 576)].into());
    }
}
