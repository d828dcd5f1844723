//! A cluster that begins again from a backup.

use weft_model::id::NodeId;
use weft_model::objects::{Node, NodeState, Role};

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::state::ClusterState;
use super::node::{NodeDescription, join};

/// Whether packets and words for a node would reach the machine of `new`.
fn is_at(node: &Node, new: &NodeDescription) -> bool {
    let gossip = (node.status.addr, node.gossip_port) == (new.addr, new.gossip_port);
    gossip || node.data_path_addr == new.data_path_addr
}

/// Makes `id` the only manager of the state of a backup. Those of that time are workers that are
/// down: whichever of them comes back has no say here. So is a node whose addresses this one has.
/// Networks, services, tokens and all other nodes stay.
///
/// # Errors
/// It is no state of a cluster, or the description is not to be lived with.
pub fn restore(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    id: NodeId,
    description: &NodeDescription,
) -> Result<Planned<Node>, CommandError> {
    let mut draft = Draft::new(state, now, entropy);
    for node in state.nodes.values() {
        let is_manager = node.spec.role == Role::Manager;
        if !is_manager && !is_at(node, description) {
            continue;
        }
        let mut node = node.clone();
        node.spec.role = Role::Worker;
        node.manager_status = None;
        node.status.state = NodeState::Down;
        node.status.message = "not heard of since the swarm was restored from a backup".to_owned();
        node.status.impaired = None;
        draft.put(node);
    }
    let (state, mut changes) = (draft.state.clone(), draft.into_changes());
    let joined = join(&state, now, entropy, id, Role::Manager, description)?;
    changes.extend(joined.changes);
    Ok(Planned {
        changes,
        value: joined.value,
    })
}
