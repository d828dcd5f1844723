//! The desired state as one value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weft_model::id::{EndpointId, NetworkId, NodeId, PeerId, ServiceId, TaskId};
use weft_model::objects::{
    Cluster, EndingService, Endpoint, Network, Node, Service, StaticPeer, Task,
};

use super::object::{AddressCursor, Change, Counters, Object, ObjectId};
use super::secrets::Secrets;

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
                let version = before.and_then(|mut o| o.meta_mut().map(|m| m.version));
                if let Some(meta) = object.meta_mut() {
                    meta.version = version.unwrap_or(0) + 1;
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
            Object::Task(o) => {
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
