//! The desired state as one value, and the changes that a log can carry.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_model::assignment::GossipKey;
use weft_model::id::{EndpointId, NetworkId, NodeId, PeerId, ServiceId, TaskId};
use weft_model::objects::{
    Cluster, EndingService, Endpoint, Meta, Network, Node, Role, Service, StaticPeer, Task,
};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::keys::RingState;

/// What must stay between managers: join secrets and gossip keys. Never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Secrets {
    /// Last part of the worker join token.
    pub worker: [u8; 16],
    /// Last part of the manager join token.
    pub manager: [u8; 16],
    /// The first seals, all open. The next one comes second, the one before last.
    pub gossip_keys: Vec<GossipKey>,
    /// Where their rotation is.
    #[serde(default)]
    pub gossip_ring: RingState,
}

impl Secrets {
    /// The join secret that gives `role`.
    #[must_use]
    pub fn join(&self, role: Role) -> &[u8; 16] {
        match role {
            Role::Worker => &self.worker,
            Role::Manager => &self.manager,
        }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// Where serial allocation goes on, so that what was just freed is not handed out at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Last allocated VXLAN network identifier; 0 before the first.
    pub last_vni: u32,
    /// Last subnet that was cut from a pool.
    pub last_subnet: Option<IpNet>,
    /// Last dynamic port; 0 before the first.
    pub last_port: u16,
}

/// Last allocated address of each subnet of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressCursor {
    /// Which network.
    pub network: NetworkId,
    /// At most one address of each subnet.
    pub last: Vec<IpAddr>,
}

/// Anything that the desired state holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// Settings; there is one.
    Cluster(Box<Cluster>),
    /// Join secrets and gossip keys; there is one.
    Secrets(Box<Secrets>),
    /// Allocation counters; there is one.
    Counters(Counters),
    /// Address cursor of a network.
    Cursor(AddressCursor),
    /// A member.
    Node(Box<Node>),
    /// A network.
    Network(Box<Network>),
    /// A service.
    Service(Box<Service>),
    /// A removed service whose tasks have not ended.
    Ending(EndingService),
    /// A task.
    Task(Box<Task>),
    /// An endpoint.
    Endpoint(Box<Endpoint>),
    /// A static peer.
    Peer(StaticPeer),
}

/// Names one object of the desired state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectId {
    /// The cluster's settings.
    Cluster,
    /// The cluster's secrets.
    Secrets,
    /// The allocation counters.
    Counters,
    /// Address cursor of that network.
    Cursor(NetworkId),
    /// A member.
    Node(NodeId),
    /// A network.
    Network(NetworkId),
    /// A service.
    Service(ServiceId),
    /// A removed service whose tasks have not ended.
    Ending(ServiceId),
    /// A task.
    Task(TaskId),
    /// An endpoint.
    Endpoint(EndpointId),
    /// A static peer.
    Peer(PeerId),
}

impl Object {
    /// Name of the object.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Cluster(_) => ObjectId::Cluster,
            Self::Secrets(_) => ObjectId::Secrets,
            Self::Counters(_) => ObjectId::Counters,
            Self::Cursor(c) => ObjectId::Cursor(c.network.clone()),
            Self::Node(n) => ObjectId::Node(n.id.clone()),
            Self::Network(n) => ObjectId::Network(n.id.clone()),
            Self::Service(s) => ObjectId::Service(s.id.clone()),
            Self::Ending(s) => ObjectId::Ending(s.id.clone()),
            Self::Task(t) => ObjectId::Task(t.id.clone()),
            Self::Endpoint(e) => ObjectId::Endpoint(e.attachment.endpoint.clone()),
            Self::Peer(p) => ObjectId::Peer(p.id.clone()),
        }
    }

    /// Versions and times, of those objects that have them.
    pub(super) fn meta_mut(&mut self) -> Option<&mut Meta> {
        match self {
            Self::Cluster(o) => Some(&mut o.meta),
            Self::Node(o) => Some(&mut o.meta),
            Self::Network(o) => Some(&mut o.meta),
            Self::Service(o) => Some(&mut o.meta),
            Self::Task(o) => Some(&mut o.meta),
            Self::Secrets(_)
            | Self::Counters(_)
            | Self::Cursor(_)
            | Self::Ending(_)
            | Self::Endpoint(_)
            | Self::Peer(_) => None,
        }
    }
}

