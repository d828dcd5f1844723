//! `weft service rebalance`: tasks of one service move, one after the other, until its nodes have
//! equally many of them again. Swarm leaves tasks where they are for as long as they run, so that a
//! node which joins or comes back stays empty.
//!
//! A task moves as it leaves a drained node: it is stopped in two phases, and the scheduler finds
//! another place for its slot. So a plan asks the scheduler, and says what it will do.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use weft_model::id::NodeId;
use weft_model::objects::{NodeState, Rebalancing, Service, ServiceMode, Task, TaskState};

use super::draft::Draft;
use super::homes;
use super::index::Key;
use super::object::ObjectId;
use super::scheduler::Candidates;
use super::state::ClusterState;
use super::waits::Waits;

/// A task that is to run elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The task as it is.
    pub task: Task,
    /// Node that it leaves.
    pub from: NodeId,
    /// Node that the scheduler chooses, as far as nothing changes before.
    pub to: NodeId,
}

/// What would move, of a service whose tasks run, at most so many, in order. `now` in Unix
/// milliseconds; nodes that have not called, by `waits`, get no tasks.
#[must_use]
pub(super) fn moves(
    state: &ClusterState,
    service: &Service,
    now: u64,
    at_most: usize,
    waits: &Waits,
) -> Vec<Move> {
    let mut moves = Vec::new();
    if !matches!(service.spec.mode, ServiceMode::Replicated { .. }) {
        return moves;
    }
    let mut candidates = Candidates::new(state, waits);
    let mut movable: BTreeMap<usize, Vec<&Task>> = BTreeMap::new();
    for task in state.tasks_of(&service.id) {
        let runs = task.is_wanted() && task.status.state == TaskState::Running;
        // Others are of an update that is under way, or are to stay with their volumes.
        if !runs || task.spec != service.spec.task || homes::stays(task) {
            continue;
        }
        candidates.turn_to(state, task, now);
        let at = task.node.as_ref().and_then(|node| candidates.open(node));
        if let Some(at) = at {
            movable.entry(at).or_default().push(task);
        }
    }
    while moves.len() < at_most {
        let mut best: Option<((usize, Reverse<usize>), usize, usize)> = None;
        // Those that may move are made of the same.
        let Some(task) = movable.values().flatten().next() else {
            return moves;
        };
        let targets = candidates.targets(task);
        for (from, tasks) in &movable {
            let Some(task) = tasks.last() else {
                continue;
            };
            candidates.leave(*from, task);
            let to = candidates.best_after(*from, &targets, task);
            let gain = to.and_then(|to| Some((candidates.gain(*from, to)?, to)));
            candidates.place(*from, task);
            if let Some(((level, gain), to)) = gain {
                let rank = (level, Reverse(gain));
                if best.is_none_or(|(least, ..)| rank < least) {
                    best = Some((rank, *from, to));
                }
            }
        }
        let Some((_, from, to)) = best else {
            return moves;
        };
        let Some(task) = movable.get_mut(&from).and_then(Vec::pop) else {
            return moves;
        };
        candidates.leave(from, task);
        let (Some(to), Some(from)) = (candidates.place(to, task), task.node.clone()) else {
            return moves;
        };
        let task = task.clone();
        moves.push(Move { task, from, to });
    }
    moves
}

/// The next task of each service that is being rebalanced moves, once all of its tasks run, none is
/// being stopped or updated any more, and the last move is long enough ago to have shown what is wrong
/// with it: as long as an update watches a task.
pub(super) fn turn(draft: &mut Draft<'_>, waits: &Waits) {
    let services = draft.state.services_at(Key::Rebalancing);
    let services = services.filter(|service| {
        let waited = waits.waited(&ObjectId::Service(service.id.clone()));
        waited >= service.spec.update.monitor && is_calm(&draft.state, service)
    });
    let services: Vec<Service> = services.cloned().collect();
    for mut service in services {
        let Some(rebalancing) = service.rebalancing else {
            continue;
        };
        let left = rebalancing.moves_left.min(1) as usize;
        let next = moves(&draft.state, &service, draft.now, left, waits).pop();
        service.rebalancing = next.as_ref().map(|_| Rebalancing {
            moves_left: rebalancing.moves_left.saturating_sub(1),
            since: draft.now,
        });
        if let Some(Move { mut task, .. }) = next {
            task.desired = TaskState::Shutdown;
            "moved by a rebalance of its service".clone_into(&mut task.status.message);
            draft.put(task);
        }
        draft.put(service);
    }
}

/// Every task that is wanted runs, as many as there are to be, and no other one does on a node that
/// answers.
fn is_calm(state: &ClusterState, service: &Service) -> bool {
    let ServiceMode::Replicated { replicas } = service.spec.mode else {
        // It is no more what it was: there is nothing to wait for.
        return true;
    };
    let update = service.update_status.as_ref();
    if update.is_some_and(|status| status.state.is_active()) {
        return false;
    }
    let mut running = 0;
    for task in state.tasks_of(&service.id) {
        let runs = task.status.state == TaskState::Running;
        let answers = || {
            let node = task.node.as_ref().and_then(|id| state.nodes.get(id));
            node.is_some_and(|node| node.status.state == NodeState::Ready)
        };
        match (task.is_wanted(), task.status.state.is_terminal()) {
            (true, _) if runs => running += 1,
            (true, _) => return false,
            (false, false) if answers() => return false,
            (false, _) => {}
        }
    }
    running == replicas
}
