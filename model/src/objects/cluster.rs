//! Settings of the whole cluster.

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
    /// Pools that network subnets are cut from.
    #[serde(rename = "DefaultAddrPool")]
    pub default_address_pools: Vec<IpNet>,
    /// Prefix length of the subnets cut from the pools.
    #[serde(rename = "SubnetSize")]
    pub subnet_prefix_len: u8,
    /// UDP port of the VXLAN data path on every node.
    pub data_path_port: u16,
}
