//! One overlay network in a sandbox: a TAP with its addresses, routing table and rules.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_model::id::EndpointId;
use weft_model::objects::Mac;
use weft_sys::netlink::{Link, Netlink, NetlinkError, Route, Rule};
use weft_sys::netns::Netns;
use weft_sys::tap::{Tap, TapConfig, TapError};

use super::error::SandboxError;
use super::{Sandbox, sysctl};
use crate::names::MESH_IFNAME;

/// What an overlay interface should be.
#[derive(Debug, Clone)]
pub(crate) struct PortConfig {
    /// Whose interface it is, written onto it: its name may be changed inside the sandbox.
    pub(crate) endpoint: EndpointId,
    /// Name that it gets inside the sandbox.
    pub(crate) ifname: String,
    /// The endpoint's Ethernet address.
    pub(crate) mac: Mac,
    /// The endpoint's addresses with the prefix lengths of their subnets.
    pub(crate) ips: Vec<IpNet>,
    /// Gateways of the network, which the data plane answers for; at most one of each family.
    pub(crate) gateways: Vec<IpAddr>,
    /// Largest inner IP packet, in bytes.
    pub(crate) mtu: u32,
}

/// Routing tables of overlay networks, and the priorities of the rules that lead there, begin here:
/// the number of the interface is added, which stays when it gets another name. The kernel's own
/// tables are 253 to 255.
const FIRST_TABLE: u32 = 1000;

/// Priorities that are used: all of them before 32766, where the main table is looked up.
const PRIORITIES: u32 = 30_000;

impl Sandbox {
    /// Makes the interface, or takes up the one that an earlier agent left, whatever its name is by
    /// now. The TAP persists: it survives this process, and is removed by [`Sandbox::remove_port`]
    /// or with the namespace.
    ///
    /// # Errors
    /// See [`SandboxError`]; an interface that this call made is gone again.
    pub(crate) fn add_port(&self, config: &PortConfig) -> Result<Tap, SandboxError> {
        let add = || {
            let mut netlink = Netlink::open()?;
            let found = find(&mut netlink, &config.ifname, &config.endpoint)?;
            let ifname = found.as_ref().map_or(&config.ifname, |link| &link.name);
            // A new one outlives this agent only when it says whose it is: the next agent could not
            // find it otherwise.
            let tap = Tap::open(&TapConfig {
                mac: Some(config.mac.0),
                mtu: Some(config.mtu),
                up: false,
                persist: found.is_some(),
                ..TapConfig::new(ifname)
            })?;
            let claim = format!("{CLAIM}{}", config.endpoint);
            if let Err(error) = netlink.set_alias(ifname, &claim) {
                tracing::warn!(%error, "the interface does not say whose it is");
            }
            tap.set_persist(true).map_err(|source| TapError::Kernel {
                action: "set persistence of",
                name: ifname.clone(),
                source,
            })?;
            match configure(&mut netlink, config, ifname) {
                Ok(()) => Ok(tap),
                Err(error) => {
                    if found.is_none()
                        && let Err(left) = netlink.delete_link(&config.ifname)
                    {
                        tracing::warn!(ifname = config.ifname, error = %left, "TAP left behind");
                    }
                    Err(error)
                }
            }
        };
        self.netns.run_in(add).map_err(SandboxError::Enter)?
    }

    /// Removes an endpoint's interface with its rules, which was called `ifname` once; one that is
    /// not there is success, and so is one that is no TAP: somebody else made it since. Descriptors
    /// of the TAP report an error from then on.
    ///
    /// # Errors
    /// [`SandboxError::Netlink`].
    pub(crate) fn remove_port(
        &self,
        ifname: &str,
        endpoint: &EndpointId,
    ) -> Result<(), SandboxError> {
        let mut netlink = self.netlink()?;
        let Some(link) = find(&mut netlink, ifname, endpoint)? else {
            return Ok(());
        };
        if link.kind.as_deref() != Some("tun") {
            tracing::warn!(ifname, "the interface is no TAP any more and stays");
            return Ok(());
        }
        let table = FIRST_TABLE + link.index;
        for rule in netlink
            .rules()?
            .into_iter()
            .filter(|rule| rule.table == table)
        {
            netlink.delete_rule(&rule)?;
        }
        Ok(netlink.delete_link(&link.name)?)
    }
}

