//! Routes, and the way to one host.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::address::family;
use super::{Link, Netlink, NetlinkError};

/// Number of the routing table that is looked up for everything.
pub const MAIN_TABLE: u32 = RouteHeader::RT_TABLE_MAIN as u32;

/// A unicast route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination; `0.0.0.0/0` or `::/0` for the default route.
    pub dest: IpNet,
    /// Next hop; on-link when absent.
    pub gateway: Option<IpAddr>,
    /// Name of the outgoing interface.
    pub dev: Option<String>,
    /// Routing table, [`MAIN_TABLE`] unless a rule leads elsewhere.
    pub table: u32,
    /// The next hop counts as reachable on `dev` without a route to it.
    pub onlink: bool,
}

/// How packets to one host leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathToHost {
    /// Outgoing interface.
    pub dev: String,
    /// Number of the outgoing interface; 0 where the kernel names none.
    pub index: u32,
    /// Next hop, when there is one.
    pub gateway: Option<IpAddr>,
    /// Whom the interface asks for: the next hop, or the host itself. None where that has an address of
    /// another family, and where packets are put into a tunnel by the route.
    pub neighbour: Option<IpAddr>,
    /// Source address that the kernel would choose.
    pub src: Option<IpAddr>,
    /// Largest IP packet in bytes: learnt path MTU, else the route's, else the interface's.
    pub mtu: u32,
}

