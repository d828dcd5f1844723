//! How large packets may be on the ways to the other nodes, who has to segment them, and who is next
//! on these ways: what the kernel says. Read again and again, so that a change is followed while
//! traffic flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use weft_sys::ipsec::protected_destinations;
use weft_sys::netlink::{Link, Netlink, NetlinkError, PathToHost};
use weft_sys::offload::{has_feature, segments_datagrams, segments_tunnels};

/// Where the MTU of the underlay cannot be told, in bytes.
const ASSUMED: u32 = 1500;

/// Segmentation of UDP tunnels whose outer checksum is zero, by the kernel's name (`ethtool -k`).
const UNSUMMED: &str = "tx-udp_tnl-segmentation";

/// What the kernel says of the underlay. MTUs in bytes of outer IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Underlay {
    /// Of the device that holds the data-path address.
    pub(crate) device: u32,
    /// Of the route to each VTEP; those without a route are left out.
    pub(crate) routes: BTreeMap<IpAddr, u32>,
    /// VTEPs whose packets leave by a device that does not segment tunnels, with its name.
    pub(crate) plain: BTreeMap<IpAddr, String>,
    /// VTEPs all of whose devices segment tunnels and datagrams alike.
    pub(crate) alike: BTreeSet<IpAddr>,
    /// VTEPs that programs in the kernel may send to past its own output.
    pub(crate) hops: BTreeMap<Ipv4Addr, Hop>,
    /// VTEPs that are none of these, as their device, with its name, segments datagrams and not
    /// tunnels: segments that are made here are cheaper there than super-frames that the kernel cuts.
    pub(crate) by_segments: BTreeMap<Ipv4Addr, String>,
}

/// By which device a VTEP is reached, and who is next there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hop {
    /// Name of the device.
    pub(crate) device: String,
    /// Its number.
    pub(crate) index: u32,
    /// A router, or the VTEP itself.
    pub(crate) next_hop: Ipv4Addr,
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
        let routes = netlink.routes_to(Some(data_path), vteps)?;
        let mut devices = Devices::default();
        let (mut plain, mut alike) = (BTreeMap::new(), BTreeSet::new());
        let (mut hops, mut by_segments) = (BTreeMap::new(), BTreeMap::new());
        let protected = match protected_destinations() {
            Ok(protected) => protected,
            Err(error) => {
                tracing::debug!(%error, "what IPsec protects is not known");
                vec![Ipv4Net::default()]
            }
        };
        for (&vtep, path) in &routes {
            let names = netlink
                .devices_to(Some(data_path), vtep)
                .unwrap_or_default();
            if let IpAddr::V4(v4) = vtep
                && names.len() == 1
                && let Some(hop) = hop(v4, path, &links, &protected)
            {
                if devices.of(&hop.device).prefers_segments() {
                    by_segments.insert(v4, hop.device);
                } else {
                    hops.insert(v4, hop);
                }
            }
            match devices.way(names.into_iter().collect()) {
                Way::Plain(device) => _ = plain.insert(vtep, device),
                Way::Tunnels => {}
                Way::Alike => _ = alike.insert(vtep),
            }
        }
        Ok(Self {
            device: device.map_or(ASSUMED, |link| link.mtu),
            routes: routes
                .into_iter()
                .map(|(ip, path)| (ip, path.mtu))
                .collect(),
            plain,
            alike,
            hops,
            by_segments,
        })
    }

    /// VTEPs to which super-frames leave as segments made here: those whose devices do not segment
    /// tunnels, and where the devices do either kind and segments are the cheaper one, those too.
    pub(crate) fn segmented(&self, segments_are_cheaper: bool) -> BTreeSet<IpAddr> {
        let alike = self.alike.iter().filter(|_| segments_are_cheaper);
        self.plain.keys().chain(alike).copied().collect()
    }
}

/// Where a program may send what is for a VTEP. It goes past the kernel's output: so the next hop is
/// one of Ethernet, and nothing is to be put around the packet, by the route or by IPsec.
fn hop(vtep: Ipv4Addr, path: &PathToHost, links: &[Link], protected: &[Ipv4Net]) -> Option<Hop> {
    let Some(IpAddr::V4(next_hop)) = path.neighbour else {
        return None;
    };
    let link = links.iter().find(|link| link.index == path.index)?;
    let sealed = protected.iter().any(|net| net.contains(&vtep));
    (link.ethernet && link.up && !sealed).then(|| Hop {
        device: link.name.clone(),
        index: link.index,
        next_hop,
    })
}

/// Who segments on the way to a VTEP.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// This device, and perhaps others, leaves the segmentation of tunnels to the kernel.
    Plain(String),
    /// Every device segments tunnels, and some leave datagrams to the kernel.
    Tunnels,
    /// Every device segments both.
    Alike,
}

/// What a device segments.
#[derive(Debug, Clone, Copy)]
struct Segments {
    /// Tunnels with a checksum of the outer header, as workers send them.
    tunnels: bool,
    /// Those without one, as programs in the kernel do.
    unsummed: bool,
    datagrams: bool,
}

