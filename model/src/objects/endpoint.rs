//! What a sandbox has on a network.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::mac::Mac;
use crate::id::{EndpointId, NetworkId, NodeId, ServiceId};

/// One address of a sandbox on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Of this attachment.
    pub endpoint: EndpointId,
    /// On which network.
    pub network: NetworkId,
    /// Addresses: IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Derived from the first address.
    pub mac: Mac,
    /// More names, only on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// An endpoint made by `weft network connect`: a sandbox that someone else owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name that DNS answers with, unique on the network.
    pub name: String,
    /// Node that holds the sandbox.
    pub node: NodeId,
    /// Address and aliases.
    pub attachment: Attachment,
    /// Count this endpoint as a replica of that service.
    pub service: Option<ServiceId>,
}
