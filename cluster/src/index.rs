//! Ways to objects by what they say of themselves: of which service they are, on which node, by
//! which name or address, and what is left to do about them.
//!
//! Each object has its own entries, and a change of it changes no others. So a command or a pass
//! that asks here looks at what it is about, however much there is beside.

use std::net::IpAddr;

use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};
use weft_model::id::{NetworkId, NodeId, PayloadId, ServiceId};
use weft_model::objects::{
    Endpoint, Network, Node, Payload, PayloadKind, Resources, Service, StaticPeer, Task, TaskState,
    Vip,
};

use super::conditions::{
    holds_addresses, is_away, is_carried, is_global, is_updating, is_wanted, should_restart,
    uses_resources, wants_addresses,
};
use super::filters::reserved;
use super::object::{Object, ObjectId};

/// What objects are found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Tasks of a service, and endpoints that are its replicas.
    Service(ServiceId),
    /// Tasks and endpoints of a node.
    Node(NodeId),
    /// Tasks that the cluster wants on a node.
    WantedOn(NodeId),
    /// What is on a network: services, removed ones, tasks, endpoints, peers.
    Network(NetworkId),
    /// Nodes, networks and services of a name, as [`folded`]; networks that end are not here.
    Name(String),
    /// Secrets or configs of a name, in its very letters: no DNS knows it.
    PayloadName(PayloadKind, String),
    /// Services whose tasks see a secret or a config.
    Uses(PayloadId),
    /// Services and endpoints that have a name on a network, as [`folded`].
    NameOn(NetworkId, String),
    /// Who holds an address on a network. Nodes are not here: what they have on the ingress network
    /// follows from two objects.
    Address(NetworkId, IpAddr),
    /// Nodes by their address on the ingress network.
    IngressAddress(IpAddr),
    /// Nodes and peers by where their VXLAN datagrams go.
    Vtep(IpAddr),
    /// Nodes by where they hear gossip.
    Gossip(IpAddr, u16),
    /// Services that publish a port of that number.
    Port(u16),
    /// The ingress network.
    Ingress,
    /// Networks that go once nobody is on them.
    Ending,
    /// Services with a task on each node.
    Global,
    /// Services whose tasks are replaced, or were halfway.
    Updating,
    /// Services whose tasks are being moved.
    Rebalancing,
    /// Nodes whose tasks are to go elsewhere, now or after a while.
    Away,
    /// Ended tasks that nobody wants any more, by their slot, or their node where slots are 0.
    History(ServiceId, u32, Option<NodeId>),
    /// Wanted tasks that ended and are to be replaced.
    Ended,
    /// Tasks that wait for their restart delay.
    Delayed,
    /// Unwanted tasks that nothing is left of.
    Dead,
    /// Tasks and nodes without the addresses that they are to have.
    Unaddressed,
    /// Tasks that wait for a node.
    Unplaced,
}

impl Key {
    /// Where an ended task that nobody wants any more is remembered.
    pub(super) fn history_of(task: &Task) -> Self {
        let node = task.node.clone().filter(|_| task.slot == 0);
        Self::History(task.service.clone(), task.slot, node)
    }
}

/// One spelling of all names that DNS takes for one ([`weft_model::names::same`]).
pub(super) fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// Entries of all objects. A copy is two pointers.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    entries: RedBlackTreeSetSync<(Key, ObjectId)>,
    /// What nodes have to carry; nodes with nothing are left out.
    loads: RedBlackTreeMapSync<NodeId, Load>,
}

/// What a node has to carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Tasks that are wanted there.
    pub(super) tasks: usize,
    /// What is reserved for those that have not ended, wanted or not: they still use it.
    pub(super) reserved: Resources,
}

impl Load {
    fn plus(self, other: Self) -> Self {
        Self {
            tasks: self.tasks + other.tasks,
            reserved: self.reserved.plus(other.reserved),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            tasks: self.tasks.saturating_sub(other.tasks),
            reserved: self.reserved.minus(other.reserved),
        }
    }
}

