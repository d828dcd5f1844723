//! The gateway bridge `weft_gwbridge`: the way from sandboxes to the outside of the cluster.
//!
//! A Linux bridge in the host's namespace, a veth into it from each sandbox, the kernel's own
//! forwarding and one nftables table named `weft` that masquerades. So egress goes on while the
//! agent restarts.
//!
//! The bridge is a wall as well. Whoever is in a sandbox may send what he likes; the outside and
//! published ports are all that he reaches. His port is locked to the address that he was given and
//! to the bridge itself, addresses are not resolved but fixed by the agent, nothing here speaks IPv6,
//! and the rules of `rules.rs` decide the rest. Without them no sandbox is put on the bridge.

mod inspect;
mod keep;
mod pool;
mod rules;
mod subnet;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::{IpNet, Ipv4Net};
use weft_cluster::HostRoute;
use weft_model::objects::Mac;
use weft_sys::netlink::{MAIN_TABLE, Netlink, NetlinkError, Route, Veth};
use weft_sys::nft::{self, NftError};

use super::error::SandboxError;
use super::{Sandbox, sysctl};
use crate::kept::HostRules;
use crate::names::{BRIDGE, GATEWAY_IFNAME, PORT_PREFIX, TABLE};

pub(super) use keep::{is_way_out, made_interface};
pub(crate) use pool::AddressPool;
pub(crate) use rules::{ClusterPort, WALL, former, mesh_wall};
pub(crate) use subnet::{SubnetError, choose_subnet};

/// Name of the bridge's part of the host's rules.
const PART: &str = "gateway";

/// Why the bridge is not there, or a sandbox not on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GwBridgeError {
    /// No range for it.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// Every address of it is given out.
    #[error(
        "no free address left in {subnet} of {BRIDGE}: give it a larger range with --gwbridge-subnet"
    )]
    Full {
        /// Range of the bridge.
        subnet: Ipv4Net,
    },
    /// An interface, address or route.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Inside the sandbox, or a kernel setting.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The rules could not be changed.
    #[error("cannot change the nftables table {TABLE}: {0}")]
    Rules(#[source] NftError),
}

/// Whether traffic from sandboxes gets out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Egress {
    /// Forwarding and masquerade are in place.
    On,
    /// They are not; the text says why and what to do, once, as a warning. Everything else works.
    Off(String),
}

/// The bridge of this node, set up.
/// Its locks are taken in this order: `members`, `pool`, `sources`, then those of [`HostRules`].
#[derive(Debug)]
pub(crate) struct GatewayBridge {
    subnet: Ipv4Net,
    mtu: u32,
    egress: Egress,
    /// The rules are in place.
    walled: bool,
    pool: Mutex<AddressPool>,
    /// Addresses that sandboxes may send from, as the rules have them.
    sources: Mutex<BTreeSet<Ipv4Addr>>,
    rules: Arc<HostRules>,
    /// Number of the bridge, which the data path knows it by.
    index: u32,
    /// Ports of the sandboxes that this agent put on the bridge, with their addresses. Held while
    /// one is plugged in or out.
    members: Mutex<BTreeMap<String, Ipv4Addr>>,
}

impl GatewayBridge {
    /// Sets the bridge up in the calling thread's namespace, or takes up the one that is there with
    /// the addresses that its sandboxes have. `wanted` is the range from the configuration; without
    /// it 172.18.0.0/16 or the next private range that no route of the host overlaps.
    ///
    /// # Errors
    /// [`GwBridgeError::Subnet`], [`GwBridgeError::Netlink`]. Trouble with forwarding or nftables is
    /// no error but [`Egress::Off`].
    pub(crate) fn ensure(
        wanted: Option<Ipv4Net>,
        host: Arc<HostRules>,
    ) -> Result<Self, GwBridgeError> {
        let mut netlink = Netlink::open()?;
        let existing = match netlink.link(BRIDGE)? {
            Some(_) => address_of(&mut netlink, BRIDGE)?,
            None => None,
        };
        let subnet = match existing {
            Some(found) if wanted.is_none_or(|wanted| wanted.trunc() == found.trunc()) => found,
            _ => choose_subnet(wanted, &busy_ranges(&mut netlink)?)?,
        };
        // The uplink's MTU spares egress from path MTU discovery at the first hop.
        let outside = Ipv4Addr::new(192, 0, 2, 1).into();
        let mtu = netlink
            .route_to(outside)
            .map_or(1500, |path| path.mtu.clamp(576, 65_535));
        let index = Self::prepare()?;
        if let Some(stale) = existing.filter(|found| *found != subnet) {
            netlink.delete_address(BRIDGE, IpNet::V4(stale))?;
        }
        // A bridge without an address of its own takes that of any port.
        netlink.set_mac(BRIDGE, Mac::for_ip(subnet.addr().into()).0)?;
        netlink.add_address(BRIDGE, IpNet::V4(subnet))?;
        netlink.set_mtu(BRIDGE, mtu)?;

        let mut pool = AddressPool::new(subnet);
        let mut sources = BTreeSet::new();
        for port in ports(&mut netlink)? {
            if let Some(ip) = port.alias.as_deref().and_then(address_in_alias)
                && pool.reserve(ip)
            {
                sources.insert(ip);
                guard(&mut netlink, &port.name, ip)?;
            }
        }
        let rules = host.set(PART, rules::setup(subnet, &sources));
        let walled = rules.is_ok();
        let egress = match rules {
            Ok(()) => forward(&host),
            Err(error) => Egress::Off(error.to_string()),
        };
        if let Egress::Off(reason) = &egress {
            tracing::warn!(reason, "tasks cannot reach addresses outside the cluster");
        }
        // What is on it from earlier has the rules of then.
        netlink.set_up(BRIDGE, true)?;
        Ok(Self {
            subnet,
            mtu,
            egress,
            walled,
            pool: Mutex::new(pool),
            sources: Mutex::new(sources),
            rules: host,
            index,
            members: Mutex::default(),
        })
    }

