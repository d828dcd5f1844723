//! The desired state as one value.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use weft_model::id::{EndpointId, NetworkId, NodeId, PayloadId, PeerId, ServiceId, TaskId};
use weft_model::objects::{
    Cluster, EndingService, Endpoint, Network, Node, Payload, PayloadKind, Service, StaticPeer,
    Task, Version,
};

use super::index::{Index, Key};
use super::object::{AddressCursor, Change, Counters, Object, ObjectId, RemovedNode};
use super::recent::RecentChanges;
use super::secrets::Secrets;
use super::table::Table;

/// Everything that must not fork. Ordered tables, so that every reader sees one order.
///
/// A copy costs a few pointers, and a change what it changes. Beside the objects there are an index
/// of them and the last changes, which both follow from the objects and how they came: two states
/// are equal when their versions and objects are.
#[derive(Clone, Default)]
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
    pub cursors: Table<NetworkId, AddressCursor>,
    /// Members.
    pub nodes: Table<NodeId, Node>,
    /// Networks.
    pub networks: Table<NetworkId, Network>,
    /// Services.
    pub services: Table<ServiceId, Service>,
    /// Removed services whose tasks have not ended.
    pub ending: Table<ServiceId, EndingService>,
    /// Tasks, wanted and remembered.
    pub tasks: Table<TaskId, Task>,
    /// Endpoints of `network connect`.
    pub endpoints: Table<EndpointId, Endpoint>,
    /// Static peers.
    pub peers: Table<PeerId, StaticPeer>,
    /// Nodes that were removed, as long as there may be certificates of them.
    pub removed: Table<NodeId, RemovedNode>,
    /// Secrets and configs.
    pub payloads: Table<PayloadId, Payload>,
    /// Follows every change of the tables.
    index: Index,
    /// What the last batches changed.
    recent: RecentChanges,
}

/// Objects of one kind by a key of the index, in the order of their ids.
macro_rules! listed {
    ($($name:ident: $table:ident, $kind:ident($id:ident) => $object:ident;)*) => {$(
        pub(super) fn $name(&self, key: Key) -> impl Iterator<Item = &$object> {
            let listed = self.index.listed(key, ObjectId::$kind($id::default()));
            let ids = listed.map_while(|id| match id {
                ObjectId::$kind(id) => Some(id),
                _ => None,
            });
            ids.filter_map(move |id| self.$table.get(id))
        }
    )*};
}

