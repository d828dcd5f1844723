//! What a manager streams to a node: everything that the node needs to do its part.
//!
//! Two halves, each with a version of its own. [`Shared`] is the same for every node: who there is,
//! the networks, the names and addresses of services and endpoints. A manager encodes it once,
//! however many nodes there are. [`Own`] is of one node: its tasks, with everything that they need
//! to run, environment included. What a service's tasks are made of goes to the nodes that run them
//! and to no other.
//!
//! A node that has the last version of the shared half is sent the difference
//! ([`change::SharedChange`]).
//!
//! The node compares both with what it runs and repairs the difference (level-triggered), and keeps
//! the last ones on disk so that a restart without managers changes nothing.

pub mod change;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, NetworkId, NodeId, PayloadId, ServiceId, TaskId};
use crate::objects::{
    ConnectionPolicy, EndingService, Endpoint, EndpointMode, EndpointSpec, Mac, Network,
    NetworkAttachmentSpec, Node, Payload, PayloadBytes, PortSpec, Role, Service, ServiceMode,
    ServiceSpec, StaticPeer, Task, Vip, ips_on,
};

/// The orders of a node: both halves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// What every node is told.
    pub shared: Arc<Shared>,
    /// What this node alone is told.
    pub own: Arc<Own>,
    /// The bytes of secrets and configs that its tasks use, as far as they have come: in memory alone,
    /// never with the orders on disk.
    pub payloads: Arc<Payloads>,
}

/// What a task's file of a secret or a config is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadContent {
    /// Which.
    pub id: PayloadId,
    /// Its bytes.
    pub data: PayloadBytes,
    /// They are a template.
    #[serde(default)]
    pub template: bool,
}

impl From<&Payload> for PayloadContent {
    fn from(payload: &Payload) -> Self {
        Self {
            id: payload.id.clone(),
            data: payload.spec.data.clone(),
            template: payload.spec.templating.is_some(),
        }
    }
}

/// By id. Whoever has one alone may have it for ever: the bytes of a secret or a config never change.
pub type Payloads = BTreeMap<PayloadId, Arc<PayloadContent>>;

impl Assignment {
    /// Id of the node that this is for.
    #[must_use]
    pub fn node_id(&self) -> &NodeId {
        &self.own.node.id
    }

    /// True when both are the very same orders, not only equal ones.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
            && Arc::ptr_eq(&self.own, &other.own)
            && Arc::ptr_eq(&self.payloads, &other.payloads)
    }
}

/// What every node of the cluster is told. Each list is in the order of its ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Version of the desired state that this half changed with last.
    pub version: u64,
    /// Cluster id.
    pub cluster_id: String,
    /// UDP port of the data path.
    pub data_path_port: u16,
    /// Every node of the cluster (addresses for gossip and the data path).
    pub nodes: Vec<NodeView>,
    /// Every network.
    pub networks: Vec<Network>,
    /// Every service: names, VIPs and published ports are known on every node.
    pub services: Vec<ServiceView>,
    /// Removed services whose tasks have not ended: connections to these go on.
    #[serde(default)]
    pub ending: Vec<EndingService>,
    /// Every endpoint on every network. Whether it takes connections its node says by gossip.
    pub endpoints: Vec<Arc<EndpointView>>,
    /// Static peers of every network.
    pub peers: Vec<StaticPeer>,
    /// Gossip keys: the first seals, all open; the next one, and the one before, if any. Never
    /// logged.
    pub gossip_keys: Vec<GossipKey>,
}

/// What one node is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Version of the desired state that this half changed with last.
    pub version: u64,
    /// The node itself.
    pub node: Node,
    /// Tasks of this node, wanted and not yet forgotten.
    pub tasks: Vec<Task>,
    /// Endpoints of this node made by `network connect`.
    pub endpoints: Vec<Endpoint>,
}

/// What nodes need to know of each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Also the `CN` of its certificate.
    pub id: NodeId,
    /// For people.
    pub hostname: String,
    /// Where managers are: nodes open their sessions with them.
    pub role: Role,
    /// Address that others reach the node at (gossip and control).
    pub addr: IpAddr,
    /// Source and destination of its VXLAN datagrams.
    pub data_path_addr: IpAddr,
    /// UDP and TCP port of gossip.
    pub gossip_port: u16,
    /// The node's own IPv4 address on the ingress network.
    pub ingress_ip: Option<IpAddr>,
    /// Control address, of managers only.
    pub manager_addr: Option<SocketAddr>,
}

