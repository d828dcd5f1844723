//! Where one object stands, as far as it says so by itself. Commands, passes and the index ask the
//! same questions.

use weft_model::objects::{
    Availability, Node, NodeState, RestartCondition, Role, Service, Task, TaskState,
};

/// True when new tasks may be placed on the node, as far as the state knows it.
pub(super) fn is_eligible(node: &Node) -> bool {
    node.status.state == NodeState::Ready
        && node.spec.availability == Availability::Active
        && node.status.impaired.is_none()
}

/// True when the node's tasks are to go elsewhere, now or after a while.
pub(super) fn is_away(node: &Node) -> bool {
    node.status.state == NodeState::Down
        || node.spec.availability == Availability::Drain
        || node.status.impaired.is_some()
}

/// True for a wanted task that has not ended.
pub(super) fn is_active(task: &Task) -> bool {
    is_wanted(task) && !task.status.state.is_terminal()
}

/// True while a task counts as load of its node.
pub(super) fn is_carried(task: &Task) -> bool {
    is_active(task) && task.status.state >= TaskState::Assigned
}

/// True while what is reserved for a task on its node is not free: also while it is being stopped.
pub(super) fn uses_resources(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !task.status.state.is_terminal()
}

/// True while the cluster wants the task in its slot.
pub(super) fn is_wanted(task: &Task) -> bool {
    task.is_wanted()
}

/// True when a task that ended is to be replaced.
pub(super) fn should_restart(task: &Task) -> bool {
    let asked_for = match task.spec.restart.condition {
        // A part of a job that has ended with success has done what it was to do.
        RestartCondition::Any => {
            task.job_iteration.is_none() || task.status.state != TaskState::Complete
        }
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        RestartCondition::None => false,
    };
    asked_for && task.has_attempts_left()
}

/// True while the task's addresses must not be given to anyone else. A task on a node that is down
/// may still run there, so only its end frees them.
pub(super) fn holds_addresses(task: &Task) -> bool {
    !task.status.state.is_terminal()
}

/// True while the task may yet use addresses: allocation is worth trying.
pub(super) fn wants_addresses(task: &Task) -> bool {
    task.status.state == TaskState::New && is_wanted(task)
}

/// True for a service with one task on each node.
pub(super) fn is_global(service: &Service) -> bool {
    service.spec.mode.is_global()
}

/// True while tasks of the service are replaced one after the other, or once that stopped halfway.
pub(super) fn is_updating(service: &Service) -> bool {
    let status = service.update_status.as_ref();
    status.is_some_and(|status| !status.state.is_over())
}

/// True for a node that the end of a rotation of the root waits for without a limit: it is not down, or
/// it is a manager.
pub(super) fn is_indispensable(node: &Node) -> bool {
    node.status.state != NodeState::Down || node.spec.role == Role::Manager
}
