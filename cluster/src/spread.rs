//! A tree of nodes by their labels, over which the tasks of a service are spread level by level
//! (SwarmKit's `decisionTree`, one task after the other).

use std::collections::BTreeMap;

use weft_model::objects::{Node, TaskSpec};

use super::constraint::spread_label;

/// For each node, by its place, the branches that it is in; and how many tasks each branch has.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// Branches from the top down, by their number. Without preferences there are none.
    of_nodes: Vec<Vec<usize>>,
    /// Tasks of each branch.
    tasks: Vec<usize>,
}

impl Spread {
    /// The tree of `nodes`, with the tasks that each has now.
    pub(super) fn of<'a>(spec: &TaskSpec, nodes: impl Iterator<Item = (&'a Node, usize)>) -> Self {
        let preferences = spec.placement.preferences.iter();
        // One that cannot be read prefers nothing.
        let labels: Vec<&str> = preferences
            .filter_map(|p| spread_label(&p.spread.spread_descriptor).ok())
            .collect();
        let mut this = Self::default();
        if labels.is_empty() {
            return this;
        }
        let mut numbers: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        for (node, tasks) in nodes {
            let mut path = Vec::with_capacity(labels.len());
            let mut branches = Vec::with_capacity(labels.len());
            for label in &labels {
                // Nodes without the label are a branch of their own.
                path.push(node.spec.labels.get(*label).map_or("", String::as_str));
                let next = numbers.len();
                let number = *numbers.entry(path.clone()).or_insert(next);
                if number == next {
                    this.tasks.push(0);
                }
                this.tasks[number] += tasks;
                branches.push(number);
            }
            this.of_nodes.push(branches);
        }
        this
    }

    /// How full the branches of a node are, from the top down: the least is the best.
    pub(super) fn rank(&self, node: usize) -> Vec<usize> {
        let branches = self.branches(node).iter();
        branches.map(|branch| self.tasks[*branch]).collect()
    }

    /// One task less is on a node.
    pub(super) fn leave(&mut self, node: usize) {
        let branches = self.of_nodes.get(node).into_iter().flatten();
        for branch in branches {
            self.tasks[*branch] = self.tasks[*branch].saturating_sub(1);
        }
    }

    /// Where the ways to two nodes part: at which level, and how many tasks the branch of each has.
    pub(super) fn parting(&self, a: usize, b: usize) -> Option<(usize, [usize; 2])> {
        let pairs = self.branches(a).iter().zip(self.branches(b));
        let mut pairs = pairs.enumerate();
        let (level, (a, b)) = pairs.find(|(_, (a, b))| a != b)?;
        Some((level, [self.tasks[*a], self.tasks[*b]]))
    }

    /// How many groups there are: all nodes, and those of each branch.
    pub(super) fn groups(&self) -> usize {
        1 + self.tasks.len()
    }

    /// The groups that a node is in, the largest first, each with the part of it that the node is in: a
    /// branch, and in the last one the node itself.
    pub(super) fn way(&self, node: usize) -> impl Iterator<Item = (usize, usize)> {
        let branches = self.branches(node).iter().copied();
        let groups = std::iter::once(0).chain(branches.clone().map(|branch| branch + 1));
        groups.zip(branches.chain(std::iter::once(node)))
    }

    fn branches(&self, node: usize) -> &[usize] {
        self.of_nodes
            .get(node)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// One more task is on a node.
    pub(super) fn place(&mut self, node: usize) {
        let branches = self.of_nodes.get(node).into_iter().flatten();
        for branch in branches {
            self.tasks[*branch] += 1;
        }
    }
}
