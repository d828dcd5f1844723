//! Where a task stands in an update of its service, and what it waits for there.

use std::time::Duration;

use weft_model::id::NetworkId;
use weft_model::objects::{RestartCondition, Service, Task, TaskState, UpdateConfig};

use super::conditions::{is_active, is_away};
use super::filters::fits;
use super::state::ClusterState;

/// An old task may take this long to stop, or its grace period, before the next one starts all the
/// same (Swarm's choice).
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// The network that tasks of the service need for its published ports.
pub(super) fn ingress_of(state: &ClusterState, service: &Service) -> Option<NetworkId> {
    let published = !service.spec.endpoint.ports.is_empty();
    let ingress = state.ingress().filter(|_| published);
    ingress.map(|network| network.id.clone())
}

/// True for a task that is what the service says now, and can serve its ports; `ingress` as
/// [`ingress_of`] the service. Where tasks may run is no part of what they are, as long as the node of
/// this one is among it.
pub(super) fn is_current(
    state: &ClusterState,
    service: &Service,
    ingress: Option<&NetworkId>,
    task: &Task,
) -> bool {
    let attached = ingress.is_none_or(|id| task.attachments.iter().any(|a| a.network == *id));
    // Addresses are still to come for a task that is new.
    let late = task.status.state < TaskState::Pending;
    let spec = &service.spec.task;
    let may_stay = || {
        let node = task.node.as_ref().and_then(|id| state.nodes.get(id));
        task.spec.runs_as(spec) && node.is_none_or(|node| fits(node, spec))
    };
    (task.spec == *spec || may_stay())
        && task.job_iteration == service.job_status.map(|status| status.job_iteration)
        && task.spec_version >= service.endpoint.host_ports_since
        && (attached || late)
}

/// True for a task that was told to stop and has not, on a node that may still say that it has.
pub(super) fn is_stopping(state: &ClusterState, task: &Task) -> bool {
    let node = task.node.as_ref().and_then(|id| state.nodes.get(id));
    task.desired == TaskState::Shutdown
        && !task.status.state.is_terminal()
        && task.status.state >= TaskState::Assigned
        && node.is_some_and(|node| !is_away(node))
}

/// True for a task that ended and should not have: who stops because somebody asked is no failure.
pub(super) fn has_failed(task: &Task) -> bool {
    match task.status.state {
        TaskState::Failed | TaskState::Rejected => true,
        TaskState::Complete => task.spec.restart.condition == RestartCondition::Any,
        _ => false,
    }
}

/// How long a task that ended had run, by the managers' clock; nothing where it never did.
pub(super) fn ran_for(task: &Task) -> Option<Duration> {
    let since = task.status.running_since?;
    Some(Duration::from_millis(
        task.meta.updated_at.saturating_sub(since),
    ))
}

/// What a task of a service under update waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// It was told to stop, and its slot waits for its end.
    Stop,
    /// It is new, and is to run.
    Start,
    /// It is new, runs, and is watched.
    Settle,
}

impl Wait {
    /// Of a service without an update under way, no task waits.
    pub(super) fn of(
        state: &ClusterState,
        service: &Service,
        ingress: Option<&NetworkId>,
        task: &Task,
    ) -> Option<Self> {
        let status = service.update_status.as_ref()?;
        if !status.state.is_active() {
            return None;
        }
        if is_stopping(state, task) {
            return Some(Self::Stop);
        }
        let new = is_active(task)
            && task.desired == TaskState::Running
            && is_current(state, service, ingress, task);
        if !new {
            return None;
        }
        match task.status.state {
            TaskState::Running if task.spec_version >= status.spec_version => Some(Self::Settle),
            TaskState::Running => None,
            _ => Some(Self::Start),
        }
    }

    /// Time of day at which it began, in Unix milliseconds.
    pub(super) fn since(self, task: &Task) -> u64 {
        match self {
            Self::Stop => task.meta.updated_at,
            Self::Start => task.meta.created_at,
            Self::Settle => task.status.running_since.unwrap_or(task.status.since),
        }
    }

    /// When something is to be done about it, measured from there.
    pub(super) fn limits(self, service: &Service, task: &Task) -> impl Iterator<Item = Duration> {
        let policy = service.policy();
        let limits = match self {
            Self::Stop => [Some(stop_limit(task)), None],
            Self::Start => [start_limit(policy, task), None],
            Self::Settle => [Some(policy.delay), Some(policy.watched())],
        };
        limits.into_iter().flatten()
    }
}

/// How long after it was made a new task counts as failed where it does not run; nothing without a
/// limit.
pub(super) fn start_limit(policy: &UpdateConfig, task: &Task) -> Option<Duration> {
    let timeout = Some(policy.timeout).filter(|time| !time.is_zero())?;
    let delay = task.spec.restart.delay;
    // It may have waited for that before it was to run.
    Some(if delay < timeout {
        timeout
    } else {
        timeout.saturating_add(delay)
    })
}

/// How long the end of an old task is waited for.
pub(super) fn stop_limit(task: &Task) -> Duration {
    task.spec.container.stop_grace.max(STOP_TIMEOUT)
}
