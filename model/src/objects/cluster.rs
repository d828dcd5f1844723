//! Settings of the whole cluster.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::meta::Meta;

/// Settings of the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
