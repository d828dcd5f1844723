//! Chooses nodes for pending tasks: spread, with Swarm's order of comparison.

use std::sync::Arc;

use weft_model::id::{NodeId, ServiceId, TaskId};
use weft_model::objects::{
    Availability, Node, NodeState, PortSpec, PublishMode, Resources, Service, Task, TaskSpec,
    TaskState,
};

use super::conditions::is_carried;
use super::draft::Draft;
use super::filters::{Demands, Obstacle, Obstacles, reserved};
use super::homes::{self, Place};
use super::index::Key;
use super::ports::collide;
use super::spread::Spread;
use super::state::ClusterState;
#[cfg(test)]
use super::table::looks;
use super::waits::Waits;

/// This many failures of a service on a node put the node last for that service…
const FAILURES: usize = 5;
/// … while they are not older than this many milliseconds.
const FAILURE_WINDOW_MS: u64 = 5 * 60 * 1000;

fn host_ports(service: &Service) -> impl Iterator<Item = &PortSpec> {
    let ports = service.endpoint.ports.iter();
    ports.filter(|p| p.mode == PublishMode::Host)
}

/// A node while tasks are being placed.
#[derive(Debug)]
struct Candidate {
    id: NodeId,
    /// Tasks that it has to carry.
    total: usize,
    /// What is not reserved on it.
    free: Resources,
    /// It takes no new tasks, of whatever service.
    closed: Option<Obstacle>,
    /// Tasks of the service in turn that it has to carry.
    of_service: usize,
    /// What failed there of that service, lately.
    failed: Vec<TaskId>,
    /// That was often enough, of what is made of the same as in turn.
    keeps_failing: bool,
    /// It has no room for a port of that service.
    port_taken: bool,
    /// It is not what tasks as in turn may run on.
    unfit: Option<Obstacle>,
}

impl Candidate {
    fn new(state: &ClusterState, node: &Node, waits: &Waits) -> Self {
        let would = node.status.state == NodeState::Ready
            && node.spec.availability == Availability::Active
            && waits.is_heard(node);
        let load = state.index().load(&node.id);
        let why = if would {
            Obstacle::Impaired
        } else {
            Obstacle::Unavailable
        };
        Self {
            id: node.id.clone(),
            total: load.tasks,
            free: node.description.resources.minus(load.reserved),
            closed: (!waits.takes_tasks(node)).then_some(why),
            of_service: 0,
            failed: Vec::new(),
            keeps_failing: false,
            port_taken: false,
            unfit: None,
        }
    }

    fn has_failed_as(&self, state: &ClusterState, spec: &Arc<TaskSpec>) -> bool {
        if self.failed.len() < FAILURES {
            return false;
        }
        let failed = self.failed.iter().filter_map(|id| state.tasks.get(id));
        failed
            .filter(|failed| failed.spec == *spec)
            .take(FAILURES)
            .count()
            == FAILURES
    }

    /// The first thing that keeps a task as in turn away, in SwarmKit's order.
    fn obstacle(&self, spec: &TaskSpec) -> Option<Obstacle> {
        if self.closed.is_some() {
            return self.closed;
        }
        if !reserved(spec).fits(self.free) {
            return Some(Obstacle::Resources);
        }
        if self.unfit.is_some() {
            return self.unfit;
        }
        if self.port_taken {
            return Some(Obstacle::HostPort);
        }
        let most = spec.placement.max_replicas as usize;
        (most != 0 && self.of_service >= most).then_some(Obstacle::MaxReplicas)
    }
}

/// What nodes are compared by; the least is the best, and among equals that with the smallest id.
type Rank = (Vec<usize>, bool, usize, usize);

/// A node, and the part of a group that it is in.
#[derive(Debug, Clone, Copy)]
struct Target {
    part: usize,
    at: usize,
}

/// The best node of each group of [`Spread`], and the best one of another part of it.
#[derive(Debug)]
pub(super) struct Targets {
    best: Vec<[Option<Target>; 2]>,
}

