//! How long things have waited, by a clock that nobody sets.
//!
//! Objects carry the time of day at which they were made and changed. A person or NTP may set that
//! clock by hours: a task would then wait an hour for its restart, or a node that was lost a minute
//! ago lose its addresses. So the time of day only says how long something had waited when it was
//! first seen.
//!
//! And whom the leader has not heard of: that is its own knowledge too, and in no log.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_model::id::NodeId;
use weft_model::objects::{Node, NodeState, Service, Task};

use super::conditions::{is_active, is_eligible, is_indispensable};
use super::index::Key;
use super::object::ObjectId;
use super::progress::{Wait, ingress_of};
use super::state::ClusterState;

/// Tasks of a node that is down this long are given up, and their addresses freed (Swarm's choice).
pub const ORPHAN_AFTER_MS: u64 = 24 * 60 * 60 * 1000;
/// A node that carries no traffic has this long to mend before its tasks move: an agent that is
/// restarted, or a cable that is pulled and put back, must not move everything.
pub const IMPAIRED_GRACE_MS: u64 = 10_000;

/// A worker that is down keeps the end of a rotation of the root up for so long: a machine that starts
/// again is no reason to join anew.
pub const ROTATION_PATIENCE_MS: u64 = 120_000;

/// What a pass goes by beside the state: what waits in it and since when, and which nodes have not
/// called. Made anew with each term: the clock and the sessions of the process it belongs to are all it
/// knows.
#[derive(Debug, Default)]
pub struct Waits {
    begun: BTreeMap<ObjectId, Begun>,
    /// The steady clock at the last look.
    steady: Duration,
    /// Nodes that the state has as ready, and that have not called since this manager leads.
    unheard: BTreeSet<NodeId>,
    /// Those that have, since the last pass.
    called: BTreeSet<NodeId>,
}

/// A wait as it was first seen.
#[derive(Debug, Clone, Copy)]
struct Begun {
    /// Time of day that the object carries: another one is another wait.
    stamp_ms: u64,
    /// How long it had waited by then.
    before: Duration,
    /// The steady clock then.
    seen: Duration,
}

impl Waits {
    /// Takes note of what waits in `state`. `now` is the time of day in Unix milliseconds, `steady`
    /// the time since some fixed moment, on a clock that is never set and never goes back.
    pub fn look(&mut self, state: &ClusterState, now: u64, steady: Duration) {
        self.steady = steady;
        let tasks = state.tasks_at(Key::Delayed);
        let tasks = tasks.map(|task| (ObjectId::Task(task.id.clone()), task.meta.created_at));
        let updates = of_updates(state)
            .map(|(_, wait, task)| (ObjectId::Task(task.id.clone()), wait.since(task)));
        let nodes = state.nodes_at(Key::Away).filter_map(|node| {
            let since = match (node.status.state, &node.status.impaired) {
                (NodeState::Down, _) => node.meta.updated_at,
                (_, impaired) => impaired.as_ref()?.since,
            };
            Some((ObjectId::Node(node.id.clone()), since))
        });
        let ring = state.secrets.as_ref();
        let ring = ring.map(|secrets| (ObjectId::Secrets, secrets.ring_since()));
        let moved = state.services_at(Key::Rebalancing).filter_map(|service| {
            let since = service.rebalancing?.since;
            Some((ObjectId::Service(service.id.clone()), since))
        });
        let mut earlier = std::mem::take(&mut self.begun);
        self.begun = tasks
            .chain(updates)
            .chain(nodes)
            .chain(ring)
            .chain(moved)
            .map(|(id, stamp_ms)| {
                let known = earlier.remove(&id).filter(|b| b.stamp_ms == stamp_ms);
                let begun = known.unwrap_or(Begun {
                    stamp_ms,
                    // One from the future was stamped before the clock was set back.
                    before: Duration::from_millis(now.saturating_sub(stamp_ms)),
                    seen: steady,
                });
                (id, begun)
            })
            .collect();
    }

    /// Takes note of nodes that the state has as ready, and that whoever plans has not heard of: they
    /// keep their tasks, and get no others until they are not among `unheard` any more.
    pub fn hear(&mut self, unheard: &BTreeSet<NodeId>) {
        if self.unheard != *unheard {
            self.called
                .extend(self.unheard.difference(unheard).cloned());
            self.unheard.clone_from(unheard);
        }
    }

    /// The state of the last pass is what the next one goes on from: what that one has looked at, the
    /// next one need not.
    pub fn passed(&mut self) {
        self.called.clear();
    }

    /// Nodes that have called since the last pass.
    pub(super) const fn called(&self) -> &BTreeSet<NodeId> {
        &self.called
    }

