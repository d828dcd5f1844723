//! Sandboxes that someone else owns (`weft network connect`), and peers outside the cluster.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weft_model::api::PeerAdd;
use weft_model::id::{EndpointId, NodeId, PeerId, TaskId};
use weft_model::names;
use weft_model::objects::{
    Attachment, Endpoint, Mac, Network, NodeState, Role, Service, StaticPeer, Task,
};

use super::super::allocator::{mac_of, with_prefixes};
use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::index::{Key, folded};
use super::super::ipam::{Ipam, holder, is_usable};
use super::super::object::{Change, ObjectId};
use super::super::state::ClusterState;

/// Endpoints of `network connect` on one node, and further names of one endpoint: everybody's
/// orders hold them.
const MAX_ENDPOINTS: usize = 4096;
pub(super) const MAX_ALIASES: usize = 32;

/// `weft network connect`, also as a node asks its manager. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Network by name, id or id prefix.
    pub network: String,
    /// Wanted address; the next free one when absent. The address of the other family is allocated.
    pub ip: Option<IpAddr>,
    /// More names on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Count as a replica of this service, by name, id or id prefix.
    pub service: Option<String>,
    /// Name on the network; made from the id when absent.
    pub name: Option<String>,
}

/// Checks an address that someone chose.
fn claim(state: &ClusterState, network: &Network, ip: IpAddr) -> Result<(), CommandError> {
    let name = &network.spec.name;
    if let Some(holder) = holder(state, &network.id, ip) {
        return Err(CommandError::conflict(format!(
            "address {ip} on network {name} is already in use by {holder}; choose another one"
        )));
    }
    if !is_usable(network, ip) {
        let subnets = network.subnets().iter().map(|s| s.cidr.to_string());
        let subnets: Vec<String> = subnets.collect();
        return Err(CommandError::bad(format!(
            "address {ip} is not a host address of network {name} ({})",
            subnets.join(", ")
        )));
    }
    Ok(())
}

/// An address that the user chose, with one of the other family where the network has both.
fn chosen(
    state: &ClusterState,
    ipam: &mut Ipam,
    network: &Network,
    ip: IpAddr,
) -> Result<Vec<IpAddr>, CommandError> {
    claim(state, network, ip)?;
    ipam.reserve(&network.id, ip);
    let mut ips = vec![ip];
    match ip {
        IpAddr::V4(v4) => {
            if let Some(twin) = network.twin(v4).map(IpAddr::V6) {
                claim(state, network, twin).map_err(|mut e| {
                    e.message = format!("address {ip} comes with {twin}: {}", e.message);
                    e
                })?;
                ipam.reserve(&network.id, twin);
                ips.push(twin);
            }
        }
        IpAddr::V6(_) => {
            let v4 = ipam
                .allocate_primary(network)
                .map_err(|e| CommandError::conflict(e.to_string()))?;
            ips.insert(0, v4);
        }
    }
    Ok(ips)
}

/// A service on the network with that name, its own or another one of its names there.
fn named<'a>(state: &'a ClusterState, network: &Network, name: &str) -> Option<&'a Service> {
    let named = Key::NameOn(network.id.clone(), folded(name));
    state.services_at(named).next()
}

/// A task on the network with that name.
fn task_named<'a>(state: &'a ClusterState, network: &Network, name: &str) -> Option<&'a Task> {
    // A task's name ends with its id.
    let (_, id) = name.rsplit_once('.')?;
    let task = state.tasks.get(&TaskId(id.to_ascii_lowercase()))?;
    let there = !task.status.state.is_terminal()
        && task.attachments.iter().any(|a| a.network == network.id)
        && names::same(&task.name(), name);
    there.then_some(task)
}

/// Whether an endpoint of `node` may stand for a service. Who is a replica is the managers' word: a
/// worker would else take what is not meant for it, by its own.
fn may_stand_for(
    state: &ClusterState,
    node: &NodeId,
    service: &Service,
    what: &str,
) -> Result<(), CommandError> {
    let role = state.nodes.get(node).map(|n| n.spec.role);
    if role == Some(Role::Manager) || service.spec.attach {
        return Ok(());
    }
    let name = &service.spec.name;
    Err(CommandError::forbidden(format!(
        "{what} service {name}, which takes no endpoints of worker nodes: connect on a manager, or \
         allow it there with \"weft service update --attach=true {name}\""
    )))
}