impl Segments {
    /// Whether flows are faster by workers than by programs. Where neither is segmented the kernel
    /// does it for both.
    const fn prefers_segments(self) -> bool {
        self.datagrams && !self.unsummed
    }
}

/// What devices said of themselves.
#[derive(Debug, Default)]
struct Devices(BTreeMap<String, Segments>);

impl Devices {
    /// What cannot be asked counts as one that segments nothing: that costs speed and nothing else.
    fn of(&mut self, name: &str) -> Segments {
        let known = self.0.entry(name.to_owned());
        *known.or_insert_with(|| Segments {
            tunnels: segments_tunnels(name).unwrap_or(false),
            unsummed: has_feature(name, UNSUMMED).unwrap_or(false),
            datagrams: segments_datagrams(name).unwrap_or(false),
        })
    }

    /// The way by all of these devices.
    fn way(&mut self, names: BTreeSet<String>) -> Way {
        let mut way = Way::Alike;
        for name in names {
            let known = self.of(&name);
            match (known.tunnels, known.datagrams) {
                (false, _) => return Way::Plain(name),
                (true, false) => way = Way::Tunnels,
                (true, true) => {}
            }
        }
        way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(devices: &[(&str, bool, bool)]) -> Way {
        let said = |&(name, tunnels, datagrams): &(&str, bool, bool)| {
            let segments = Segments {
                tunnels,
                unsummed: tunnels,
                datagrams,
            };
            (name.to_owned(), segments)
        };
        let mut known = Devices(devices.iter().map(said).collect());
        known.way(devices.iter().map(|d| d.0.to_owned()).collect())
    }

    #[test]
    fn the_weakest_device_decides_who_segments() {
        assert_eq!(way(&[("a", true, true)]), Way::Alike);
        assert_eq!(way(&[("a", true, true), ("b", true, false)]), Way::Tunnels);
        let plain = Way::Plain("b".to_owned());
        assert_eq!(way(&[("a", true, false), ("b", false, true)]), plain);
        // No device, no reason against either.
        assert_eq!(way(&[]), Way::Alike);
        // One that is gone.
        let gone = Devices::default().way(BTreeSet::from(["nosuch".to_owned()]));
        assert_eq!(gone, Way::Plain("nosuch".to_owned()));
    }

    #[test]
    fn the_kernel_sends_by_itself_where_its_output_would_add_nothing() {
        let link = |index, ethernet| Link {
            index,
            name: format!("dev{index}"),
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            ethernet,
            tied_to: None,
            kind: None,
            master: None,
            alias: None,
            arp: true,
            locked: false,
        };
        let links = [link(1, false), link(2, true)];
        let vtep = Ipv4Addr::new(192, 0, 2, 7);
        let router = Ipv4Addr::new(198, 51, 100, 1);
        let path = |index, neighbour: Option<Ipv4Addr>| PathToHost {
            dev: String::new(),
            index,
            gateway: None,
            neighbour: neighbour.map(IpAddr::V4),
            src: None,
            mtu: 1500,
        };
        for next_hop in [vtep, router] {
            let found = hop(vtep, &path(2, Some(next_hop)), &links, &[]);
            let expected = Hop {
                device: "dev2".to_owned(),
                index: 2,
                next_hop,
            };
            assert_eq!(found, Some(expected));
        }
        // No Ethernet (a WireGuard device, the loopback), no such device, no neighbour of IPv4.
        for path in [path(1, Some(vtep)), path(3, Some(vtep)), path(2, None)] {
            assert_eq!(hop(vtep, &path, &links, &[]), None, "{path:?}");
        }
        let path = path(2, Some(router));
        let net = |text: &str| text.parse::<Ipv4Net>().expect("a network");
        assert_eq!(hop(vtep, &path, &links, &[net("192.0.2.0/24")]), None);
        // The router's own packets are another matter.
        let other = [net("198.51.100.0/24")];
        assert!(hop(vtep, &path, &links, &other).is_some());
    }

    #[test]
    fn workers_are_faster_where_the_device_segments_datagrams_alone() {
        for (unsummed, datagrams, expected) in [
            (true, true, false),
            (true, false, false),
            (false, true, true),
            (false, false, false),
        ] {
            let segments = Segments {
                tunnels: true,
                unsummed,
                datagrams,
            };
            assert_eq!(segments.prefers_segments(), expected, "{segments:?}");
        }
    }

    #[test]
    fn segments_are_made_where_the_device_makes_none_and_where_they_are_cheaper() {
        let [plain, alike, tunnels] = [1, 2, 3].map(|host| IpAddr::from([192, 0, 2, host]));
        let underlay = Underlay {
            device: 1500,
            routes: [plain, alike, tunnels].map(|vtep| (vtep, 1500)).into(),
            plain: BTreeMap::from([(plain, "eth0".to_owned())]),
            alike: BTreeSet::from([alike]),
            hops: BTreeMap::new(),
            by_segments: BTreeMap::new(),
        };
        assert_eq!(underlay.segmented(false), BTreeSet::from([plain]));
        assert_eq!(underlay.segmented(true), BTreeSet::from([plain, alike]));
    }
}