    /// Makes the bridge, closed and without an address, where it is not there yet. Returns its
    /// number: the data path refuses what comes by it.
    ///
    /// # Errors
    /// [`GwBridgeError::Netlink`].
    pub(crate) fn prepare() -> Result<u32, GwBridgeError> {
        let mut netlink = Netlink::open()?;
        netlink.add_bridge(BRIDGE)?;
        netlink.set_arp(BRIDGE, false)?;
        deaf(BRIDGE);
        Ok(netlink.link_index(BRIDGE)?)
    }

    /// Spares the data path's datagrams, to this node `at` its address and UDP port, the host's connection tracking. Only speed
    /// depends on it.
    ///
    /// # Errors
    /// [`GwBridgeError::Rules`]: a kernel without `notrack`.
    pub(crate) fn spare_tracking(&self, at: SocketAddr) -> Result<(), GwBridgeError> {
        if self.walled {
            self.rules
                .set("untracked", rules::untracked(at))
                .map_err(GwBridgeError::Rules)?;
        }
        Ok(())
    }

    /// Forbids sandboxes to speak to these ports of nodes. Those of this node are closed anyway.
    ///
    /// # Errors
    /// [`GwBridgeError::Rules`]: what was forbidden before still is.
    pub(crate) fn close(&self, ports: &BTreeSet<ClusterPort>) -> Result<(), GwBridgeError> {
        if self.walled {
            self.rules
                .set("cluster", rules::cluster(ports))
                .map_err(GwBridgeError::Rules)?;
        }
        Ok(())
    }

    /// Range of the bridge; its address is the bridge's own.
    #[cfg(test)]
    pub(crate) fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// Whether traffic from sandboxes gets out.
    #[must_use]
    pub(crate) fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Puts a sandbox on the bridge: `eth1` with an address and the default route through it.
    /// A sandbox that is on it already keeps its address. Returns that address; nothing where there
    /// is no wall, which [`GatewayBridge::egress`] has told. Call it in the host's namespace, as
    /// everything here.
    ///
    /// # Errors
    /// [`GwBridgeError::Full`], [`GwBridgeError::Netlink`], [`GwBridgeError::Sandbox`],
    /// [`GwBridgeError::Rules`]; nothing is left behind.
    pub(crate) fn connect(&self, sandbox: &Sandbox) -> Result<Option<Ipv4Addr>, GwBridgeError> {
        if !self.walled {
            return Ok(None);
        }
        let mut host = Netlink::open()?;
        let mut inside = sandbox.netlink()?;
        let port = port_name(sandbox)?;
        let mut members = self.members();
        let known = match host.link(&port)? {
            Some(link) => link.alias.as_deref().and_then(address_in_alias),
            None => None,
        };
        // Held until the interface is there: what `forget_gone` finds without one, it frees.
        let mut pool = self.pool();
        let ip = match known.filter(|ip| self.subnet.contains(ip)) {
            Some(ip) => {
                pool.reserve(ip);
                ip
            }
            None => pool.allocate().ok_or(GwBridgeError::Full {
                subnet: self.subnet,
            })?,
        };
        let done = self.plug(&mut host, &port, sandbox, ip).and_then(|()| {
            let net = Ipv4Net::new_assert(ip, self.subnet.prefix_len());
            configure_inside(&mut inside, net, self.subnet.addr())
        });
        if let Err(error) = done {
            if let Err(left) = host.delete_link(&port) {
                tracing::warn!(port, error = %left, "gateway interface left behind");
            }
            pool.release(ip);
            self.silence(&mut host, [ip]);
            members.remove(&port);
            return Err(error);
        }
        members.insert(port, ip);
        Ok(Some(ip))
    }

