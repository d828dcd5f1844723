//! Addresses of a network: handed out one after the other, so that a freed one rests a while.
//!
//! On a network with both families an IPv6 address carries the IPv4 address of its holder in its
//! last 32 bits. So both have one Ethernet address, belong to one worker of the data plane (which
//! goes by these bits), and an IPv6 subnet needs no cursor of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use weft_model::id::NetworkId;
use weft_model::objects::{Network, Node, Task};

use super::draft::Draft;
use super::index::Key;
use super::object::{AddressCursor, ObjectId};
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

/// Addresses that one command or pass gives out, on top of those in use.
#[derive(Debug)]
pub(super) struct Ipam {
    state: ClusterState,
    /// Given out since.
    taken: BTreeSet<(NetworkId, IpAddr)>,
    /// Of networks that gave out something.
    cursors: BTreeMap<NetworkId, AddressCursor>,
    /// Networks on which there was nothing left, without and with a twin.
    full: BTreeMap<(NetworkId, bool), Exhausted>,
}

/// Addresses that are looked at one by one before it is asked whether any is free at all.
const NEAR: usize = 64;

/// Who holds an address.
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

/// The node that has `ip` on a network, which only ingress gives to nodes. Its IPv6 address is the
/// twin of what it says.
fn node_with<'a>(state: &'a ClusterState, network: &Network, ip: IpAddr) -> Option<&'a Node> {
    if !network.spec.ingress {
        return None;
    }
    let its = match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            let v4 = Ipv4Addr::new(a, b, c, d);
            let is_twin = network.twin(v4) == Some(v6);
            if is_twin { IpAddr::V4(v4) } else { ip }
        }
    };
    state.nodes_at(Key::IngressAddress(its)).next()
}

fn holder_of<'a>(state: &'a ClusterState, network: &Network, ip: IpAddr) -> Option<Holder<'a>> {
    if network.subnets().iter().any(|s| s.gateway == ip) {
        return Some(Holder::Gateway);
    }
    if let Some(node) = node_with(state, network, ip) {
        return Some(Holder::Node(&node.description.hostname));
    }
    let key = Key::Address(network.id.clone(), ip);
    let mut listed = state.index().listed(key, ObjectId::Cluster);
    listed.find_map(|id| match id {
        ObjectId::Service(id) => Some(Holder::Service(&state.services.get(id)?.spec.name)),
        ObjectId::Ending(id) => Some(Holder::Ending(&state.ending.get(id)?.name)),
        ObjectId::Task(id) => Some(Holder::Task(state.tasks.get(id)?)),
        ObjectId::Endpoint(id) => Some(Holder::Endpoint(&state.endpoints.get(id)?.name)),
        ObjectId::Peer(id) => Some(Holder::Peer(state.peers.get(id)?.vtep)),
        _ => None,
    })
}

/// Who holds `ip` on the network, in words; nothing when it is free.
pub(super) fn holder(state: &ClusterState, network: &NetworkId, ip: IpAddr) -> Option<String> {
    let network = state.networks.get(network)?;
    holder_of(state, network, ip).map(|holder| holder.to_string())
}

/// Addresses of a subnet that are in use, but for the gateway.
fn in_use(state: &ClusterState, network: &Network, cidr: &IpNet) -> BTreeSet<IpAddr> {
    let nodes = network.spec.ingress.then(|| state.nodes.values());
    let nodes = nodes.into_iter().flatten();
    let held = state.index().addresses(&network.id, cidr.network());
    held.take_while(|ip| *ip <= cidr.broadcast())
        .chain(nodes.flat_map(|node| node.ips_on(network)))
        .filter(|ip| cidr.contains(ip) && !network.subnets().iter().any(|s| s.gateway == *ip))
        .collect()
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
    let Some(primary) = network.subnets().first() else {
        return (0, 0);
    };
    let used = in_use(state, network, &primary.cidr);
    (used.len() as u64, capacity(&primary.cidr))
}