impl NodeView {
    /// The node's addresses on the ingress network: IPv4, and IPv6 where the network has it.
    pub fn ips_on(&self, ingress: &Network) -> impl Iterator<Item = IpAddr> + use<> {
        ips_on(self.ingress_ip, ingress)
    }
}

impl From<&Node> for NodeView {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.clone(),
            hostname: node.description.hostname.clone(),
            role: node.spec.role,
            addr: node.status.addr,
            data_path_addr: node.data_path_addr,
            gossip_port: node.gossip_port,
            ingress_ip: node.ingress_ip,
            manager_addr: node.manager_addr(),
        }
    }
}

/// What packets and names need of a service: nothing of what its tasks are made of. Mostly
/// settings: what is not known here is refused, as in a [`ServiceSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceView {
    /// Unique.
    pub id: ServiceId,
    /// Unique, a DNS label.
    pub name: String,
    /// How many replicas it wants.
    pub mode: ServiceMode,
    /// Networks by id, with its other names there.
    pub networks: Vec<NetworkAttachmentSpec>,
    /// VIP or DNS round robin.
    pub endpoint_mode: EndpointMode,
    /// How connections find a replica.
    pub connections: ConnectionPolicy,
    /// One of each address family per network.
    pub vips: Vec<Vip>,
    /// Published ports, dynamic ones filled in.
    pub ports: Vec<PortSpec>,
    /// The stack that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
    /// Its name resolves to tasks that are not healthy yet as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub names_before_healthy: bool,
}

impl From<&Service> for ServiceView {
    fn from(service: &Service) -> Self {
        // Every setting by its name: a new one is here, or said to be none of the nodes' business.
        let ServiceSpec {
            name,
            // One of them says the stack.
            labels: _,
            task,
            mode,
            endpoint:
                EndpointSpec {
                    mode: endpoint_mode,
                    // As asked for; what it got is below.
                    ports: _,
                },
            connections,
            // Managers judge by it, and no node.
            attach: _,
            names_before_healthy,
            // How tasks are replaced managers decide alone.
            update: _,
            rollback: _,
        } = &service.spec;
        Self {
            id: service.id.clone(),
            name: name.clone(),
            mode: *mode,
            networks: task.networks.clone(),
            endpoint_mode: *endpoint_mode,
            connections: *connections,
            vips: service.endpoint.vips.clone(),
            ports: service.endpoint.ports.clone(),
            stack: service.spec.stack().map(str::to_owned),
            names_before_healthy: *names_before_healthy,
        }
    }
}

/// Who has which address on a network, and what it is part of: a task's attachment, or an endpoint
/// made by `network connect`. Of this the managers alone speak.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Unique.
    pub id: EndpointId,
    /// On which network.
    pub network: NetworkId,
    /// Node that holds the sandbox.
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
}

impl EndpointView {
    /// Every endpoint of a task that was given to a node.
    pub fn of_task(task: &Task) -> impl Iterator<Item = Self> + '_ {
        let node = task.node.as_ref();
        let name = task.name();
        node.into_iter().flat_map(move |node| {
            let name = name.clone();
            task.attachments.iter().map(move |a| Self {
                id: a.endpoint.clone(),
                network: a.network.clone(),
                node: node.clone(),
                name: name.clone(),
                ips: a.ips().collect(),
                mac: a.mac,
                aliases: a.aliases.clone(),
                service: Some(task.service.clone()),
                task: Some(task.id.clone()),
            })
        })
    }
}

impl From<&Endpoint> for EndpointView {
    fn from(endpoint: &Endpoint) -> Self {
        let attachment = &endpoint.attachment;
        Self {
            id: attachment.endpoint.clone(),
            network: attachment.network.clone(),
            node: endpoint.node.clone(),
            name: endpoint.name.clone(),
            ips: attachment.ips().collect(),
            mac: attachment.mac,
            aliases: attachment.aliases.clone(),
            service: endpoint.service.clone(),
            task: None,
        }
    }
}

/// A key of the gossip ring: 32 bytes for AES-256-GCM.
#[derive(
    Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop,
)]
pub struct GossipKey {
    /// Tells receivers which key sealed a message.
    pub epoch: u32,
    /// The key.
    pub key: [u8; 32],
    /// Since when it seals, in Unix milliseconds by the managers' clock; 0 while it never has.
    #[serde(default)]
    pub sealing_since: u64,
}

impl std::fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GossipKey {{ epoch: {}, .. }}", self.epoch)
    }
}