impl Netlink {
    /// Adds a route, or replaces the one to the same destination in the same table.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`] (unreachable gateway, interface down).
    pub fn set_route(&mut self, route: &Route) -> Result<(), NetlinkError> {
        let message = self.route_message(route)?;
        self.change(Message::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(NetlinkError::kernel("set", describe(route)))
    }

    /// Unicast routes of all tables, both families. A multipath route is shown with its first hop.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn routes(&mut self) -> Result<Vec<Route>, NetlinkError> {
        let names: BTreeMap<u32, String> = self
            .links()?
            .into_iter()
            .map(|l| (l.index, l.name))
            .collect();
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self
                .dump(Message::GetRoute(message))
                .map_err(NetlinkError::kernel("list", "routes"))?;
            for answer in answers {
                if let Message::NewRoute(message) = answer {
                    routes.extend(parse(&message, &names));
                }
            }
        }
        Ok(routes)
    }

    /// How packets to `ip` leave, and how large they may be.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`] when there is no route.
    pub fn route_to(&mut self, ip: IpAddr) -> Result<PathToHost, NetlinkError> {
        let links = self.links()?;
        self.route_over(None, ip, &links)
    }

    /// The same for many hosts, those left out that no route leads to; of packets from an address of
    /// this host, which rules may look at (`ip rule add from`).
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`] when the interfaces cannot be listed.
    pub fn routes_to(
        &mut self,
        from: Option<IpAddr>,
        ips: impl IntoIterator<Item = IpAddr>,
    ) -> Result<BTreeMap<IpAddr, PathToHost>, NetlinkError> {
        let links = self.links()?;
        Ok(ips
            .into_iter()
            .filter_map(|ip| Some((ip, self.route_over(from, ip, &links).ok()?)))
            .collect())
    }

    /// Names of all interfaces that packets to `ip` may leave by, one for each next hop of the route
    /// that leads there.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`] when there is no route.
    pub fn devices_to(
        &mut self,
        from: Option<IpAddr>,
        ip: IpAddr,
    ) -> Result<Vec<String>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(ip);
        message.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
        // The entry as it stands in the table, in place of what one packet would do.
        message.header.flags = RouteFlags::FibMatch;
        message
            .attributes
            .push(RouteAttribute::Destination(ip.into()));
        let from = from.filter(|from| from.is_ipv4() == ip.is_ipv4());
        if from.is_some() {
            message.header.source_prefix_length = message.header.destination_prefix_length;
        }
        message
            .attributes
            .extend(from.map(|from| RouteAttribute::Source(from.into())));
        let answer = self
            .get(Message::GetRoute(message))
            .map_err(NetlinkError::kernel("find", format!("a route to {ip}")))?;
        let mut indexes = Vec::new();
        if let Some(Message::NewRoute(found)) = answer {
            for attribute in &found.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => indexes.push(*index),
                    RouteAttribute::MultiPath(hops) => {
                        indexes.extend(hops.iter().map(|hop| hop.interface_index));
                    }
                    _ => {}
                }
            }
        }
        let links = self.links()?;
        let named = |index: u32| links.iter().find(|link| link.index == index);
        let found = indexes.into_iter().filter_map(named);
        Ok(found.map(|link| link.name.clone()).collect())
    }

    fn route_over(
        &mut self,
        from: Option<IpAddr>,
        ip: IpAddr,
        links: &[Link],
    ) -> Result<PathToHost, NetlinkError> {
        let object = || format!("a route to {ip}");
        let mut message = RouteMessage::default();
        message.header.address_family = family(ip);
        message.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
        message
            .attributes
            .push(RouteAttribute::Destination(ip.into()));
        let from = from.filter(|from| from.is_ipv4() == ip.is_ipv4());
        if from.is_some() {
            message.header.source_prefix_length = message.header.destination_prefix_length;
        }
        message
            .attributes
            .extend(from.map(|from| RouteAttribute::Source(from.into())));
        let answer = self
            .get(Message::GetRoute(message))
            .map_err(NetlinkError::kernel("find", object()))?;
        let Some(Message::NewRoute(found)) = answer else {
            let source = std::io::ErrorKind::UnexpectedEof.into();
            return Err(NetlinkError::kernel("find", object())(source));
        };
        let mut path = PathToHost {
            dev: String::new(),
            index: 0,
            gateway: None,
            neighbour: None,
            src: None,
            mtu: 0,
        };
        let mut plain = true;
        for attribute in &found.attributes {
            match attribute {
                RouteAttribute::Oif(index) => path.index = *index,
                RouteAttribute::Gateway(address) => path.gateway = ip_of(address),
                RouteAttribute::PrefSource(address) => path.src = ip_of(address),
                RouteAttribute::Metrics(metrics) => {
                    path.mtu = metrics
                        .iter()
                        .find_map(|m| match m {
                            RouteMetric::Mtu(mtu) => Some(*mtu),
                            _ => None,
                        })
                        .unwrap_or(0);
                }
                RouteAttribute::Via(_)
                | RouteAttribute::EncapType(_)
                | RouteAttribute::Encap(_) => plain = false,
                _ => {}
            }
        }
        path.neighbour = plain.then(|| path.gateway.unwrap_or(ip));
        let link = links.iter().find(|l| l.index == path.index);
        if let Some(link) = link {
            if path.mtu == 0 {
                path.mtu = link.mtu;
            }
            path.dev.clone_from(&link.name);
        }
        Ok(path)
    }

    fn route_message(&mut self, route: &Route) -> Result<RouteMessage, NetlinkError> {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(route.dest.addr());
        header.destination_prefix_length = route.dest.prefix_len();
        header.protocol = RouteProtocol::Static;
        header.kind = RouteType::Unicast;
        header.scope = if route.gateway.is_none() && route.dest.addr().is_ipv4() {
            RouteScope::Link
        } else {
            RouteScope::Universe
        };
        if route.onlink {
            header.flags = RouteFlags::Onlink;
        }
        // Tables above 255 fit into the attribute only, which holds for small ones too.
        header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.attributes.push(RouteAttribute::Table(route.table));
        if route.dest.prefix_len() > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(route.dest.network().into()));
        }
        if let Some(gateway) = route.gateway {
            message
                .attributes
                .push(RouteAttribute::Gateway(gateway.into()));
        }
        if let Some(dev) = &route.dev {
            message
                .attributes
                .push(RouteAttribute::Oif(self.link_index(dev)?));
        }
        Ok(message)
    }
}

fn describe(route: &Route) -> String {
    let mut text = format!("route to {}", route.dest);
    if let Some(gateway) = route.gateway {
        text += &format!(" via {gateway}");
    }
    if let Some(dev) = &route.dev {
        text += &format!(" dev {dev}");
    }
    if route.table != MAIN_TABLE {
        text += &format!(" in table {}", route.table);
    }
    text
}

fn parse(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut dest, mut gateway, mut oif) = (unspecified, None, None);
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dest = ip_of(address)?,
            RouteAttribute::Gateway(address) => gateway = ip_of(address),
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::MultiPath(hops) => {
                oif = hops.first().map(|hop| hop.interface_index);
            }
            _ => {}
        }
    }
    Some(Route {
        dest: IpNet::new(dest, header.destination_prefix_length).ok()?,
        gateway,
        dev: oif.and_then(|index| names.get(&index).cloned()),
        table,
        onlink: header.flags.contains(RouteFlags::Onlink),
    })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
