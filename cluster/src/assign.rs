//! The orders of all nodes, as the state changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_model::assignment::change::SharedChange;
use weft_model::assignment::{EndpointView, NodeView, Own, PayloadContent, ServiceView, Shared};
use weft_model::id::{NodeId, PayloadId};
use weft_model::objects::{Task, TaskState};

use super::object::ObjectId;
use super::state::ClusterState;

/// What became of the half of the orders that every node is told.
#[derive(Debug, PartialEq, Eq)]
pub enum SharedNews {
    /// It says what it said.
    Same,
    /// This is the difference.
    Changed(Box<SharedChange>),
    /// Whatever it was, it is to be told as a whole.
    Anew,
}

/// Orders of every node. It follows the state, and knows of each half since which version it says
/// what it says; what it says is made for who asks.
#[derive(Debug, Default)]
pub struct OrderBook {
    at: ClusterState,
    shared: u64,
    own: BTreeMap<NodeId, u64>,
}

/// True for a task that a node has, or is about to have. Those that ended are left out: a node tears
/// down what is no longer in its orders, and nobody believes in an address that may be given out
/// again.
fn is_placed(task: &Task) -> bool {
    task.node.is_some()
        && task.status.state >= TaskState::Assigned
        && !task.status.state.is_terminal()
}

/// The endpoints of a task that every node is told of.
fn endpoints_of(task: Option<&Task>) -> Vec<EndpointView> {
    let placed = task.filter(|task| is_placed(task)).into_iter();
    placed.flat_map(EndpointView::of_task).collect()
}

impl OrderBook {
    /// Follows the state; an older one than the last changes nothing.
    pub fn update(&mut self, state: &ClusterState) -> SharedNews {
        if self.at.version >= state.version {
            return SharedNews::Same;
        }
        let before = std::mem::replace(&mut self.at, state.clone());
        let told = |state: &ClusterState| {
            let cluster = state.cluster.as_ref()?;
            Some((cluster.id.clone(), cluster.data_path_port))
        };
        let changed = state.changed_since(before.version);
        let Some(changed) = changed.filter(|_| told(&before) == told(state)) else {
            self.shared = state.version;
            let nodes = state.nodes.keys().cloned();
            self.own = nodes.map(|id| (id, state.version)).collect();
            return SharedNews::Anew;
        };
        let mut change = SharedChange {
            base: self.shared,
            version: state.version,
            ..SharedChange::default()
        };
        for id in changed {
            self.note_own(id, &before, state);
            note_shared(&mut change, id, &before, state);
        }
        if change.is_empty() {
            return SharedNews::Same;
        }
        self.shared = state.version;
        SharedNews::Changed(Box::new(change))
    }

    /// An object is not what it was: whose own orders are other ones.
    fn note_own(&mut self, id: &ObjectId, before: &ClusterState, state: &ClusterState) {
        let nodes = match id {
            ObjectId::Node(id) if state.nodes.contains_key(id) => {
                self.own.insert(id.clone(), state.version);
                return;
            }
            ObjectId::Node(id) => {
                self.own.remove(id);
                return;
            }
            ObjectId::Task(id) => [before, state].map(|state| {
                let task = state.tasks.get(id).filter(|task| is_placed(task))?;
                task.node.as_ref()
            }),
            ObjectId::Endpoint(id) => {
                [before, state].map(|state| state.endpoints.get(id).map(|e| &e.node))
            }
            _ => return,
        };
        for node in nodes.into_iter().flatten() {
            if let Some(version) = self.own.get_mut(node) {
                *version = state.version;
            }
        }
    }

    /// Since which version the half says what it says that every node is told; nothing where there
    /// is no cluster.
    #[must_use]
    pub fn shared_version(&self) -> Option<u64> {
        self.at.cluster.is_some().then_some(self.shared)
    }

    /// Since which version a node's own half says what it says; nothing when it is not a member.
    #[must_use]
    pub fn own_version(&self, node: &NodeId) -> Option<u64> {
        self.own.get(node).copied()
    }

