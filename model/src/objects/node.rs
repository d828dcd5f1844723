//! Members of the cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::meta::Meta;
use super::network::Network;
use super::placement::{Platform, Resources};
use crate::id::NodeId;

/// What a node may do in the control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs tasks only.
    #[default]
    Worker,
    /// Holds desired state and runs tasks.
    Manager,
}

/// Whether the scheduler may use a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// New tasks may be placed.
    #[default]
    Active,
    /// Running tasks stay, new ones go elsewhere.
    Pause,
    /// Tasks are moved away.
    Drain,
}

/// What the manager knows about a node's health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Not heard of since the manager started.
    #[default]
    Unknown,
    /// Session lost for longer than the grace time.
    Down,
    /// Session open.
    Ready,
}

/// A node whose session is open, and that carries no traffic all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Impairment {
    /// When it was noticed: Unix milliseconds, written as RFC 3339.
    #[serde(with = "crate::time::rfc3339")]
    pub since: u64,
    /// What is wrong, for people.
    pub reason: String,
}

/// What somebody wants a node to be. What is not known here is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Role that the cluster wants the node to have.
    pub role: Role,
    /// Set by `node update`.
    pub availability: Availability,
    /// Set by `node update`.
    pub labels: BTreeMap<String, String>,
    /// Where others are to reach it, in place of what it says of itself (`node update
    /// --advertise-addr`); it says the same once it has taken it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise_addr: Option<IpAddr>,
}

/// The agent of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Version of `weftd` that the node runs.
    #[serde(rename = "EngineVersion")]
    pub version: String,
    /// OCI runtime programs that it has; none: it runs host tasks alone.
    #[serde(default, rename = "Runtimes", skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<String>,
}

/// What a node says of itself, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Description {
    /// Host name that the node reported, or its `--name`.
    pub hostname: String,
    /// Its machine; nothing of agents of earlier versions.
    #[serde(default, skip_serializing_if = "Platform::is_empty")]
    pub platform: Platform,
    /// What its machine has for tasks; nothing of agents of earlier versions.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// Its agent.
    pub engine: Engine,
}

/// How a node is, as the managers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeStatus {
    /// Health as the manager sees it.
    pub state: NodeState,
    /// Why the state is what it is, for people.
    pub message: String,
    /// Address that others reach it at (gossip and control).
    pub addr: IpAddr,
    /// Why it carries no traffic although its session is open: it gets no new tasks, and those it
    /// has move after a grace. Beside the state, whose words are Docker's.
    #[serde(default)]
    pub impaired: Option<Impairment>,
}

/// Whether a manager answers the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reachability {
    /// Nobody has said.
    #[default]
    Unknown,
    /// It does not.
    Unreachable,
    /// It does.
    Reachable,
}

/// A node as a manager. Whether it leads and answers is no part of the desired state, which has
/// nothing to say there: who answers a call says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ManagerStatus {
    /// True for the one that leads.
    #[serde(default)]
    pub leader: bool,
    /// Whether it answers.
    #[serde(default)]
    pub reachability: Reachability,
    /// Control address.
    pub addr: SocketAddr,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Node {
    /// Also the `CN` of its certificate.
    #[serde(rename = "ID")]
    pub id: NodeId,
    /// Versions and times.
    #[serde(flatten)]
    pub meta: Meta,
    /// What it is to be.
    pub spec: NodeSpec,
    /// What it says of itself.
    pub description: Description,
    /// How it is.
    pub status: NodeStatus,
    /// Managers only.
    #[serde(default)]
    pub manager_status: Option<ManagerStatus>,
    /// Address of the VXLAN data path (`--data-path-addr`, else that of its status).
    pub data_path_addr: IpAddr,
    /// UDP and TCP port of gossip.
    pub gossip_port: u16,
    /// From when on the newest certificate counts that the node opened a session with: Unix
    /// milliseconds, written as RFC 3339; 0 before the first. An older one is not renewed any more
    /// once it has run out.
    #[serde(
        default,
        with = "crate::time::rfc3339",
        skip_serializing_if = "is_zero"
    )]
    pub certified: u64,
    /// Which root certificate made the one that the node opened its session with: SHA-256 of it, in
    /// hexadecimal digits. Empty before the first session.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub certified_by: String,
    /// The node's own IPv4 address on the ingress network: source of mesh connections to replicas.
    /// Its IPv6 address is the [`Network::twin`].
    #[serde(rename = "IngressIP")]
    pub ingress_ip: Option<IpAddr>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Node {
    /// Where it answers as a manager; nothing of one that is none.
    #[must_use]
    pub fn manager_addr(&self) -> Option<SocketAddr> {
        self.manager_status.as_ref().map(|manager| manager.addr)
    }

    /// The node's addresses on the ingress network: IPv4, and IPv6 where the network has it.
    pub fn ips_on(&self, ingress: &Network) -> impl Iterator<Item = IpAddr> + use<> {
        ips_on(self.ingress_ip, ingress)
    }
}

/// Addresses on the ingress network of the node that has `ip` there.
pub(crate) fn ips_on(
    ip: Option<IpAddr>,
    ingress: &Network,
) -> impl Iterator<Item = IpAddr> + use<> {
    let twin = match ip {
        Some(IpAddr::V4(ip)) => ingress.twin(ip).map(IpAddr::V6),
        _ => None,
    };
    ip.into_iter().chain(twin)
}