impl Index {
    /// An object is there, changes or goes.
    pub(super) fn replace(&mut self, id: &ObjectId, old: Option<&Object>, new: Option<&Object>) {
        let [before, after] = [old, new].map(|object| object.map(keys).unwrap_or_default());
        for key in &before {
            if after.binary_search(key).is_err() {
                self.entries.remove_mut(&(key.clone(), id.clone()));
            }
        }
        for key in after {
            if before.binary_search(&key).is_err() {
                self.entries.insert_mut((key, id.clone()));
            }
        }
        let [was, is] = [old, new].map(|object| object.and_then(burdened));
        if was != is {
            if let Some((node, load)) = was {
                self.set_load(node, self.load(node).minus(load));
            }
            if let Some((node, load)) = is {
                self.set_load(node, self.load(node).plus(load));
            }
        }
    }

    fn set_load(&mut self, node: &NodeId, load: Load) {
        if load == Load::default() {
            self.loads.remove_mut(node);
        } else {
            self.loads.insert_mut(node.clone(), load);
        }
    }

    /// What a node has to carry.
    pub(super) fn load(&self, node: &NodeId) -> Load {
        self.loads.get(node).copied().unwrap_or_default()
    }

    /// Objects of that key, in the order of their ids, from `first` on: kinds come one after the
    /// other.
    pub(super) fn listed(&self, key: Key, first: ObjectId) -> impl Iterator<Item = &ObjectId> {
        let entries = self
            .entries
            .range::<(Key, ObjectId), _>((key.clone(), first)..);
        entries
            .take_while(move |(at, _)| *at == key)
            .map(|(_, id)| {
                #[cfg(test)]
                super::table::looks::count();
                id
            })
    }

    /// Addresses that something other than a node holds on a network, in order, from `first` on; one
    /// that two hold comes twice.
    pub(super) fn addresses(
        &self,
        network: &NetworkId,
        first: IpAddr,
    ) -> impl Iterator<Item = IpAddr> {
        let first = (Key::Address(network.clone(), first), ObjectId::Cluster);
        let entries = self.entries.range::<(Key, ObjectId), _>(first..);
        entries.map_while(move |(key, _)| match key {
            Key::Address(at, ip) if at == network => {
                #[cfg(test)]
                super::table::looks::count();
                Some(*ip)
            }
            _ => None,
        })
    }
}

/// The node that has to carry it, and what that is.
fn burdened(object: &Object) -> Option<(&NodeId, Load)> {
    let Object::Task(task) = object else {
        return None;
    };
    let load = Load {
        tasks: usize::from(is_carried(task)),
        reserved: if uses_resources(task) {
            reserved(&task.spec)
        } else {
            Resources::default()
        },
    };
    let node = task.node.as_ref()?;
    (load != Load::default()).then_some((node, load))
}

