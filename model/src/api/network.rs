//! Calls about networks and what is attached to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::EndpointId;
use crate::objects::{Mac, Network};

/// `weft network inspect`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkDetail {
    /// The network.
    #[serde(flatten)]
    pub network: Network,
    /// Inner MTU in bytes on this node.
    #[serde(rename = "MTU")]
    pub mtu: u32,
    /// Everything attached to it, on any node, as gossip shows it. By endpoint: whether a container
    /// is in the sandbox, weft does not know.
    pub containers: BTreeMap<EndpointId, EndpointRow>,
    /// How full the primary subnet is.
    pub addresses: AddressUsage,
}

/// How full a subnet is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AddressUsage {
    /// Addresses that somebody has.
    pub used: u64,
    /// Addresses that can be given out, these included.
    pub total: u64,
}

/// One attached endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EndpointRow {
    /// Unique.
    #[serde(rename = "EndpointID")]
    pub id: EndpointId,
    /// Task name or given name.
    pub name: String,
    /// Ethernet address.
    #[serde(rename = "MacAddress")]
    pub mac: Mac,
    /// Its IPv4 address, with the prefix length of its subnet; an empty text where it has none.
    #[serde(default, rename = "IPv4Address", with = "or_empty")]
    pub ipv4: Option<IpNet>,
    /// Its IPv6 address, likewise.
    #[serde(default, rename = "IPv6Address", with = "or_empty")]
    pub ipv6: Option<IpNet>,
    /// Host name of the node.
    pub node: String,
}

/// An address as Docker writes it: an empty text where there is none.
mod or_empty {
    use ipnet::IpNet;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(addr: &Option<IpNet>, to: S) -> Result<S::Ok, S::Error> {
        match addr {
            Some(addr) => to.collect_str(addr),
            None => to.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<IpNet>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(D::Error::custom)
    }
}

/// `weft network connect`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Connect {
    /// Path of a network namespace (`/run/netns/x`) or a process id.
    pub netns: String,
    /// Wanted address.
    #[serde(rename = "IP")]
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
#[serde(rename_all = "PascalCase")]
pub struct Connected {
    /// Endpoint id.
    #[serde(rename = "EndpointID")]
    pub id: EndpointId,
    /// Name on the network.
    pub name: String,
    /// First address.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// All addresses, IPv4 first.
    #[serde(rename = "IPs")]
    pub ips: Vec<IpAddr>,
    /// Ethernet address.
    #[serde(rename = "MacAddress")]
    pub mac: Mac,
    /// Interface inside the namespace.
    pub ifname: String,
    /// Network name.
    pub network: String,
    /// Inner MTU in bytes.
    #[serde(rename = "MTU")]
    pub mtu: u32,
}

/// `weft network disconnect`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Disconnect {
    /// Name or id of the endpoint.
    pub endpoint: String,
    /// On a manager: whatever node it is on.
    #[serde(default)]
    pub force: bool,
}

/// `weft network peer add`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PeerAdd {
    /// Address inside the network.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// Ethernet address.
    #[serde(rename = "MacAddress")]
    pub mac: Mac,
    /// Underlay address.
    #[serde(rename = "VTEP")]
    pub vtep: IpAddr,
}
