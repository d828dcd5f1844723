//! Settings of the whole cluster.

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
    #[serde(rename = "ID")]
    id: String,
    version: Version,
    #[serde(with = "crate::time::rfc3339")]
    created_at: u64,
    #[serde(with = "crate::time::rfc3339")]
    updated_at: u64,
    default_addr_pool: Vec<IpNet>,
    subnet_size: u8,
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
            default_address_pools,
            subnet_prefix_len,
            data_path_port,
        } = cluster;
        Self {
            id,
            version: meta.version,
            created_at: meta.created_at,
            updated_at: meta.updated_at,
            default_addr_pool: default_address_pools,
            subnet_size: subnet_prefix_len,
            data_path_port,
        }
    }
}
