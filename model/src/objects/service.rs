//! Services: what somebody wants to run, how often, and how it is reached.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::meta::Meta;
use super::port::PortSpec;
use super::task::{NetworkAttachmentSpec, Privileges, RestartCondition};
use crate::id::{NetworkId, ServiceId};

/// How many tasks a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceMode {
    /// A fixed number, spread over the nodes.
    Replicated {
        /// Wanted number of running tasks.
        replicas: u32,
    },
    /// One on each node.
    Global,
}

/// How a service name resolves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointMode {
    /// To one virtual address.
    #[default]
    Vip,
    /// To the addresses of the tasks.
    Dnsrr,
}

/// Which connections of a client stay together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// None: each goes where the load is least.
    #[default]
    None,
    /// All from one client address go to one replica, whatever node they come by.
    Client,
}

/// How new connections to a service find a replica, and how many there may be. A change touches no
/// connection that is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionPolicy {
    /// Which connections of a client stay together.
    #[serde(default)]
    pub affinity: Affinity,
    /// Replicas on the client's node, or the node that the client came to, go first while they have
    /// little more to do than the others.
    #[serde(default)]
    pub local_first: bool,
    /// Connections at most that replicas have open on one network, cluster-wide as far as the node
    /// that takes the next one knows; 0 is no limit.
    #[serde(default)]
    pub limit: u32,
    /// Connections at most that one client address has open through one node; 0 is no limit.
    #[serde(default)]
    pub limit_per_client: u32,
}

/// What a user asks a service to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Unique, a DNS label, at most 63 characters.
    pub name: String,
    /// Replicated or global.
    pub mode: ServiceMode,
    /// The word `host`: run `command` from the node's own file system.
    pub image: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=value`, more environment of the task.
    #[serde(default)]
    pub env: Vec<String>,
    /// Networks to join, besides `ingress` for published ports.
    #[serde(default)]
    pub networks: Vec<NetworkAttachmentSpec>,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// VIP or DNS round robin.
    #[serde(default)]
    pub endpoint_mode: EndpointMode,
    /// How connections find a replica.
    #[serde(default)]
    pub connections: ConnectionPolicy,
    /// `network connect` on a worker may make endpoints that are its replicas or have its names; on
    /// a manager it may in any case.
    #[serde(default)]
    pub attach: bool,
    /// When finished tasks are replaced.
    #[serde(default)]
    pub restart_condition: RestartCondition,
    /// Milliseconds between failure and replacement; Swarm's default is 5000.
    pub restart_delay_ms: u64,
    /// Milliseconds between SIGTERM and SIGKILL; Swarm's default is 10000.
    pub stop_grace_ms: u64,
    /// `--label k=v`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Who its tasks are, and what they may do on their nodes.
    #[serde(default, skip_serializing_if = "Privileges::is_default")]
    pub privileges: Privileges,
}

/// A virtual address of a service on one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    /// On which network.
    pub network: NetworkId,
    /// The address.
    pub ip: IpAddr,
}

/// A service with everything that was allocated for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Unique.
    pub id: ServiceId,
    /// Versions and times.
    pub meta: Meta,
    /// As asked for, network targets resolved to ids.
    pub spec: ServiceSpec,
    /// One of each address family per network, IPv4 first; empty with `dnsrr`.
    pub vips: Vec<Vip>,
    /// The ports of the spec with dynamic ones filled in.
    pub ports: Vec<PortSpec>,
}

/// What is left of a service that was removed while tasks of it have not ended: connections that are
/// open to them go on, and nobody else gets its virtual addresses meanwhile. Its name and its ports
/// are free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndingService {
    /// The id that it had.
    pub id: ServiceId,
    /// The name that it had, for people.
    pub name: String,
    /// Its virtual addresses.
    pub vips: Vec<Vip>,
}
