//! Networks, and what is on them without being a node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::mac::Mac;
use super::meta::{Meta, Version};
use crate::id::{NetworkId, PeerId};

/// What carries a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// VXLAN between nodes.
    #[default]
    Overlay,
}

/// Where a network is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// On every node.
    #[default]
    Swarm,
}

/// One subnet of a network. Its gateway is always the first address of the range, and may be left
/// out of what is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", try_from = "SubnetRequest")]
pub struct Subnet {
    /// Range of the subnet.
    #[serde(rename = "Subnet")]
    pub cidr: IpNet,
    /// First host address; answered by the data plane, never by a host.
    pub gateway: IpAddr,
}

impl From<IpNet> for Subnet {
    fn from(cidr: IpNet) -> Self {
        let gateway = match cidr.network() {
            IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).wrapping_add(1)).into(),
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).wrapping_add(1)).into(),
        };
        Self { cidr, gateway }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct SubnetRequest {
    subnet: IpNet,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

impl TryFrom<SubnetRequest> for Subnet {
    type Error = GatewayError;

    fn try_from(request: SubnetRequest) -> Result<Self, GatewayError> {
        let subnet = Self::from(request.subnet);
        match request.gateway {
            Some(asked) if asked != subnet.gateway => Err(GatewayError { asked, subnet }),
            _ => Ok(subnet),
        }
    }
}

/// A gateway that is another address than the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{asked} cannot be the gateway of subnet {}: that is always the first address, {}; leave it out",
    .subnet.cidr,
    .subnet.gateway
)]
pub struct GatewayError {
    asked: IpAddr,
    subnet: Subnet,
}

/// The addresses of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Ipam {
    /// Its subnets. In a request those that are wanted, where none means one from the pool; of a
    /// network all that it has, the primary one first.
    #[serde(default)]
    pub config: Vec<Subnet>,
}

impl FromIterator<IpNet> for Ipam {
    fn from_iter<I: IntoIterator<Item = IpNet>>(subnets: I) -> Self {
        Self {
            config: subnets.into_iter().map(Subnet::from).collect(),
        }
    }
}

/// What a user asks a network to be. What is not known here is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// Unique name.
    pub name: String,
    /// There is one.
    #[serde(default)]
    pub driver: Driver,
    /// There is one.
    #[serde(default)]
    pub scope: Scope,
    /// Also allocate an IPv6 subnet, when none is asked for.
    #[serde(default, rename = "EnableIPv6")]
    pub ipv6: bool,
    /// Its subnets.
    #[serde(default, rename = "IPAM")]
    pub ipam: Ipam,
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
            driver: Driver::default(),
            scope: Scope::default(),
            ipv6: false,
            ipam: Ipam::default(),
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

/// A network with everything that was allocated for it. What is not known here is refused: settings
/// and facts lie side by side in it, and no reader can tell which of them a new field is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "NetworkObject", into = "NetworkObject")]
pub struct Network {
    /// Unique.
    pub id: NetworkId,
    /// Versions and times.
    pub meta: Meta,
    /// As asked for, with the subnets that it got.
    pub spec: NetworkSpec,
    /// VXLAN network identifier, from 4096.
    pub vni: u32,
    /// It was removed while tasks that are to stop still used it, and goes with the last of them: nobody
    /// new comes onto it, and its name is free. As `PendingDelete` of swarmkit.
    pub ending: bool,
}

