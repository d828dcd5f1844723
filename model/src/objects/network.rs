//! Networks, and what is on them without being a node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::mac::Mac;
use super::meta::Meta;
use crate::id::{NetworkId, PeerId};

/// What a user asks a network to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Unique name.
    pub name: String,
    /// Requested subnets; empty means one from the pool.
    #[serde(default)]
    pub subnets: Vec<IpNet>,
    /// Also allocate an IPv6 subnet, when none is asked for.
    #[serde(default)]
    pub ipv6: bool,
    /// No way to the outside: no `eth1`, no forwarding of outside names.
    #[serde(default)]
    pub internal: bool,
    /// The network that published ports travel on; there is one.
    #[serde(default)]
    pub ingress: bool,
    /// `network connect` may join it, on any node; services may in any case.
    #[serde(default = "yes")]
    pub attachable: bool,
    /// `--opt k=v`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// `--label k=v`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            subnets: Vec::new(),
            ipv6: false,
            internal: false,
            ingress: false,
            attachable: true,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }
}

const fn yes() -> bool {
    true
}

/// One subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Range of the subnet.
    pub cidr: IpNet,
    /// First host address; answered by the data plane, never by a host.
    pub gateway: IpAddr,
}

/// A network with everything that was allocated for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Unique.
    pub id: NetworkId,
    /// Versions and times.
    pub meta: Meta,
    /// As asked for.
    pub spec: NetworkSpec,
    /// VXLAN network identifier, from 4096.
    pub vni: u32,
    /// Allocated subnets: the first is the primary one.
    pub subnets: Vec<Subnet>,
}

impl Network {
    /// The IPv6 address of the holder of `ip` on a network with both families: the network's first
    /// IPv6 subnet (never smaller than a /96), and `ip` in the last 32 bits.
    #[must_use]
    pub fn twin(&self, ip: Ipv4Addr) -> Option<Ipv6Addr> {
        self.subnets.iter().find_map(|s| match s.cidr {
            IpNet::V6(cidr) => {
                let high = u128::from(cidr.network());
                Some(Ipv6Addr::from(high | u128::from(u32::from(ip))))
            }
            IpNet::V4(_) => None,
        })
    }
}

/// An endpoint outside the cluster: a plain Linux vxlan device, a hardware VTEP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticPeer {
    /// Unique.
    pub id: PeerId,
    /// Network that it belongs to.
    pub network: NetworkId,
    /// Its address inside the network.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Where its frames go to and come from.
    pub vtep: IpAddr,
}
