//! Which nodes may have a task at all, and why the others may not (SwarmKit's `Pipeline`).

use std::cmp::Reverse;

use weft_model::objects::{Node, Resources, Runtime, TaskSpec};

use super::constraint::Constraint;

/// What a node is asked before a task may run on it, as far as the node itself says.
#[derive(Debug, Clone, Default)]
pub(super) struct Demands<'a> {
    constraints: Vec<Constraint>,
    /// One that cannot be read is met by nobody.
    unreadable: bool,
    spec: Option<&'a TaskSpec>,
}

impl<'a> Demands<'a> {
    /// Of the tasks that a spec describes.
    pub(super) fn of(spec: &'a TaskSpec) -> Self {
        let texts = spec.placement.constraints.iter();
        let read: Result<Vec<Constraint>, String> =
            texts.map(|text| Constraint::parse(text)).collect();
        Self {
            unreadable: read.is_err(),
            constraints: read.unwrap_or_default(),
            spec: Some(spec),
        }
    }

    /// Whether a node meets all constraints.
    pub(super) fn are_met_by(&self, node: &Node) -> bool {
        !self.unreadable && self.constraints.iter().all(|c| c.is_met_by(node))
    }

    /// Whether a node is one of the platforms that the tasks run on.
    pub(super) fn admit_platform_of(&self, node: &Node) -> bool {
        self.spec.is_none_or(|spec| {
            let platforms = &spec.placement.platforms;
            let theirs = &node.description.platform;
            platforms.is_empty() || platforms.iter().any(|p| p.admits(theirs))
        })
    }

    /// Whether a node has what runs the tasks.
    pub(super) fn have_runtime_on(&self, node: &Node) -> bool {
        self.spec.is_none_or(|spec| match spec.runtime {
            Runtime::Host => true,
            Runtime::Container => !node.description.engine.runtimes.is_empty(),
        })
    }

    /// Why tasks may not run on a node, whatever else runs there: the first thing, in SwarmKit's order.
    pub(super) fn obstacle_of(&self, node: &Node) -> Option<Obstacle> {
        if !self.have_runtime_on(node) {
            Some(Obstacle::Runtime)
        } else if !self.are_met_by(node) {
            Some(Obstacle::Constraints)
        } else if !self.admit_platform_of(node) {
            Some(Obstacle::Platform)
        } else {
            None
        }
    }

    /// Whether tasks may run on a node, whatever else runs there.
    pub(super) fn fit(&self, node: &Node) -> bool {
        self.obstacle_of(node).is_none()
    }
}

/// Whether tasks of a spec may stay on a node that has them: what was to run them has begun, and is
/// asked for no more.
pub(super) fn fits(node: &Node, spec: &TaskSpec) -> bool {
    let demands = Demands::of(spec);
    demands.are_met_by(node) && demands.admit_platform_of(node)
}

/// What is reserved for a task on its node.
pub(super) fn reserved(spec: &TaskSpec) -> Resources {
    spec.resources.reservations
}

/// Why a node may not have a task: the first of these that holds, in the order in which SwarmKit asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// It is down, drained or paused.
    Unavailable,
    /// It carries no traffic.
    Impaired,
    /// What is reserved is not free.
    Resources,
    /// It has nothing that runs containers (SwarmKit's plugins).
    Runtime,
    /// A constraint is not met.
    Constraints,
    /// It is another kind of machine.
    Platform,
    /// Another task has the port.
    HostPort,
    /// It has as many tasks of the service as it may.
    MaxReplicas,
}

impl Obstacle {
    const ALL: [Self; 8] = [
        Self::Unavailable,
        Self::Impaired,
        Self::Resources,
        Self::Runtime,
        Self::Constraints,
        Self::Platform,
        Self::HostPort,
        Self::MaxReplicas,
    ];

    /// Docker's words, where Docker knows the thing.
    fn explain(self, nodes: usize) -> String {
        let on = |what: &str| match nodes {
            1 => format!("{what} on 1 node"),
            n => format!("{what} on {n} nodes"),
        };
        match (self, nodes) {
            (Self::Unavailable, 1) => "1 node not available for new tasks".to_owned(),
            (Self::Unavailable, n) => format!("{n} nodes not available for new tasks"),
            (Self::Impaired, 1) => "1 node impaired".to_owned(),
            (Self::Impaired, n) => format!("{n} nodes impaired"),
            (Self::Resources, _) => on("insufficient resources"),
            (Self::Runtime, _) => on("no container runtime"),
            (Self::Constraints, _) => on("scheduling constraints not satisfied"),
            (Self::Platform, _) => on("unsupported platform"),
            (Self::HostPort, _) => on("host-mode port already in use"),
            (Self::MaxReplicas, _) => "max replicas per node limit exceed".to_owned(),
        }
    }
}

/// How many nodes each obstacle kept a task from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Obstacles([usize; Obstacle::ALL.len()]);

impl Obstacles {
    /// One more node.
    pub(super) fn count(&mut self, obstacle: Obstacle) {
        if let Some(count) = self.0.get_mut(obstacle as usize) {
            *count += 1;
        }
    }

    /// `no suitable node (…)`, the obstacle of most nodes first.
    pub(super) fn explain(&self) -> String {
        let mut met: Vec<(Obstacle, usize)> = Obstacle::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, nodes)| *nodes > 0)
            .collect();
        met.sort_by_key(|(_, nodes)| Reverse(*nodes));
        let why = met.iter().map(|(obstacle, nodes)| obstacle.explain(*nodes));
        match why.collect::<Vec<_>>().as_slice() {
            [] => "no suitable node".to_owned(),
            why => format!("no suitable node ({})", why.join("; ")),
        }
    }
}
