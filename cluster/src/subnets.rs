//! Subnets and VXLAN network identifiers: cut from the pools one after the other, checked against
//! everything they could collide with.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_model::objects::{Ipam, Network, NetworkSpec, Subnet};

use super::error::CommandError;
use super::routes::{HostRoute, claim_on, first_free, overlap};
use super::state::ClusterState;

/// First VXLAN network identifier that is given out (Swarm's choice).
pub const FIRST_VNI: u32 = 4096;
/// Last VXLAN network identifier that is given out. There are 24 bits (RFC 7348 section 5), and the
/// last one is that of the data path's loopback messages (`weft_wire::loopback`).
pub const LAST_VNI: u32 = 0x00ff_fffe;
/// Default pool of subnets.
pub const DEFAULT_POOL: &str = "10.0.0.0/8";
/// Default prefix length of subnets cut from a pool.
pub const DEFAULT_SUBNET_PREFIX_LEN: u8 = 24;

/// Ranges that no overlay subnet may touch, and why.
const FORBIDDEN: [(&str, &str); 8] = [
    ("0.0.0.0/8", "it is reserved"),
    ("127.0.0.0/8", "it is the loopback range"),
    ("169.254.77.0/30", "it is the address of the routing mesh"),
    ("224.0.0.0/3", "it is multicast or reserved"),
    (
        "fd57:4546:5400::/64",
        "it is the address of the routing mesh",
    ),
    ("::/8", "it is reserved"),
    ("fe80::/10", "it is the link-local range"),
    ("ff00::/8", "it is the multicast range"),
];

fn taken_by<'a>(state: &'a ClusterState, cidr: &IpNet) -> Option<(&'a Network, IpNet)> {
    state.networks.values().find_map(|n| {
        n.subnets()
            .iter()
            .find(|s| overlap(&s.cidr, cidr))
            .map(|s| (n, s.cidr))
    })
}

/// The next identifier after the last one given out that no network has.
pub(super) fn next_vni(state: &ClusterState) -> Result<u32, CommandError> {
    let used: std::collections::BTreeSet<u32> = state.networks.values().map(|n| n.vni).collect();
    let start = (state.counters.last_vni + 1).clamp(FIRST_VNI, LAST_VNI);
    (start..=LAST_VNI)
        .chain(FIRST_VNI..start)
        .find(|vni| !used.contains(vni))
        .ok_or_else(|| CommandError::conflict("every VXLAN network identifier is in use"))
}

/// Checks a subnet that the user asked for.
fn check(
    state: &ClusterState,
    name: &str,
    cidr: &IpNet,
    reserved: &[HostRoute],
) -> Result<(), CommandError> {
    if cidr.addr() != cidr.network() {
        return Err(CommandError::bad(format!(
            "invalid subnet {cidr}: it should be {}",
            cidr.trunc()
        )));
    }
    // An IPv6 subnet holds the twins of IPv4 addresses, in its last 32 bits.
    let shortest_host_part = match cidr {
        IpNet::V4(_) => 3,
        IpNet::V6(_) => 32,
    };
    if cidr.max_prefix_len() - cidr.prefix_len() < shortest_host_part {
        return Err(CommandError::bad(format!(
            "subnet {cidr} is too small for a network; use /{} or larger",
            cidr.max_prefix_len() - shortest_host_part
        )));
    }
    for (range, why) in FORBIDDEN {
        if range.parse().is_ok_and(|range| overlap(cidr, &range)) {
            return Err(CommandError::bad(format!(
                "subnet {cidr} cannot be used, {why}; choose a private range"
            )));
        }
    }
    if let Some((network, taken)) = taken_by(state, cidr) {
        if network.ending {
            return Err(CommandError::conflict(format!(
                "subnet {cidr}: {taken} is still used by tasks of network {} that are ending; try \
                 again in a moment, or choose another --subnet",
                network.spec.name
            )));
        }
        return Err(CommandError::conflict(format!(
            "subnet {cidr} overlaps with {taken} of network {}; choose another --subnet, or leave \
             it out to get a free one",
            network.spec.name
        )));
    }
    if let Some(HostRoute { dest, what, .. }) = claim_on(cidr, reserved) {
        return Err(CommandError::conflict(format!(
            "subnet {cidr} of network {name} overlaps with the host route {dest} ({what}); choose \
             another --subnet, or leave it out to get a free one"
        )));
    }
    Ok(())
}

