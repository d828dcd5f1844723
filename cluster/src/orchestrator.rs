//! Turns services and nodes into tasks, level-triggered: [`reconcile`] looks at what should be and
//! what is, never at what just happened, and changes what does not fit.
//!
//! What is left to do about one object is in lists of the index, which every pass reads. What
//! depends on several objects (a task on its service, the tasks of a service on its nodes) is looked
//! at again when one of them has changed ([`Dirty`]).

use std::cell::LazyCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use weft_model::id::{NodeId, ServiceId, TaskId};
use weft_model::objects::{
    Availability, Meta, NodeState, Service, ServiceMode, Task, TaskState, TaskStatus, UpdateState,
};

use super::conditions::{is_global, is_updating, is_wanted, should_restart};
use super::dirty::Dirty;
use super::draft::{Draft, Entropy};
use super::filters::Demands;
use super::index::Key;
use super::object::{Change, ObjectId};
use super::progress::{ingress_of, is_current};
use super::respec::respec;
use super::state::ClusterState;
use super::updater::{self, Outcome, Place};
use super::waits::{IMPAIRED_GRACE_MS, ORPHAN_AFTER_MS, Waits};
use super::{allocator, ending, enforcer, jobs, keys, rebalance, rotation, scheduler};

/// Tasks that one pass makes for one service at most: what a pass changes is one transaction, and
/// the manager does nothing else meanwhile. The next pass makes the rest.
const TASKS_PER_PASS: usize = 1000;

/// Ended tasks of one slot that are remembered for the sake of its restart policy at most.
const KEPT_ATTEMPTS: usize = 20;

/// The changes that bring tasks in line with services and nodes; empty at the fixpoint.
///
/// `since` is the state of an earlier pass whose changes, if any, are in this one; a pass looks at
/// what is different from it, and comes to the same as one that looks at everything. That is what it
/// does where there is no such state, or one too far back. `now` in Unix milliseconds, for what is
/// written down; how long something has waited, and who has not called, is in `waits`, which have
/// looked at this very state.
/// Call again at [`Waits::next_deadline`] and after every change.
#[must_use]
pub fn reconcile(
    state: &ClusterState,
    since: Option<&ClusterState>,
    now: u64,
    waits: &Waits,
    entropy: &mut Entropy,
) -> Vec<Change> {
    let mut dirty = Dirty::since(since, state);
    dirty.nodes.extend(waits.called().iter().cloned());
    let mut draft = Draft::new(state, now, entropy);
    remove_unwanted(&mut draft, &dirty);
    leave_lost_nodes(&mut draft, &dirty, waits);
    enforcer::enforce(&mut draft, &dirty);
    orphan(&mut draft, &dirty, waits);
    restart(&mut draft, waits);
    rebalance::turn(&mut draft, waits);
    dirty.add(draft.changed(), state, &draft.state);
    replicate_and_globalise(&mut draft, &dirty, waits);
    // Of a slot that is empty an update knows nothing.
    update(&mut draft, waits);
    start_delayed(&mut draft, waits);
    keys::turn(&mut draft, waits);
    rotation::turn(&mut draft, waits);
    dirty.add(draft.changed(), state, &draft.state);
    reap(&mut draft, &dirty);
    forget_ended_services(&mut draft);
    ending::forget_ended(&mut draft);
    allocator::allocate(&mut draft);
    scheduler::schedule(&mut draft, waits);
    draft.into_changes()
}

fn set_desired(draft: &mut Draft<'_>, ids: impl IntoIterator<Item = TaskId>, desired: TaskState) {
    for id in ids {
        if let Some(mut task) = draft.state.tasks.get(&id).cloned()
            && task.desired != desired
        {
            task.desired = desired;
            draft.put(task);
        }
    }
}

fn ids<'a>(tasks: impl Iterator<Item = &'a Task>) -> BTreeSet<TaskId> {
    tasks.map(|task| task.id.clone()).collect()
}

/// Tasks of deleted services go.
fn remove_unwanted(draft: &mut Draft<'_>, dirty: &Dirty) {
    let state = &draft.state;
    let of_deleted = dirty.services.iter();
    let of_deleted = of_deleted.filter(|id| !state.services.contains_key(id));
    let tasks = of_deleted.flat_map(|id| state.tasks_of(id));
    let tasks = tasks.chain(dirty.tasks(state));
    let unwanted = ids(tasks
        .filter(|t| t.desired != TaskState::Remove && !state.services.contains_key(&t.service)));
    set_desired(draft, unwanted, TaskState::Remove);
}

