//! What the tasks of a service are made of.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::container_spec::{ContainerSpec, Runtime};
use super::placement::{Placement, ResourceRequirements};

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

/// What follows a task that has ended. What is not known here is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct RestartPolicy {
    /// When finished tasks are replaced.
    pub condition: RestartCondition,
    /// Between the end and the replacement; written in nanoseconds. Five seconds when absent, as in
    /// Swarm.
    #[serde(with = "crate::time::nanoseconds")]
    pub delay: Duration,
    /// Replacements of one slot, or of one node where slots are 0, at most; 0 is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_attempts: u64,
    /// Replacements count for so long; 0 is for ever. Written in nanoseconds.
    #[serde(
        with = "crate::time::nanoseconds",
        skip_serializing_if = "Duration::is_zero"
    )]
    pub window: Duration,
}

/// True for what is not written.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::default(),
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

/// A network that a service joins. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NetworkAttachmentSpec {
    /// Network name or id; an id once stored.
    pub target: String,
    /// More names for the service on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Names there that only members of the service's own stack are told: weft's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack_aliases: Vec<String>,
}

/// What a task is made of. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TaskSpec {
    /// What runs it.
    #[serde(default)]
    pub runtime: Runtime,
    /// Its program.
    #[serde(rename = "ContainerSpec")]
    pub container: ContainerSpec,
    /// What follows its end.
    #[serde(default, rename = "RestartPolicy")]
    pub restart: RestartPolicy,
    /// Networks to join, besides `ingress` for published ports.
    #[serde(default)]
    pub networks: Vec<NetworkAttachmentSpec>,
    /// Another number makes other tasks of what is the same otherwise: `--force`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub force_update: u64,
    /// On which nodes; a task that may stay where it is does not change with it.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// What it needs and may use there.
    #[serde(default, skip_serializing_if = "ResourceRequirements::is_empty")]
    pub resources: ResourceRequirements,
}

impl TaskSpec {
    /// True where both make the same of a task, wherever it may run.
    #[must_use]
    pub fn runs_as(&self, other: &Self) -> bool {
        let Self {
            runtime,
            container,
            restart,
            networks,
            force_update,
            placement: _,
            resources,
        } = self;
        *runtime == other.runtime
            && container.runs_as(&other.container)
            && *restart == other.restart
            && *networks == other.networks
            && *force_update == other.force_update
            && *resources == other.resources
    }
}