/// Names of an endpoint that is to be made: valid, not too many, and nobody else's.
fn check_names(
    state: &ClusterState,
    node: &NodeId,
    network: &Network,
    name: &str,
    aliases: &[String],
) -> Result<(), CommandError> {
    names::check("endpoint", name)?;
    if aliases.len() > MAX_ALIASES {
        return Err(CommandError::bad(format!(
            "{} aliases are too many: an endpoint may have {MAX_ALIASES}",
            aliases.len()
        )));
    }
    for alias in aliases {
        names::check("alias", alias)?;
    }
    let on = &network.spec.name;
    for name in std::iter::once(name).chain(aliases.iter().map(String::as_str)) {
        if let Some(service) = named(state, network, name) {
            may_stand_for(state, node, service, &format!("{name} is a name of"))?;
        }
        if task_named(state, network, name).is_some() {
            return Err(CommandError::conflict(format!(
                "{name} is a task on network {on}; choose another name"
            )));
        }
    }
    let held = |wanted: &str| {
        let named = Key::NameOn(network.id.clone(), folded(wanted));
        state.endpoints_at(named).next()
    };
    let at = |other: &Endpoint| {
        let node = state.nodes.get(&other.node);
        node.map_or(other.node.to_string(), |n| n.description.hostname.clone())
    };
    if let Some(other) = held(name) {
        return Err(CommandError::conflict(format!(
            "endpoint with name {name} already exists in network {on} (on node {}); choose \
             another --name",
            at(other)
        )));
    }
    for alias in aliases {
        if let Some(other) = held(alias).filter(|other| other.node != *node) {
            return Err(CommandError::conflict(format!(
                "alias {alias} is the name of an endpoint in network {on} (on node {}); choose \
                 another --alias",
                at(other)
            )));
        }
    }
    Ok(())
}

/// Makes an endpoint on `node`.
///
/// # Errors
/// Unknown network or service, a network that is not to be joined this way, a service or a name of
/// one that is not the node's to take, a name or address in use (the text says by whom), no address
/// left.
pub fn attach_endpoint(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    node: &NodeId,
    cmd: Attach,
) -> Result<Planned<Endpoint>, CommandError> {
    let network = state.find_lasting_network(&cmd.network)?;
    if network.spec.ingress {
        return Err(CommandError::bad(format!(
            "network {} cannot be attached to: ingress network cannot be attachable",
            network.spec.name
        )));
    }
    if !network.spec.attachable {
        return Err(CommandError::forbidden(format!(
            "Could not attach to network {name}: network {name} not manually attachable; it was \
             made with --attachable=false, for services only",
            name = network.spec.name
        )));
    }
    let mine = state.endpoints_on(node).count();
    if mine >= MAX_ENDPOINTS {
        return Err(CommandError::conflict(format!(
            "this node has {mine} endpoints, and may have {MAX_ENDPOINTS}; disconnect some"
        )));
    }
    let service = match &cmd.service {
        None => None,
        Some(reference) => {
            let service = state.find_service(reference)?;
            let networks = &service.spec.task.networks;
            if !networks.iter().any(|n| n.target == network.id.0) {
                return Err(CommandError::bad(format!(
                    "service {} is not on network {}; connect to one of its networks",
                    service.spec.name, network.spec.name
                )));
            }
            may_stand_for(state, node, service, "the endpoint cannot be a replica of")?;
            Some(service.id.clone())
        }
    };
    let mut draft = Draft::new(state, now, entropy);
    let id = EndpointId::from_entropy(draft.entropy.next_u128());
    let name = cmd.name.unwrap_or_else(|| id.short().to_owned());
    check_names(state, node, network, &name, &cmd.aliases)?;
    let mut ipam = Ipam::new(state);
    let ips = match cmd.ip {
        Some(ip) => chosen(state, &mut ipam, network, ip)?,
        None => ipam
            .allocate_all(network)
            .map_err(|e| CommandError::conflict(e.to_string()))?,
    };
    ipam.store(&mut draft);
    let addresses = with_prefixes(network, ips);
    let endpoint = Endpoint {
        name,
        node: node.clone(),
        attachment: Attachment {
            endpoint: id,
            network: network.id.clone(),
            mac: mac_of(&addresses),
            addresses,
            aliases: cmd.aliases,
        },
        service,
    };
    draft.put(endpoint.clone());
    Ok(draft.plan(endpoint))
}