/// Begins the alias of an interface that belongs to an endpoint; its id follows.
const CLAIM: &str = "weft endpoint ";

impl Sandbox {
    /// TAPs that say whose they are. Whoever is root in the sandbox may have written it.
    ///
    /// # Errors
    /// [`SandboxError::Netlink`].
    pub(crate) fn claimed_ports(&self) -> Result<Vec<(String, EndpointId)>, SandboxError> {
        let taps = self.netlink()?.links()?.into_iter();
        Ok(taps
            .filter_map(|link| Some((claimed_by(&link)?, link.name)))
            .map(|(id, name)| (name, id))
            .collect())
    }
}

/// The endpoint that a TAP says it belongs to.
fn claimed_by(link: &Link) -> Option<EndpointId> {
    let id = link.alias.as_deref()?.strip_prefix(CLAIM)?;
    (link.kind.as_deref() == Some("tun")).then(|| EndpointId::from(id))
}

/// The interface of an endpoint: the one that says so, whatever it is called by now, or the one with
/// the name that it got, unless that says it is another's.
fn find(
    netlink: &mut Netlink,
    ifname: &str,
    endpoint: &EndpointId,
) -> Result<Option<Link>, NetlinkError> {
    let named = netlink.link(ifname)?;
    match named.as_ref().and_then(claimed_by) {
        Some(owner) if owner == *endpoint => Ok(named),
        owner => {
            let mut links = netlink.links()?.into_iter();
            let own = links.find(|link| claimed_by(link).as_ref() == Some(endpoint));
            Ok(own.or_else(|| named.filter(|_| owner.is_none())))
        }
    }
}

/// Sets again what an interface in use has lost: one that goes down and comes up has no routes any
/// more, and no addresses of IPv6. Returns what was missing, in words. One that is down or gone is
/// its owner's business, and so is a family that he switched off.
///
/// # Errors
/// [`SandboxError::Netlink`].
pub(crate) fn keep_port(netns: &Netns, config: &PortConfig) -> Result<Vec<String>, SandboxError> {
    let mut netlink = Netlink::open_in(netns)?;
    let link = find(&mut netlink, &config.ifname, &config.endpoint)?;
    let Some(link) = link.filter(|link| link.up) else {
        return Ok(Vec::new());
    };
    let ifname = &link.name;
    let there = netlink.all_addresses()?;
    let mut lost = Vec::new();
    let mut ips = Vec::new();
    for &ip in &config.ips {
        if !there.contains(&(link.index, ip)) {
            if ip.addr().is_ipv6() && ipv6_is_off(netns, ifname) {
                continue;
            }
            netlink.add_address(ifname, ip)?;
            lost.push(format!(
                "the address {} of {ifname} in its sandbox",
                ip.addr()
            ));
        }
        ips.push(ip);
    }
    let table = FIRST_TABLE + link.index;
    let (routes, rules) = by_source(config, &ips, ifname, table);
    let there = netlink.routes()?;
    // All of them again: the kernel takes a route by way of a gateway only after the one to that.
    if routes.iter().any(|route| !there.contains(route)) {
        for route in &routes {
            netlink.set_route(route)?;
        }
        lost.push(format!("routes of {ifname} in a sandbox"));
    }
    let there = netlink.rules()?;
    for rule in rules.iter().filter(|rule| !there.contains(rule)) {
        netlink.add_rule(rule)?;
        lost.push(format!("the rule for {} in its sandbox", rule.from.addr()));
    }
    Ok(lost)
}

fn ipv6_is_off(netns: &Netns, ifname: &str) -> bool {
    let name = format!("net/ipv6/conf/{ifname}/disable_ipv6");
    let off = netns.run_in(|| sysctl::get(&name));
    !matches!(off, Ok(Ok(value)) if value == "0")
}

/// Makes a port in use follow the underlay: its MTU, which its routes follow, and its
/// super-frames.
///
/// # Errors
/// [`SandboxError::Enter`] when its namespace is gone, [`SandboxError::Netlink`].
pub(crate) fn set_port_mtu(tap: &Tap, mtu: u32) -> Result<(), SandboxError> {
    let netns = tap.netns().map_err(SandboxError::Enter)?;
    let name = tap.name_by_now().map_err(NetlinkError::Socket)?;
    let mut netlink = Netlink::open_in(&netns)?;
    netlink.set_mtu(&name, mtu)?;
    // What clients outside send has the kernel's own length: see `mesh_tap.rs`.
    if name != MESH_IFNAME {
        netlink.set_gso_max_size(&name, super_frame_len(mtu))?;
    }
    Ok(())
}