/// All nodes by id, as tasks of one service after the other see them.
#[derive(Debug)]
pub(super) struct Candidates {
    all: Vec<Candidate>,
    /// The service in turn.
    service: Option<ServiceId>,
    has_host_ports: bool,
    /// What the tasks in turn are made of.
    spec: Option<Arc<TaskSpec>>,
    /// How these are spread over labels.
    spread: Spread,
    /// Why one of them that may run anywhere found no node.
    nowhere: Option<String>,
}

impl Candidates {
    pub(super) fn new(state: &ClusterState, waits: &Waits) -> Self {
        let nodes = state.nodes.values();
        Self {
            all: nodes
                .map(|node| Candidate::new(state, node, waits))
                .collect(),
            service: None,
            has_host_ports: false,
            spec: None,
            spread: Spread::default(),
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

    /// The next task is this one.
    pub(super) fn turn_to(&mut self, state: &ClusterState, task: &Task, now: u64) {
        if self.service.as_ref() != Some(&task.service) {
            self.turn_to_service(state, &task.service, now);
        }
        let same = |spec: &Arc<TaskSpec>| Arc::ptr_eq(spec, &task.spec) || *spec == task.spec;
        if !self.spec.as_ref().is_some_and(same) {
            self.turn_to_spec(state, &task.spec);
        }
    }

    fn turn_to_service(&mut self, state: &ClusterState, service: &ServiceId, now: u64) {
        self.service = Some(service.clone());
        self.spec = None;
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

    fn turn_to_spec(&mut self, state: &ClusterState, spec: &Arc<TaskSpec>) {
        self.nowhere = None;
        let demands = Demands::of(spec);
        // Both are in the order of ids.
        for (candidate, node) in self.all.iter_mut().zip(state.nodes.values()) {
            candidate.unfit = demands.obstacle_of(node);
            candidate.keeps_failing = candidate.has_failed_as(state, spec);
        }
        let tasks = self.all.iter().map(|candidate| candidate.of_service);
        self.spread = Spread::of(spec, state.nodes.values().zip(tasks));
        self.spec = Some(Arc::clone(spec));
    }

    /// The same, where its volumes say which.
    fn choose_by_home(&mut self, state: &ClusterState, task: &Task) -> Result<usize, String> {
        match homes::place(state, task) {
            Place::Anywhere => self.choose(task),
            Place::Gone(why) => Err(why),
            Place::Home(node) => {
                let at = self.find(&node);
                let only = at.map_or(0..0, |at| at..at + 1);
                let chosen = self.best(task, only);
                chosen.map_err(|why| homes::waits_for_home(state, &node, &why))
            }
        }
    }

    /// The best node for a task as in turn, by its place.
    fn choose(&mut self, task: &Task) -> Result<usize, String> {
        if let Some(node) = &task.node {
            let at = self.find(node);
            let only = at.map_or(0..0, |at| at..at + 1);
            return self.best(task, only);
        }
        if let Some(why) = &self.nowhere {
            return Err(why.clone());
        }
        let chosen = self.best(task, 0..self.all.len());
        if let Err(why) = &chosen {
            self.nowhere = Some(why.clone());
        }
        chosen
    }

    fn best(&self, task: &Task, among: std::ops::Range<usize>) -> Result<usize, String> {
        let mut obstacles = Obstacles::default();
        let mut best = None;
        for (at, candidate) in among.clone().zip(self.all.get(among).unwrap_or_default()) {
            if let Some(obstacle) = candidate.obstacle(&task.spec) {
                obstacles.count(obstacle);
                continue;
            }
            let rank = self.rank(at, candidate);
            // Strictly less: among equals the smallest node id stays.
            if best
                .as_ref()
                .is_none_or(|(least, _): &(Rank, usize)| rank < *least)
            {
                best = Some((rank, at));
            }
        }
        let chosen = best.map(|(_, at)| at);
        chosen.ok_or_else(|| obstacles.explain())
    }

    fn rank(&self, at: usize, candidate: &Candidate) -> Rank {
        (
            self.spread.rank(at),
            candidate.keeps_failing,
            candidate.of_service,
            candidate.total,
        )
    }

    /// Where tasks as in turn go, by the node that they leave. All have to be made of the same.
    pub(super) fn targets(&self, task: &Task) -> Targets {
        let mut ranked = Vec::with_capacity(self.all.len());
        for (at, candidate) in self.all.iter().enumerate() {
            #[cfg(test)]
            looks::count();
            if candidate.obstacle(&task.spec).is_none() {
                ranked.push((self.rank(at, candidate), at));
            }
        }
        ranked.sort_unstable();
        let mut best = vec![[None; 2]; self.spread.groups()];
        for (_, at) in ranked {
            for (group, part) in self.spread.way(at) {
                match &mut best[group] {
                    [first @ None, _] => *first = Some(Target { part, at }),
                    [Some(first), second @ None] if first.part != part => {
                        *second = Some(Target { part, at });
                    }
                    _ => {}
                }
            }
        }
        Targets { best }
    }

    /// The best node for a task as in turn that has just left the node at that place, where it may
    /// return; `targets` are of before. A task that leaves makes all other nodes of its branch better
    /// by the same: who is the best of a group is so without the part that the task was in.
    pub(super) fn best_after(&self, left: usize, targets: &Targets, task: &Task) -> Option<usize> {
        let others = self.spread.way(left).filter_map(|(group, part)| {
            let mut best = targets.best.get(group)?.iter().flatten();
            let other = best.find(|target| target.part != part)?;
            Some(other.at)
        });
        let ranked = others.chain(std::iter::once(left)).filter_map(|at| {
            #[cfg(test)]
            looks::count();
            let candidate = self.all.get(at)?;
            let stays_away = candidate.obstacle(&task.spec).is_some();
            (!stays_away).then(|| (self.rank(at, candidate), at))
        });
        ranked.min().map(|(_, at)| at)
    }

    /// A task as in turn goes to the node at that place.
    pub(super) fn place(&mut self, at: usize, task: &Task) -> Option<NodeId> {
        let candidate = self.all.get_mut(at)?;
        candidate.total += 1;
        candidate.of_service += 1;
        candidate.free = candidate.free.minus(reserved(&task.spec));
        candidate.port_taken = self.has_host_ports;
        let node = candidate.id.clone();
        self.spread.place(at);
        Some(node)
    }

    /// A task as in turn leaves the node at that place, and what is reserved for it there is free.
    pub(super) fn leave(&mut self, at: usize, task: &Task) {
        if let Some(candidate) = self.all.get_mut(at) {
            candidate.total = candidate.total.saturating_sub(1);
            candidate.of_service = candidate.of_service.saturating_sub(1);
            candidate.free = candidate.free.plus(reserved(&task.spec));
            candidate.port_taken = false;
            self.spread.leave(at);
        }
    }

    /// The place of a node that takes tasks.
    pub(super) fn open(&self, node: &NodeId) -> Option<usize> {
        let at = self.find(node)?;
        self.all.get(at).filter(|c| c.closed.is_none()).map(|_| at)
    }

    /// The best node for a task as in turn, wherever it is now: all are looked at.
    #[cfg(test)]
    pub(super) fn best_of_all(&self, task: &Task) -> Option<usize> {
        self.best(task, 0..self.all.len()).ok()
    }

    /// What it is worth that a task goes to one node, which has left another one: on which level of
    /// labels, nodes coming last, and how much fuller the one that it left still is there. Nothing
    /// where it is no fuller.
    pub(super) fn gain(&self, left: usize, to: usize) -> Option<(usize, usize)> {
        let nodes = || {
            let tasks = |at: usize| self.all.get(at).map(|c| c.of_service);
            Some((usize::MAX, [tasks(left)?, tasks(to)?]))
        };
        let (level, [there, here]) = self.spread.parting(left, to).or_else(nodes)?;
        (there > here).then(|| (level, there - here))
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
        candidates.turn_to(&draft.state, &task, draft.now);
        let chosen = candidates.choose_by_home(&draft.state, &task);
        match chosen {
            Ok(at) => {
                let Some(node) = candidates.place(at, &task) else {
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
