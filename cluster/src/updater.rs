//! Replaces the tasks of a service that changed, slot after slot: what the next step is follows from
//! the tasks there are and how long they have waited, not from what was done before.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::id::{NodeId, ServiceId, TaskId};
use weft_model::objects::{
    FailureAction, PublishMode, Service, Task, TaskState, UpdateConfig, UpdateOrder, UpdateState,
    UpdateStatus,
};

use super::conditions::{is_active, is_global, is_wanted};
use super::filters::Demands;
use super::index::Key;
use super::object::ObjectId;
use super::progress::{
    has_failed, ingress_of, is_current, is_stopping, ran_for, start_limit, stop_limit,
};
use super::state::ClusterState;
use super::waits::Waits;

/// Docker's words for what somebody asked for.
pub(super) const BY_HAND: &str = "manually requested rollback";

/// Where a task of a service is: its slot, or its node where there is one on each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// From 1; 0 of a global service.
    pub(super) slot: u32,
    /// Of a global service alone.
    pub(super) node: Option<NodeId>,
}

impl Place {
    pub(super) fn of(task: &Task) -> Self {
        Self {
            slot: task.slot,
            node: task.node.clone().filter(|_| task.slot == 0),
        }
    }
}

/// What is to be done about one service now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Tasks that are to stop.
    pub(super) stop: BTreeSet<TaskId>,
    /// Where a new task is to run beside an old one.
    pub(super) start: Vec<Place>,
    /// The update is over, or goes no further.
    pub(super) outcome: Option<Outcome>,
}

/// What becomes of an update.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This is how far it is.
    Status(UpdateStatus),
    /// Too many new tasks failed, the last of them this one.
    RollBack(TaskId),
}

/// Tasks in one place.
#[derive(Debug, Default)]
struct Slot<'a> {
    /// Wanted ones that are what the service says.
    current: Vec<&'a Task>,
    /// Wanted ones that are not.
    old: Vec<&'a Task>,
    /// One that is told to stop has not.
    stopping: bool,
    /// The last one of this update that failed.
    failure: Option<&'a Task>,
}

/// How far a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its tasks are old.
    Old,
    /// It is worked on.
    Busy,
    /// Its new task failed, and nobody waits for it.
    Failed,
    /// Its new task runs and is watched.
    Settling,
    /// Nothing is left to do.
    Done,
}

impl<'a> Slot<'a> {
    fn running(&self) -> Option<&'a Task> {
        let mut current = self.current.iter();
        current
            .find(|t| t.status.state == TaskState::Running)
            .copied()
    }

    /// Tasks that another one has taken the place of.
    fn superseded(&self) -> impl Iterator<Item = &'a Task> {
        let running = self.running();
        let all = self.old.iter().chain(&self.current).copied();
        all.filter(move |task| running.is_some_and(|running| running.id != task.id))
    }

    /// A new task that was given its time and does not run.
    fn late(&self, policy: &UpdateConfig, waits: &Waits) -> Option<&'a Task> {
        if self.running().is_some() {
            return None;
        }
        let late = |task: &&&Task| {
            let waited = waits.waited(&ObjectId::Task(task.id.clone()));
            let is_over = start_limit(policy, task).is_some_and(|limit| waited >= limit);
            is_active(task) && task.desired == TaskState::Running && is_over
        };
        self.current.iter().find(late).copied()
    }

    fn phase(&self, status: &UpdateStatus, policy: &UpdateConfig, waits: &Waits) -> Phase {
        if let Some(running) = self.running() {
            let waited = waits.waited(&ObjectId::Task(running.id.clone()));
            let watched = policy.failure_action != FailureAction::Continue;
            return if running.spec_version < status.spec_version {
                Phase::Done
            } else if waited < policy.delay {
                Phase::Busy
            } else if watched && waited < policy.watched() {
                Phase::Settling
            } else {
                Phase::Done
            };
        }
        if self.failure.is_some() || self.late(policy, waits).is_some() {
            return Phase::Failed;
        }
        if self.current.iter().any(|task| is_active(task)) {
            return Phase::Busy;
        }
        if !self.current.is_empty() {
            // It ended as it should, or long after it was watched.
            return Phase::Done;
        }
        if !self.old.is_empty() {
            return Phase::Old;
        }
        Phase::Busy
    }

    /// Old tasks that run are replaced last but for those that found no node: what is broken is to
    /// be mended first.
    fn turn(&self) -> u8 {
        let furthest = self.old.iter().map(|task| task.status.state).max();
        match furthest {
            Some(TaskState::Running) => 1,
            Some(state) if state < TaskState::Assigned => 2,
            _ => 0,
        }
    }
}