    /// Takes a sandbox off the bridge and frees its address; one that is not on it is success.
    /// Needed for foreign sandboxes, and before the namespace of a task is removed.
    ///
    /// # Errors
    /// [`GwBridgeError::Netlink`], [`GwBridgeError::Sandbox`].
    pub(crate) fn disconnect(&self, sandbox: &Sandbox) -> Result<(), GwBridgeError> {
        let mut host = Netlink::open()?;
        let port = port_name(sandbox)?;
        let mut members = self.members();
        members.remove(&port);
        if let Some(link) = host.link(&port)? {
            host.delete_link(&port)?;
            if let Some(ip) = link.alias.as_deref().and_then(address_in_alias) {
                let mut pool = self.pool();
                self.silence(&mut host, [ip]);
                pool.release(ip);
            }
        }
        Ok(())
    }

    /// Frees addresses of sandboxes that ended without [`GatewayBridge::disconnect`]: their
    /// interfaces went with their namespaces.
    ///
    /// # Errors
    /// [`GwBridgeError::Netlink`].
    pub(crate) fn forget_gone(&self) -> Result<(), GwBridgeError> {
        let mut members = self.members();
        let mut pool = self.pool();
        let mut netlink = Netlink::open()?;
        let mut fresh = AddressPool::new(self.subnet);
        let mut there = BTreeSet::new();
        for port in ports(&mut netlink)? {
            if let Some(ip) = port.alias.as_deref().and_then(address_in_alias) {
                fresh.reserve(ip);
                there.insert(ip);
            }
        }
        let gone: Vec<Ipv4Addr> = self.sources().difference(&there).copied().collect();
        self.silence(&mut netlink, gone);
        members.retain(|_, ip| there.contains(ip));
        pool.retain(&fresh);
        Ok(())
    }

    /// Removes the rules, the bridge and every sandbox's interface on it: when the node leaves the
    /// cluster. Nothing there is success.
    ///
    /// # Errors
    /// [`GwBridgeError::Netlink`], [`GwBridgeError::Rules`]; as much as possible is removed.
    pub(crate) fn teardown() -> Result<(), GwBridgeError> {
        let rules = match nft::apply(&rules::removal()) {
            Ok(()) | Err(NftError::Missing) => Ok(()),
            Err(error) => Err(GwBridgeError::Rules(error)),
        };
        let mut netlink = Netlink::open()?;
        for port in ports(&mut netlink)? {
            netlink.delete_link(&port.name)?;
        }
        netlink.delete_link(BRIDGE)?;
        rules
    }

    fn plug(
        &self,
        host: &mut Netlink,
        port: &str,
        sandbox: &Sandbox,
        ip: Ipv4Addr,
    ) -> Result<(), GwBridgeError> {
        host.add_veth(&Veth {
            name: port,
            peer: GATEWAY_IFNAME,
            peer_netns: Some(sandbox.netns()),
            peer_mac: Some(Mac::for_ip(ip.into()).0),
            mtu: Some(self.mtu),
        })?;
        // Written first: it is what a restarted agent knows the address from.
        host.set_alias(port, &alias(ip))?;
        host.set_master(port, Some(BRIDGE))?;
        guard(host, port, ip)?;
        let mut sources = self.sources();
        if !sources.contains(&ip) {
            let mut more = sources.clone();
            more.insert(ip);
            let text = rules::setup(self.subnet, &more);
            self.rules
                .change(PART, &rules::source(ip, true), text)
                .map_err(GwBridgeError::Rules)?;
            *sources = more;
        }
        Ok(host.set_up(port, true)?)
    }

    /// Takes away the right to send from these addresses, and what the host knows of them.
    fn silence(&self, host: &mut Netlink, gone: impl IntoIterator<Item = Ipv4Addr>) {
        let mut sources = self.sources();
        for ip in gone {
            if let Err(error) = host.delete_neighbour(BRIDGE, ip.into()) {
                tracing::debug!(%ip, %error, "a neighbour is left");
            }
            if !sources.contains(&ip) {
                continue;
            }
            let mut fewer = sources.clone();
            fewer.remove(&ip);
            let text = rules::setup(self.subnet, &fewer);
            match self.rules.change(PART, &rules::source(ip, false), text) {
                Ok(()) => *sources = fewer,
                // Harmless: no port has the address. The next one to get it needs no rule.
                Err(error) => tracing::debug!(%ip, %error, "a source is left in the rules"),
            }
        }
    }

