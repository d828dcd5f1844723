//! The orders of all nodes at one version of the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_model::assignment::{Assignment, EndpointView, NodeView, Own, ServiceView, Shared};
use weft_model::id::NodeId;
use weft_model::objects::{Endpoint, Node, Task, TaskState};

use super::state::ClusterState;

/// Orders of every node. Made once for each state, whoever asks; a half whose words stay keeps its
/// version, and with it what was encoded of it.
#[derive(Debug, Default)]
pub struct OrderBook {
    of: Option<u64>,
    shared: Option<Arc<Shared>>,
    own: BTreeMap<NodeId, Arc<Own>>,
}

impl OrderBook {
    /// Follows the state; an older one than the last changes nothing.
    pub fn update(&mut self, state: &ClusterState) {
        if self.of.is_some_and(|of| of >= state.version) {
            return;
        }
        self.of = Some(state.version);
        let Some(shared) = shared(state) else {
            self.shared = None;
            self.own.clear();
            return;
        };
        let same = |old: &&Arc<Shared>| old.says_the_same(&shared);
        if self.shared.as_ref().filter(same).is_none() {
            self.shared = Some(Arc::new(shared));
        }
        let mut old = std::mem::take(&mut self.own);
        for part in parts(state) {
            let before = old.remove(&part.node.id);
            let own = match before.filter(|before| part.is(before)) {
                Some(before) => before,
                None => Arc::new(part.own(state)),
            };
            self.own.insert(part.node.id.clone(), own);
        }
    }

    /// Orders of one node; nothing when it is not a member or there is no cluster.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Option<Assignment> {
        Some(Assignment {
            shared: Arc::clone(self.shared.as_ref()?),
            own: Arc::clone(self.own.get(node)?),
        })
    }
}

/// Tasks that a node has, or is about to have. Those that ended are left out: a node tears down
/// what is no longer in its orders, and nobody believes in an address that may be given out again.
fn placed(state: &ClusterState) -> impl Iterator<Item = &Task> {
    state.tasks.values().filter(|t| {
        t.node.is_some() && t.status.state >= TaskState::Assigned && !t.status.state.is_terminal()
    })
}

fn shared(state: &ClusterState) -> Option<Shared> {
    let cluster = state.cluster.as_ref()?;
    let tasks = placed(state).flat_map(EndpointView::of_task);
    Some(Shared {
        version: state.version,
        cluster_id: cluster.id.clone(),
        data_path_port: cluster.data_path_port,
        nodes: state.nodes.values().map(NodeView::from).collect(),
        networks: state.networks.values().cloned().collect(),
        services: state.services.values().map(ServiceView::from).collect(),
        ending: state.ending.values().cloned().collect(),
        endpoints: tasks
            .chain(state.endpoints.values().map(EndpointView::from))
            .collect(),
        peers: state.peers.values().cloned().collect(),
        gossip_keys: state
            .secrets
            .as_ref()
            .map(|s| s.gossip_keys.clone())
            .unwrap_or_default(),
    })
}

/// What concerns one node alone, before it is copied.
struct Part<'a> {
    node: &'a Node,
    tasks: Vec<&'a Task>,
    endpoints: Vec<&'a Endpoint>,
}

impl Part<'_> {
    /// True when these orders say the same.
    fn is(&self, own: &Own) -> bool {
        own.node == *self.node
            && own.tasks.iter().eq(self.tasks.iter().copied())
            && own.endpoints.iter().eq(self.endpoints.iter().copied())
    }

    fn own(&self, state: &ClusterState) -> Own {
        Own {
            version: state.version,
            node: self.node.clone(),
            tasks: self.tasks.iter().copied().cloned().collect(),
            endpoints: self.endpoints.iter().copied().cloned().collect(),
        }
    }
}

fn parts(state: &ClusterState) -> impl Iterator<Item = Part<'_>> {
    let part = |node| Part {
        node,
        tasks: Vec::new(),
        endpoints: Vec::new(),
    };
    let mut all: BTreeMap<&NodeId, Part<'_>> = state
        .nodes
        .iter()
        .map(|(id, node)| (id, part(node)))
        .collect();
    for task in placed(state) {
        let part = task.node.as_ref().and_then(|id| all.get_mut(id));
        if let Some(part) = part {
            part.tasks.push(task);
        }
    }
    for endpoint in state.endpoints.values() {
        if let Some(part) = all.get_mut(&endpoint.node) {
            part.endpoints.push(endpoint);
        }
    }
    all.into_values()
}