/// Checks that an address can be held by an endpoint of the network, free or not.
pub(super) fn is_usable(network: &Network, ip: IpAddr) -> bool {
    network.subnets().iter().any(|s| {
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

impl Ipam {
    pub(super) fn new(state: &ClusterState) -> Self {
        Self {
            state: state.clone(),
            taken: BTreeSet::new(),
            cursors: BTreeMap::new(),
            full: BTreeMap::new(),
        }
    }

    fn is_free(&self, network: &Network, ip: IpAddr) -> bool {
        !self.taken.contains(&(network.id.clone(), ip))
            && holder_of(&self.state, network, ip).is_none()
    }

    /// Addresses of a subnet that are in use or given out, but for the gateway.
    fn in_use(&self, network: &Network, cidr: &IpNet) -> usize {
        let taken = self.taken.iter().filter(|(at, _)| *at == network.id);
        let taken = taken.map(|(_, ip)| *ip).filter(|ip| cidr.contains(ip));
        let mut used = in_use(&self.state, network, cidr);
        used.extend(taken);
        used.len()
    }

    /// Where a subnet of the network gave out its last address.
    fn last(&self, network: &NetworkId, cidr: Ipv4Net) -> Option<Ipv4Addr> {
        let stored = || self.state.cursors.get(network);
        let cursor = self.cursors.get(network).or_else(stored)?;
        cursor.last.iter().find_map(|ip| match ip {
            IpAddr::V4(ip) if cidr.contains(ip) => Some(*ip),
            _ => None,
        })
    }

    /// The next free address of a subnet, or how many there are and are in use.
    fn next_of(
        &self,
        network: &Network,
        cidr: Ipv4Net,
        pair: bool,
    ) -> Result<Ipv4Addr, (u64, u64)> {
        let free = |ip: &Ipv4Addr| {
            let twin = network.twin(*ip).filter(|_| pair);
            self.is_free(network, IpAddr::V4(*ip))
                && twin.is_none_or(|twin| self.is_free(network, IpAddr::V6(twin)))
        };
        let mut hosts = hosts_after(cidr, self.last(&network.id, cidr));
        // Nearly always it is the first one. Only where there is none near is it worth counting.
        if let Some(ip) = hosts.by_ref().take(NEAR).find(free) {
            return Ok(ip);
        }
        let cidr = IpNet::V4(cidr);
        let (used, capacity) = (self.in_use(network, &cidr) as u64, capacity(&cidr));
        let found = if used < capacity {
            hosts.find(free)
        } else {
            None
        };
        found.ok_or((used, capacity))
    }

    /// The next free IPv4 address; later subnets are used when earlier ones are full. With `pair`
    /// its IPv6 [twin](Network::twin) has to be free as well.
    fn next_v4(&mut self, network: &Network, pair: bool) -> Result<Ipv4Addr, Exhausted> {
        if let Some(full) = self.full.get(&(network.id.clone(), pair)) {
            return Err(full.clone());
        }
        let mut tried = Vec::new();
        for subnet in network.subnets() {
            let IpNet::V4(v4) = subnet.cidr else { continue };
            match self.next_of(network, v4, pair) {
                Ok(ip) => {
                    self.take(network, v4, ip);
                    return Ok(ip);
                }
                Err((used, capacity)) => {
                    tried.push(format!("{used} of {capacity} addresses of {v4} are in use"))
                }
            }
        }
        if tried.is_empty() {
            tried.push("it has no subnet".to_owned());
        }
        let full = Exhausted {
            network: network.spec.name.clone(),
            usage: tried.join("; "),
        };
        self.full.insert((network.id.clone(), pair), full.clone());
        Err(full)
    }

    fn take(&mut self, network: &Network, cidr: Ipv4Net, ip: Ipv4Addr) {
        let id = &network.id;
        self.taken.insert((id.clone(), ip.into()));
        let stored = self.state.cursors.get(id);
        let cursor = self.cursors.entry(id.clone()).or_insert_with(|| {
            stored.cloned().unwrap_or_else(|| AddressCursor {
                network: id.clone(),
                last: Vec::new(),
            })
        });
        let here = |last: &IpAddr| matches!(last, IpAddr::V4(last) if cidr.contains(last));
        cursor.last.retain(|last| !here(last));
        cursor.last.push(ip.into());
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
    pub(super) fn release(&mut self, network: &NetworkId, ips: impl Iterator<Item = IpAddr>) {
        for ip in ips {
            self.taken.remove(&(network.clone(), ip));
        }
        self.full.retain(|(full, _), _| full != network);
        // Nothing was given out after all: a cursor that moves with each attempt is a change with
        // each, and attempts without end.
        let first = (network.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let rest = self.taken.range(first..).next();
        if rest.is_none_or(|(at, _)| at != network) {
            self.cursors.remove(network);
        }
    }

    /// Marks an address that the user chose.
    pub(super) fn reserve(&mut self, network: &NetworkId, ip: IpAddr) {
        self.taken.insert((network.clone(), ip));
    }

    /// Writes the cursors that moved.
    pub(super) fn store(self, draft: &mut Draft<'_>) {
        for cursor in self.cursors.into_values() {
            draft.put(cursor);
        }
    }
}
