//! Chooses nodes for pending tasks: spread, with Swarm's order of comparison.

use weft_model::id::{NodeId, ServiceId, TaskId};
use weft_model::objects::{
    Availability, NodeState, PortSpec, PublishMode, Service, Task, TaskState,
};

use super::conditions::is_carried;
use super::draft::Draft;
use super::index::Key;
use super::ports::collide;
use super::state::ClusterState;
use super::waits::Waits;

/// This many failures of a service on a node put the node last for that service…
const FAILURES: usize = 5;
/// … while they are not older than this many milliseconds.
const FAILURE_WINDOW_MS: u64 = 5 * 60 * 1000;

fn host_ports(service: &Service) -> impl Iterator<Item = &PortSpec> {
    let ports = service.endpoint.ports.iter();
    ports.filter(|p| p.mode == PublishMode::Host)
}

fn plural(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    }
}

/// A node while tasks are being placed.
#[derive(Debug)]
struct Candidate {
    id: NodeId,
    /// Tasks that it has to carry.
    total: usize,
    /// Those of the service in turn.
    of_service: usize,
    /// What failed there of that service, lately.
    failed: Vec<TaskId>,
    /// It has no room for a port of that service.
    port_taken: bool,
    eligible: bool,
    /// It would be eligible, were it not impaired.
    impaired: bool,
}

impl Candidate {
    fn keeps_failing(&self, state: &ClusterState, task: &Task) -> bool {
        if self.failed.len() < FAILURES {
            return false;
        }
        let failed = self.failed.iter().filter_map(|id| state.tasks.get(id));
        failed.filter(|failed| failed.spec == task.spec).count() >= FAILURES
    }
}

/// All nodes by id, as one service after the other sees them.
#[derive(Debug)]
struct Candidates {
    all: Vec<Candidate>,
    /// The service in turn.
    service: Option<ServiceId>,
    has_host_ports: bool,
    /// Why a task of that service that may run anywhere found no node.
    nowhere: Option<String>,
}

impl Candidates {
    fn new(state: &ClusterState, waits: &Waits) -> Self {
        let all = state.nodes.values().map(|node| {
            let would = node.status.state == NodeState::Ready
                && node.spec.availability == Availability::Active
                && waits.is_heard(node);
            Candidate {
                id: node.id.clone(),
                total: state.index().load(&node.id),
                of_service: 0,
                failed: Vec::new(),
                port_taken: false,
                eligible: waits.takes_tasks(node),
                impaired: would,
            }
        });
        Self {
            all: all.collect(),
            service: None,
            has_host_ports: false,
            nowhere: None,
        }
    }

    fn find(&self, node: &NodeId) -> Option<usize> {
        self.all.binary_search_by(|c| c.id.cmp(node)).ok()
    }

    fn on(&mut self, task: &Task) -> Option<&mut Candidate> {
        let at = self.find(task.node.as_ref()?)?;
        self.all.get_mut(at)
    }

    /// The next task is one of this service.
    fn turn_to(&mut self, state: &ClusterState, service: &ServiceId, now: u64) {
        if self.service.as_ref() == Some(service) {
            return;
        }
        self.service = Some(service.clone());
        self.nowhere = None;
        for candidate in &mut self.all {
            candidate.of_service = 0;
            candidate.failed.clear();
            candidate.port_taken = false;
        }
        for task in state.tasks_of(service) {
            let Some(candidate) = self.on(task) else {
                continue;
            };
            candidate.of_service += usize::from(is_carried(task));
            if matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
                && now.saturating_sub(task.status.since) <= FAILURE_WINDOW_MS
            {
                candidate.failed.push(task.id.clone());
            }
        }
        let ports = state.services.get(service).into_iter();
        let ports: Vec<&PortSpec> = ports.flat_map(host_ports).collect();
        self.has_host_ports = !ports.is_empty();
        for port in ports {
            let others = state.services_at(Key::Port(port.published));
            let others = others.filter(|other| host_ports(other).any(|p| collide(p, port)));
            for task in others.flat_map(|other| state.tasks_of(&other.id)) {
                if is_carried(task)
                    && let Some(candidate) = self.on(task)
                {
                    candidate.port_taken = true;
                }
            }
        }
    }

    /// The best node for a task of the service in turn, by its place.
    fn choose(&mut self, state: &ClusterState, task: &Task) -> Result<usize, String> {
        if let Some(node) = &task.node {
            let at = self.find(node);
            let only = at.map_or(0..0, |at| at..at + 1);
            return self.best(state, task, only);
        }
        if let Some(why) = &self.nowhere {
            return Err(why.clone());
        }
        let chosen = self.best(state, task, 0..self.all.len());
        if let Err(why) = &chosen {
            self.nowhere = Some(why.clone());
        }
        chosen
    }

    fn best(
        &self,
        state: &ClusterState,
        task: &Task,
        among: std::ops::Range<usize>,
    ) -> Result<usize, String> {
        let (mut unavailable, mut impaired, mut port_taken) = (0, 0, 0);
        let mut best: Option<((bool, usize, usize), usize)> = None;
        for (at, candidate) in among.clone().zip(self.all.get(among).unwrap_or_default()) {
            if !candidate.eligible {
                impaired += usize::from(candidate.impaired);
                unavailable += usize::from(!candidate.impaired);
                continue;
            }
            if candidate.port_taken {
                port_taken += 1;
                continue;
            }
            let rank = (
                candidate.keeps_failing(state, task),
                candidate.of_service,
                candidate.total,
            );
            // Strictly less: among equals the smallest node id stays.
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, at));
            }
        }
        if let Some((_, at)) = best {
            return Ok(at);
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

    /// A task of the service in turn goes to the node at that place.
    fn place(&mut self, at: usize) -> Option<NodeId> {
        let candidate = self.all.get_mut(at)?;
        candidate.total += 1;
        candidate.of_service += 1;
        candidate.port_taken = self.has_host_ports;
        Some(candidate.id.clone())
    }
}

/// Places every pending task that is wanted now; explains on the task why it cannot.
pub(super) fn schedule(draft: &mut Draft<'_>, waits: &Waits) {
    let mut pending: Vec<&Task> = draft.state.tasks_at(Key::Unplaced).collect();
    if pending.is_empty() {
        return;
    }
    pending.sort_by_key(|t| (t.meta.created_at, t.service.clone(), t.slot, t.id.clone()));
    let pending: Vec<TaskId> = pending.into_iter().map(|t| t.id.clone()).collect();
    let mut candidates = Candidates::new(&draft.state, waits);
    for id in pending {
        let Some(mut task) = draft.state.tasks.get(&id).cloned() else {
            continue;
        };
        candidates.turn_to(&draft.state, &task.service, draft.now);
        let chosen = candidates.choose(&draft.state, &task);
        match chosen {
            Ok(at) => {
                let Some(node) = candidates.place(at) else {
                    continue;
                };
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
