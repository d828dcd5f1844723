//! Chooses nodes for pending tasks: spread, with Swarm's order of comparison.

use std::collections::BTreeMap;

use weft_model::id::{NodeId, TaskId};
use weft_model::objects::{
    Availability, NodeState, PortSpec, PublishMode, Service, ServiceSpec, Task, TaskState,
};

use super::conditions::{is_active, is_eligible, same_program};
use super::draft::Draft;
use super::ports::collide;
use super::state::ClusterState;

/// This many failures of a service on a node put the node last for that service…
const FAILURES: usize = 5;
/// … while they are not older than this many milliseconds.
const FAILURE_WINDOW_MS: u64 = 5 * 60 * 1000;

fn host_ports<'a>(state: &'a ClusterState, task: &Task) -> impl Iterator<Item = &'a PortSpec> {
    state
        .services
        .get(&task.service)
        .into_iter()
        .flat_map(|s: &Service| &s.ports)
        .filter(|p| p.mode == PublishMode::Host)
}

fn plural(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    }
}

/// Load of the nodes while tasks are being placed.
#[derive(Debug, Default)]
struct Load {
    total: BTreeMap<NodeId, usize>,
    of_service: BTreeMap<(weft_model::id::ServiceId, NodeId), usize>,
    ports: BTreeMap<NodeId, Vec<PortSpec>>,
    /// What failed lately, by service and node.
    failed: BTreeMap<(weft_model::id::ServiceId, NodeId), Vec<ServiceSpec>>,
}

impl Load {
    fn new(state: &ClusterState, now: u64) -> Self {
        let mut load = Self::default();
        for task in state.tasks.values() {
            if let Some(node) = &task.node
                && matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
                && now.saturating_sub(task.status.since) <= FAILURE_WINDOW_MS
            {
                let key = (task.service.clone(), node.clone());
                load.failed.entry(key).or_default().push(task.spec.clone());
            }
            if let (Some(node), true, true) = (
                &task.node,
                is_active(task),
                task.status.state >= TaskState::Assigned,
            ) {
                load.add(state, task, node);
            }
        }
        load
    }

    fn add(&mut self, state: &ClusterState, task: &Task, node: &NodeId) {
        *self.total.entry(node.clone()).or_default() += 1;
        let key = (task.service.clone(), node.clone());
        *self.of_service.entry(key).or_default() += 1;
        for port in host_ports(state, task) {
            let taken = self.ports.entry(node.clone()).or_default();
            taken.push(port.clone());
        }
    }

    fn keeps_failing(&self, key: &(weft_model::id::ServiceId, NodeId), spec: &ServiceSpec) -> bool {
        let failed = self.failed.get(key).map_or(&[][..], Vec::as_slice);
        failed.iter().filter(|s| same_program(s, spec)).count() >= FAILURES
    }
}

/// Places every pending task that is wanted now; explains on the task why it cannot.
pub(super) fn schedule(draft: &mut Draft<'_>) {
    let mut pending: Vec<&Task> = draft
        .state
        .tasks
        .values()
        .filter(|t| t.status.state == TaskState::Pending && t.desired == TaskState::Running)
        .collect();
    if pending.is_empty() {
        return;
    }
    pending.sort_by_key(|t| (t.meta.created_at, t.service.clone(), t.slot, t.id.clone()));
    let pending: Vec<TaskId> = pending.into_iter().map(|t| t.id.clone()).collect();
    let mut load = Load::new(&draft.state, draft.now);
    for id in pending {
        let Some(mut task) = draft.state.tasks.get(&id).cloned() else {
            continue;
        };
        match choose(&draft.state, &load, &task) {
            Ok(node) => {
                load.add(&draft.state, &task, &node);
                task.status.message = if task.node.is_some() {
                    "scheduler confirmed task can run on preassigned node".to_owned()
                } else {
                    "scheduler assigned task to node".to_owned()
                };
                task.node = Some(node);
                task.status.state = TaskState::Assigned;
                task.status.err.clear();
                task.status.since = draft.now;
                draft.put(task);
            }
            Err(why) if why != task.status.err => {
                task.status.message = "pending task scheduling".to_owned();
                task.status.err = why;
                draft.put(task);
            }
            Err(_) => {}
        }
    }
}

fn choose(state: &ClusterState, load: &Load, task: &Task) -> Result<NodeId, String> {
    let candidates = state
        .nodes
        .values()
        .filter(|n| task.node.as_ref().is_none_or(|wanted| n.id == *wanted));
    let (mut unavailable, mut impaired, mut port_taken) = (0, 0, 0);
    let mut best: Option<((bool, usize, usize), &NodeId)> = None;
    for node in candidates {
        if !is_eligible(node) {
            let would = node.state == NodeState::Ready && node.availability == Availability::Active;
            impaired += usize::from(would);
            unavailable += usize::from(!would);
            continue;
        }
        if host_ports(state, task).any(|p| {
            let taken = load.ports.get(&node.id);
            taken.is_some_and(|taken| taken.iter().any(|t| collide(t, p)))
        }) {
            port_taken += 1;
            continue;
        }
        let key = (task.service.clone(), node.id.clone());
        let rank = (
            load.keeps_failing(&key, &task.spec),
            load.of_service.get(&key).copied().unwrap_or(0),
            load.total.get(&node.id).copied().unwrap_or(0),
        );
        // Strictly less: among equals the smallest node id stays.
        if best.is_none_or(|(least, _)| rank < least) {
            best = Some((rank, &node.id));
        }
    }
    if let Some((_, node)) = best {
        return Ok(node.clone());
    }
    let mut why = Vec::new();
    if unavailable > 0 {
        why.push(plural(
            unavailable,
            "node not available for new tasks",
            "nodes not available for new tasks",
        ));
    }
    if impaired > 0 {
        why.push(plural(impaired, "node impaired", "nodes impaired"));
    }
    if port_taken > 0 {
        let nodes = plural(port_taken, "node", "nodes");
        why.push(format!("host-mode port already in use on {nodes}"));
    }
    Err(match why.as_slice() {
        [] => "no suitable node".to_owned(),
        _ => format!("no suitable node ({})", why.join("; ")),
    })
}