/// Nodes that lost their tasks for good or for now: these are replaced elsewhere at once. From one
/// that carries no traffic they move after a while, and only where another one can take them: what
/// serves its own node still serves somebody. Nodes that are gone are not told.
fn lost_nodes(state: &ClusterState, waits: &Waits) -> BTreeSet<NodeId> {
    let grace = Duration::from_millis(IMPAIRED_GRACE_MS);
    let elsewhere = LazyCell::new(|| state.nodes.values().any(|node| waits.takes_tasks(node)));
    let lost = state.nodes_at(Key::Away).filter(|n| {
        n.status.state == NodeState::Down
            || n.spec.availability == Availability::Drain
            || (n.status.impaired.is_some()
                && waits.waited(&ObjectId::Node(n.id.clone())) >= grace
                && *elsewhere)
    });
    lost.map(|n| n.id.clone()).collect()
}

fn leave_lost_nodes(draft: &mut Draft<'_>, dirty: &Dirty, waits: &Waits) {
    let state = &draft.state;
    let lost = lost_nodes(state, waits);
    let on_lost = lost.iter().chain(dirty.gone_nodes(state));
    let tasks = on_lost.flat_map(|id| state.tasks_at(Key::WantedOn(id.clone())));
    let misplaced = dirty.tasks(state).filter(|t| {
        let node = t.node.as_ref().filter(|_| is_wanted(t));
        node.is_some_and(|id| lost.contains(id) || !state.nodes.contains_key(id))
    });
    // A task that ended by itself and is not to be restarted has nothing to lose.
    let leaving = tasks.chain(misplaced);
    let leaving = ids(leaving.filter(|t| !t.status.state.is_terminal() || should_restart(t)));
    set_desired(draft, leaving, TaskState::Shutdown);
}

/// Tasks whose node was removed, or is down for a day, will never report again.
fn orphan(draft: &mut Draft<'_>, dirty: &Dirty, waits: &Waits) {
    let (state, now) = (&draft.state, draft.now);
    let limit = Duration::from_millis(ORPHAN_AFTER_MS);
    let long_down = state.nodes_at(Key::Away).filter(|n| {
        n.status.state == NodeState::Down && waits.waited(&ObjectId::Node(n.id.clone())) >= limit
    });
    let left = long_down.map(|n| &n.id).chain(dirty.gone_nodes(state));
    let tasks = left.flat_map(|id| state.tasks_on(id));
    let homeless = dirty.tasks(state).filter(|t| {
        let node = t.node.as_ref();
        node.is_some_and(|id| !state.nodes.contains_key(id))
    });
    let gone = tasks.chain(homeless);
    let gone = ids(gone.filter(|t| !t.status.state.is_terminal()));
    for id in gone {
        if let Some(mut task) = draft.state.tasks.get(&id).cloned() {
            let removed = task
                .node
                .as_ref()
                .is_none_or(|n| !draft.state.nodes.contains_key(n));
            task.status = TaskStatus {
                state: TaskState::Orphaned,
                since: now,
                message: "task is orphaned".to_owned(),
                err: if removed {
                    "Task belonged to a node that has been deleted".to_owned()
                } else {
                    "the node of the task has been down for 24 hours".to_owned()
                },
                ..TaskStatus::default()
            };
            draft.put(task);
        }
    }
}

/// Replaces wanted tasks that ended; one that shall not be restarted stays and keeps its slot.
fn restart(draft: &mut Draft<'_>, waits: &Waits) {
    let ended = ids(draft.state.tasks_at(Key::Ended));
    let mut filled = Filled::default();
    for id in ended {
        let Some(task) = draft.state.tasks.get(&id).cloned() else {
            continue;
        };
        set_desired(draft, [id], TaskState::Shutdown);
        let Some(service) = draft.state.services.get(&task.service).cloned() else {
            continue;
        };
        // Of an earlier run of a job nobody waits for anything.
        if task.job_iteration != service.job_status.map(|status| status.job_iteration) {
            continue;
        }
        if is_global(&service) {
            let demands = Demands::of(&service.spec.task);
            let eligible = task
                .node
                .as_ref()
                .and_then(|n| draft.state.nodes.get(n))
                .is_some_and(|node| waits.takes_tasks(node) && demands.fit(node));
            if !eligible {
                continue;
            }
        }
        if is_updating(&service) && !filled.takes(&draft.state, &service, &task) {
            continue;
        }
        let delayed = !service.spec.task.restart.delay.is_zero();
        let desired = if delayed {
            TaskState::Ready
        } else {
            goal(service.spec.mode)
        };
        let restarts = restarts_of(&task, &service, draft.now);
        let node = is_global(&service).then_some(task.node).flatten();
        let next = create(draft, &service, task.slot, node, desired);
        remember(draft, &next, restarts);
    }
}

