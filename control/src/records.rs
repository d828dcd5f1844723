//! What nodes tell each other by gossip: the values of the netdb tables.
//!
//! Every entry is owned by the node that wrote it; when that node fails the entries are hidden,
//! when it leaves they are gone.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, NetworkId, NodeId, ServiceId, TaskId};
use crate::objects::{Mac, Protocol, PublishMode};

/// The netdb tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// [`NodeRecord`] by node id.
    Node,
    /// [`EndpointRecord`] by endpoint id.
    Endpoint,
    /// [`LoadRecord`] by endpoint id of the replica (one entry for each reporting node).
    Load,
}

/// A node's own description; table [`Table::Node`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Owner.
    pub node: NodeId,
    /// For people.
    pub hostname: String,
    /// Source and destination of its VXLAN datagrams.
    pub vtep: IpAddr,
    /// Its own address on the ingress network.
    pub ingress_ip: Option<IpAddr>,
    /// Published ports that it could not open.
    #[serde(default)]
    pub closed_ports: Vec<ClosedPort>,
    /// Largest outer IP packet that the device of its data path takes, in bytes; 0 when unknown.
    #[serde(default)]
    pub mtu: u32,
}

/// A published port that a node could not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedPort {
    /// The one address that it is published on; every address when absent.
    pub host_ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who holds it; absent where the node does not have the address.
    pub holder: Option<String>,
}

/// A live attachment of a sandbox; table [`Table::Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Key.
    pub id: EndpointId,
    /// On which network.
    pub network: NetworkId,
    /// Owner of the sandbox.
    pub node: NodeId,
    /// Name: task name, or the name given to `network connect`.
    pub name: String,
    /// Addresses: IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Ethernet address.
    pub mac: Mac,
    /// Names of this endpoint alone.
    pub aliases: Vec<String>,
    /// Replica of which service.
    pub service: Option<ServiceId>,
    /// Task, when it is one.
    pub task: Option<TaskId>,
    /// False while it starts or drains: known to the switch, not given to new connections or DNS.
    pub ready: bool,
    /// Published TCP ports, by their numbers inside the sandbox, that its program accepts over IPv4
    /// and not over IPv6.
    #[serde(default)]
    pub ipv4_only: Vec<u16>,
    /// Ports that the task's node accepts for it (`mode=host`).
    pub host_ports: Vec<(u16, u16, Protocol, PublishMode)>,
}

/// Connections that one node has open to a replica; table [`Table::Load`].
///
/// The load of a replica is the sum over all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// Open connections from the balancers of the owning node.
    pub active: u32,
    /// The owning node has learnt that the replica is going, and sends it no new connections.
    #[serde(default)]
    pub draining: bool,
}
