//! Tasks: attempts to run one replica of a service.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::endpoint::Attachment;
use super::meta::{Meta, Version};
use super::task_spec::TaskSpec;
use crate::id::{NodeId, ServiceId, TaskId};

/// Task states in order (SwarmKit's task model). An observed state never goes backwards.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Created by the orchestrator.
    #[default]
    New = 0,
    /// Addresses are allocated.
    Pending = 64,
    /// A node was chosen.
    Assigned = 192,
    /// The node took it.
    Accepted = 256,
    /// The sandbox is being made.
    Preparing = 320,
    /// Ready to start.
    Ready = 384,
    /// The process is being started.
    Starting = 448,
    /// Running and healthy.
    Running = 512,
    /// Ended with success.
    Complete = 576,
    /// Stopped on request.
    Shutdown = 640,
    /// Ended with an error.
    Failed = 704,
    /// Could not be started.
    Rejected = 768,
    /// Only as a desired state: forget it once it ended.
    Remove = 800,
    /// Its node is gone for good.
    Orphaned = 832,
}

impl TaskState {
    /// True once the task will never run again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

/// What is known of a task's program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerStatus {
    /// The container's id, 64 hexadecimal digits; empty for a program of the node.
    #[serde(
        default,
        rename = "ContainerID",
        skip_serializing_if = "String::is_empty"
    )]
    pub container_id: String,
    /// Process 1 of the container as its node sees it, while it runs; 0 otherwise.
    #[serde(default, rename = "PID", skip_serializing_if = "is_zero")]
    pub pid: u32,
    /// Exit code of the process, once it ended.
    #[serde(default)]
    pub exit_code: Option<i32>,
}

/// True for what is not written.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What is known of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskStatus {
    /// Observed state.
    pub state: TaskState,
    /// Moment of the last change: Unix milliseconds, written as RFC 3339.
    #[serde(rename = "Timestamp", with = "crate::time::rfc3339")]
    pub since: u64,
    /// What happened, for people.
    pub message: String,
    /// What went wrong, for people; empty when nothing did.
    pub err: String,
    /// Its program.
    #[serde(default, rename = "ContainerStatus")]
    pub container: ContainerStatus,
    /// When the managers first heard that it runs, by their clock and as `since`; kept after its end.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::time::maybe_rfc3339"
    )]
    pub running_since: Option<u64>,
}

/// One attempt to run one replica of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Task {
    /// Unique.
    #[serde(rename = "ID")]
    pub id: TaskId,
    /// Versions and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// Which service it belongs to.
    #[serde(rename = "ServiceID")]
    pub service: ServiceId,
    /// Name of the service.
    pub service_name: String,
    /// From 1; 0 where there is one on each node.
    pub slot: u32,
    /// Chosen node, once assigned.
    #[serde(rename = "NodeID")]
    pub node: Option<NodeId>,
    /// Version of the service that the spec is of.
    pub spec_version: Version,
    /// Of jobs: which run it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<Version>,
    /// What it is made of: where the service still has it, the very same as there.
    pub spec: Arc<TaskSpec>,
    /// Allocated addresses, in the order eth0, eth2, eth3, …
    #[serde(rename = "NetworksAttachments")]
    pub attachments: Vec<Attachment>,
    /// What the cluster wants.
    #[serde(rename = "DesiredState")]
    pub desired: TaskState,
    /// What the node reports.
    pub status: TaskStatus,
    /// When earlier tasks of its slot, made of the same, were replaced because they had ended: Unix
    /// milliseconds, written as RFC 3339. The last ones, as many as its restart policy counts.
    #[serde(
        default,
        with = "crate::time::rfc3339_list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub restarts: Vec<u64>,
}

impl Task {
    /// True while the cluster wants it: to run, or, as part of a job, to have ended with success.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.desired <= TaskState::Complete
    }

    /// False when tasks of its slot were replaced as often as its restart policy allows, in the time
    /// that it looks back from the end of this one.
    #[must_use]
    pub fn has_attempts_left(&self) -> bool {
        let policy = &self.spec.restart;
        // By the managers' clock, as the moments of the replacements are.
        let ended = self.meta.updated_at;
        let window = u64::try_from(policy.window.as_millis()).unwrap_or(u64::MAX);
        // Not what a clock that was set back since has put into the future.
        let looked_at = ended.saturating_sub(window)..=ended;
        let counts = |at: &&u64| window == 0 || looked_at.contains(*at);
        let made = self.restarts.iter().filter(counts).count();
        policy.max_attempts == 0 || (made as u64) < policy.max_attempts
    }

    /// `web.1.<id>`; for global services the node id stands in place of the slot.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.node, self.slot) {
            (Some(node), 0) => format!("{}.{}.{}", self.service_name, node, self.id),
            (_, slot) => format!("{}.{}.{}", self.service_name, slot, self.id),
        }
    }
}