/// When tasks of a slot were replaced, once `ended` is too: as many as the policy counts. What is made
/// of something else begins anew.
fn restarts_of(ended: &Task, service: &Service, now: u64) -> Vec<u64> {
    let counted = service.spec.task.restart.max_attempts;
    if counted == 0 || !ended.spec.runs_as(&service.spec.task) {
        return Vec::new();
    }
    let mut restarts = ended.restarts.clone();
    restarts.push(now);
    let counted = usize::try_from(counted).unwrap_or(usize::MAX);
    restarts.drain(..restarts.len().saturating_sub(counted));
    restarts
}

fn remember(draft: &mut Draft<'_>, id: &TaskId, restarts: Vec<u64>) {
    if !restarts.is_empty()
        && let Some(mut task) = draft.state.tasks.get(id).cloned()
    {
        task.restarts = restarts;
        draft.put(task);
    }
}

/// What is wanted of a task once it may start.
fn goal(mode: ServiceMode) -> TaskState {
    if mode.is_job() {
        TaskState::Complete
    } else {
        TaskState::Running
    }
}

/// Places of services under update, and how many wanted tasks that are what the service says each has;
/// each service is looked at once.
#[derive(Default)]
struct Filled(BTreeMap<ServiceId, BTreeMap<Place, usize>>);

impl Filled {
    /// Whether the place of a task that ended, and is wanted no more, gets another one: then it has it
    /// from now on.
    fn takes(&mut self, state: &ClusterState, service: &Service, ended: &Task) -> bool {
        let ingress = ingress_of(state, service);
        let is_current = |task: &Task| is_current(state, service, ingress.as_ref(), task);
        let place = Place::of(ended);
        let tasks = match self.0.entry(service.id.clone()) {
            Entry::Occupied(known) => {
                let tasks = known.into_mut();
                // It was counted when the first one of the service was asked for.
                if is_current(ended)
                    && let Some(count) = tasks.get_mut(&place)
                {
                    *count = count.saturating_sub(1);
                }
                tasks
            }
            Entry::Vacant(new) => {
                let mut tasks = BTreeMap::new();
                let current = state.tasks_of(&service.id);
                for task in current.filter(|task| is_wanted(task) && is_current(task)) {
                    *tasks.entry(Place::of(task)).or_default() += 1;
                }
                new.insert(tasks)
            }
        };
        let count = tasks.entry(place).or_default();
        let takes = *count == 0;
        *count += usize::from(takes);
        takes
    }
}

/// The next step of each update.
fn update(draft: &mut Draft<'_>, waits: &Waits) {
    for id in updater::under_way(&draft.state) {
        let Some(service) = draft.state.services.get(&id).cloned() else {
            continue;
        };
        let step = updater::step(&draft.state, &service, draft.now, waits);
        set_desired(draft, step.stop, TaskState::Shutdown);
        for place in step.start {
            create(draft, &service, place.slot, place.node, TaskState::Running);
        }
        match step.outcome {
            None => {}
            Some(Outcome::Status(status)) => draft.put(Service {
                update_status: Some(status),
                ..service
            }),
            Some(Outcome::RollBack(failed)) => roll_back(draft, &service, &failed),
        }
    }
}

/// The service is what it was before its update; its tasks follow one after the other.
fn roll_back(draft: &mut Draft<'_>, service: &Service, failed: &TaskId) {
    let Some(previous) = service.previous_spec.as_deref() else {
        return;
    };
    let back = Service {
        spec: previous.clone(),
        previous_spec: None,
        ..service.clone()
    };
    let back = match respec(draft, service, back) {
        Ok(mut back) => {
            let message = updater::rolled_back(failed);
            let kind = UpdateState::RollbackStarted;
            back.update_status = updater::begin(&draft.state, &back, draft.now, kind, &message);
            back
        }
        // Somebody else has its port by now, or its address.
        Err(error) => Service {
            update_status: updater::stuck(&draft.state, service, failed, &error.message),
            ..service.clone()
        },
    };
    enforcer::put_and_adopt(draft, back);
}

