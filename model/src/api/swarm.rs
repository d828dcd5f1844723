//! The node itself, and becoming part of a swarm.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::objects::{Availability, Cluster, ClusterSpec, Role};

/// What this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Info {
    /// Version of `weftd`.
    #[serde(rename = "ServerVersion")]
    pub version: String,
    /// `--name`, or the host name.
    pub name: String,
    /// Process id of `weftd`.
    pub pid: u32,
    /// What it runs containers with.
    #[serde(flatten)]
    pub containers: ContainersInfo,
    /// Whether it is part of a swarm.
    pub swarm: SwarmState,
    /// Warnings that a person should see (no `nft`, busy ports, …).
    pub warnings: Vec<String>,
}

/// What a node runs containers with, by Docker's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainersInfo {
    /// Its OCI runtime program; empty where it runs programs of its own file system alone.
    pub default_runtime: String,
    /// Version of that program.
    pub runtime_version: String,
    /// How file systems of containers are made of layers: `overlay`, or `copy` where the data
    /// directory does not allow that.
    #[serde(rename = "Driver")]
    pub storage_driver: String,
    /// Version of the control groups: `2`, `1`, `1 and 2` where both are beside each other, or empty
    /// where there are none.
    pub cgroup_version: String,
}

/// Whether a node is part of a swarm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "LocalNodeState", rename_all = "lowercase")]
pub enum SwarmState {
    /// It is not.
    #[default]
    Inactive,
    /// It is.
    Active(SwarmInfo),
    /// It is, as a manager that waits for the unlock key: it carries traffic by its last orders.
    Locked(SwarmInfo),
}

impl SwarmState {
    /// The membership, when there is one.
    #[must_use]
    pub const fn active(&self) -> Option<&SwarmInfo> {
        match self {
            Self::Inactive => None,
            Self::Active(swarm) | Self::Locked(swarm) => Some(swarm),
        }
    }
}

/// Membership of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SwarmInfo {
    /// Which cluster.
    pub cluster: ClusterInfo,
    /// This node.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// Address that others reach it at.
    #[serde(rename = "NodeAddr")]
    pub addr: IpAddr,
    /// It is a manager, by its certificate.
    pub control_available: bool,
    /// How many managers there are; 0 on a node that is none.
    #[serde(rename = "Managers", default)]
    pub manager_count: usize,
    /// How many nodes there are; 0 on a node that is no manager.
    #[serde(rename = "Nodes", default)]
    pub node_count: usize,
    /// Managers that it knows.
    #[serde(rename = "RemoteManagers")]
    pub managers: Vec<RemoteManager>,
    /// True while the session to a manager is open.
    pub connected: bool,
    /// Why it is not, while it is not.
    #[serde(default)]
    pub error: Option<String>,
    /// When the last attempt failed: Unix milliseconds, written as RFC 3339.
    #[serde(default, with = "crate::time::maybe_rfc3339")]
    pub error_at: Option<u64>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClusterInfo {
    /// Unique.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its settings; managers know them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<ClusterSpec>,
    /// Whether its root certificate is being replaced; managers know it.
    #[serde(default)]
    pub root_rotation_in_progress: bool,
}

/// A manager that a node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RemoteManager {
    /// Which node it is, where that is known.
    #[serde(rename = "NodeID", default)]
    pub node_id: Option<NodeId>,
    /// `host:port`
    pub addr: String,
    /// It leads, as far as this node knows; workers do not.
    #[serde(default)]
    pub leader: bool,
}

/// `weft swarm init`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
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
    /// Prefix length of the subnets; default 24.
    #[serde(rename = "SubnetSize")]
    pub default_addr_pool_mask_length: Option<u8>,
    /// No new swarm: the one that this node is a manager of goes on with it as its only manager, as
    /// the others are lost. Of the other fields the two first count.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_new_cluster: bool,
    /// Managers lock what they keep on disk, and wait for the unlock key when they start again.
    #[serde(default, rename = "AutoLockManagers")]
    pub autolock: bool,
    /// Whether the scheduler may use the node; active when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
}

/// Answer to [`SwarmInit`]. `Debug` leaves token and key out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SwarmInitReply {
    /// The first manager.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// Token for workers.
    pub worker_token: String,
    /// `host:port` to join at.
    pub manager_addr: String,
    /// `SWMKEY-1-…`, where managers are locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlock_key: Option<String>,
}

/// `weft swarm unlock-key`. `Debug` leaves the key out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UnlockKeyReply {
    /// `SWMKEY-1-…`; empty where managers are not locked.
    pub unlock_key: String,
}

