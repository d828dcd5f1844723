//! Services: what somebody wants to run, how often, and how it is reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::meta::{Meta, Version};
use super::port::PortSpec;
use super::task_spec::TaskSpec;
use super::update::{UpdateConfig, UpdateStatus};
use crate::id::{NetworkId, NodeId, ServiceId};

/// How many tasks a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ModeObject", into = "ModeObject")]
pub enum ServiceMode {
    /// A fixed number, spread over the nodes.
    Replicated {
        /// Wanted number of running tasks.
        replicas: u32,
    },
    /// One on each node.
    Global,
    /// Until so many have ended with success.
    ReplicatedJob {
        /// Tasks at one time, at most.
        max_concurrent: u32,
        /// Tasks that are to end with success.
        total_completions: u32,
    },
    /// One on each node, until it has ended with success there.
    GlobalJob,
}

impl ServiceMode {
    /// True where tasks are to end, and not to run for ever.
    #[must_use]
    pub fn is_job(self) -> bool {
        matches!(self, Self::ReplicatedJob { .. } | Self::GlobalJob)
    }

    /// True where there is one task on each node.
    #[must_use]
    pub fn is_global(self) -> bool {
        matches!(self, Self::Global | Self::GlobalJob)
    }
}

impl Default for ServiceMode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

/// As Docker writes it: `{"Replicated": {"Replicas": 2}}`, `{"Global": {}}`,
/// `{"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 3}}`, `{"GlobalJob": {}}`.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum ModeObject {
    #[serde(rename_all = "PascalCase")]
    Replicated {
        #[serde(default = "one")]
        replicas: u32,
    },
    Global {},
    #[serde(rename_all = "PascalCase")]
    ReplicatedJob {
        #[serde(default = "one")]
        max_concurrent: u32,
        #[serde(default)]
        total_completions: Option<u32>,
    },
    GlobalJob {},
}

const fn one() -> u32 {
    1
}

impl From<ModeObject> for ServiceMode {
    fn from(mode: ModeObject) -> Self {
        match mode {
            ModeObject::Replicated { replicas } => Self::Replicated { replicas },
            ModeObject::Global {} => Self::Global,
            ModeObject::ReplicatedJob {
                max_concurrent,
                total_completions,
            } => Self::ReplicatedJob {
                max_concurrent,
                // As Docker: as many as there are at one time.
                total_completions: total_completions.unwrap_or(max_concurrent),
            },
            ModeObject::GlobalJob {} => Self::GlobalJob,
        }
    }
}

impl From<ServiceMode> for ModeObject {
    fn from(mode: ServiceMode) -> Self {
        match mode {
            ServiceMode::Replicated { replicas } => Self::Replicated { replicas },
            ServiceMode::Global => Self::Global {},
            ServiceMode::ReplicatedJob {
                max_concurrent,
                total_completions,
            } => Self::ReplicatedJob {
                max_concurrent,
                total_completions: Some(total_completions),
            },
            ServiceMode::GlobalJob => Self::GlobalJob {},
        }
    }
}

/// How a service name resolves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// To one virtual address.
    #[default]
    Vip,
    /// To the addresses of the tasks.
    Dnsrr,
}

/// How a service is reached. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct EndpointSpec {
    /// VIP or DNS round robin.
    pub mode: EndpointMode,
    /// Published ports.
    pub ports: Vec<PortSpec>,
}

/// Which connections of a client stay together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// None: each goes where the load is least.
    #[default]
    None,
    /// All from one client address go to one replica, whatever node they come by.
    Client,
}

/// How new connections to a service find a replica, and how many there may be. A change touches no
/// connection that is open. What is not known here is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct ConnectionPolicy {
    /// Which connections of a client stay together.
    pub affinity: Affinity,
    /// Replicas on the client's node, or the node that the client came to, go first while they have
    /// little more to do than the others.
    pub local_first: bool,
    /// Connections at most that replicas have open on one network, cluster-wide as far as the node
    /// that takes the next one knows; 0 is no limit.
    pub limit: u32,
    /// Connections at most that one client address has open through one node; 0 is no limit.
    pub limit_per_client: u32,
}