fn create(
    draft: &mut Draft<'_>,
    service: &Service,
    slot: u32,
    node: Option<NodeId>,
    desired: TaskState,
) -> TaskId {
    let task = Task {
        id: TaskId::from_entropy(draft.entropy.next_u128()),
        meta: Meta::default(),
        service: service.id.clone(),
        service_name: service.spec.name.clone(),
        slot,
        node,
        spec_version: service.meta.version,
        job_iteration: service.job_status.map(|status| status.job_iteration),
        spec: Arc::clone(&service.spec.task),
        attachments: Vec::new(),
        desired,
        status: TaskStatus {
            since: draft.now,
            message: "created".to_owned(),
            ..TaskStatus::default()
        },
        restarts: Vec::new(),
    };
    let id = task.id.clone();
    draft.put(task);
    id
}

/// As many tasks as services ask for. Of a service that is as it was, only nodes that are not may
/// lack one.
fn replicate_and_globalise(draft: &mut Draft<'_>, dirty: &Dirty, waits: &Waits) {
    let mut whole = dirty.services.clone();
    // An old task has ended there, or has had its time.
    whole.extend(updater::under_way(&draft.state));
    let mut services = whole.clone();
    if !dirty.nodes.is_empty() {
        let global = draft.state.services_at(Key::Global);
        services.extend(global.map(|service| service.id.clone()));
    }
    for id in services {
        let Some(service) = draft.state.services.get(&id).cloned() else {
            continue;
        };
        let held = updater::held(&draft.state, &service, waits);
        if service.spec.mode.is_job() {
            run_job(draft, &service);
        }
        match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicate(draft, &service, replicas, &held),
            ServiceMode::ReplicatedJob { .. } => {}
            ServiceMode::Global | ServiceMode::GlobalJob => {
                let mut nodes = if whole.contains(&id) {
                    without_task(&draft.state, &id)
                } else {
                    let runs_on = |node: &&NodeId| {
                        let key = Key::WantedOn(NodeId::clone(node));
                        draft.state.tasks_at(key).any(|task| task.service == id)
                    };
                    let others = dirty.nodes.iter().filter(|node| !runs_on(node));
                    others.cloned().collect()
                };
                renew(draft, &service, dirty, waits);
                nodes.retain(|node| held.iter().all(|place| place.node.as_ref() != Some(node)));
                globalise(draft, &service, nodes, waits);
            }
        }
    }
}

/// A node that took no tasks while the service was updated stops its old one once it takes some; the
/// next pass makes a new one there.
fn renew(draft: &mut Draft<'_>, service: &Service, dirty: &Dirty, waits: &Waits) {
    if is_updating(service) || service.spec.mode.is_job() {
        return;
    }
    let state = &draft.state;
    let ingress = ingress_of(state, service);
    let demands = Demands::of(&service.spec.task);
    let nodes = dirty.nodes.iter().filter_map(|id| state.nodes.get(id));
    let tasks = nodes
        .filter(|node| waits.takes_tasks(node) && demands.fit(node))
        .flat_map(|node| state.tasks_at(Key::WantedOn(node.id.clone())));
    let old = ids(tasks.filter(|task| {
        task.service == service.id && !is_current(state, service, ingress.as_ref(), task)
    }));
    set_desired(draft, old, TaskState::Shutdown);
}

/// What is left of earlier runs goes, and slots get their tasks.
fn run_job(draft: &mut Draft<'_>, service: &Service) {
    let lack = jobs::lack(&draft.state, service, TASKS_PER_PASS);
    set_desired(draft, lack.unwanted, TaskState::Remove);
    set_desired(draft, lack.past, TaskState::Shutdown);
    for slot in lack.slots {
        create(draft, service, slot, None, TaskState::Complete);
    }
}

/// Nodes that no task of the service is wanted on.
fn without_task(state: &ClusterState, service: &ServiceId) -> Vec<NodeId> {
    let wanted = state.tasks_of(service).filter(|t| is_wanted(t));
    let covered: BTreeSet<&NodeId> = wanted.filter_map(|t| t.node.as_ref()).collect();
    let others = state.nodes.keys().filter(|id| !covered.contains(id));
    others.cloned().collect()
}

/// Slots 1..=n. Too many: the slots go whose nodes have most copies, those not running first,
/// the highest numbers first. Those that are held wait for the end of an old task.
fn replicate(draft: &mut Draft<'_>, service: &Service, replicas: u32, held: &BTreeSet<Place>) {
    let mut slots: BTreeMap<u32, Vec<&Task>> = BTreeMap::new();
    for task in draft.state.tasks_of(&service.id).filter(|t| is_wanted(t)) {
        slots.entry(task.slot).or_default().push(task);
    }
    let have = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    if have < replicas {
        let lacking = ((replicas - have) as usize).saturating_sub(held.len());
        let is_held = |slot: &u32| held.iter().any(|place| place.slot == *slot);
        let free: Vec<u32> = (1..=u32::MAX)
            .filter(|slot| !slots.contains_key(slot) && !is_held(slot))
            .take(lacking.min(TASKS_PER_PASS))
            .collect();
        for slot in free {
            create(draft, service, slot, None, TaskState::Running);
        }
    } else if have > replicas {
        let surplus = choose_surplus(&slots, replicas as usize);
        let tasks = draft.state.tasks_of(&service.id);
        let unwanted = ids(tasks.filter(|t| surplus.contains(&t.slot)));
        set_desired(draft, unwanted, TaskState::Remove);
    }
}

