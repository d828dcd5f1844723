//! Calls about services and their tasks.

use serde::{Deserialize, Serialize};

use crate::id::TaskId;
use crate::objects::{
    Affinity, ConnectionPolicy, PlacementPreference, PortSpec, Service, ServiceSpec, Task,
};

/// A service and how many of its tasks run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceDetail {
    /// The service.
    #[serde(flatten)]
    pub service: Service,
    /// How many of its tasks run.
    #[serde(rename = "ServiceStatus")]
    pub status: ServiceStatus,
    /// Published ports that a node could not bind, for people.
    pub port_errors: Vec<String>,
    /// What its tasks wait for (a node, an address), and the way out, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
}

/// How many tasks of a service run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Tasks in state running, as docker counts them: also those that an update is yet to replace.
    #[serde(rename = "RunningTasks")]
    pub running: u32,
    /// How many of these are not what the service asks for now: of an earlier specification, or on
    /// their way out.
    #[serde(default, rename = "OutdatedTasks", skip_serializing_if = "is_zero")]
    pub outdated: u32,
    /// Tasks wanted.
    #[serde(rename = "DesiredTasks")]
    pub desired: u32,
    /// Of jobs: tasks of this run that ended with success.
    #[serde(default, rename = "CompletedTasks", skip_serializing_if = "is_zero")]
    pub completed: u32,
}

impl ServiceStatus {
    /// Running tasks that are what the service asks for now.
    #[must_use]
    pub const fn up_to_date(&self) -> u32 {
        self.running.saturating_sub(self.outdated)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// `weft service scale`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Scale {
    /// Wanted number of tasks.
    pub replicas: u32,
}

/// `weft service update`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ServiceUpdate {
    /// What the service is to be as a whole; absent, what it is. The fields after it change that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<ServiceSpec>,
    /// It is to be what it was before; nothing else may be given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// Ports to publish; one that is published already stays as it is.
    #[serde(default)]
    pub publish_add: Vec<PortSpec>,
    /// Ports to take back, by target and protocol; a published port of 0 and no address stand for
    /// every one of that target.
    #[serde(default)]
    pub publish_rm: Vec<PortSpec>,
    /// Which connections stay together. This and the fields after it are a [`ConnectionPolicy`]:
    /// what is absent stays.
    #[serde(default)]
    pub affinity: Option<Affinity>,
    /// Replicas on the node go first.
    #[serde(default)]
    pub local_first: Option<bool>,
    /// Connections at most; 0 takes the limit away.
    #[serde(default)]
    pub limit_connections: Option<u32>,
    /// Connections of one client at most; 0 takes the limit away.
    #[serde(default)]
    pub limit_client_connections: Option<u32>,
    /// Whether `network connect` on a worker may make replicas; absent, it stays.
    #[serde(default)]
    pub attach: Option<bool>,
    /// Where tasks may run.
    #[serde(default, skip_serializing_if = "PlacementUpdate::is_empty")]
    pub placement: PlacementUpdate,
}

/// What `weft service update` changes of where tasks may run. Tasks on nodes that may have them go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct PlacementUpdate {
    /// Constraints besides those there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraint_add: Vec<String>,
    /// Constraints that count no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraint_rm: Vec<String>,
    /// Preferences after those there are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preference_add: Vec<PlacementPreference>,
    /// Preferences that count no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preference_rm: Vec<PlacementPreference>,
    /// Tasks on one node at most; 0 takes the limit away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replicas: Option<u32>,
}

impl PlacementUpdate {
    /// True when nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ServiceUpdate {
    /// The policy after the update.
    #[must_use]
    pub fn connections(&self, before: ConnectionPolicy) -> ConnectionPolicy {
        ConnectionPolicy {
            affinity: self.affinity.unwrap_or(before.affinity),
            local_first: self.local_first.unwrap_or(before.local_first),
            limit: self.limit_connections.unwrap_or(before.limit),
            limit_per_client: self
                .limit_client_connections
                .unwrap_or(before.limit_per_client),
        }
    }
}

/// What an update would do, without doing it: `weft service update --dry-run`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdatePlan {
    /// As it is.
    pub before: ServiceSpec,
    /// As it would be.
    pub after: ServiceSpec,
    /// Tasks that it has now.
    pub tasks: u32,
    /// Those of them that would be replaced.
    pub replaced: u32,
    /// What users should know before, for people.
    pub warnings: Vec<String>,
}

/// `weft service rebalance`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Rebalance {
    /// Only says what would move.
    #[serde(default)]
    pub dry_run: bool,
    /// Tasks that may move, 1 to 100.
    pub max_moves: u32,
}

/// Answer to [`Rebalance`]: what moves, as far as nothing else changes meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rebalanced {
    /// In order; one begins when the one before has run for a while.
    pub moves: Vec<TaskMove>,
}

/// A task that leaves its node for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskMove {
    /// Id of the task as it is; another one takes its slot.
    #[serde(rename = "TaskID")]
    pub task: TaskId,
    /// Which of the service's tasks, from 1.
    pub slot: u32,
    /// Host name of its node.
    pub from: String,
    /// Host name of the next one.
    pub to: String,
}

/// A row of `weft service ps` and `weft node ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskRow {
    /// The task.
    #[serde(flatten)]
    pub task: Task,
    /// Host name of its node; empty before it is assigned.
    pub node_name: String,
    /// The node is down, carries no traffic, or is no member any more: what it reported last is all that is known.
    #[serde(default)]
    pub node_down: bool,
    /// Ports of its service that are published on its node alone; of a task that has ended none.
    #[serde(default)]
    pub host_ports: Vec<PortSpec>,
}
