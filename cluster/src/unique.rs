//! What no two may have. Commands give nothing out twice; a state that was read may be none of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weft_model::id::NetworkId;
use weft_model::objects::{Network, PortSpec, Protocol, PublishMode};

use super::conditions::holds_addresses;
use super::ports::collide;
use super::routes::overlap;
use super::state::ClusterState;

/// What two have that is to be one's alone, in words: a VXLAN network identifier, a subnet, an address
/// on a network that there is, a published port. Nothing before a swarm begins. It looks at each object
/// once.
#[must_use]
pub fn given_twice(state: &ClusterState) -> Option<String> {
    state.cluster.as_ref()?;
    identifier(state)
        .or_else(|| subnets(state))
        .or_else(|| address(state))
        .or_else(|| port(state))
}

fn identifier(state: &ClusterState) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut networks = state.networks.values();
    let again = networks.find(|network| !seen.insert(network.vni))?;
    let vni = again.vni;
    Some(format!(
        "two networks have the VXLAN network identifier {vni}"
    ))
}

fn subnets(state: &ClusterState) -> Option<String> {
    let subnets = state.networks.values().flat_map(Network::subnets);
    let mut subnets: Vec<IpNet> = subnets.map(|subnet| subnet.cidr.trunc()).collect();
    // A wide one comes before those within it, and nothing else lies between them.
    subnets.sort_unstable();
    let mut pairs = subnets.iter().zip(subnets.iter().skip(1));
    let (one, other) = pairs.find(|(one, other)| overlap(one, other))?;
    Some(format!("subnets {one} and {other} overlap"))
}

/// All addresses that are held, by their network.
fn held(state: &ClusterState) -> Vec<(&NetworkId, IpAddr)> {
    let mut held = Vec::new();
    for network in state.networks.values() {
        let gateways = network.subnets().iter().map(|subnet| subnet.gateway);
        held.extend(gateways.map(|ip| (&network.id, ip)));
    }
    if let Some(ingress) = state.ingress() {
        let of_nodes = state.nodes.values().flat_map(|node| node.ips_on(ingress));
        held.extend(of_nodes.map(|ip| (&ingress.id, ip)));
    }
    let of_services = state.services.values().flat_map(|s| &s.endpoint.vips);
    let of_ending = state.ending.values().flat_map(|s| &s.vips);
    let vips = of_services.chain(of_ending);
    held.extend(vips.map(|vip| (&vip.network, vip.addr.addr())));
    let tasks = state.tasks.values().filter(|task| holds_addresses(task));
    let of_tasks = tasks.flat_map(|task| &task.attachments);
    let of_endpoints = state.endpoints.values().map(|e| &e.attachment);
    for attachment in of_tasks.chain(of_endpoints) {
        held.extend(attachment.ips().map(|ip| (&attachment.network, ip)));
    }
    held.extend(state.peers.values().map(|peer| (&peer.network, peer.ip)));
    held
}

fn address(state: &ClusterState) -> Option<String> {
    let mut seen = BTreeSet::new();
    held(state).into_iter().find_map(|(id, ip)| {
        let network = state.networks.get(id)?;
        let name = &network.spec.name;
        (!seen.insert((id, ip))).then(|| format!("two have the address {ip} on network {name}"))
    })
}

fn port(state: &ClusterState) -> Option<String> {
    let mut by_number: BTreeMap<(u16, Protocol), Vec<&PortSpec>> = BTreeMap::new();
    for port in state.services.values().flat_map(|s| &s.endpoint.ports) {
        let key = (port.published, port.protocol);
        by_number.entry(key).or_default().push(port);
    }
    let mut ports = by_number.into_iter();
    let ((number, protocol), _) = ports.find(|(_, ports)| meet(ports))?;
    Some(format!("port {number}/{protocol} is published twice"))
}

/// Whether two of these meet on a node. Only the scheduler knows that of two that are published on the
/// nodes of their tasks.
fn meet(ports: &[&PortSpec]) -> bool {
    let everywhere = ports.iter().enumerate();
    let mut everywhere = everywhere.filter(|(_, port)| port.mode == PublishMode::Ingress);
    everywhere.any(|(at, port)| {
        let mut others = ports.iter().enumerate().filter(|(other, _)| *other != at);
        others.any(|(_, other)| collide(port, other))
    })
}