macro_rules! boxed_object {
    ($($type:ident => $variant:ident),*) => {$(
        impl From<$type> for Object {
            fn from(o: $type) -> Self {
                Self::$variant(Box::new(o))
            }
        }
    )*};
}
boxed_object!(Cluster => Cluster, Secrets => Secrets, Node => Node, Network => Network,
    Service => Service, Task => Task, Endpoint => Endpoint);

impl From<EndingService> for Object {
    fn from(o: EndingService) -> Self {
        Self::Ending(o)
    }
}

impl From<StaticPeer> for Object {
    fn from(o: StaticPeer) -> Self {
        Self::Peer(o)
    }
}

/// One step of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Creates or replaces.
    Put(Object),
    /// Removes; no error when it is gone already.
    Delete(ObjectId),
}

impl Change {
    /// What it changes.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Put(object) => object.id(),
            Self::Delete(id) => id.clone(),
        }
    }
}

/// Everything that must not fork. Ordered maps, so that every reader sees one order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Counts applied batches of changes.
    pub version: u64,
    /// Settings; absent before `swarm init`.
    pub cluster: Option<Cluster>,
    /// Secrets; absent before `swarm init`.
    pub secrets: Option<Secrets>,
    /// Allocation counters.
    pub counters: Counters,
    /// Address cursors.
    pub cursors: BTreeMap<NetworkId, AddressCursor>,
    /// Members.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Networks.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Services.
    pub services: BTreeMap<ServiceId, Service>,
    /// Removed services whose tasks have not ended.
    #[serde(default)]
    pub ending: BTreeMap<ServiceId, EndingService>,
    /// Tasks, wanted and remembered.
    pub tasks: BTreeMap<TaskId, Task>,
    /// Endpoints of `network connect`.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// Static peers.
    pub peers: BTreeMap<PeerId, StaticPeer>,
}

