//! What a pass has to look at again, by what is different.

use std::collections::BTreeSet;

use weft_model::id::{NodeId, ServiceId, TaskId};
use weft_model::objects::Task;

use super::conditions::is_wanted;
use super::object::ObjectId;
use super::state::ClusterState;

/// Objects that are not as they were, and services whose tasks are not.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Services that changed, or had their wanted tasks changed; deleted ones too.
    pub(super) services: BTreeSet<ServiceId>,
    /// Nodes that changed, joined or were deleted.
    pub(super) nodes: BTreeSet<NodeId>,
    /// Tasks that changed or are new; forgotten ones too.
    tasks: BTreeSet<TaskId>,
}

/// What a wanted task is counted by.
fn place(task: Option<&Task>) -> Option<(&ServiceId, u32, Option<&NodeId>, bool)> {
    let task = task.filter(|task| is_wanted(task))?;
    // Where slots are 0, there is one on each node.
    let node = task.node.as_ref().filter(|_| task.slot == 0);
    // Where a part of a job ends, the next one may begin.
    let over = task.job_iteration.is_some() && task.status.state.is_terminal();
    Some((&task.service, task.slot, node, over))
}

impl Dirty {
    /// What is different from `since`; everything, where that is not known.
    pub(super) fn since(since: Option<&ClusterState>, state: &ClusterState) -> Self {
        let mut this = Self::default();
        let changed = since.and_then(|since| Some((since, state.changed_since(since.version)?)));
        match changed {
            Some((since, changed)) => this.add(changed.into_iter(), since, state),
            None => {
                this.services.extend(state.services.keys().cloned());
                this.nodes.extend(state.nodes.keys().cloned());
                this.tasks.extend(state.tasks.keys().cloned());
                // Of those that are gone as well.
                let tasks = state.tasks.values();
                this.services.extend(tasks.map(|task| task.service.clone()));
                let tasks = state.tasks.values();
                this.nodes
                    .extend(tasks.filter_map(|task| task.node.clone()));
            }
        }
        this
    }

    /// Takes note of objects that are not `after` as they were `before`.
    pub(super) fn add<'a>(
        &mut self,
        changed: impl Iterator<Item = &'a ObjectId>,
        before: &ClusterState,
        after: &ClusterState,
    ) {
        for id in changed {
            match id {
                ObjectId::Service(id) => {
                    self.services.insert(id.clone());
                }
                ObjectId::Node(id) => {
                    self.nodes.insert(id.clone());
                }
                ObjectId::Task(id) => {
                    let [was, is] = [before, after].map(|state| place(state.tasks.get(id)));
                    if was != is {
                        let services = was.into_iter().chain(is);
                        self.services.extend(services.map(|(id, ..)| id.clone()));
                    }
                    self.tasks.insert(id.clone());
                }
                // How many tasks of a slot are remembered.
                ObjectId::Cluster => {
                    let history = |state: &ClusterState| {
                        let cluster = state.cluster.as_ref();
                        cluster.map(|cluster| cluster.spec.orchestration.clone())
                    };
                    if history(before) != history(after) {
                        self.tasks.extend(after.tasks.keys().cloned());
                    }
                }
                // Of these no task depends, or all passes look at them.
                ObjectId::Secrets
                | ObjectId::Counters
                | ObjectId::Cursor(_)
                | ObjectId::Network(_)
                | ObjectId::Ending(_)
                | ObjectId::Endpoint(_)
                | ObjectId::Peer(_)
                | ObjectId::Removed(_)
                | ObjectId::Payload(_) => {}
            }
        }
    }

    /// The tasks as they are.
    pub(super) fn tasks<'a>(&'a self, state: &'a ClusterState) -> impl Iterator<Item = &'a Task> {
        self.tasks.iter().filter_map(|id| state.tasks.get(id))
    }

    /// The nodes that are no longer there.
    pub(super) fn gone_nodes<'a>(
        &'a self,
        state: &'a ClusterState,
    ) -> impl Iterator<Item = &'a NodeId> {
        let nodes = self.nodes.iter();
        nodes.filter(|id| !state.nodes.contains_key(id))
    }
}