/// The next subnet of the pools that overlaps with nothing.
fn next_from_pool(
    state: &ClusterState,
    name: &str,
    reserved: &[HostRoute],
) -> Result<Ipv4Net, CommandError> {
    let cluster = state
        .cluster
        .as_ref()
        .ok_or_else(|| CommandError::unavailable("This node is not part of a swarm"))?;
    let prefix_len = cluster.subnet_prefix_len;
    let pools: Vec<Ipv4Net> = cluster
        .default_address_pools
        .iter()
        .filter_map(|p| match p {
            IpNet::V4(v4) => Some(*v4),
            IpNet::V6(_) => None,
        })
        .collect();
    let after = match state.counters.last_subnet {
        Some(IpNet::V4(last)) if last.prefix_len() == prefix_len => Some(last),
        _ => None,
    };
    let all = || {
        pools
            .iter()
            .filter_map(|p| p.subnets(prefix_len).ok())
            .flatten()
    };
    let behind = || {
        all()
            .skip_while(|s| after.is_some_and(|a| *s != a))
            .skip(usize::from(after.is_some()))
    };
    // The pool wraps round once, so that subnets of deleted networks come back last.
    let candidates = behind().chain(all().filter(|_| after.is_some()));
    let unused = candidates.filter(|c| taken_by(state, &IpNet::V4(*c)).is_none());
    if let Some(free) = first_free(unused.clone(), reserved) {
        return Ok(free);
    }
    let route = unused.last().and_then(|c| claim_on(&c.into(), reserved));
    let pools: Vec<String> = pools.iter().map(ToString::to_string).collect();
    let why = route.map_or_else(String::new, |HostRoute { dest, what, .. }| {
        format!("; a part is covered by the host route {dest} ({what})")
    });
    Err(CommandError::conflict(format!(
        "no free /{prefix_len} subnet for network {name} in the address pools {}{why}; give \
         --subnet, or start the swarm with another --default-addr-pool",
        pools.join(", ")
    )))
}

/// Prefix length of IPv6 subnets that are given out (RFC 4291 section 2.5.1).
pub(super) const IPV6_SUBNET_PREFIX_LEN: u8 = 64;
/// How many prefixes are tried before there is no room. An operator's own subnets or routes cover a
/// few, not all.
const IPV6_CANDIDATES: u32 = 4096;

/// A unique local prefix (RFC 4193): `fd`, 32 bits of the cluster id, 24 bits that count from the
/// VNI on, /64.
fn unique_local(cluster_id: &str, number: u32) -> Ipv6Net {
    // FNV-1a, only to spread the cluster id over 32 bits.
    let hash = cluster_id.bytes().fold(0x811c_9dc5_u32, |h, b| {
        (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
    });
    let number = number & 0x00ff_ffff;
    let high = (0xfd_u64 << 56) | (u64::from(hash) << 24) | u64::from(number);
    let addr = Ipv6Addr::from(u128::from(high) << 64);
    Ipv6Net::new_assert(addr, IPV6_SUBNET_PREFIX_LEN)
}

/// The first /64 of the IPv6 pools that overlaps with nothing; of the cluster's unique local
/// prefixes when there is no such pool.
fn next_ipv6(
    state: &ClusterState,
    name: &str,
    vni: u32,
    reserved: &[HostRoute],
) -> Result<IpNet, CommandError> {
    let cluster = state.cluster.as_ref();
    let pools: Vec<Ipv6Net> = cluster
        .into_iter()
        .flat_map(|c| &c.default_address_pools)
        .filter_map(|pool| match pool {
            IpNet::V6(v6) => Some(*v6),
            IpNet::V4(_) => None,
        })
        .collect();
    let limit = IPV6_CANDIDATES as usize;
    let free = |cidr: &Ipv6Net| check(state, name, &IpNet::V6(*cidr), reserved).is_ok();
    let found = if pools.is_empty() {
        let id = cluster.map_or("", |c| c.id.as_str());
        let prefixes = (vni..).take(limit).map(|n| unique_local(id, n));
        first_free(prefixes.filter(free), reserved)
    } else {
        let prefixes = pools
            .iter()
            .filter_map(|pool| pool.subnets(IPV6_SUBNET_PREFIX_LEN).ok())
            .flat_map(|subnets| subnets.take(limit));
        first_free(prefixes.filter(free), reserved)
    };
    found.map(IpNet::V6).ok_or_else(|| {
        CommandError::conflict(format!(
            "no free IPv6 subnet for network {name}; give an IPv6 --subnet, or start the swarm with \
             another --default-addr-pool"
        ))
    })
}

/// Subnets of a new network, IPv4 first; and the one that came from a pool.
pub(super) fn allocate(
    state: &ClusterState,
    spec: &NetworkSpec,
    vni: u32,
    reserved: &[HostRoute],
) -> Result<(Ipam, Option<IpNet>), CommandError> {
    let mut cidrs: Vec<IpNet> = Vec::new();
    for Subnet { cidr, .. } in &spec.ipam.config {
        check(state, &spec.name, cidr, reserved)?;
        if let Some(other) = cidrs.iter().find(|c| overlap(c, cidr)) {
            return Err(CommandError::bad(format!(
                "subnets {other} and {cidr} of network {} overlap",
                spec.name
            )));
        }
        cidrs.push(*cidr);
    }
    let mut from_pool = None;
    if !cidrs.iter().any(|c| matches!(c, IpNet::V4(_))) {
        let cidr = IpNet::V4(next_from_pool(state, &spec.name, reserved)?);
        from_pool = Some(cidr);
        cidrs.push(cidr);
    }
    if spec.ipv6 && !cidrs.iter().any(|c| matches!(c, IpNet::V6(_))) {
        cidrs.push(next_ipv6(state, &spec.name, vni, reserved)?);
    }
    cidrs.sort_by_key(|c| matches!(c, IpNet::V6(_)));
    Ok((cidrs.into_iter().collect(), from_pool))
}