fn configure(netlink: &mut Netlink, config: &PortConfig, ifname: &str) -> Result<(), SandboxError> {
    let has_v6 = config.ips.iter().any(|ip| ip.addr().is_ipv6());
    // Nothing is learnt from the wire, and nothing is sent from addresses that are not the port's:
    // the data plane would drop it.
    sysctl::fixed_addresses(ifname)?;
    sysctl::set_if_there(
        &format!("net/ipv6/conf/{ifname}/disable_ipv6"),
        if has_v6 { "0" } else { "1" },
    )?;
    let v4 = format!("net/ipv4/conf/{ifname}");
    sysctl::set(&format!("{v4}/arp_ignore"), "1")?;
    sysctl::set(&format!("{v4}/arp_announce"), "2")?;
    // Mesh connections may come from any address; their answers return by the source rule.
    sysctl::set(&format!("{v4}/rp_filter"), "0")?;

    // Stale ones first: with a primary IPv4 address the kernel removes the others of its subnet.
    for stale in netlink.addresses(ifname)? {
        let link_local = matches!(stale.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !link_local && !config.ips.contains(&stale) {
            netlink.delete_address(ifname, stale)?;
        }
    }
    for &ip in &config.ips {
        netlink.add_address(ifname, ip)?;
    }
    netlink.set_gso_max_size(ifname, super_frame_len(config.mtu))?;
    netlink.set_up(ifname, true)?;
    let index = netlink.link_index(ifname)?;
    route_by_source(netlink, config, ifname, FIRST_TABLE + index)
}

/// Routes and rules of a table: `from ADDRESS lookup TABLE`, where the table has the subnet itself
/// and the gateway as default.
fn by_source(
    config: &PortConfig,
    ips: &[IpNet],
    ifname: &str,
    table: u32,
) -> (Vec<Route>, Vec<Rule>) {
    let (mut routes, mut rules) = (Vec::new(), Vec::new());
    for ip in ips {
        let same_family = |gateway: &&IpAddr| gateway.is_ipv4() == ip.addr().is_ipv4();
        let Some(&gateway) = config.gateways.iter().find(same_family) else {
            continue;
        };
        let everything = match gateway {
            IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
        };
        // The gateway is reached by the first.
        for (dest, gateway) in [(ip.trunc(), None), (everything, Some(gateway))] {
            routes.push(Route {
                dest,
                gateway,
                dev: Some(ifname.to_owned()),
                table,
                onlink: false,
            });
        }
        let priority = FIRST_TABLE + (table - FIRST_TABLE) % PRIORITIES;
        rules.push(Rule::by_source(IpNet::from(ip.addr()), table, priority));
    }
    (routes, rules)
}

fn route_by_source(
    netlink: &mut Netlink,
    config: &PortConfig,
    ifname: &str,
    table: u32,
) -> Result<(), SandboxError> {
    let (routes, wanted) = by_source(config, &config.ips, ifname, table);
    for route in &routes {
        netlink.set_route(route)?;
    }
    for rule in &wanted {
        netlink.add_rule(rule)?;
    }
    for stale in netlink.rules()? {
        if stale.table == table && !wanted.contains(&stale) {
            netlink.delete_rule(&stale)?;
        }
    }
    Ok(())
}

/// Largest super-frame of a sandbox, in bytes: one that leaves in a single segmented datagram. The
/// kernel's own limit of 65,536 gives one or two segments more, and with them a second send, a
/// second receive and a second wake-up for each super-frame.
fn super_frame_len(mtu: u32) -> u32 {
    /// Largest UDP payload over IPv4, and Ethernet and VXLAN headers of each segment in it.
    const DATAGRAM: u32 = 65_507;
    const ENCAPSULATION: u32 = 14 + 8;
    /// IPv4 and TCP headers with timestamps.
    const HEADERS: u32 = 20 + 20 + 12;
    /// What the kernel sets aside of its limit for headers (`MAX_TCP_HEADER`), rounded up.
    const RESERVE: u32 = 400;
    let segments = DATAGRAM / (mtu + ENCAPSULATION);
    let len = segments * mtu.saturating_sub(HEADERS) + RESERVE;
    len.max(2 * mtu).min(65_536)
}
