//! Addresses of a network: handed out one after the other, so that a freed one rests a while.
//!
//! On a network with both families an IPv6 address carries the IPv4 address of its holder in its
//! last 32 bits. So both have one Ethernet address, belong to one worker of the data plane (which
//! goes by these bits), and an IPv6 subnet needs no cursor of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use weft_model::id::NetworkId;
use weft_model::objects::{Network, Task, Vip};

use super::conditions::holds_addresses;
use super::draft::Draft;
use super::object::{AddressCursor, Object};
use super::state::ClusterState;

/// No address is free.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "could not find an available IP on network {network} ({usage}); remove what is attached to it, \
     or make a network with a larger --subnet"
)]
pub struct Exhausted {
    /// Name of the network.
    pub network: String,
    /// Used and usable addresses of each subnet.
    pub usage: String,
}

/// Addresses in use, by network.
#[derive(Debug)]
pub(super) struct Ipam {
    used: BTreeMap<NetworkId, BTreeSet<IpAddr>>,
    cursors: BTreeMap<NetworkId, AddressCursor>,
    moved: BTreeSet<NetworkId>,
}

/// Every address in use on `network` with the words for who holds it.
fn holders<'a>(
    state: &'a ClusterState,
    network: &'a NetworkId,
) -> impl Iterator<Item = (IpAddr, Holder<'a>)> {
    let gateways = state
        .networks
        .get(network)
        .into_iter()
        .flat_map(|n| n.subnets.iter().map(|s| (s.gateway, Holder::Gateway)));
    let ingress = state.networks.get(network).filter(|n| n.spec.ingress);
    let nodes = ingress.into_iter().flat_map(move |ingress| {
        state.nodes.values().flat_map(move |n| {
            let ips = n.ips_on(ingress);
            ips.map(|ip| (ip, Holder::Node(&n.hostname)))
        })
    });
    let on = move |vip: &&Vip| vip.network == *network;
    let vips = state.services.values().flat_map(move |s| {
        let vips = s.vips.iter().filter(on);
        vips.map(|v| (v.ip, Holder::Service(&s.spec.name)))
    });
    let ending = state.ending.values().flat_map(move |s| {
        let vips = s.vips.iter().filter(on);
        vips.map(|v| (v.ip, Holder::Ending(&s.name)))
    });
    let tasks = state
        .tasks
        .values()
        .filter(|t| holds_addresses(t))
        .flat_map(move |t| {
            t.attachments
                .iter()
                .filter(move |a| a.network == *network)
                .flat_map(move |a| a.ips.iter().map(move |ip| (*ip, Holder::Task(t))))
        });
    let endpoints = state
        .endpoints
        .values()
        .filter(move |e| e.attachment.network == *network)
        .flat_map(|e| {
            e.attachment
                .ips
                .iter()
                .map(|ip| (*ip, Holder::Endpoint(&e.name)))
        });
    let peers = state
        .peers
        .values()
        .filter(move |p| p.network == *network)
        .map(|p| (p.ip, Holder::Peer(p.vtep)));
    gateways
        .chain(nodes)
        .chain(vips)
        .chain(ending)
        .chain(tasks)
        .chain(endpoints)
        .chain(peers)
}

enum Holder<'a> {
    Gateway,
    Node(&'a str),
    Service(&'a str),
    Ending(&'a str),
    Task(&'a Task),
    Endpoint(&'a str),
    Peer(IpAddr),
}

impl std::fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gateway => f.write_str("the gateway of the network"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Service(name) => write!(f, "service {name} as its virtual IP"),
            Self::Ending(name) => write!(
                f,
                "service {name}, which was removed and whose tasks have not ended, as its virtual IP"
            ),
            Self::Task(task) => write!(f, "task {}", task.name()),
            Self::Endpoint(name) => write!(f, "endpoint {name}"),
            Self::Peer(vtep) => write!(f, "the static peer behind {vtep}"),
        }
    }
}

/// Who holds `ip` on the network, in words; nothing when it is free.
pub(super) fn holder(state: &ClusterState, network: &NetworkId, ip: IpAddr) -> Option<String> {
    holders(state, network)
        .find(|(used, _)| *used == ip)
        .map(|(_, holder)| holder.to_string())
}

/// Number of addresses that can be given out in a subnet, the gateway not counted.
fn capacity(cidr: &IpNet) -> u64 {
    let bits = cidr.max_prefix_len() - cidr.prefix_len();
    let all = 1u64.checked_shl(u32::from(bits)).unwrap_or(u64::MAX);
    match cidr {
        // Network address, broadcast address, gateway.
        IpNet::V4(_) => all.saturating_sub(3),
        // Subnet-router anycast address (RFC 4291 section 2.6.1), gateway.
        IpNet::V6(_) => all.saturating_sub(2),
    }
}

/// Addresses in use, and addresses in total, of the primary subnet; the gateway is not counted.
#[must_use]
pub fn usage(state: &ClusterState, network: &Network) -> (u64, u64) {
    let Some(primary) = network.subnets.first() else {
        return (0, 0);
    };
    let used: BTreeSet<IpAddr> = holders(state, &network.id)
        .map(|(ip, _)| ip)
        .filter(|ip| primary.cidr.contains(ip) && *ip != primary.gateway)
        .collect();
    (used.len() as u64, capacity(&primary.cidr))
}

/// Checks that an address can be held by an endpoint of the network, free or not.
pub(super) fn is_usable(network: &Network, ip: IpAddr) -> bool {
    network.subnets.iter().any(|s| {
        s.cidr.contains(&ip)
            && ip != s.gateway
            && ip != s.cidr.network()
            && !(ip.is_ipv4() && ip == s.cidr.broadcast())
    })
}

/// Every host address of the subnet once, in order, from the one after `last` on.
fn hosts_after(cidr: Ipv4Net, last: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(cidr.network()) + 1;
    let end = u32::from(cidr.broadcast());
    let start = last.map_or(first, |ip| (u32::from(ip) + 1).clamp(first, end));
    (start..end).chain(first..start).map(Ipv4Addr::from)
}

/// First address after the network address: the gateway.
pub(super) fn first_host(cidr: &IpNet) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip).wrapping_add(1))),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip).wrapping_add(1))),
    }
}

