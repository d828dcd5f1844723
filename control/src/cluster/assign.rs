//! The part of the state that one node needs.

use super::state::ClusterState;
use crate::assignment::Assignment;
use crate::id::NodeId;

/// Orders of one node; nothing when it is not a member or there is no cluster.
///
/// Tasks that ended are left out: the node tears down what is no longer in its orders.
#[must_use]
pub fn assignment_for(state: &ClusterState, node: &NodeId) -> Option<Assignment> {
    let cluster = state.cluster.as_ref()?;
    let own = state.nodes.get(node)?;
    Some(Assignment {
        version: state.version,
        cluster_id: cluster.id.clone(),
        data_path_port: cluster.data_path_port,
        node: own.clone(),
        nodes: state.nodes.values().cloned().collect(),
        networks: state.networks.values().cloned().collect(),
        services: state.services.values().cloned().collect(),
        tasks: state
            .tasks
            .values()
            .filter(|t| t.node.as_ref() == Some(node))
            .filter(|t| t.status.state >= crate::objects::TaskState::Assigned)
            .filter(|t| !t.status.state.is_terminal())
            .cloned()
            .collect(),
        endpoints: state
            .endpoints
            .values()
            .filter(|e| e.node == *node)
            .cloned()
            .collect(),
        peers: state.peers.values().cloned().collect(),
        gossip_keys: state
            .secrets
            .as_ref()
            .map(|s| s.gossip_keys.clone())
            .unwrap_or_default(),
    })
}