/// What an object is found by, in order.
fn keys(object: &Object) -> Vec<Key> {
    let mut keys = match object {
        Object::Cluster(_)
        | Object::Secrets(_)
        | Object::Counters(_)
        | Object::Cursor(_)
        | Object::Removed(_) => Vec::new(),
        Object::Node(node) => of_node(node),
        Object::Network(network) => of_network(network),
        Object::Service(service) => of_service(service),
        Object::Ending(service) => vips(&service.vips),
        Object::Task(task) => of_task(task),
        Object::Endpoint(endpoint) => of_endpoint(endpoint),
        Object::Peer(peer) => of_peer(peer),
        Object::Payload(payload) => of_payload(payload),
    };
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn of_node(node: &Node) -> Vec<Key> {
    let mut keys = vec![
        Key::Name(folded(&node.description.hostname)),
        Key::Vtep(node.data_path_addr),
        Key::Gossip(node.status.addr, node.gossip_port),
        node.ingress_ip
            .map_or(Key::Unaddressed, Key::IngressAddress),
    ];
    keys.extend(is_away(node).then_some(Key::Away));
    keys
}

fn of_network(network: &Network) -> Vec<Key> {
    if network.ending {
        return vec![Key::Ending];
    }
    let mut keys = vec![Key::Name(folded(&network.spec.name))];
    keys.extend(network.spec.ingress.then_some(Key::Ingress));
    keys
}

/// Addresses on their networks.
fn vips(vips: &[Vip]) -> Vec<Key> {
    let keys = vips.iter().flat_map(|vip| {
        [
            Key::Network(vip.network.clone()),
            Key::Address(vip.network.clone(), vip.addr.addr()),
        ]
    });
    keys.collect()
}

fn of_service(service: &Service) -> Vec<Key> {
    let name = &service.spec.name;
    let mut keys = vips(&service.endpoint.vips);
    keys.push(Key::Name(folded(name)));
    keys.extend(is_global(service).then_some(Key::Global));
    keys.extend(is_updating(service).then_some(Key::Updating));
    keys.extend(service.rebalancing.map(|_| Key::Rebalancing));
    let ports = service.endpoint.ports.iter();
    keys.extend(ports.map(|port| Key::Port(port.published)));
    for attachment in &service.spec.task.networks {
        let network = NetworkId(attachment.target.clone());
        let names = std::iter::once(name).chain(&attachment.aliases);
        keys.extend(names.map(|name| Key::NameOn(network.clone(), folded(name))));
        keys.push(Key::Network(network));
    }
    let uses = service.spec.task.container.payloads();
    keys.extend(uses.map(|one| Key::Uses(one.id.clone())));
    keys
}

fn of_payload(payload: &Payload) -> Vec<Key> {
    let name = payload.spec.name.clone();
    vec![Key::PayloadName(payload.kind, name)]
}

fn of_task(task: &Task) -> Vec<Key> {
    let state = task.status.state;
    let (wanted, ended) = (is_wanted(task), state.is_terminal());
    let mut keys = vec![Key::Service(task.service.clone())];
    if let Some(node) = &task.node {
        keys.push(Key::Node(node.clone()));
        keys.extend(wanted.then(|| Key::WantedOn(node.clone())));
    }
    for attachment in &task.attachments {
        let network = &attachment.network;
        keys.push(Key::Network(network.clone()));
        if holds_addresses(task) {
            let ips = attachment.ips();
            keys.extend(ips.map(|ip| Key::Address(network.clone(), ip)));
        }
    }
    if !wanted && ended {
        keys.push(Key::history_of(task));
    }
    let dead =
        !wanted && (state < TaskState::Assigned || (task.desired == TaskState::Remove && ended));
    let due = wanted && task.desired >= TaskState::Running;
    let waits = state == TaskState::Pending && due;
    let lists = [
        (wanted && ended && should_restart(task), Key::Ended),
        (task.desired == TaskState::Ready, Key::Delayed),
        (dead, Key::Dead),
        (wants_addresses(task), Key::Unaddressed),
        (waits, Key::Unplaced),
    ];
    keys.extend(
        lists
            .into_iter()
            .filter_map(|(on, list)| on.then_some(list)),
    );
    keys
}

fn of_endpoint(endpoint: &Endpoint) -> Vec<Key> {
    let attachment = &endpoint.attachment;
    let network = &attachment.network;
    let mut keys = vec![
        Key::Node(endpoint.node.clone()),
        Key::Network(network.clone()),
        Key::NameOn(network.clone(), folded(&endpoint.name)),
    ];
    let ips = attachment.ips();
    keys.extend(ips.map(|ip| Key::Address(network.clone(), ip)));
    keys.extend(endpoint.service.clone().map(Key::Service));
    keys
}

fn of_peer(peer: &StaticPeer) -> Vec<Key> {
    vec![
        Key::Network(peer.network.clone()),
        Key::Address(peer.network.clone(), peer.ip),
        Key::Vtep(peer.vtep),
    ]
}
