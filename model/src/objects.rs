//! Cluster objects: the desired state that a manager stores and every node receives a part of.
//!
//! Times are Unix milliseconds, given by the caller. `version` counts changes of one object.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, NetworkId, NodeId, PeerId, ServiceId, TaskId};

/// An Ethernet address; serialised as `02:42:0a:00:00:05`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of an endpoint: `02:42:` and the four IPv4 bytes (Swarm's rule); for IPv6 the
    /// last four bytes.
    #[must_use]
    pub fn for_ip(ip: IpAddr) -> Self {
        let tail = match ip {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let o = v6.octets();
                [o[12], o[13], o[14], o[15]]
            }
        };
        Self([0x02, 0x42, tail[0], tail[1], tail[2], tail[3]])
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::fmt::Debug for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// The text is not six pairs of hexadecimal digits joined by colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid MAC address {0:?}: expected six pairs like 02:42:0a:00:00:05")]
pub struct ParseMacError(pub String);

impl std::str::FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let bad = || ParseMacError(s.to_owned());
        let mut out = [0u8; 6];
        let mut parts = s.split(':');
        for byte in &mut out {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).ok().ok_or_else(bad)?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self(out))
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = String::deserialize(d)?;
        s.parse().map_err(serde::de::Error::custom)
    }
}

/// What every object carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Counts changes of this object, from 1.
    pub version: u64,
    /// Unix milliseconds.
    pub created_at: u64,
    /// Unix milliseconds.
    pub updated_at: u64,
}

/// Settings of the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Also the `O` of every node certificate.
    pub id: String,
    /// Versions and times.
    pub meta: Meta,
    /// Pools that network subnets are cut from.
    pub default_address_pools: Vec<IpNet>,
    /// Prefix length of the subnets cut from the pools.
    pub subnet_prefix_len: u8,
    /// UDP port of the VXLAN data path on every node.
    pub data_path_port: u16,
}

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

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Node {
    /// The node's addresses on the ingress network: IPv4, and IPv6 where the network has it.
    pub fn ips_on(&self, ingress: &Network) -> impl Iterator<Item = IpAddr> + use<> {
        ips_on(self.ingress_ip, ingress)
    }
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

const fn yes() -> bool {
    true
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

/// Transport protocol of a published port.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Where a published port is accepted.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On every node.
    #[default]
    Ingress,
    /// On the node of the task only.
    Host,
}

/// What a replica learns of the clients of a published port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddress {
    /// Connections come from the client's own address, where the node can do that.
    #[default]
    Keep,
    /// Connections come from the node that the client connected to.
    Node,
    /// As `Node`, and each begins with a header of the PROXY protocol, version 1.
    ProxyV1,
    /// The same, version 2.
    ProxyV2,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Bind to one address only; every address when absent.
    #[serde(default)]
    pub host_ip: Option<IpAddr>,
    /// 0 asks for a dynamic port, 30000-32767.
    pub published: u16,
    /// Port inside the task.
    pub target: u16,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Every node or the task's node.
    #[serde(default)]
    pub mode: PublishMode,
    /// What replicas learn of their clients.
    #[serde(default)]
    pub client_address: ClientAddress,
}

impl std::fmt::Display for PortSpec {
    /// `192.0.2.1:8000->80/tcp`; the target alone while no port is given.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host_ip {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        if self.published != 0 {
            write!(f, "{}->", self.published)?;
        }
        write!(f, "{}/{}", self.target, self.protocol)
    }
}

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

/// When a finished task is replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Always.
    #[default]
    Any,
    /// When it ended with an error.
    OnFailure,
    /// Never.
    None,
}

/// A network that a service joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachmentSpec {
    /// Network name or id; an id once stored.
    pub target: String,
    /// More names for the service on this network.
    #[serde(default)]
    pub aliases: Vec<String>,
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

/// What tasks may do on their nodes; by default what root in a container of Docker may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Privileges {
    /// `NAME|UID[:GROUP|GID]`, looked up on the node; root when empty.
    pub user: String,
    /// Capabilities beyond Docker's default, as [`crate::capability::canonical`] spells them.
    pub cap_add: Vec<String>,
    /// Capabilities of the default that they do not have.
    pub cap_drop: Vec<String>,
    /// Nothing that they execute gains rights by its file.
    pub no_new_privileges: bool,
}

impl Privileges {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
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

/// Task states in order (SwarmKit's task model). An observed state never goes backwards.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Created by the orchestrator.
    #[default]
    New = 0,
    /// Addresses are allocated.
    Pending = 64,
    /// A node was chosen.
    Assigned = 192,
    /// The node took it.
    Accepted = 256,
    /// The sandbox is being made.
    Preparing = 320,
    /// Ready to start.
    Ready = 384,
    /// The process is being started.
    Starting = 448,
    /// Running and healthy.
    Running = 512,
    /// Ended with success.
    Complete = 576,
    /// Stopped on request.
    Shutdown = 640,
    /// Ended with an error.
    Failed = 704,
    /// Could not be started.
    Rejected = 768,
    /// Only as a desired state: forget it once it ended.
    Remove = 800,
    /// Its node is gone for good.
    Orphaned = 832,
}

impl TaskState {
    /// True once the task will never run again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }
}

/// What is known of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Observed state.
    pub state: TaskState,
    /// Unix milliseconds of the last change.
    pub since: u64,
    /// What happened, for people.
    pub message: String,
    /// What went wrong, for people; empty when nothing did.
    pub err: String,
    /// Exit code of the process, once it ended.
    pub exit_code: Option<i32>,
}

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

/// One attempt to run one replica of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Unique.
    pub id: TaskId,
    /// Versions and times.
    pub meta: Meta,
    /// Which service it belongs to.
    pub service: ServiceId,
    /// Name of the service.
    pub service_name: String,
    /// From 1; 0 for global services.
    pub slot: u32,
    /// Chosen node, once assigned.
    pub node: Option<NodeId>,
    /// Version of the service spec it was made from.
    pub spec_version: u64,
    /// Copy of the spec it was made from.
    pub spec: ServiceSpec,
    /// Allocated addresses, in the order eth0, eth2, eth3, …
    pub attachments: Vec<Attachment>,
    /// What the cluster wants.
    pub desired: TaskState,
    /// What the node reports.
    pub status: TaskStatus,
}

impl Task {
    /// `web.1.<id>`; for global services the node id stands in place of the slot.
    #[must_use]
    pub fn name(&self) -> String {
        match (&self.node, self.slot) {
            (Some(node), 0) => format!("{}.{}.{}", self.service_name, node, self.id),
            (_, slot) => format!("{}.{}.{}", self.service_name, slot, self.id),
        }
    }
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