/// `weft swarm unlock`. `Debug` leaves the key out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SwarmUnlock {
    /// `SWMKEY-1-…`
    pub unlock_key: String,
}

/// `weft swarm restore`, as parameters of the query. The body is the backup; the header
/// `weft-unlock-key` has the unlock key where the backup is sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreQuery {
    /// As for init.
    pub advertise_addr: Option<String>,
    /// As for init.
    pub listen_addr: Option<String>,
    /// As for init.
    pub data_path_addr: Option<String>,
}

/// Answer to a restored backup. `Debug` leaves the token out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SwarmRestoreReply {
    /// This node, the only manager.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// Token for workers, that of before.
    pub worker_token: String,
    /// `host:port` to join at.
    pub manager_addr: String,
    /// Nodes of the backup, without this one.
    pub nodes: usize,
    /// Networks of the backup.
    pub networks: usize,
    /// Services of the backup.
    pub services: usize,
}

/// `weft swarm join`. `Debug` leaves the token out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SwarmJoin {
    /// `SWMTKN-1-…`
    #[serde(rename = "JoinToken")]
    pub token: String,
    /// `host:port` of a manager.
    pub remote_addr: String,
    /// As for init.
    pub advertise_addr: Option<String>,
    /// As for init.
    pub listen_addr: Option<String>,
    /// As for init.
    pub data_path_addr: Option<String>,
    /// As for init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
}

/// Answer to [`SwarmJoin`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SwarmJoinReply {
    /// The new node.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// Role that the token gave.
    pub role: Role,
    /// What a person should know of the swarm that it makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `weft swarm leave`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SwarmLeave {
    /// Leave as a manager, and even as the last one.
    #[serde(default)]
    pub force: bool,
    /// Become a worker first, where the managers that stay are a quorum.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub demote: bool,
}

/// Answer to [`SwarmLeave`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SwarmLeft {
    /// What a person should know of the swarm that stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// `weft swarm join-token`. `Debug` leaves the token out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct JoinToken {
    /// `SWMTKN-1-…`
    pub token: String,
    /// `host:port` to join at.
    pub manager_addr: String,
}

/// A cluster as its managers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SwarmDetail {
    /// Settings.
    #[serde(flatten)]
    pub cluster: Cluster,
    /// Who vouches for nodes.
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    /// Whether another root certificate is taking its place.
    pub root_rotation_in_progress: bool,
    /// How far that is.
    pub root_rotation: RootRotation,
}

/// Who vouches for nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TlsInfo {
    /// The root certificate that join tokens pin, PEM.
    pub trust_root: String,
}

/// How far nodes are on the way to certificates of the root that makes them now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootRotation {
    /// SHA-256 of that root certificate as `swarm ca` prints it in the end: `sha256:…`
    pub desired_root_digest: String,
    /// Nodes that have one.
    pub renewed: u32,
    /// These, and those that are waited for.
    pub total: u32,
    /// Host names of those that are waited for: nodes that are there and have none yet, and managers
    /// that are down.
    #[serde(default)]
    pub waiting: Vec<String>,
    /// Host names of workers that are down without one: they have to join again, if it ends before they
    /// are back.
    pub away: Vec<String>,
}

/// `weft swarm ca --rotate`. `Debug` leaves the key out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct CaRotate {
    /// The new root certificate, PEM; a new one is made when absent.
    #[serde(default, rename = "SigningCACert")]
    pub signing_ca_cert: Option<String>,
    /// Its key, PEM.
    #[serde(default, rename = "SigningCAKey")]
    pub signing_ca_key: Option<String>,
    /// Life of node certificates from now on, written in nanoseconds; at least one hour. It stays when
    /// absent.
    #[serde(default, with = "crate::time::maybe_nanoseconds")]
    pub node_cert_expiry: Option<Duration>,
}

/// `weft swarm update`: what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SwarmUpdate {
    /// Whether managers lock what they keep on disk.
    #[serde(
        default,
        rename = "AutoLockManagers",
        skip_serializing_if = "Option::is_none"
    )]
    pub autolock: Option<bool>,
    /// Life of node certificates from the next ones on, written in nanoseconds; at least one hour.
    #[serde(
        default,
        with = "crate::time::maybe_nanoseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub node_cert_expiry: Option<Duration>,
    /// Finished tasks that are remembered for each slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_history_retention_limit: Option<u32>,
    /// Between two heartbeats of a node, written in nanoseconds; 100 ms to one minute.
    #[serde(
        default,
        with = "crate::time::maybe_nanoseconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub heartbeat_period: Option<Duration>,
}
