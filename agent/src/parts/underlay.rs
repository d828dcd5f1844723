//! How large packets may be on the ways to the other nodes, and who has to segment them.
//!
//! Three things bound a packet to a VTEP: the route (its MTU, a learnt path MTU, the device), the
//! device of the node behind it, which that node gossips, and what VXLAN adds. Read again and
//! again, so that a change on either side is followed while traffic flows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_sys::netlink::{Netlink, NetlinkError};
use weft_sys::offload::segments_tunnels;

/// Where the MTU of the underlay cannot be told, in bytes.
const ASSUMED: u32 = 1500;

/// Ports are never narrower, in bytes: IPv6 does not work below (RFC 8200 section 5). Where a way
/// carries less, its packets are answered one by one.
const LEAST_PORT_MTU: u16 = 1280;

/// Ways are never narrower, in bytes: every host must take such packets (RFC 791 section 3.1), and
/// kernels do not believe in less.
const LEAST_PATH_MTU: u16 = 576;

/// What the kernel says of the underlay. MTUs in bytes of outer IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Underlay {
    /// Of the device that holds the data-path address.
    pub(crate) device: u32,
    /// Of the route to each VTEP; those without a route are left out.
    pub(crate) routes: BTreeMap<IpAddr, u32>,
    /// VTEPs whose packets leave by a device that does not segment tunnels, with its name.
    pub(crate) plain: BTreeMap<IpAddr, String>,
}

/// What follows for inner packets, in bytes of IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mtus {
    /// What ports are set to: the widest way there is.
    pub(crate) port: u16,
    /// The most that can arrive in one datagram.
    pub(crate) receives: u16,
    /// To each VTEP.
    pub(crate) paths: BTreeMap<IpAddr, u16>,
}

impl Underlay {
    /// Asks the kernel, in the calling thread's namespace.
    ///
    /// # Errors
    /// [`NetlinkError`] when netlink does not answer.
    pub(crate) fn read(
        data_path: IpAddr,
        vteps: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Self, NetlinkError> {
        let mut netlink = Netlink::open()?;
        let addresses = netlink.all_addresses()?;
        let own = addresses.iter().find(|(_, net)| net.addr() == data_path);
        let links = netlink.links()?;
        let device = own.and_then(|(index, _)| links.iter().find(|l| l.index == *index));
        let routes = netlink.routes_to(vteps)?;
        let plain = plain(&mut netlink, routes.keys().copied());
        Ok(Self {
            device: device.map_or(ASSUMED, |link| link.mtu),
            routes: routes
                .into_iter()
                .map(|(ip, path)| (ip, path.mtu))
                .collect(),
            plain,
        })
    }

    /// Inner MTUs, where the nodes behind `announced` VTEPs say what their devices take.
    pub(crate) fn mtus(&self, ipv6: bool, announced: &BTreeMap<IpAddr, u32>) -> Mtus {
        let inner = |outer: u32| {
            let outer = u16::try_from(outer).unwrap_or(u16::MAX);
            weft_vxlan::inner_mtu(outer, ipv6)
        };
        let receives = inner(self.device);
        let paths: BTreeMap<IpAddr, u16> = self
            .routes
            .iter()
            .map(|(vtep, route)| {
                let told = announced.get(vtep).copied().filter(|mtu| *mtu > 0);
                let outer = (*route).min(told.unwrap_or(u32::MAX));
                (*vtep, inner(outer).max(LEAST_PATH_MTU))
            })
            .collect();
        let widest = paths.values().copied().max().unwrap_or(receives);
        Mtus {
            port: widest.max(LEAST_PORT_MTU),
            receives,
            paths,
        }
    }
}

/// VTEPs with a device on their way that leaves the segmentation of tunnels to the kernel. What
/// cannot be asked counts as one that does not: that costs speed and nothing else.
fn plain(
    netlink: &mut Netlink,
    vteps: impl IntoIterator<Item = IpAddr>,
) -> BTreeMap<IpAddr, String> {
    let mut known: BTreeMap<String, bool> = BTreeMap::new();
    let mut plain = BTreeMap::new();
    for vtep in vteps {
        for device in netlink.devices_to(vtep).unwrap_or_default() {
            let segments = *known
                .entry(device.clone())
                .or_insert_with(|| segments_tunnels(&device).unwrap_or(false));
            if !segments {
                plain.insert(vtep, device);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 77, 0, last])
    }

    fn underlay(device: u32, routes: &[(u8, u32)]) -> Underlay {
        Underlay {
            device,
            routes: routes.iter().map(|(n, mtu)| (ip(*n), *mtu)).collect(),
            plain: BTreeMap::new(),
        }
    }

    #[test]
    fn a_lone_node_goes_by_its_device() {
        for (device, inner) in [(1400, 1350), (1500, 1450), (9000, 8950), (65_536, 65_485)] {
            let mtus = underlay(device, &[]).mtus(false, &BTreeMap::new());
            assert_eq!((mtus.port, mtus.receives), (inner, inner));
        }
        assert_eq!(underlay(1500, &[]).mtus(true, &BTreeMap::new()).port, 1430);
    }

    #[test]
    fn ports_take_what_the_widest_way_carries_and_each_way_has_its_own() {
        let mtus = underlay(9000, &[(2, 9000), (3, 1400)]).mtus(false, &BTreeMap::new());
        assert_eq!((mtus.port, mtus.receives), (8950, 8950));
        assert_eq!(mtus.paths, [(ip(2), 8950), (ip(3), 1350)].into());
        let mtus = underlay(9000, &[(3, 1400)]).mtus(false, &BTreeMap::new());
        assert_eq!((mtus.port, mtus.receives), (1350, 8950));
    }

    #[test]
    fn the_device_on_the_other_side_counts_too() {
        let announced = [(ip(2), 1500), (ip(3), 0), (ip(9), 100)].into();
        let mtus = underlay(9000, &[(2, 9000), (3, 9000)]).mtus(false, &announced);
        assert_eq!(mtus.paths, [(ip(2), 1450), (ip(3), 8950)].into());
    }

    #[test]
    fn nothing_is_narrower_than_hosts_can_live_with() {
        let mtus = underlay(600, &[(2, 300)]).mtus(false, &BTreeMap::new());
        assert_eq!((mtus.port, mtus.receives), (1280, 550));
        assert_eq!(mtus.paths, [(ip(2), 576)].into());
    }
}