/// The places of a service. Of a global one, nodes that take no tasks now, or that have not called,
/// are left as they are; those that may have none of its tasks any more are not worked on.
fn slots<'a>(
    state: &'a ClusterState,
    service: &Service,
    waits: &Waits,
) -> BTreeMap<Place, Slot<'a>> {
    let ingress = ingress_of(state, service);
    let watched = service.policy().watched();
    let since = service.update_status.as_ref().map(|s| s.spec_version);
    let global = is_global(service);
    let demands = Demands::of(&service.spec.task);
    let mut slots: BTreeMap<Place, Slot<'a>> = BTreeMap::new();
    for task in state.tasks_of(&service.id) {
        let node = task.node.as_ref().and_then(|id| state.nodes.get(id));
        if global && !node.is_some_and(|node| waits.takes_tasks(node) && demands.fit(node)) {
            continue;
        }
        let slot = slots.entry(Place::of(task)).or_default();
        let current = is_current(state, service, ingress.as_ref(), task);
        if is_wanted(task) {
            let tasks = if current {
                &mut slot.current
            } else {
                &mut slot.old
            };
            tasks.push(task);
        } else if is_stopping(state, task) {
            let waited = waits.waited(&ObjectId::Task(task.id.clone()));
            slot.stopping |= waited < stop_limit(task);
        }
        let of_this = since.is_some_and(|since| task.spec_version >= since);
        let early = ran_for(task).is_none_or(|ran| ran <= watched);
        let newer = slot.failure.is_none_or(|last| age(last) < age(task));
        if current && of_this && has_failed(task) && early && newer {
            slot.failure = Some(task);
        }
    }
    slots.retain(|_, slot| !slot.current.is_empty() || !slot.old.is_empty() || slot.stopping);
    slots
}

/// Later ones are larger.
fn age(task: &Task) -> (u64, &TaskId) {
    (task.meta.updated_at, &task.id)
}

/// Which task of a slot comes first. Two with ports of their node do not fit on one, so these are
/// stopped first whatever is asked for.
pub(super) fn order(service: &Service) -> UpdateOrder {
    let mut ports = service.spec.endpoint.ports.iter();
    if ports.any(|port| port.mode == PublishMode::Host) {
        return UpdateOrder::StopFirst;
    }
    service.policy().order
}

/// Places whose next task waits until the old one has ended.
pub(super) fn held(state: &ClusterState, service: &Service, waits: &Waits) -> BTreeSet<Place> {
    let status = service.update_status.as_ref();
    let active = status.is_some_and(|status| status.state.is_active());
    if !active || order(service) == UpdateOrder::StartFirst {
        return BTreeSet::new();
    }
    let slots = slots(state, service, waits);
    let waiting = slots
        .into_iter()
        .filter(|(_, slot)| slot.stopping && slot.current.is_empty() && slot.old.is_empty());
    waiting.map(|(place, _)| place).collect()
}

/// Services with an update that is not over.
pub(super) fn under_way(state: &ClusterState) -> Vec<ServiceId> {
    let services = state.services_at(Key::Updating);
    services.map(|service| service.id.clone()).collect()
}

/// Places with a task that is not what the service says, and the tasks in them.
pub(super) fn outdated<'a>(
    state: &'a ClusterState,
    service: &Service,
) -> (BTreeSet<Place>, Vec<&'a Task>) {
    let ingress = ingress_of(state, service);
    let tasks = state.tasks_of(&service.id);
    let old: Vec<&Task> = tasks
        .filter(|task| is_wanted(task) && !is_current(state, service, ingress.as_ref(), task))
        .collect();
    (old.iter().map(|task| Place::of(task)).collect(), old)
}

/// The status of a service that was just changed, by how many places are to be worked on; nothing
/// where that is none, unless it is a rollback. A job begins another run instead.
pub(super) fn begin(
    state: &ClusterState,
    service: &Service,
    now: u64,
    kind: UpdateState,
    message: &str,
) -> Option<UpdateStatus> {
    let places = outdated(state, service).0.len();
    if service.spec.mode.is_job() || (places == 0 && !kind.is_rollback()) {
        return None;
    }
    Some(UpdateStatus {
        state: kind,
        started_at: now,
        completed_at: None,
        message: message.to_owned(),
        spec_version: state.next_version(&ObjectId::Service(service.id.clone())),
        slots: u32::try_from(places).unwrap_or(u32::MAX),
        failed: None,
    })
}

