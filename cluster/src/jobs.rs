//! Services whose tasks are to end with success: what a run of one still lacks (SwarmKit's
//! `orchestrator/jobs`).
//!
//! Slots are numbered from 1, as those of replicas. SwarmKit begins with 0, and so names the first
//! task by its node.

use std::collections::{BTreeMap, BTreeSet};

use weft_model::id::{NodeId, TaskId};
use weft_model::objects::{JobStatus, Service, ServiceMode, Task, TaskState, Version};

use super::conditions::is_wanted;
use super::state::ClusterState;

/// Tasks of a job that are to go, and slots that are to get one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lack {
    /// They have not ended, and nobody wants their result any more.
    pub(super) unwanted: BTreeSet<TaskId>,
    /// They have ended, in an earlier run.
    pub(super) past: BTreeSet<TaskId>,
    /// Slots, of services that have some, from the lowest.
    pub(super) slots: Vec<u32>,
}

/// The run that a job is at; nothing of a service that is none.
fn iteration(service: &Service) -> Option<Version> {
    service.job_status.map(|status| status.job_iteration)
}

/// Begins the next run of a service, if it is a job; `now` in Unix milliseconds.
pub(super) fn begin(service: &mut Service, now: u64) {
    if !service.spec.mode.is_job() {
        return;
    }
    let before = iteration(service).map_or(0, |version| version.index);
    service.job_status = Some(JobStatus {
        job_iteration: Version { index: before + 1 },
        last_execution: now,
    });
}

/// Tasks of the run that a job is at.
fn current<'a>(
    state: &'a ClusterState,
    service: &Service,
) -> impl Iterator<Item = &'a Task> + use<'a> {
    let run = iteration(service);
    let tasks = state.tasks_of(&service.id);
    tasks.filter(move |task| is_wanted(task) && task.job_iteration == run)
}

/// What a job lacks; at most so many tasks at once.
pub(super) fn lack(state: &ClusterState, service: &Service, at_once: usize) -> Lack {
    let mut lack = Lack::default();
    let run = iteration(service);
    for task in state.tasks_of(&service.id) {
        if is_wanted(task) && task.job_iteration != run {
            let ended = task.status.state.is_terminal();
            let list = if ended {
                &mut lack.past
            } else {
                &mut lack.unwanted
            };
            list.insert(task.id.clone());
        }
    }
    let ServiceMode::ReplicatedJob {
        max_concurrent,
        total_completions,
    } = service.spec.mode
    else {
        return lack;
    };
    let mut taken: BTreeSet<u32> = BTreeSet::new();
    let mut active: BTreeMap<u32, &Task> = BTreeMap::new();
    let mut completed = 0;
    for task in current(state, service) {
        taken.insert(task.slot);
        match task.status.state {
            TaskState::Complete => completed += 1,
            state if !state.is_terminal() => {
                active.insert(task.slot, task);
            }
            // It failed and is not tried again: its slot stays with it.
            _ => {}
        }
    }
    // More are at work than there is left to do: the highest slots stop.
    let left = (total_completions as usize).saturating_sub(completed);
    let surplus = active.values().skip(left);
    lack.unwanted.extend(surplus.map(|task| task.id.clone()));
    let untaken = (total_completions as usize).saturating_sub(taken.len());
    let room = (max_concurrent as usize).saturating_sub(active.len());
    let free = (1..=u32::MAX).filter(|slot| !taken.contains(slot));
    lack.slots = free.take(untaken.min(room).min(at_once)).collect();
    lack
}

/// Nodes with a task of the run that a job is at which ended with success; none of a service that is no
/// job.
pub(super) fn done_on(state: &ClusterState, service: &Service) -> BTreeSet<NodeId> {
    if !service.spec.mode.is_job() {
        return BTreeSet::new();
    }
    let tasks = current(state, service);
    let done = tasks.filter(|task| task.status.state == TaskState::Complete);
    done.filter_map(|task| task.node.clone()).collect()
}

/// Tasks of the run that a job is at which ended with success; 0 of a service that is none.
pub(super) fn completed(state: &ClusterState, service: &Service) -> u32 {
    if !service.spec.mode.is_job() {
        return 0;
    }
    let tasks = current(state, service);
    let done = tasks.filter(|task| task.status.state == TaskState::Complete);
    u32::try_from(done.count()).unwrap_or(u32::MAX)
}