/// As Docker writes it, in one layer. Field by field, as `flatten` drops what it does not know.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct NetworkObject {
    /// Unique.
    id: NetworkId,
    /// Changes of this object.
    version: Version,
    /// When it was made: Unix milliseconds, written as RFC 3339.
    // What was stored before it had Docker's name has the alias.
    #[serde(alias = "CreatedAt", with = "crate::time::rfc3339")]
    created: u64,
    /// When it was changed last, likewise.
    #[serde(with = "crate::time::rfc3339")]
    updated_at: u64,
    /// Unique name.
    name: String,
    /// There is one.
    #[serde(default)]
    driver: Driver,
    /// There is one.
    #[serde(default)]
    scope: Scope,
    /// Also allocate an IPv6 subnet, when none is asked for.
    #[serde(default, rename = "EnableIPv6")]
    ipv6: bool,
    /// Its subnets.
    #[serde(default, rename = "IPAM")]
    ipam: Ipam,
    /// No way to the outside: no `eth1`, no forwarding of outside names.
    #[serde(default)]
    internal: bool,
    /// The network that published ports travel on; there is one.
    #[serde(default)]
    ingress: bool,
    /// `network connect` may join it, on any node; services may in any case.
    #[serde(default = "yes")]
    attachable: bool,
    /// `--opt k=v`.
    #[serde(default)]
    options: BTreeMap<String, String>,
    /// `--label k=v`.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// VXLAN network identifier, from 4096.
    #[serde(rename = "VNI")]
    vni: u32,
    /// It was removed, and goes with the last task that uses it.
    #[serde(default, rename = "PendingDelete", skip_serializing_if = "is_false")]
    ending: bool,
}

/// True for what is not written.
fn is_false(flag: &bool) -> bool {
    !flag
}

impl From<NetworkObject> for Network {
    fn from(object: NetworkObject) -> Self {
        Self {
            id: object.id,
            meta: Meta {
                version: object.version,
                created_at: object.created,
                updated_at: object.updated_at,
            },
            spec: NetworkSpec {
                name: object.name,
                driver: object.driver,
                scope: object.scope,
                ipv6: object.ipv6,
                ipam: object.ipam,
                internal: object.internal,
                ingress: object.ingress,
                attachable: object.attachable,
                options: object.options,
                labels: object.labels,
            },
            vni: object.vni,
            ending: object.ending,
        }
    }
}

impl From<Network> for NetworkObject {
    fn from(network: Network) -> Self {
        let Network {
            id,
            meta,
            spec,
            vni,
            ending,
        } = network;
        Self {
            id,
            version: meta.version,
            created: meta.created_at,
            updated_at: meta.updated_at,
            name: spec.name,
            driver: spec.driver,
            scope: spec.scope,
            ipv6: spec.ipv6,
            ipam: spec.ipam,
            internal: spec.internal,
            ingress: spec.ingress,
            attachable: spec.attachable,
            options: spec.options,
            labels: spec.labels,
            vni,
            ending,
        }
    }
}

impl Network {
    /// The subnets: the first is the primary one.
    #[must_use]
    pub fn subnets(&self) -> &[Subnet] {
        &self.spec.ipam.config
    }

    /// An address on the network, with the prefix length of its subnet; that of one address alone
    /// where no subnet has it.
    #[must_use]
    pub fn with_prefix(&self, ip: IpAddr) -> IpNet {
        let subnet = self.subnets().iter().find(|s| s.cidr.contains(&ip));
        subnet
            .and_then(|s| IpNet::new(ip, s.cidr.prefix_len()).ok())
            .unwrap_or_else(|| IpNet::from(ip))
    }

    /// The IPv6 address of the holder of `ip` on a network with both families: the network's first
    /// IPv6 subnet (never smaller than a /96), and `ip` in the last 32 bits.
    #[must_use]
    pub fn twin(&self, ip: Ipv4Addr) -> Option<Ipv6Addr> {
        self.subnets().iter().find_map(|s| match s.cidr {
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
#[serde(deny_unknown_fields)]
pub struct StaticPeer {
    /// Unique.
    #[serde(rename = "ID")]
    pub id: PeerId,
    /// Network that it belongs to.
    #[serde(rename = "NetworkID")]
    pub network: NetworkId,
    /// Its address inside the network.
    #[serde(rename = "IP")]
    pub ip: IpAddr,
    /// Its Ethernet address.
    #[serde(rename = "MacAddress")]
    pub mac: Mac,
    /// Where its frames go to and come from.
    #[serde(rename = "VTEP")]
    pub vtep: IpAddr,
}
