//! Calls about networks and what is attached to them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::id::EndpointId;
use crate::objects::{Mac, Network};

/// `weft network inspect`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDetail {
    /// The network.
    pub network: Network,
    /// Inner MTU in bytes on this node.
    pub mtu: u32,
    /// Everything attached to it, on any node, as gossip shows it.
    pub endpoints: Vec<EndpointRow>,
    /// Addresses in use, and addresses in total, of the primary subnet.
    pub addresses: (u64, u64),
}

/// One attached endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// Unique.
    pub id: EndpointId,
    /// Task name or given name.
    pub name: String,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Ethernet address.
    pub mac: Mac,
    /// Host name of the node.
    pub node: String,
}

/// `weft network connect`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Path of a network namespace (`/run/netns/x`) or a process id.
    pub netns: String,
    /// Wanted address.
    pub ip: Option<IpAddr>,
    /// More names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Count as a replica of this service.
    pub service: Option<String>,
    /// Name on the network; made from the id when absent.
    pub name: Option<String>,
    /// Interface name inside the namespace; default: the first free of eth0, eth2, eth3, …
    pub ifname: Option<String>,
}

/// Answer to [`Connect`]; also what `weft network connect` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Endpoint id.
    pub id: EndpointId,
    /// Name on the network.
    pub name: String,
    /// First address.
    pub ip: IpAddr,
    /// All addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Ethernet address.
    pub mac: Mac,
    /// Interface inside the namespace.
    pub ifname: String,
    /// Network name.
    pub network: String,
    /// Inner MTU in bytes.
    pub mtu: u32,
}

/// `weft network disconnect`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// Name or id of the endpoint.
    pub endpoint: String,
    /// On a manager: whatever node it is on.
    #[serde(default)]
    pub force: bool,
}

/// `weft network peer add`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAdd {
    /// Address inside the network.
    pub ip: IpAddr,
    /// Ethernet address.
    pub mac: Mac,
    /// Underlay address.
    pub vtep: IpAddr,
}
