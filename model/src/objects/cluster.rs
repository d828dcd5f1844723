//! Settings of the whole cluster.

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::meta::Meta;

/// Settings of the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cluster {
    /// Also the `O` of every node certificate.
    #[serde(rename = "ID")]
    pub id: String,
    /// Versions and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What `swarm update` changes.
    #[serde(default)]
    pub spec: ClusterSpec,
    /// Pools that network subnets are cut from.
    #[serde(rename = "DefaultAddrPool")]
    pub default_address_pools: Vec<IpNet>,
    /// Prefix length of the subnets cut from the pools.
    #[serde(rename = "SubnetSize")]
    pub subnet_prefix_len: u8,
    /// UDP port of the VXLAN data path on every node.
    pub data_path_port: u16,
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
    /// Between two heartbeats of a node, written in nanoseconds; one second when absent.
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
