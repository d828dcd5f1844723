//! What nodes tell each other by gossip: the values of the netdb tables.
//!
//! A node speaks for itself only: what it is, has and runs the managers say, by the orders. Every
//! entry is owned by the node that wrote it; when that node fails the entries are hidden, when it
//! leaves they are gone.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, NodeId};
use crate::objects::Protocol;

/// The netdb tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// [`NodeRecord`] by node id.
    Node,
    /// [`EndpointRecord`] by endpoint id.
    Endpoint,
    /// [`LoadRecord`] by endpoint id of the replica (one entry for each reporting node), and
    /// [`PressureRecord`] by node id.
    Load,
}

/// What a node says of itself, by its id; table [`Table::Node`]. Its name and addresses are in the
/// orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Published ports that it could not open.
    #[serde(default)]
    pub closed_ports: Vec<ClosedPort>,
    /// Largest outer IP packet that the device of its data path takes, in bytes; 0 when unknown.
    #[serde(default)]
    pub mtu: u32,
    /// Questions by VXLAN that arrived here a moment ago, of nodes that got no answer to others.
    #[serde(default)]
    pub heard: Vec<HeardQuestion>,
    /// UDP port besides that of the data path, at which the kernel merges the packets of flows that it
    /// carries; 0 where there is none.
    #[serde(default)]
    pub merging_port: u16,
}

/// A loopback message of the data path that has arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeardQuestion {
    /// Who asked.
    pub node: NodeId,
    /// The number that he gave it.
    pub number: u32,
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

/// What a node says of a live endpoint of its own; table [`Table::Endpoint`]. Where the endpoint is,
/// its addresses and what it is part of are in the orders: nobody believes a node about those, nor
/// about an endpoint that the orders give to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Key.
    pub id: EndpointId,
    /// False while it starts or drains: known to the switch, not given to new connections or DNS.
    pub ready: bool,
    /// It is on its way out, and never ready again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Published TCP ports, by their numbers inside the sandbox, that its program accepts over IPv4
    /// and not over IPv6.
    #[serde(default)]
    pub ipv4_only: Vec<u16>,
    /// The sandbox has the IPv4 address only: the kernel there knows no IPv6.
    #[serde(default)]
    pub without_ipv6: bool,
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

/// How much what runs on a node waits, by the node's own id; table [`Table::Load`], as no tables are
/// made of it either. A node that says nothing is calm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureRecord {
    /// The part of the last seconds in which some task waited for CPU, memory or I/O, in hundredths
    /// of a percent.
    pub pressure: u16,
}
