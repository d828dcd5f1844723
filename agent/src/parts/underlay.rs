//! How large packets may be on the ways to the other nodes, and who has to segment them: what the
//! kernel says. Read again and again, so that a change is followed while traffic flows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use weft_sys::netlink::{Netlink, NetlinkError};
use weft_sys::offload::segments_tunnels;

/// Where the MTU of the underlay cannot be told, in bytes.
const ASSUMED: u32 = 1500;

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
