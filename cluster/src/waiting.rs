//! Why a service has not what it asks for: what its tasks wait for, and the way out.

use std::collections::BTreeMap;

use weft_model::objects::{RestartCondition, Service, Task, TaskState};

use super::conditions::{is_active, is_eligible, is_global, is_wanted};
use super::filters::{Demands, fits};
use super::state::ClusterState;

/// What to do where no node takes a task.
const NODES: &str = "\"weft node ls\" shows the nodes: make one active or ready, or let another one \
                     join";
/// What to do where nodes are not what is asked for.
const CONSTRAINTS: &str = "\"weft node inspect\" shows what a node is: label one with \"weft node update \
                           --label-add\", or change the constraints";
/// What to do where nodes are full.
const RESOURCES: &str =
    "ask for less (--reserve-cpu, --reserve-memory), make room, or let another node join";
/// What to do where nodes run no containers.
const RUNTIME: &str = "install crun or runc there and restart weftd (\"weft doctor\" says what it found), or \
                       run a program of the node with the image `host`";

/// Tasks that ended once more than the restart policy allows.
fn given_up(state: &ClusterState, service: &Service) -> Option<String> {
    let ended = |task: &&Task| {
        // A part of a job that has ended with success is no failure.
        let failed = task.status.state != TaskState::Complete
            || (task.spec.restart.condition == RestartCondition::Any
                && task.job_iteration.is_none());
        is_wanted(task)
            && task.status.state.is_terminal()
            && failed
            && task.spec.restart.condition != RestartCondition::None
            && !task.has_attempts_left()
    };
    let tasks: Vec<&Task> = state.tasks_of(&service.id).filter(ended).collect();
    let last = tasks.iter().max_by_key(|task| task.meta.updated_at)?;
    let many = if tasks.len() == 1 { "task" } else { "tasks" };
    let why = match last.status.err.as_str() {
        "" => String::new(),
        err => format!(" (the last one: {err})"),
    };
    let name = &service.spec.name;
    Some(format!(
        "{} {many} ended and will not be started again, as --restart-max-attempts {} is reached{why}; \
         mend what ends, then \"weft service update --force {name}\"",
        tasks.len(),
        last.spec.restart.max_attempts
    ))
}

/// A sentence for each thing that tasks of a service wait for, for people; none while nothing waits.
#[must_use]
pub fn waiting(state: &ClusterState, service: &Service) -> Vec<String> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let tasks = state.tasks_of(&service.id);
    for task in tasks.filter(|t| is_active(t) && t.status.state < TaskState::Assigned) {
        if !task.status.err.is_empty() {
            *reasons.entry(&task.status.err).or_default() += 1;
        }
    }
    let mut told: Vec<String> = reasons
        .into_iter()
        .map(|(why, count)| {
            let tasks = match count {
                1 => "1 task waits".to_owned(),
                n => format!("{n} tasks wait"),
            };
            if why.starts_with("no suitable node") {
                format!("{tasks}: {why}; {}", way_out(why))
            } else {
                format!("{tasks}: {why}")
            }
        })
        .collect();
    told.extend(given_up(state, service));
    if is_global(service) {
        let demands = Demands::of(&service.spec.task);
        let mut nodes = state
            .nodes
            .values()
            .filter(|node| is_eligible(node))
            .peekable();
        if nodes.peek().is_none() {
            told.push(format!("no node takes new tasks; {NODES}"));
        } else if !nodes.any(|node| demands.fit(node)) {
            // Of those that are what it asks for otherwise.
            let mut without = state
                .nodes
                .values()
                .filter(|node| is_eligible(node) && fits(node, &service.spec.task));
            told.push(if without.any(|node| !demands.have_runtime_on(node)) {
                format!("no node that may run the service has a container runtime; {RUNTIME}")
            } else {
                format!("no node meets the constraints and platforms of the service; {CONSTRAINTS}")
            });
        }
    }
    told
}

/// What helps against what kept most nodes away.
fn way_out(why: &str) -> &'static str {
    let first = why.split(';').next().unwrap_or_default();
    if first.contains("scheduling constraints") {
        CONSTRAINTS
    } else if first.contains("insufficient resources") {
        RESOURCES
    } else if first.contains("no container runtime") {
        RUNTIME
    } else {
        NODES
    }
}