    /// True unless the node is only ready by what the state says of it.
    pub(super) fn is_heard(&self, node: &Node) -> bool {
        !self.unheard.contains(&node.id)
    }

    /// True when new tasks may be placed on the node.
    pub(super) fn takes_tasks(&self, node: &Node) -> bool {
        is_eligible(node) && self.is_heard(node)
    }

    /// How long an object had waited at the last look; one that was not seen waits since now.
    pub(super) fn waited(&self, id: &ObjectId) -> Duration {
        self.begun.get(id).map_or(Duration::ZERO, |begun| {
            let since = self.steady.saturating_sub(begun.seen);
            begun.before.saturating_add(since)
        })
    }

    /// The moment on the steady clock at which the first wait of `state` is over; it may be past.
    #[must_use]
    pub fn next_deadline(&self, state: &ClusterState) -> Option<Duration> {
        let ring = state.secrets.as_ref();
        let ring = ring.map(|secrets| {
            self.over(
                &ObjectId::Secrets,
                Duration::from_millis(secrets.ring_wait_ms()),
            )
        });
        let tasks = self.next_of_tasks(state);
        let rotation = self.next_of_rotation(state);
        let moves = self.next_of_moves(state);
        [tasks, ring, rotation, moves].into_iter().flatten().min()
    }

    /// When a worker that is down is waited for no longer; nothing of those that are not any more.
    fn next_of_rotation(&self, state: &ClusterState) -> Option<Duration> {
        let patience = Duration::from_millis(ROTATION_PATIENCE_MS);
        let awaited = state.unrenewed().filter(|node| !is_indispensable(node));
        let ids = awaited.map(|node| ObjectId::Node(node.id.clone()));
        let waiting = ids.filter(|id| self.waited(id) < patience);
        waiting.map(|id| self.over(&id, patience)).min()
    }

    /// When the next task may move; nothing of services where that waits for something else.
    fn next_of_moves(&self, state: &ClusterState) -> Option<Duration> {
        let waiting = state.services_at(Key::Rebalancing).filter_map(|service| {
            let id = ObjectId::Service(service.id.clone());
            let monitor = service.spec.update.monitor;
            (self.waited(&id) < monitor).then(|| self.over(&id, monitor))
        });
        waiting.min()
    }

    /// The same of tasks alone.
    pub(super) fn next_of_tasks(&self, state: &ClusterState) -> Option<Duration> {
        let restarts = state
            .tasks_at(Key::Delayed)
            .map(|task| self.over(&ObjectId::Task(task.id.clone()), task.spec.restart.delay));
        // Where there is no better node they stay.
        let elsewhere = LazyCell::new(|| state.nodes.values().any(|node| self.takes_tasks(node)));
        let nodes = state.nodes_at(Key::Away).filter_map(|node| {
            let limit = if node.status.state == NodeState::Down {
                let mut left = state.tasks_on(&node.id);
                left.any(|task| !task.status.state.is_terminal())
                    .then_some(ORPHAN_AFTER_MS)
            } else {
                node.status.impaired.as_ref()?;
                let mut wanted = state.tasks_at(Key::WantedOn(node.id.clone()));
                let moves = wanted.any(is_active) && *elsewhere;
                moves.then_some(IMPAIRED_GRACE_MS)
            };
            let limit = Duration::from_millis(limit?);
            Some(self.over(&ObjectId::Node(node.id.clone()), limit))
        });
        restarts
            .chain(nodes)
            .chain(self.next_of_updates(state))
            .min()
    }

    /// When the next step of an update is due; nothing of those that are due already.
    fn next_of_updates(&self, state: &ClusterState) -> Option<Duration> {
        let left = of_updates(state).filter_map(|(service, wait, task)| {
            let id = ObjectId::Task(task.id.clone());
            let waited = self.waited(&id);
            let limits = wait.limits(service, task).filter(|limit| *limit > waited);
            Some(self.over(&id, limits.min()?))
        });
        left.min()
    }

    fn over(&self, id: &ObjectId, limit: Duration) -> Duration {
        let left = limit.saturating_sub(self.waited(id));
        self.steady.saturating_add(left)
    }
}

/// Tasks that an update waits for. None of them waits for its restart delay.
fn of_updates(state: &ClusterState) -> impl Iterator<Item = (&Service, Wait, &Task)> {
    state.services_at(Key::Updating).flat_map(move |service| {
        let ingress = ingress_of(state, service);
        let tasks = state.tasks_of(&service.id);
        tasks.filter_map(move |task| {
            let wait = Wait::of(state, service, ingress.as_ref(), task)?;
            Some((service, wait, task))
        })
    })
}