/// What is to be done now about the tasks of a service whose update is not over.
pub(super) fn step(state: &ClusterState, service: &Service, now: u64, waits: &Waits) -> Step {
    let slots = slots(state, service, waits);
    let mut step = Step::default();
    let superseded = slots.values().flat_map(|slot| slot.superseded());
    step.stop.extend(superseded.map(|task| task.id.clone()));
    let status = service.update_status.as_ref();
    let Some(status) = status.filter(|status| status.state.is_active()) else {
        return step;
    };
    let policy = service.policy();
    if let Some(failed) = too_many_failures(&slots, status, policy, waits) {
        let back = policy.failure_action == FailureAction::Rollback
            && !status.state.is_rollback()
            && service.previous_spec.is_some();
        step.outcome = Some(if back {
            Outcome::RollBack(failed.id.clone())
        } else {
            Outcome::Status(paused(service, status, failed))
        });
        return step;
    }
    let mut busy = 0;
    let mut watched = 0;
    let mut old: Vec<(&Place, &Slot<'_>)> = Vec::new();
    for (place, slot) in &slots {
        match slot.phase(status, policy, waits) {
            Phase::Busy => busy += 1,
            Phase::Settling => watched += 1,
            Phase::Old => old.push((place, slot)),
            Phase::Failed | Phase::Done => {}
        }
    }
    if old.is_empty() && busy == 0 && watched == 0 {
        let left = slots.values().flat_map(|slot| &slot.old);
        step.stop.extend(left.map(|task| task.id.clone()));
        step.outcome = Some(Outcome::Status(completed(status, now)));
        return step;
    }
    let room = match policy.parallelism {
        0 => usize::MAX,
        n => (n as usize).saturating_sub(busy),
    };
    old.sort_by_key(|(place, slot)| (slot.turn(), *place));
    for (place, slot) in old.into_iter().take(room) {
        replace(&mut step, service, place, slot);
    }
    step
}

/// The new task comes beside the old one, or after it: then the slot is filled once that has ended.
fn replace(step: &mut Step, service: &Service, place: &Place, slot: &Slot<'_>) {
    let mut old = slot.old.iter();
    let runs = old.any(|task| task.status.state == TaskState::Running);
    if runs && order(service) == UpdateOrder::StartFirst {
        step.start.push(place.clone());
    } else {
        step.stop
            .extend(slot.old.iter().map(|task| task.id.clone()));
    }
}

/// The last failed task, where more failed than may.
fn too_many_failures<'a>(
    slots: &BTreeMap<Place, Slot<'a>>,
    status: &UpdateStatus,
    policy: &UpdateConfig,
    waits: &Waits,
) -> Option<&'a Task> {
    if policy.failure_action == FailureAction::Continue {
        return None;
    }
    let late = |slot: &Slot<'a>| {
        let late = slot.late(policy, waits);
        late.filter(|task| task.spec_version >= status.spec_version)
    };
    let failures = slots.values();
    let failures = failures.filter_map(|slot| slot.failure.or_else(|| late(slot)));
    let failures: Vec<&Task> = failures.collect();
    let places = (status.slots as usize).max(1);
    let exceeded = policy.max_failure_ratio.is_exceeded(failures.len(), places);
    let failures = failures.into_iter().filter(|_| exceeded);
    failures.max_by(|a, b| age(a).cmp(&age(b)))
}

fn completed(status: &UpdateStatus, now: u64) -> UpdateStatus {
    let (state, message) = if status.state.is_rollback() {
        (UpdateState::RollbackCompleted, "rollback completed")
    } else {
        (UpdateState::Completed, "update completed")
    };
    UpdateStatus {
        state,
        completed_at: Some(now),
        message: message.to_owned(),
        ..status.clone()
    }
}

/// Docker's sentence, the task's own words, and what to do.
fn paused(service: &Service, status: &UpdateStatus, failed: &Task) -> UpdateStatus {
    let name = &service.spec.name;
    let (state, what, next) = if status.state.is_rollback() {
        (
            UpdateState::RollbackPaused,
            "rollback",
            "mend it and go on with \"weft service update --force",
        )
    } else {
        (
            UpdateState::Paused,
            "update",
            "go back with \"weft service rollback",
        )
    };
    let why = reason(failed);
    UpdateStatus {
        state,
        message: format!(
            "{what} paused due to failure or early termination of task {}: {why}; see \"weft \
             service ps {name}\", then {next} {name}\"",
            failed.id
        ),
        failed: Some(failed.id.clone()),
        ..status.clone()
    }
}

/// What a rollback begins with.
pub(super) fn rolled_back(failed: &TaskId) -> String {
    format!("update rolled back due to failure or early termination of task {failed}")
}

/// The status of an update that should go back and cannot.
pub(super) fn stuck(
    state: &ClusterState,
    service: &Service,
    failed: &TaskId,
    why: &str,
) -> Option<UpdateStatus> {
    let status = service.update_status.as_ref()?;
    let mut paused = paused(service, status, state.tasks.get(failed)?);
    let message = format!("; it was not rolled back: {why}");
    paused.message.push_str(&message);
    Some(paused)
}

fn reason(failed: &Task) -> String {
    let status = &failed.status;
    if !status.err.is_empty() {
        status.err.clone()
    } else if status.state.is_terminal() {
        "it ended".to_owned()
    } else {
        "it did not run in time".to_owned()
    }
}
