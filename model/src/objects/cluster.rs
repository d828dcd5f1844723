//! Settings of the whole cluster.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::meta::{Meta, Version};

/// Settings of the whole cluster. What is not known here is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ClusterObject", into = "ClusterObject")]
pub struct Cluster {
    /// Also the `O` of every node certificate.
    pub id: String,
    /// Versions and times.
    pub meta: Meta,
    /// What `swarm update` changes.
    pub spec: ClusterSpec,
    /// Pools that network subnets are cut from.
    pub default_address_pools: Vec<IpNet>,
    /// Prefix length of the subnets cut from the pools.
    pub subnet_prefix_len: u8,
    /// UDP port of the VXLAN data path on every node.
    pub data_path_port: u16,
}

/// As Docker writes it. Field by field, as `flatten` drops what it does not know.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ClusterObject {
    /// Unique.
    #[serde(rename = "ID")]
    id: String,
    /// Changes of this object.
    version: Version,
    /// When it was made: Unix milliseconds, written as RFC 3339.
    #[serde(with = "crate::time::rfc3339")]
    created_at: u64,
    /// When it was changed last, likewise.
    #[serde(with = "crate::time::rfc3339")]
    updated_at: u64,
    /// What `swarm update` changes. There is one.
    #[serde(default)]
    spec: ClusterSpec,
    /// Pools that network subnets are cut from.
    default_addr_pool: Vec<IpNet>,
    /// Prefix length of the subnets cut from the pools.
    subnet_size: u8,
    /// UDP port of the VXLAN data path on every node.
    data_path_port: u16,
}

impl From<ClusterObject> for Cluster {
    fn from(object: ClusterObject) -> Self {
        Self {
            id: object.id,
            meta: Meta {
                version: object.version,
                created_at: object.created_at,
                updated_at: object.updated_at,
            },
            spec: object.spec,
            default_address_pools: object.default_addr_pool,
            subnet_prefix_len: object.subnet_size,
            data_path_port: object.data_path_port,
        }
    }
}

impl From<Cluster> for ClusterObject {
    fn from(cluster: Cluster) -> Self {
        let Cluster {
            id,
            meta,
            spec,
            default_address_pools,
            subnet_prefix_len,
            data_path_port,
        } = cluster;
        Self {
            id,
            version: meta.version,
            created_at: meta.created_at,
            updated_at: meta.updated_at,
            spec,
            default_addr_pool: default_address_pools,
            subnet_size: subnet_prefix_len,
            data_path_port,
        }
    }
}

/// What `swarm update` changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ClusterSpec {
    /// Of tasks.
    #[serde(default)]
    pub orchestration: Orchestration,
    /// Of sessions.
    #[serde(default)]
    pub dispatcher: Dispatcher,
    /// Of certificates.
    #[serde(default, rename = "CAConfig")]
    pub ca_config: CaConfig,
}

/// What becomes of tasks that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Orchestration {
    /// Finished tasks that are remembered for each slot; 5 when absent, as in Swarm.
    pub task_history_retention_limit: u32,
}

impl Default for Orchestration {
    fn default() -> Self {
        Self {
            task_history_retention_limit: 5,
        }
    }
}

/// How nodes say that they live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Dispatcher {
    /// Between two heartbeats of a node, written in nanoseconds; one second when absent. That one is longer
    /// where a swarm has more than 200 nodes, by one second for each 200, and five seconds at most.
    #[serde(with = "crate::time::nanoseconds")]
    pub heartbeat_period: Duration,
}

impl Dispatcher {
    /// Until `swarm update` says something else.
    pub const HEARTBEAT: Duration = Duration::from_secs(1);
}

impl Default for Dispatcher {
    fn default() -> Self {
        Self {
            heartbeat_period: Self::HEARTBEAT,
        }
    }
}

/// How nodes are certified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CaConfig {
    /// Life of a node certificate, written in nanoseconds; 90 days when absent, as in Swarm.
    #[serde(with = "crate::time::nanoseconds")]
    pub node_cert_expiry: Duration,
    /// How often the root was asked to be another one.
    #[serde(default)]
    pub force_rotate: u64,
}

impl CaConfig {
    /// Until `swarm update` says something else.
    pub const EXPIRY: Duration = Duration::from_secs(90 * 24 * 60 * 60);
}

impl Default for CaConfig {
    fn default() -> Self {
        Self {
            node_cert_expiry: Self::EXPIRY,
            force_rotate: 0,
        }
    }
}
