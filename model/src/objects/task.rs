//! Tasks: attempts to run one replica of a service.

use serde::{Deserialize, Serialize};

use super::endpoint::Attachment;
use super::meta::Meta;
use super::service::ServiceSpec;
use crate::id::{NodeId, ServiceId, TaskId};

/// When a finished task is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Always.
    #[default]
    Any,
    /// When it ended with an error.
    OnFailure,
    /// Never.
    None,
}

/// A network that a service joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachmentSpec {
    /// Network name or id; an id once stored.
    pub target: String,
    /// More names for the service on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// What tasks may do on their nodes; by default what root in a container of Docker may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    /// `NAME|UID[:GROUP|GID]`, looked up on the node; root when empty.
    pub user: String,
    /// Capabilities beyond Docker's default, as [`crate::capability::canonical`] spells them.
    pub cap_add: Vec<String>,
    /// Capabilities of the default that they do not have.
    pub cap_drop: Vec<String>,
    /// Nothing that they execute gains rights by its file.
    pub no_new_privileges: bool,
}

impl Privileges {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

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

/// What is known of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Observed state.
    pub state: TaskState,
    /// Unix milliseconds of the last change.
    pub since: u64,
    /// What happened, for people.
    pub message: String,
    /// What went wrong, for people; empty when nothing did.
    pub err: String,
    /// Exit code of the process, once it ended.
    pub exit_code: Option<i32>,
}

/// One attempt to run one replica of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Unique.
    pub id: TaskId,
    /// Versions and times.
    pub meta: Meta,
    /// Which service it belongs to.
    pub service: ServiceId,
    /// Name of the service.
    pub service_name: String,
    /// From 1; 0 for global services.
    pub slot: u32,
    /// Chosen node, once assigned.
    pub node: Option<NodeId>,
    /// Version of the service spec it was made from.
    pub spec_version: u64,
    /// Copy of the spec it was made from.
    pub spec: ServiceSpec,
    /// Allocated addresses, in the order eth0, eth2, eth3, …
    pub attachments: Vec<Attachment>,
    /// What the cluster wants.
    pub desired: TaskState,
    /// What the node reports.
    pub status: TaskStatus,
}

impl Task {
    /// `web.1.<id>`; for global services the node id stands in place of the slot.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.node, self.slot) {
            (Some(node), 0) => format!("{}.{}.{}", self.service_name, node, self.id),
            (_, slot) => format!("{}.{}.{}", self.service_name, slot, self.id),
        }
    }
}
