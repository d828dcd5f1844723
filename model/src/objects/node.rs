//! Members of the cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::meta::Meta;
use super::network::Network;
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
pub struct Impairment {
    /// Unix milliseconds of the moment at which it was noticed.
    pub since: u64,
    /// What is wrong, for people.
    pub reason: String,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Also the `CN` of its certificate.
    pub id: NodeId,
    /// Versions and times.
    pub meta: Meta,
    /// Role that the cluster wants the node to have.
    pub role: Role,
    /// Set by `node update`.
    pub availability: Availability,
    /// Set by `node update`.
    pub labels: BTreeMap<String, String>,
    /// Host name that the node reported, or its `--name`.
    pub hostname: String,
    /// Version of `weftd` that the node runs.
    pub engine_version: String,
    /// Address that others reach the node at (gossip and control).
    pub addr: IpAddr,
    /// Address of the VXLAN data path (`--data-path-addr`, else `addr`).
    pub data_path_addr: IpAddr,
    /// UDP and TCP port of gossip.
    pub gossip_port: u16,
    /// Health as the manager sees it.
    pub state: NodeState,
    /// Why the state is what it is, for people.
    pub message: String,
    /// Why it carries no traffic although its session is open: it gets no new tasks, and those it
    /// has move after a grace. A field of its own beside `state`, so that agents and stores of
    /// earlier versions read what they know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impaired: Option<Impairment>,
    /// Unix milliseconds from which the newest certificate counts that the node opened a session
    /// with; 0 before the first. An older one is not renewed any more once it has run out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub certified: u64,
    /// The node's own IPv4 address on the ingress network: source of mesh connections to replicas.
    /// Its IPv6 address is the [`Network::twin`].
    pub ingress_ip: Option<IpAddr>,
    /// Control address, for managers only.
    pub manager_addr: Option<SocketAddr>,
}

impl Node {
    /// The node's addresses on the ingress network: IPv4, and IPv6 where the network has it.
    pub fn ips_on(&self, ingress: &Network) -> impl Iterator<Item = IpAddr> + use<> {
        ips_on(self.ingress_ip, ingress)
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
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