/// Who takes an endpoint away, and so which ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detacher<'a> {
    /// A node: its own.
    Node(&'a NodeId),
    /// A user of this manager: its own, and those of nodes that are down.
    Manager(&'a NodeId),
    /// A user of a manager who insists: any. A node that is there lets go of it with its next
    /// orders.
    Force,
}

/// Forgets an endpoint.
///
/// # Errors
/// Unknown network or endpoint, or it is on a node that is not the detacher's to speak for.
pub fn detach_endpoint(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    who: Detacher<'_>,
    network: &str,
    endpoint: &str,
) -> Result<Planned<Endpoint>, CommandError> {
    let network = state.find_network(network)?;
    let endpoint = state.find_endpoint(network, endpoint)?.clone();
    let node = state.nodes.get(&endpoint.node);
    let down = node.is_none_or(|n| n.status.state == NodeState::Down);
    let (allowed, or) = match who {
        Detacher::Node(id) => (*id == endpoint.node, "or with --force on a manager"),
        Detacher::Manager(id) => (*id == endpoint.node || down, "or use --force"),
        Detacher::Force => (true, ""),
    };
    if !allowed {
        let node = node.map_or(endpoint.node.as_str(), |n| &n.description.hostname);
        return Err(CommandError::forbidden(format!(
            "endpoint {} is on node {node}; disconnect it there, {or}",
            endpoint.name
        )));
    }
    let mut draft = Draft::new(state, now, entropy);
    draft.delete(ObjectId::Endpoint(endpoint.attachment.endpoint.clone()));
    Ok(draft.plan(endpoint))
}

/// Who has the MAC address of a peer on its network already. Those of members follow from their
/// addresses, so that of any other address is somebody's, now or later.
fn owner_of_mac(state: &ClusterState, network: &Network, peer: &PeerAdd) -> Option<String> {
    let here = || Key::Network(network.id.clone());
    match state.peers_at(here()).find(|p| p.mac == peer.mac) {
        // Another address of the same machine.
        Some(same) if same.vtep == peer.vtep => return None,
        Some(other) => return Some(format!("the static peer {} at {}", other.ip, other.vtep)),
        None => {}
    }
    let mut endpoints = state.endpoints_at(here());
    if let Some(other) = endpoints.find(|e| e.attachment.mac == peer.mac) {
        return Some(format!("endpoint {}", other.name));
    }
    let [2, 0x42, a, b, c, d] = peer.mac.0 else {
        return None;
    };
    let ip = IpAddr::from([a, b, c, d]);
    let inside = network.subnets().iter().any(|s| s.cidr.contains(&ip));
    (inside && Mac::for_ip(peer.ip) != peer.mac).then(|| {
        holder(state, &network.id, ip)
            .unwrap_or_else(|| format!("whatever gets or has address {ip}"))
    })
}

/// `weft network peer add`
///
/// # Errors
/// Unknown network, an address or MAC in use (the text says by whom) or outside the network, a MAC
/// or VTEP address that no single machine can have.
pub fn add_peer(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    network: &str,
    peer: &PeerAdd,
) -> Result<Planned<StaticPeer>, CommandError> {
    let network = state.find_lasting_network(network)?;
    claim(state, network, peer.ip)?;
    let [first, ..] = peer.mac.0;
    if first & 1 == 1 || peer.mac.0 == [0; 6] {
        return Err(CommandError::bad(format!(
            "MAC address {} is not the address of one interface",
            peer.mac
        )));
    }
    if let Some(owner) = owner_of_mac(state, network, peer) {
        return Err(CommandError::conflict(format!(
            "MAC address {} is that of {owner} on network {}: frames for one of them would go to the \
             other; give --mac of the peer's own interface",
            peer.mac, network.spec.name
        )));
    }
    let local = match peer.vtep {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    let member = state.nodes_at(Key::Vtep(peer.vtep)).next();
    if let Some(node) = member {
        return Err(CommandError::bad(format!(
            "VTEP address {} is that of node {}: a static peer is outside of the cluster; use \
             \"weft network connect\" there",
            peer.vtep, node.description.hostname
        )));
    }
    if local || peer.vtep.is_unspecified() || peer.vtep.is_multicast() {
        return Err(CommandError::bad(format!(
            "VTEP address {} is not the address of one machine",
            peer.vtep
        )));
    }
    let mut draft = Draft::new(state, now, entropy);
    let peer = StaticPeer {
        id: PeerId::from_entropy(draft.entropy.next_u128()),
        network: network.id.clone(),
        ip: peer.ip,
        mac: peer.mac,
        vtep: peer.vtep,
    };
    draft.put(peer.clone());
    Ok(draft.plan(peer))
}

/// `weft network peer rm`
///
/// # Errors
/// Unknown network, or no static peer has that address.
pub fn remove_peer(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    network: &str,
    ip: IpAddr,
) -> Result<Vec<Change>, CommandError> {
    let network = state.find_network(network)?;
    let mut draft = Draft::new(state, now, entropy);
    let peer = state
        .peers_at(Key::Address(network.id.clone(), ip))
        .next()
        .ok_or_else(|| {
            CommandError::not_found(format!(
                "no such static peer: {ip} on network {}",
                network.spec.name
            ))
        })?;
    draft.delete(ObjectId::Peer(peer.id.clone()));
    Ok(draft.into_changes())
}
