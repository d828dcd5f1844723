//! What a sandbox has on a network.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::mac::Mac;
use crate::id::{EndpointId, NetworkId, NodeId, ServiceId};

/// One address of a sandbox on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attachment {
    /// Of this attachment.
    #[serde(rename = "EndpointID")]
    pub endpoint: EndpointId,
    /// On which network, as an object with its `ID`.
    #[serde(with = "by_id")]
    pub network: NetworkId,
    /// Addresses with the prefix lengths of their subnets: IPv4 first.
    pub addresses: Vec<IpNet>,
    /// Derived from the first address.
    #[serde(rename = "MacAddress")]
    pub mac: Mac,
    /// More names, only on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
}

impl Attachment {
    /// The addresses alone: IPv4 first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(IpNet::addr)
    }
}

/// A network as Docker has it in a task: an object, of which we know the id.
mod by_id {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::id::NetworkId;

    #[derive(Serialize)]
    struct Written<'a> {
        #[serde(rename = "ID")]
        id: &'a NetworkId,
    }

    #[derive(Deserialize)]
    struct Read {
        #[serde(rename = "ID")]
        id: NetworkId,
    }

    pub(super) fn serialize<S: Serializer>(id: &NetworkId, to: S) -> Result<S::Ok, S::Error> {
        Written { id }.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NetworkId, D::Error> {
        Read::deserialize(from).map(|network| network.id)
    }
}

/// An endpoint made by `weft network connect`: a sandbox that someone else owns. Mostly what was asked
/// for: what is not known here is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Name that DNS answers with, unique on the network.
    pub name: String,
    /// Node that holds the sandbox.
    #[serde(rename = "NodeID")]
    pub node: NodeId,
    /// Address and aliases.
    pub attachment: Attachment,
    /// Count this endpoint as a replica of that service.
    #[serde(rename = "ServiceID")]
    pub service: Option<ServiceId>,
}