/// What a user asks a service to be. What is not known here, and so would not be carried out, is
/// refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Unique, a DNS label, at most 63 characters.
    pub name: String,
    /// `--label k=v`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What its tasks are made of. They share it.
    #[serde(rename = "TaskTemplate")]
    pub task: Arc<TaskSpec>,
    /// Replicated or global, for ever or until all have ended; one replica when absent.
    #[serde(default)]
    pub mode: ServiceMode,
    /// How it is reached.
    #[serde(default, rename = "EndpointSpec")]
    pub endpoint: EndpointSpec,
    /// How connections find a replica.
    #[serde(default)]
    pub connections: ConnectionPolicy,
    /// `network connect` on a worker may make endpoints that are its replicas or have its names; on
    /// a manager it may in any case.
    #[serde(default)]
    pub attach: bool,
    /// Its name resolves to tasks that are not healthy yet as well: weft's own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub names_before_healthy: bool,
    /// How its tasks are replaced when it changes.
    #[serde(
        default,
        rename = "UpdateConfig",
        skip_serializing_if = "UpdateConfig::is_default"
    )]
    pub update: UpdateConfig,
    /// The same on the way back.
    #[serde(
        default,
        rename = "RollbackConfig",
        skip_serializing_if = "UpdateConfig::is_default"
    )]
    pub rollback: UpdateConfig,
}

/// True for what is not written.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// The label that names the stack which a service, or what else it needs, was made for.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";
/// The label of a service of a stack with its image as the file has it.
pub const STACK_IMAGE_LABEL: &str = "com.docker.stack.image";

impl ServiceSpec {
    /// The stack that it is part of.
    #[must_use]
    pub fn stack(&self) -> Option<&str> {
        let stack = self.labels.get(STACK_LABEL).map(String::as_str);
        stack.filter(|stack| !stack.is_empty())
    }
}

/// A virtual address of a service on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// On which network.
    #[serde(rename = "NetworkID")]
    pub network: NetworkId,
    /// The address, with the prefix length of its subnet.
    #[serde(rename = "Addr")]
    pub addr: IpNet,
}

/// What a service got to be reached by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceEndpoint {
    /// The ports of the spec with dynamic ones filled in.
    pub ports: Vec<PortSpec>,
    /// One of each address family per network, IPv4 first; empty with `dnsrr`.
    #[serde(rename = "VirtualIPs")]
    pub vips: Vec<Vip>,
    /// Version of the service since which its ports with `mode=host` are these: tasks of an earlier
    /// one have others.
    #[serde(default, skip_serializing_if = "is_never")]
    pub host_ports_since: Version,
}

fn is_never(version: &Version) -> bool {
    *version == Version::default()
}

/// Which run of a job it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobStatus {
    /// Counts runs: each change of the service begins another one.
    pub job_iteration: Version,
    /// When it began: Unix milliseconds, written as RFC 3339.
    #[serde(with = "crate::time::rfc3339")]
    pub last_execution: u64,
}

/// How far `weft service rebalance` is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rebalancing {
    /// Tasks that may still move.
    pub moves_left: u32,
    /// When the last one began to: Unix milliseconds, written as RFC 3339; 0 before the first.
    #[serde(with = "crate::time::rfc3339")]
    pub since: u64,
}

/// The node where the volumes of a slot are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Home {
    /// Which.
    pub slot: u32,
    /// The node.
    #[serde(rename = "NodeID")]
    pub node: NodeId,
    /// Its name, for people, and for when it joins anew.
    pub hostname: String,
    /// The volumes, as the mounts name them.
    pub volumes: Vec<String>,
}

/// A service with everything that was allocated for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Service {
    /// Unique.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// Versions and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// As asked for, network targets resolved to ids.
    pub spec: ServiceSpec,
    /// What it was asked to be before; `service rollback` goes back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<Arc<ServiceSpec>>,
    /// Ports and virtual addresses that it has.
    pub endpoint: ServiceEndpoint,
    /// The last update that replaced tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// Jobs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatus>,
    /// While its tasks are moved to nodes that have fewer of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalancing: Option<Rebalancing>,
    /// Where the volumes of its slots are that these stay with (`volume-sticky`), by slot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub homes: Vec<Home>,
}

impl Service {
    /// How its tasks are replaced at present: there, or back.
    #[must_use]
    pub fn policy(&self) -> &UpdateConfig {
        match &self.update_status {
            Some(status) if status.state.is_rollback() => &self.spec.rollback,
            _ => &self.spec.update,
        }
    }
}

/// What is left of a service that was removed while tasks of it have not ended: connections that are
/// open to them go on, and nobody else gets its virtual addresses meanwhile. Its name and its ports
/// are free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EndingService {
    /// The id that it had.
    #[serde(rename = "ID")]
    pub id: ServiceId,
    /// The name that it had, for people.
    pub name: String,
    /// Its virtual addresses.
    #[serde(rename = "VirtualIPs")]
    pub vips: Vec<Vip>,
}