fn choose_surplus(slots: &BTreeMap<u32, Vec<&Task>>, keep: usize) -> BTreeSet<u32> {
    let is_running = |tasks: &[&Task]| tasks.iter().any(|t| t.status.state == TaskState::Running);
    let node = |tasks: &[&Task]| tasks.iter().find_map(|t| t.node.clone());
    let mut copies: BTreeMap<Option<NodeId>, usize> = BTreeMap::new();
    let mut order = Vec::with_capacity(slots.len());
    for running in [true, false] {
        for (slot, tasks) in slots.iter().filter(|(_, t)| is_running(t) == running) {
            let copy = copies.entry(node(tasks)).or_default();
            order.push((!running, *copy, *slot));
            *copy += 1;
        }
    }
    order.sort_unstable();
    order
        .into_iter()
        .skip(keep)
        .map(|(_, _, slot)| slot)
        .collect()
}

/// One task on each of these nodes that takes tasks and meets what the service asks for; a paused or
/// unheard-of node keeps what it has.
fn globalise(draft: &mut Draft<'_>, service: &Service, nodes: Vec<NodeId>, waits: &Waits) {
    let demands = Demands::of(&service.spec.task);
    for node in nodes {
        let known = draft.state.nodes.get(&node);
        if known.is_some_and(|node| waits.takes_tasks(node) && demands.fit(node)) {
            create(draft, service, 0, Some(node), goal(service.spec.mode));
        }
    }
}

/// A task that waits for its restart delay is wanted `Ready`.
fn start_delayed(draft: &mut Draft<'_>, waits: &Waits) {
    let due = ids(draft.state.tasks_at(Key::Delayed).filter(|t| {
        let delay = t.spec.restart.delay;
        waits.waited(&ObjectId::Task(t.id.clone())) >= delay
    }));
    for id in due {
        let service = draft.state.tasks.get(&id).map(|task| &task.service);
        let service = service.and_then(|id| draft.state.services.get(id));
        let desired = service.map_or(TaskState::Running, |service| goal(service.spec.mode));
        set_desired(draft, [id], desired);
    }
}

/// Forgets tasks: unwanted ones that no node ever saw, ended ones that shall be removed, and what
/// is older than the history of its slot.
fn reap(draft: &mut Draft<'_>, dirty: &Dirty) {
    let state = &draft.state;
    let settings = state.cluster.as_ref().map(|c| c.spec.orchestration.clone());
    let limit = settings.unwrap_or_default().task_history_retention_limit as usize;
    let mut dead = ids(state.tasks_at(Key::Dead));
    let grown = dirty
        .tasks(state)
        .filter(|t| !is_wanted(t) && t.status.state.is_terminal());
    let grown: BTreeSet<Key> = grown.map(Key::history_of).collect();
    for history in grown {
        let mut tasks: Vec<&Task> = state.tasks_at(history).collect();
        tasks.sort_by_key(|t| std::cmp::Reverse((t.meta.created_at, t.status.since, &t.id)));
        let attempts = tasks.first().map_or(0, |t| t.spec.restart.max_attempts);
        // As in Swarm: one that gives up after so many shows all of them.
        let attempts = usize::try_from(attempts).unwrap_or(usize::MAX);
        let limit = limit.max(attempts.min(KEPT_ATTEMPTS));
        dead.extend(tasks.iter().skip(limit).map(|t| t.id.clone()));
    }
    for id in dead {
        draft.delete(ObjectId::Task(id));
    }
}

/// Removed services stay while one of their tasks may still have connections.
fn forget_ended_services(draft: &mut Draft<'_>) {
    let state = &draft.state;
    let has_tasks = |id: &ServiceId| {
        let mut tasks = state.tasks_of(id);
        tasks.any(|t| !t.status.state.is_terminal())
    };
    let ended: Vec<ServiceId> = state
        .ending
        .keys()
        .filter(|id| !has_tasks(id))
        .cloned()
        .collect();
    for id in ended {
        draft.delete(ObjectId::Ending(id));
    }
}
