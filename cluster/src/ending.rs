//! Networks that were removed while tasks that are to stop still used them (`PendingDelete` of
//! swarmkit): nobody new comes onto them, and they go with the last of these tasks.

use weft_model::id::NetworkId;
use weft_model::objects::{EndingService, Network, NodeState, Task};

use super::conditions::{holds_addresses, is_wanted};
use super::draft::Draft;
use super::index::Key;
use super::object::ObjectId;
use super::state::ClusterState;

/// An unwanted task on a node that is down: the node ends it when it returns, with or without the
/// network. Its addresses stay reserved until then.
fn waits_for_its_node(state: &ClusterState, task: &Task) -> bool {
    let node = task.node.as_ref().and_then(|id| state.nodes.get(id));
    !is_wanted(task) && node.is_some_and(|n| n.status.state == NodeState::Down)
}

/// True while a task needs the network, wanted or not.
pub(super) fn is_held(state: &ClusterState, network: &NetworkId) -> bool {
    let mut tasks = state.tasks_at(Key::Network(network.clone()));
    tasks.any(|task| holds_addresses(task) && !waits_for_its_node(state, task))
}

/// Forgets a network, with all that was made for it.
pub(super) fn forget(draft: &mut Draft<'_>, id: &NetworkId) {
    let state = draft.state.clone();
    let here = || Key::Network(id.clone());
    for peer in state.peers_at(here()) {
        draft.delete(ObjectId::Peer(peer.id.clone()));
    }
    // What waits for a dead node to return will find that its network is gone.
    for task in state.tasks_at(here()) {
        let mut task = task.clone();
        task.attachments.retain(|a| a.network != *id);
        draft.put(task);
    }
    let on = |s: &&EndingService| s.vips.iter().any(|v| v.network == *id);
    for service in state.ending.values().filter(on) {
        let mut service = service.clone();
        service.vips.retain(|v| v.network != *id);
        draft.put(service);
    }
    draft.delete(ObjectId::Cursor(id.clone()));
    draft.delete(ObjectId::Network(id.clone()));
}

/// Forgets networks that ended.
pub(super) fn forget_ended(draft: &mut Draft<'_>) {
    let state = &draft.state;
    let ending = state.networks_at(Key::Ending);
    let ended = ending.filter(|network| !is_held(state, &network.id));
    let ended: Vec<NetworkId> = ended.map(|network| network.id.clone()).collect();
    for id in ended {
        forget(draft, &id);
    }
}

/// A network that goes on, of those that somebody may have found by an id.
pub(super) fn lasting(network: Option<&Network>) -> Option<&Network> {
    network.filter(|network| !network.ending)
}
