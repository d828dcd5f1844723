//! `deploy` of a service: how many, where, and how they are replaced.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::amount::Nanoseconds;

/// How a service is run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Deploy {
    /// `replicated`, `global`, `replicated-job` or `global-job`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Number of tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
    /// Of the service, not of its containers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `vip` or `dnsrr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_mode: Option<String>,
    /// On which nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// What a task may use and what is kept for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// What follows a task that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// How tasks are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// The same for the way back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
}

/// Which nodes tasks may be on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// `node.labels.disk == ssd`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// In the order of their weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub preferences: Vec<Preference>,
    /// 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_replicas_per_node: Option<u64>,
}

/// Over what tasks are spread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Preference {
    /// `node.labels.zone`
    pub spread: String,
}

/// Limits and reservations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// At most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// At least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<Reservations>,
}

/// What a task may use at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Processors, as written: `0.5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub memory: Option<u64>,
    /// Processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
}

/// What is kept for a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Reservations {
    /// Processors, as written: `0.5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub memory: Option<u64>,
    /// What nodes have by name and number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub generic_resources: Vec<GenericResource>,
}

/// Of what nodes have by name and number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GenericResource {
    /// Which and how many.
    pub discrete_resource_spec: GenericSpec,
}

/// Which and how many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GenericSpec {
    /// `gpu`
    pub kind: String,
    /// How many.
    pub value: u64,
}

/// What follows a task that ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RestartPolicy {
    /// `none`, `on-failure` or `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Between two attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Nanoseconds>,
    /// 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// In which attempts are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Nanoseconds>,
}

/// How tasks are replaced.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UpdateConfig {
    /// At a time; 0 is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u64>,
    /// Between two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Nanoseconds>,
    /// `pause`, `continue` or `rollback`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_action: Option<String>,
    /// How long a new task is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Nanoseconds>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failure_ratio: Option<f64>,
    /// `stop-first` or `start-first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
}

/// Bytes as docker writes them, as a text of digits.
fn as_text<S: serde::Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) => serializer.collect_str(bytes),
        None => serializer.serialize_none(),
    }
}