impl ClusterState {
    /// Applies one batch: the state's version grows by one, and so does that of each object put.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.apply_one(change.clone());
        }
        self.version += 1;
        let changed = changes.iter().map(Change::id).collect();
        self.recent.record(self.version, changed);
    }

    pub(super) fn apply_one(&mut self, change: Change) {
        match change {
            Change::Put(mut object) => {
                let version = self.next_version(&object.id());
                let same = object.meta().is_none_or(|meta| meta.version == version);
                if !same && let Some(meta) = object.meta_mut() {
                    meta.version = version;
                }
                self.put(object);
            }
            Change::Delete(id) => self.replace(&id, None),
        }
    }

    /// The version that an object has once it is put.
    pub(super) fn next_version(&self, id: &ObjectId) -> Version {
        let before = self.get(id);
        let version = before.as_ref().and_then(Object::meta).map(|m| m.version);
        Version {
            index: version.unwrap_or_default().index + 1,
        }
    }

    /// Puts an object as it is, version included: for loading from disk.
    pub fn put(&mut self, object: Object) {
        self.replace(&object.id(), Some(object));
    }

    /// The only way to change an object.
    fn replace(&mut self, id: &ObjectId, object: Option<Object>) {
        let before = self.get(id);
        self.index.replace(id, before.as_ref(), object.as_ref());
        match object {
            Some(object) => self.store(object),
            None => self.delete(id),
        }
    }

    fn store(&mut self, object: Object) {
        match object {
            Object::Cluster(o) => self.cluster = Some(*o),
            Object::Secrets(o) => self.secrets = Some(*o),
            Object::Counters(o) => self.counters = o,
            Object::Cursor(o) => self.cursors.insert(o.network.clone(), o),
            Object::Node(o) => self.nodes.insert(o.id.clone(), o),
            Object::Network(o) => self.networks.insert(o.id.clone(), o),
            Object::Service(o) => self.services.insert(o.id.clone(), o),
            Object::Ending(o) => self.ending.insert(o.id.clone(), o),
            Object::Task(o) => self.tasks.insert(o.id.clone(), self.with_shared_spec(o)),
            Object::Endpoint(o) => self.endpoints.insert(o.attachment.endpoint.clone(), o),
            Object::Peer(o) => self.peers.insert(o.id.clone(), o),
            Object::Removed(o) => self.removed.insert(o.id.clone(), o),
            Object::Payload(o) => self.payloads.insert(o.id.clone(), o),
        }
    }

    /// Tasks of a service share what it says of them, also those that were read from somewhere.
    fn with_shared_spec(&self, mut task: Arc<Task>) -> Arc<Task> {
        if let Some(service) = self.services.get(&task.service)
            && !Arc::ptr_eq(&task.spec, &service.spec.task)
            && task.spec == service.spec.task
        {
            Arc::make_mut(&mut task).spec = Arc::clone(&service.spec.task);
        }
        task
    }

    fn delete(&mut self, id: &ObjectId) {
        match id {
            ObjectId::Cluster => self.cluster = None,
            ObjectId::Secrets => self.secrets = None,
            ObjectId::Counters => self.counters = Counters::default(),
            ObjectId::Cursor(id) => self.cursors.remove(id),
            ObjectId::Node(id) => self.nodes.remove(id),
            ObjectId::Network(id) => self.networks.remove(id),
            ObjectId::Service(id) => self.services.remove(id),
            ObjectId::Ending(id) => self.ending.remove(id),
            ObjectId::Task(id) => self.tasks.remove(id),
            ObjectId::Endpoint(id) => self.endpoints.remove(id),
            ObjectId::Peer(id) => self.peers.remove(id),
            ObjectId::Removed(id) => self.removed.remove(id),
            ObjectId::Payload(id) => self.payloads.remove(id),
        }
    }

    /// Whether a node was removed of which there may be certificates.
    #[must_use]
    pub fn was_removed(&self, node: &NodeId) -> bool {
        self.removed.contains_key(node)
    }

    /// One object. Settings, secrets and counters are copied, all others shared with the state.
    #[must_use]
    pub fn get(&self, id: &ObjectId) -> Option<Object> {
        match id {
            ObjectId::Cluster => self.cluster.clone().map(Object::from),
            ObjectId::Secrets => self.secrets.clone().map(Object::from),
            ObjectId::Counters => Some(Object::Counters(self.counters.clone())),
            ObjectId::Cursor(id) => self.cursors.shared(id).cloned().map(Object::Cursor),
            ObjectId::Node(id) => self.nodes.shared(id).cloned().map(Object::Node),
            ObjectId::Network(id) => self.networks.shared(id).cloned().map(Object::Network),
            ObjectId::Service(id) => self.services.shared(id).cloned().map(Object::Service),
            ObjectId::Ending(id) => self.ending.shared(id).cloned().map(Object::Ending),
            ObjectId::Task(id) => self.tasks.shared(id).cloned().map(Object::Task),
            ObjectId::Endpoint(id) => self.endpoints.shared(id).cloned().map(Object::Endpoint),
            ObjectId::Peer(id) => self.peers.shared(id).cloned().map(Object::Peer),
            ObjectId::Removed(id) => self.removed.shared(id).cloned().map(Object::Removed),
            ObjectId::Payload(id) => self.payloads.shared(id).cloned().map(Object::Payload),
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
            removed,
            payloads,
            index: _,
            recent: _,
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
        ids.extend(removed.keys().cloned().map(ObjectId::Removed));
        ids.extend(payloads.keys().cloned().map(ObjectId::Payload));
        ids
    }

    /// What changed since this state had version `seen`; nothing when that is too long ago to say.
    #[must_use]
    pub fn changed_since(&self, seen: u64) -> Option<BTreeSet<&ObjectId>> {
        self.recent.since(seen, self.version)
    }

    /// Ways to objects other than by their id.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Secrets, or configs.
    pub fn payloads_of(&self, kind: PayloadKind) -> impl Iterator<Item = &Payload> {
        let all = self.payloads.values();
        all.filter(move |payload| payload.kind == kind)
    }

    /// The network that published ports travel on.
    #[must_use]
    pub fn ingress(&self) -> Option<&Network> {
        self.networks_at(Key::Ingress).next()
    }

    /// Tasks of one service.
    pub fn tasks_of<'a>(&'a self, service: &ServiceId) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.tasks_at(Key::Service(service.clone()))
    }

    /// Tasks that were given to a node and are not forgotten.
    pub fn tasks_on<'a>(&'a self, node: &NodeId) -> impl Iterator<Item = &'a Task> + use<'a> {
        self.tasks_at(Key::Node(node.clone()))
    }

    /// Endpoints of `network connect` on a node.
    pub fn endpoints_on<'a>(
        &'a self,
        node: &NodeId,
    ) -> impl Iterator<Item = &'a Endpoint> + use<'a> {
        self.endpoints_at(Key::Node(node.clone()))
    }

    listed! {
        nodes_at: nodes, Node(NodeId) => Node;
        networks_at: networks, Network(NetworkId) => Network;
        services_at: services, Service(ServiceId) => Service;
        tasks_at: tasks, Task(TaskId) => Task;
        endpoints_at: endpoints, Endpoint(EndpointId) => Endpoint;
        peers_at: peers, Peer(PeerId) => StaticPeer;
        payloads_at: payloads, Payload(PayloadId) => Payload;
    }
}

impl PartialEq for ClusterState {
    fn eq(&self, other: &Self) -> bool {
        // As in `ids`.
        let Self {
            version,
            cluster,
            secrets,
            counters,
            cursors,
            nodes,
            networks,
            services,
            ending,
            tasks,
            endpoints,
            peers,
            removed,
            payloads,
            index: _,
            recent: _,
        } = self;
        *version == other.version
            && *cluster == other.cluster
            && *secrets == other.secrets
            && *counters == other.counters
            && *cursors == other.cursors
            && *nodes == other.nodes
            && *networks == other.networks
            && *services == other.services
            && *ending == other.ending
            && *tasks == other.tasks
            && *endpoints == other.endpoints
            && *peers == other.peers
            && *removed == other.removed
            && *payloads == other.payloads
    }
}

impl Eq for ClusterState {}

impl fmt::Debug for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterState")
            .field("version", &self.version)
            .field("cluster", &self.cluster)
            .field("secrets", &self.secrets)
            .field("counters", &self.counters)
            .field("cursors", &self.cursors)
            .field("nodes", &self.nodes)
            .field("networks", &self.networks)
            .field("services", &self.services)
            .field("ending", &self.ending)
            .field("tasks", &self.tasks)
            .field("endpoints", &self.endpoints)
            .field("peers", &self.peers)
            .field("removed", &self.removed)
            .field("payloads", &self.payloads)
            .finish_non_exhaustive()
    }
}