impl Ipam {
    pub(super) fn new(state: &ClusterState) -> Self {
        let used = state
            .networks
            .keys()
            .map(|id| (id.clone(), holders(state, id).map(|(ip, _)| ip).collect()))
            .collect();
        Self {
            used,
            cursors: state.cursors.clone(),
            moved: BTreeSet::new(),
        }
    }

    /// The next free IPv4 address; later subnets are used when earlier ones are full. With `pair`
    /// its IPv6 [twin](Network::twin) has to be free as well.
    fn next_v4(&mut self, network: &Network, pair: bool) -> Result<Ipv4Addr, Exhausted> {
        let used = self.used.entry(network.id.clone()).or_default();
        let cursor = self
            .cursors
            .entry(network.id.clone())
            .or_insert_with(|| AddressCursor {
                network: network.id.clone(),
                last: Vec::new(),
            });
        let mut tried = Vec::new();
        for subnet in &network.subnets {
            let IpNet::V4(v4) = subnet.cidr else { continue };
            let cidr = &subnet.cidr;
            let in_use = used
                .range(cidr.network()..=cidr.broadcast())
                .filter(|ip| **ip != subnet.gateway)
                .count() as u64;
            let capacity = capacity(cidr);
            let last = cursor.last.iter().find_map(|ip| match ip {
                IpAddr::V4(ip) if v4.contains(ip) => Some(*ip),
                _ => None,
            });
            let free = |ip: Ipv4Addr| {
                let twin = network.twin(ip).filter(|_| pair);
                subnet.gateway != ip
                    && !used.contains(&IpAddr::V4(ip))
                    && !twin.is_some_and(|ip| used.contains(&IpAddr::V6(ip)))
            };
            let found = if in_use < capacity {
                hosts_after(v4, last).find(|ip| free(*ip))
            } else {
                None
            };
            let Some(ip) = found else {
                tried.push(format!(
                    "{in_use} of {capacity} addresses of {cidr} are in use"
                ));
                continue;
            };
            used.insert(IpAddr::V4(ip));
            cursor.last.retain(|last| !cidr.contains(last));
            cursor.last.push(IpAddr::V4(ip));
            self.moved.insert(network.id.clone());
            return Ok(ip);
        }
        if tried.is_empty() {
            tried.push("it has no subnet".to_owned());
        }
        Err(Exhausted {
            network: network.spec.name.clone(),
            usage: tried.join("; "),
        })
    }

    /// One address of each family that the network has, IPv4 first.
    pub(super) fn allocate_all(&mut self, network: &Network) -> Result<Vec<IpAddr>, Exhausted> {
        let ip = self.next_v4(network, true)?;
        let mut ips = vec![IpAddr::V4(ip)];
        if let Some(twin) = network.twin(ip) {
            self.reserve(&network.id, twin.into());
            ips.push(twin.into());
        }
        Ok(ips)
    }

    /// The address that others reach the network by: IPv4, which every network has.
    pub(super) fn allocate_primary(&mut self, network: &Network) -> Result<IpAddr, Exhausted> {
        self.next_v4(network, false).map(IpAddr::V4)
    }

    /// The address of a node on the ingress network; its twin is taken with it.
    pub(super) fn allocate_node(&mut self, ingress: &Network) -> Result<IpAddr, Exhausted> {
        let ip = self.next_v4(ingress, true)?;
        if let Some(twin) = ingress.twin(ip) {
            self.reserve(&ingress.id, twin.into());
        }
        Ok(ip.into())
    }

    /// Takes back addresses of an attempt that failed half-way.
    pub(super) fn release(&mut self, network: &NetworkId, ips: &[IpAddr]) {
        if let Some(used) = self.used.get_mut(network) {
            used.retain(|ip| !ips.contains(ip));
        }
    }

    /// Marks an address that the user chose.
    pub(super) fn reserve(&mut self, network: &NetworkId, ip: IpAddr) {
        self.used.entry(network.clone()).or_default().insert(ip);
    }

    /// Writes the cursors that moved.
    pub(super) fn store(self, draft: &mut Draft<'_>) {
        for (id, cursor) in self.cursors {
            if self.moved.contains(&id) {
                draft.put(Object::Cursor(cursor));
            }
        }
    }
}
