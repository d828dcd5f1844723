//! The node itself, and becoming part of a swarm.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::objects::Role;

/// What this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Version of `weftd`.
    pub version: String,
    /// `--name`, or the host name.
    pub name: String,
    /// Process id of `weftd`.
    pub pid: u32,
    /// Membership, when the node is part of a swarm.
    pub swarm: Option<SwarmInfo>,
    /// Warnings that a person should see (no `nft`, busy ports, …).
    pub warnings: Vec<String>,
}

/// Membership of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmInfo {
    /// Cluster id.
    pub cluster_id: String,
    /// This node.
    pub node_id: NodeId,
    /// Role in its certificate.
    pub role: Role,
    /// Address that others reach it at.
    pub addr: IpAddr,
    /// Managers that it knows, `host:port`.
    pub managers: Vec<String>,
    /// True while the session to a manager is open.
    pub connected: bool,
    /// Why it is not, while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When the last attempt failed, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<u64>,
}

/// `weft swarm init`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmInit {
    /// Address or interface, with an optional port.
    pub advertise_addr: Option<String>,
    /// Address or interface, with an optional port; default `0.0.0.0:2377`, or `[::]:2377` with an
    /// IPv6 advertise address.
    pub listen_addr: Option<String>,
    /// Address or interface, without a port.
    pub data_path_addr: Option<String>,
    /// 1024-49151; default 4789.
    pub data_path_port: Option<u16>,
    /// Pools for network subnets; default `10.0.0.0/8`, and unique local prefixes for IPv6.
    #[serde(default)]
    pub default_addr_pool: Vec<IpNet>,
    /// Default 24.
    pub default_addr_pool_mask_length: Option<u8>,
}

/// Answer to [`SwarmInit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmInitReply {
    /// The first manager.
    pub node_id: NodeId,
    /// Token for workers.
    pub worker_token: String,
    /// `host:port` to join at.
    pub manager_addr: String,
}

/// `weft swarm join`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmJoin {
    /// `SWMTKN-1-…`
    pub token: String,
    /// `host:port` of a manager.
    pub remote_addr: String,
    /// As for init.
    pub advertise_addr: Option<String>,
    /// As for init.
    pub listen_addr: Option<String>,
    /// As for init.
    pub data_path_addr: Option<String>,
}

/// Answer to [`SwarmJoin`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmJoinReply {
    /// The new node.
    pub node_id: NodeId,
    /// Role that the token gave.
    pub role: Role,
}

/// `weft swarm leave`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmLeave {
    /// Leave even as the last manager.
    #[serde(default)]
    pub force: bool,
}

/// `weft swarm join-token`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// `SWMTKN-1-…`
    pub token: String,
    /// `host:port` to join at.
    pub manager_addr: String,
}
