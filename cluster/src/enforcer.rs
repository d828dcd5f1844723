//! Tasks whose node is not any more what they may run on (SwarmKit's `constraintenforcer`).

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_model::id::TaskId;
use weft_model::objects::{Availability, Node, Resources, Service, Task, TaskState};

use super::conditions::{is_active, is_global, uses_resources};
use super::dirty::Dirty;
use super::draft::Draft;
use super::filters::{fits, reserved};
use super::index::Key;
use super::progress::{ingress_of, is_current};
use super::state::ClusterState;

/// Stops tasks whose node no longer meets what they ask for: labels, role, address or machine have
/// changed. Whoever counts tasks replaces them. A paused node keeps what it has, and what is on a
/// drained one leaves anyway.
pub(super) fn enforce(draft: &mut Draft<'_>, dirty: &Dirty) {
    let state = &draft.state;
    let changed = dirty.nodes.iter();
    let on_changed = changed.flat_map(|id| state.tasks_at(Key::WantedOn(id.clone())));
    let services = dirty
        .services
        .iter()
        .filter_map(|id| state.services.get(id));
    let everywhere = services.filter(|service| is_global(service));
    let everywhere = everywhere.flat_map(|service| state.tasks_of(&service.id));
    let tasks = on_changed.chain(everywhere).chain(dirty.tasks(state));
    let misplaced = tasks.filter(|task| is_active(task) && is_misplaced(state, task));
    let mut rejected: BTreeSet<TaskId> = misplaced.map(|task| task.id.clone()).collect();
    let nodes = dirty.nodes.iter().filter_map(|id| state.nodes.get(id));
    rejected.extend(nodes.flat_map(|node| surplus(state, node)));
    for id in rejected {
        if let Some(mut task) = draft.state.tasks.get(&id).cloned() {
            task.desired = TaskState::Shutdown;
            "task rejected by constraint enforcer".clone_into(&mut task.status.message);
            "assigned node no longer meets constraints".clone_into(&mut task.status.err);
            draft.put(task);
        }
    }
}

fn is_misplaced(state: &ClusterState, task: &Task) -> bool {
    let node = task.node.as_ref().and_then(|id| state.nodes.get(id));
    let Some(node) = node.filter(|node| node.spec.availability == Availability::Active) else {
        return false;
    };
    // What a service with a task on each node asks for says on which nodes there is one. One of many
    // replicas goes by what it was placed by; whoever updates the service replaces it.
    let service = state.services.get(&task.service);
    let service = service.filter(|service| is_global(service));
    let spec = service.map_or(&*task.spec, |service| &*service.spec.task);
    !fits(node, spec)
}

/// The newest tasks of a node whose machine has less than is reserved for all of them.
fn surplus(state: &ClusterState, node: &Node) -> Vec<TaskId> {
    let room = node.description.resources;
    let known = !room.is_empty() && node.spec.availability == Availability::Active;
    if !known || state.index().load(&node.id).reserved.fits(room) {
        return Vec::new();
    }
    let wanted = state.tasks_at(Key::WantedOn(node.id.clone()));
    let mut tasks: Vec<&Task> = wanted
        .filter(|task| is_active(task) && uses_resources(task))
        .filter(|task| !reserved(&task.spec).is_empty())
        .collect();
    tasks.sort_by_key(|task| (task.meta.created_at, &task.id));
    let mut used = Resources::default();
    tasks.retain(|task| {
        let with = used.plus(reserved(&task.spec));
        let stays = with.fits(room);
        if stays {
            used = with;
        }
        !stays
    });
    tasks.into_iter().map(|task| task.id.clone()).collect()
}

/// Puts a service that was changed. A change of where tasks may run is no change of what runs: tasks
/// that have no node yet, or one that meets what the service asks for now, are from now on what it
/// says, and go on.
pub(super) fn put_and_adopt(draft: &mut Draft<'_>, service: Service) {
    let id = service.id.clone();
    draft.put(service);
    let Some(service) = draft.state.services.get(&id).cloned() else {
        return;
    };
    let state = &draft.state;
    let ingress = ingress_of(state, &service);
    let adopted: Vec<Task> = state
        .tasks_of(&id)
        .filter(|task| is_active(task) && task.spec != service.spec.task)
        .filter(|task| is_current(state, &service, ingress.as_ref(), task))
        .cloned()
        .collect();
    for mut task in adopted {
        task.spec = Arc::clone(&service.spec.task);
        task.spec_version = service.meta.version;
        draft.put(task);
    }
}
