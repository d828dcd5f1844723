//! Where the volumes of a slot are that it is to stay with (`volume-sticky=true`).
//!
//! A home is what a node has reported: a task of the slot was prepared there, and that made the volume.
//! It is kept with the service, and not looked up in the slot's tasks, as those are forgotten. It ends
//! with the service; where its node is gone, with the next `service update --force`; and where none of
//! its volumes is mounted any more, with the next home of the slot.

use weft_model::id::NodeId;
use weft_model::objects::{Home, Mount, MountType, Service, Task, TaskSpec, TaskState};

use super::draft::Draft;
use super::index::{Key, folded};
use super::state::ClusterState;

/// Sources, as they are written, of the volumes that tasks are to stay with.
fn sticky(spec: &TaskSpec) -> impl Iterator<Item = &str> {
    let is_sticky = |mount: &&Mount| {
        let options = mount.volume_options.as_ref();
        mount.kind == MountType::Volume && options.is_some_and(|options| options.sticky)
    };
    let mounts = spec.container.mounts.iter().filter(is_sticky);
    mounts.map(|mount| mount.source.as_str())
}

/// Whether a task is to stay where it is.
pub(super) fn stays(task: &Task) -> bool {
    task.slot > 0 && sticky(&task.spec).next().is_some()
}

/// The home of a task's slot, if it has one.
fn home<'a>(service: &'a Service, task: &Task) -> Option<&'a Home> {
    let home = service.homes.iter().find(|home| home.slot == task.slot)?;
    let mut volumes = sticky(&task.spec);
    volumes
        .any(|volume| home.volumes.iter().any(|kept| kept == volume))
        .then_some(home)
}

/// Where a task may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Wherever it fits.
    Anywhere,
    /// To this node alone.
    Home(NodeId),
    /// Its home is no node of the cluster any more: why, and the way out.
    Gone(String),
}

/// Where the volumes of a task are. A node that left and joined again has another id, and still its
/// disk: the only one of the name is taken for it.
pub(super) fn place(state: &ClusterState, task: &Task) -> Place {
    let service = state.services.get(&task.service);
    let home = service
        .filter(|_| stays(task))
        .and_then(|service| home(service, task));
    let Some(home) = home else {
        return Place::Anywhere;
    };
    if state.nodes.contains_key(&home.node) {
        return Place::Home(home.node.clone());
    }
    let mut named = state.nodes_at(Key::Name(folded(&home.hostname)));
    if let (Some(node), None) = (named.next(), named.next()) {
        return Place::Home(node.id.clone());
    }
    Place::Gone(format!(
        "volume {} of {}.{} is on node {} ({}), which is not part of the swarm any more: let it join \
         again, or begin with an empty volume on another node: weft service update --force {}",
        home.volumes.join(", "),
        task.service_name,
        task.slot,
        home.hostname,
        home.node.short(),
        task.service_name
    ))
}

/// What is said of a task that its home does not take.
pub(super) fn waits_for_home(state: &ClusterState, home: &NodeId, why: &str) -> String {
    let node = state.nodes.get(home);
    let name = node.map_or(home.as_str(), |node| node.description.hostname.as_str());
    format!("{why}; its volume is on node {name}, and volume-sticky keeps it there")
}

/// True of a task that was prepared on its node, by what it has become.
fn was_prepared(state: TaskState) -> bool {
    matches!(
        state,
        TaskState::Ready
            | TaskState::Starting
            | TaskState::Running
            | TaskState::Complete
            | TaskState::Failed
    )
}

/// Takes in that a task, as its node has just reported, has its volumes there. The first node of a slot
/// stays its home, with the volumes that the slot has now.
pub(super) fn note(draft: &mut Draft<'_>, task: &Task) {
    if !stays(task) || !was_prepared(task.status.state) {
        return;
    }
    let (Some(service), Some(node)) = (draft.state.services.get(&task.service), &task.node) else {
        return;
    };
    let volumes: Vec<String> = sticky(&task.spec).map(str::to_owned).collect();
    if let Some(known) = home(service, task) {
        // Of an update that gives the slot other volumes; one that goes has those of before it.
        let changed =
            known.node == *node && known.volumes != volumes && task.desired < TaskState::Shutdown;
        // A node that is gone: another one of its name took its place.
        let moved = known.node != *node && !draft.state.nodes.contains_key(&known.node);
        if !(changed || moved) {
            return;
        }
    }
    let Some(hostname) = draft.state.nodes.get(node) else {
        return;
    };
    let new = Home {
        slot: task.slot,
        node: node.clone(),
        hostname: hostname.description.hostname.clone(),
        volumes,
    };
    let mut service = service.clone();
    service.homes.retain(|home| home.slot != task.slot);
    service.homes.push(new);
    service.homes.sort_by_key(|home| home.slot);
    draft.put(service);
}

/// An update by force begins anew where a home is no node any more.
pub(super) fn forget_lost(state: &ClusterState, before: &TaskSpec, service: &mut Service) {
    if service.spec.task.force_update == before.force_update {
        return;
    }
    service
        .homes
        .retain(|home| state.nodes.contains_key(&home.node));
}