impl ClusterState {
    /// Applies one batch: the state's version grows by one, and so does that of each object put.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.apply_one(change.clone());
        }
        self.version += 1;
    }

    pub(super) fn apply_one(&mut self, change: Change) {
        match change {
            Change::Put(mut object) => {
                let before = self.get(&object.id());
                let version = before.and_then(|mut o| o.meta_mut().map(|m| m.version.index));
                if let Some(meta) = object.meta_mut() {
                    meta.version.index = version.unwrap_or(0) + 1;
                }
                self.put(object);
            }
            Change::Delete(id) => self.delete(&id),
        }
    }

    /// Puts an object as it is, version included: for loading from disk.
    pub fn put(&mut self, object: Object) {
        match object {
            Object::Cluster(o) => self.cluster = Some(*o),
            Object::Secrets(o) => self.secrets = Some(*o),
            Object::Counters(o) => self.counters = o,
            Object::Cursor(o) => {
                self.cursors.insert(o.network.clone(), o);
            }
            Object::Node(o) => {
                self.nodes.insert(o.id.clone(), *o);
            }
            Object::Network(o) => {
                self.networks.insert(o.id.clone(), *o);
            }
            Object::Service(o) => {
                self.services.insert(o.id.clone(), *o);
            }
            Object::Ending(o) => {
                self.ending.insert(o.id.clone(), o);
            }
            Object::Task(mut o) => {
                self.share_spec(&mut o);
                self.tasks.insert(o.id.clone(), *o);
            }
            Object::Endpoint(o) => {
                self.endpoints.insert(o.attachment.endpoint.clone(), *o);
            }
            Object::Peer(o) => {
                self.peers.insert(o.id.clone(), o);
            }
        }
    }

    /// Tasks of a service share what it says of them, also those that were read from somewhere.
    fn share_spec(&self, task: &mut Task) {
        if let Some(service) = self.services.get(&task.service)
            && task.spec == service.spec.task
        {
            task.spec = Arc::clone(&service.spec.task);
        }
    }

    fn delete(&mut self, id: &ObjectId) {
        match id {
            ObjectId::Cluster => self.cluster = None,
            ObjectId::Secrets => self.secrets = None,
            ObjectId::Counters => self.counters = Counters::default(),
            ObjectId::Cursor(id) => drop(self.cursors.remove(id)),
            ObjectId::Node(id) => drop(self.nodes.remove(id)),
            ObjectId::Network(id) => drop(self.networks.remove(id)),
            ObjectId::Service(id) => drop(self.services.remove(id)),
            ObjectId::Ending(id) => drop(self.ending.remove(id)),
            ObjectId::Task(id) => drop(self.tasks.remove(id)),
            ObjectId::Endpoint(id) => drop(self.endpoints.remove(id)),
            ObjectId::Peer(id) => drop(self.peers.remove(id)),
        }
    }

    /// A copy of one object.
    #[must_use]
    pub fn get(&self, id: &ObjectId) -> Option<Object> {
        match id {
            ObjectId::Cluster => self.cluster.clone().map(Object::from),
            ObjectId::Secrets => self.secrets.clone().map(Object::from),
            ObjectId::Counters => Some(Object::Counters(self.counters.clone())),
            ObjectId::Cursor(id) => self.cursors.get(id).cloned().map(Object::Cursor),
            ObjectId::Node(id) => self.nodes.get(id).cloned().map(Object::from),
            ObjectId::Network(id) => self.networks.get(id).cloned().map(Object::from),
            ObjectId::Service(id) => self.services.get(id).cloned().map(Object::from),
            ObjectId::Ending(id) => self.ending.get(id).cloned().map(Object::from),
            ObjectId::Task(id) => self.tasks.get(id).cloned().map(Object::from),
            ObjectId::Endpoint(id) => self.endpoints.get(id).cloned().map(Object::from),
            ObjectId::Peer(id) => self.peers.get(id).cloned().map(Object::from),
        }
    }

    /// Ids of all objects, for writing the whole state.
    #[must_use]
    pub fn ids(&self) -> Vec<ObjectId> {
        // Every field by its name: a new one has to come in here too.
        let Self {
            version: _,
            cluster,
            secrets,
            counters: _,
            cursors,
            nodes,
            networks,
            services,
            ending,
            tasks,
            endpoints,
            peers,
        } = self;
        let mut ids = vec![ObjectId::Counters];
        ids.extend(cluster.is_some().then_some(ObjectId::Cluster));
        ids.extend(secrets.is_some().then_some(ObjectId::Secrets));
        ids.extend(cursors.keys().cloned().map(ObjectId::Cursor));
        ids.extend(nodes.keys().cloned().map(ObjectId::Node));
        ids.extend(networks.keys().cloned().map(ObjectId::Network));
        ids.extend(services.keys().cloned().map(ObjectId::Service));
        ids.extend(ending.keys().cloned().map(ObjectId::Ending));
        ids.extend(tasks.keys().cloned().map(ObjectId::Task));
        ids.extend(endpoints.keys().cloned().map(ObjectId::Endpoint));
        ids.extend(peers.keys().cloned().map(ObjectId::Peer));
        ids
    }

    /// The network that published ports travel on.
    #[must_use]
    pub fn ingress(&self) -> Option<&Network> {
        self.networks.values().find(|n| n.spec.ingress)
    }

    /// Tasks of one service.
    pub fn tasks_of<'a>(&'a self, service: &'a ServiceId) -> impl Iterator<Item = &'a Task> {
        self.tasks.values().filter(move |t| t.service == *service)
    }
}
