//! Why a service has not what it asks for: what its tasks wait for, and the way out.

use std::collections::BTreeMap;

use weft_model::objects::{Service, TaskState};

use super::conditions::{is_active, is_eligible, is_global};
use super::state::ClusterState;

/// What to do where no node takes a task.
const NODES: &str = "\"weft node ls\" shows the nodes: make one active or ready, or let another one \
                     join";

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
                format!("{tasks}: {why}; {NODES}")
            } else {
                format!("{tasks}: {why}")
            }
        })
        .collect();
    if is_global(service) && !state.nodes.values().any(is_eligible) {
        told.push(format!("no node takes new tasks; {NODES}"));
    }
    told
}