    /// What every node is told; nothing where there is no cluster.
    #[must_use]
    pub fn shared(&self) -> Option<Shared> {
        let state = &self.at;
        let cluster = state.cluster.as_ref()?;
        let tasks = state.tasks.values().map(Some).flat_map(endpoints_of);
        let others = state.endpoints.values().map(EndpointView::from);
        let mut endpoints: Vec<_> = tasks.chain(others).map(Arc::new).collect();
        endpoints.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let secrets = state.secrets.as_ref();
        Some(Shared {
            version: self.shared,
            cluster_id: cluster.id.clone(),
            data_path_port: cluster.data_path_port,
            nodes: state.nodes.values().map(NodeView::from).collect(),
            networks: state.networks.values().cloned().collect(),
            services: state.services.values().map(ServiceView::from).collect(),
            ending: state.ending.values().cloned().collect(),
            endpoints,
            peers: state.peers.values().cloned().collect(),
            gossip_keys: secrets.map_or_else(Vec::new, |s| s.gossip_keys.clone()),
        })
    }

    /// What a node alone is told; nothing when it is not a member.
    #[must_use]
    pub fn own(&self, node: &NodeId) -> Option<Own> {
        let tasks = self.at.tasks_on(node).filter(|task| is_placed(task));
        Some(Own {
            version: self.own_version(node)?,
            node: self.at.nodes.get(node)?.clone(),
            tasks: tasks.cloned().collect(),
            endpoints: self.at.endpoints_on(node).cloned().collect(),
        })
    }

    /// What the files of a secret or a config are made of, for a node whose own half names it; nothing
    /// when there is none of that id.
    #[must_use]
    pub fn payload(&self, id: &PayloadId) -> Option<PayloadContent> {
        self.at.payloads.get(id).map(PayloadContent::from)
    }

    /// How many bytes those files have; nothing when there is none of that id.
    #[must_use]
    pub fn payload_bytes(&self, id: &PayloadId) -> Option<usize> {
        let payload = self.at.payloads.get(id)?;
        Some(payload.spec.data.len())
    }
}

/// An object is not what it was: what of it every node is told, where that is another thing.
fn note_shared(
    change: &mut SharedChange,
    id: &ObjectId,
    before: &ClusterState,
    state: &ClusterState,
) {
    match id {
        ObjectId::Secrets => {
            let keys = |state: &ClusterState| Some(state.secrets.as_ref()?.gossip_keys.clone());
            let now = keys(state);
            if keys(before) != now {
                change.gossip_keys = Some(now.unwrap_or_default());
            }
        }
        ObjectId::Node(id) => {
            let view = |state: &ClusterState| state.nodes.get(id).map(NodeView::from);
            change.nodes.note(id.clone(), view(before), view(state));
        }
        ObjectId::Network(id) => {
            let network = |state: &ClusterState| state.networks.get(id).cloned();
            change
                .networks
                .note(id.clone(), network(before), network(state));
        }
        ObjectId::Service(id) => {
            let view = |state: &ClusterState| state.services.get(id).map(ServiceView::from);
            change.services.note(id.clone(), view(before), view(state));
        }
        ObjectId::Ending(id) => {
            let service = |state: &ClusterState| state.ending.get(id).cloned();
            change
                .ending
                .note(id.clone(), service(before), service(state));
        }
        ObjectId::Task(id) => {
            let views = |state: &ClusterState| endpoints_of(state.tasks.get(id));
            note_endpoints(change, views(before), views(state));
        }
        ObjectId::Endpoint(id) => {
            let view = |state: &ClusterState| {
                let endpoint = state.endpoints.get(id).into_iter();
                endpoint.map(EndpointView::from).collect()
            };
            note_endpoints(change, view(before), view(state));
        }
        ObjectId::Peer(id) => {
            let peer = |state: &ClusterState| state.peers.get(id).cloned();
            change.peers.note(id.clone(), peer(before), peer(state));
        }
        // The bytes of secrets and configs never change, and go beside the orders.
        ObjectId::Payload(_)
        | ObjectId::Cluster
        | ObjectId::Counters
        | ObjectId::Cursor(_)
        | ObjectId::Removed(_) => {}
    }
}

/// The few endpoints of one object.
fn note_endpoints(change: &mut SharedChange, was: Vec<EndpointView>, is: Vec<EndpointView>) {
    let by_id = |views: Vec<EndpointView>| -> BTreeMap<_, _> {
        let views = views.into_iter().map(Arc::new);
        views.map(|view| (view.id.clone(), view)).collect()
    };
    let (mut was, is) = (by_id(was), by_id(is));
    for (id, view) in is {
        let before = was.remove(&id);
        change.endpoints.note(id, before, Some(view));
    }
    for (id, view) in was {
        change.endpoints.note(id, Some(view), None);
    }
}