    fn sources(&self) -> MutexGuard<'_, BTreeSet<Ipv4Addr>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> MutexGuard<'_, BTreeMap<String, Ipv4Addr>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self) -> MutexGuard<'_, AddressPool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn configure_inside(
    inside: &mut Netlink,
    net: Ipv4Net,
    gateway: Ipv4Addr,
) -> Result<(), GwBridgeError> {
    inside.set_up("lo", true)?;
    for stale in inside.addresses(GATEWAY_IFNAME)? {
        if stale.addr().is_ipv4() && stale != IpNet::V4(net) {
            inside.delete_address(GATEWAY_IFNAME, stale)?;
        }
    }
    inside.add_address(GATEWAY_IFNAME, IpNet::V4(net))?;
    inside.set_up(GATEWAY_IFNAME, true)?;
    inside.set_neighbour(
        GATEWAY_IFNAME,
        gateway.into(),
        Mac::for_ip(gateway.into()).0,
    )?;
    inside.set_route(&Route {
        dest: IpNet::V4(Ipv4Net::default()),
        gateway: Some(gateway.into()),
        dev: Some(GATEWAY_IFNAME.to_owned()),
        table: MAIN_TABLE,
        onlink: false,
    })?;
    Ok(())
}

/// Fixes a port to the address of its sandbox: what comes from another one is dropped, and the host
/// asks nobody where the sandbox is.
fn guard(host: &mut Netlink, port: &str, ip: Ipv4Addr) -> Result<(), GwBridgeError> {
    let mac = Mac::for_ip(ip.into()).0;
    host.set_arp(port, false)?;
    deaf(port);
    host.lock_port(port)?;
    host.set_bridge_fdb(port, mac)?;
    Ok(host.set_neighbour(BRIDGE, ip.into(), mac)?)
}

/// Takes from an interface what the rules forbid as well, so that one holds where the other does
/// not: IPv6 with its router advertisements (CVE-2020-13401), redirects, IP in group frames.
fn deaf(ifname: &str) {
    let settings = [
        (format!("net/ipv6/conf/{ifname}/disable_ipv6"), "1"),
        (format!("net/ipv4/conf/{ifname}/accept_redirects"), "0"),
        (format!("net/ipv4/conf/{ifname}/send_redirects"), "0"),
        (
            format!("net/ipv4/conf/{ifname}/drop_unicast_in_l2_multicast"),
            "1",
        ),
    ];
    for (name, value) in settings {
        if let Err(error) = sysctl::set_if_there(&name, value) {
            tracing::warn!(%error, "only the rules of nftables keep this from sandboxes");
        }
    }
}

fn forward(host: &HostRules) -> Egress {
    match host.forward(false) {
        Ok(()) => Egress::On,
        Err(error) => Egress::Off(format!("{error}; set net.ipv4.ip_forward=1 on the host")),
    }
}

/// Unique on the host and the same after a restart: the inode of the namespace, at most ten digits.
fn port_name(sandbox: &Sandbox) -> Result<String, GwBridgeError> {
    let inode = sandbox.netns().inode().map_err(SandboxError::Enter)?;
    Ok(format!("{PORT_PREFIX}{inode}"))
}

fn alias(ip: Ipv4Addr) -> String {
    format!("weft gateway {ip}")
}

fn address_in_alias(alias: &str) -> Option<Ipv4Addr> {
    alias.strip_prefix("weft gateway ")?.parse().ok()
}

fn ports(netlink: &mut Netlink) -> Result<Vec<weft_sys::netlink::Link>, NetlinkError> {
    let Some(bridge) = netlink.link(BRIDGE)? else {
        return Ok(Vec::new());
    };
    let mut links = netlink.links()?;
    links.retain(|link| link.master == Some(bridge.index) && link.name.starts_with(PORT_PREFIX));
    Ok(links)
}

fn address_of(netlink: &mut Netlink, name: &str) -> Result<Option<Ipv4Net>, NetlinkError> {
    let addresses = netlink.addresses(name)?;
    Ok(addresses.into_iter().find_map(|address| match address {
        IpNet::V4(v4) => Some(v4),
        IpNet::V6(_) => None,
    }))
}

/// What the host routes or has already, apart from the bridge itself.
fn busy_ranges(netlink: &mut Netlink) -> Result<Vec<HostRoute>, NetlinkError> {
    let routes = netlink.routes()?.into_iter();
    let foreign = routes.filter(|route| route.dev.as_deref() != Some(BRIDGE));
    Ok(foreign
        .map(|route| {
            let dev = route.dev.unwrap_or_default();
            match route.gateway {
                Some(_) => HostRoute::by_gateway(route.dest, dev),
                None => HostRoute::connected(route.dest, dev),
            }
        })
        .collect())
}
