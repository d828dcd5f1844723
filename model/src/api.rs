//! The node API: JSON over HTTP/1 on a unix socket, between `weft` and `weftd`.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | GET /v1/info | | [`Info`] |
//! | POST /v1/swarm/init | [`SwarmInit`] | [`SwarmInitReply`] |
//! | POST /v1/swarm/join | [`SwarmJoin`] | [`SwarmJoinReply`] |
//! | POST /v1/swarm/leave | [`SwarmLeave`] | `{}` |
//! | GET /v1/swarm/token/{role} | | [`JoinToken`] |
//! | POST /v1/swarm/token/{role}/rotate | | [`JoinToken`] |
//! | GET /v1/nodes | | list of [`NodeRow`] |
//! | GET, DELETE /v1/nodes/{ref} | [`NodeRemove`] | [`NodeRow`], `{}` |
//! | POST /v1/nodes/{ref}/update | [`NodeUpdate`] | `Node` |
//! | GET /v1/nodes/{ref}/tasks | | list of [`TaskRow`] |
//! | GET, POST /v1/networks | `NetworkSpec` | `[Network]`, `Network` |
//! | GET, DELETE /v1/networks/{ref} | | [`NetworkDetail`], `{}` |
//! | POST /v1/networks/{ref}/connect | [`Connect`] | [`Connected`] |
//! | POST /v1/networks/{ref}/disconnect | [`Disconnect`] | `{}` |
//! | GET, POST /v1/networks/{ref}/peers | [`PeerAdd`] | `[StaticPeer]`, `StaticPeer` |
//! | DELETE /v1/networks/{ref}/peers/{ip} | | `{}` |
//! | GET, POST /v1/services | `ServiceSpec` | `[ServiceDetail]`, `Service` |
//! | GET, DELETE /v1/services/{ref} | | [`ServiceDetail`], `{}` |
//! | POST /v1/services/{ref}/scale | [`Scale`] | `Service` |
//! | POST /v1/services/{ref}/update | [`ServiceUpdate`] | `Service` |
//! | GET /v1/services/{ref}/tasks | | list of [`TaskRow`] |
//! | GET /v1/mesh/ports | | list of [`MeshPort`] |
//! | GET /v1/mesh/conns?[`ConnsQuery`] | | [`MeshConns`] |
//! | GET /v1/mesh/why/{asked} | | [`Why`] |
//! | GET /v1/drops?[`DropsQuery`] | | [`Drops`] |
//! | GET /v1/doctor | | list of [`Check`] |
//! | GET /v1/ping/{node}?[`PingQuery`] | | [`Pong`] |
//! | GET /v1/capture?[`CaptureQuery`] | | pcapng, as frames pass |
//! | GET /metrics | | OpenMetrics text |
//!
//! `{ref}` is a full id, an exact name, or a unique prefix of an id. Every error is an
//! [`ErrorBody`] with status 400 (bad request), 403 (not permitted), 404 (no such object),
//! 409 (conflict), 413 (larger than [`MAX_REQUEST`]), 503 (not part of a swarm, not a manager, or the manager is unreachable).

use std::net::{IpAddr, SocketAddr};
use std::ops::Add;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, NodeId};
use crate::objects::{
    Affinity, Availability, ConnectionPolicy, Mac, Network, Node, PortSpec, Protocol, PublishMode,
    Role, Service, Task,
};

/// Largest body of a request, in bytes: 1 MiB. A larger one is answered with 413.
pub const MAX_REQUEST: usize = 1 << 20;

/// Every error of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong, where, and the next step; one or more sentences.
    pub message: String,
}

/// What this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Version of `weftd`.
    pub version: String,
    /// `--name`, or the host name.
    pub name: String,
    /// Process id of `weftd`.
    pub pid: u32,
    /// Membership, when the node is part of a swarm.
    pub swarm: Option<SwarmInfo>,
    /// Warnings that a person should see (no `nft`, busy ports, …).
    pub warnings: Vec<String>,
}

/// Membership of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmInfo {
    /// Cluster id.
    pub cluster_id: String,
    /// This node.
    pub node_id: NodeId,
    /// Role in its certificate.
    pub role: Role,
    /// Address that others reach it at.
    pub addr: IpAddr,
    /// Managers that it knows, `host:port`.
    pub managers: Vec<String>,
    /// True while the session to a manager is open.
    pub connected: bool,
    /// Why it is not, while it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When the last attempt failed, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error_at: Option<u64>,
}

/// `weft swarm init`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmInit {
    /// Address or interface, with an optional port.
    pub advertise_addr: Option<String>,
    /// Address or interface, with an optional port; default `0.0.0.0:2377`, or `[::]:2377` with an
    /// IPv6 advertise address.
    pub listen_addr: Option<String>,
    /// Address or interface, without a port.
    pub data_path_addr: Option<String>,
    /// 1024-49151; default 4789.
    pub data_path_port: Option<u16>,
    /// Pools for network subnets; default `10.0.0.0/8`, and unique local prefixes for IPv6.
    #[serde(default)]
    pub default_addr_pool: Vec<IpNet>,
    /// Default 24.
    pub default_addr_pool_mask_length: Option<u8>,
}

/// Answer to [`SwarmInit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmInitReply {
    /// The first manager.
    pub node_id: NodeId,
    /// Token for workers.
    pub worker_token: String,
    /// `host:port` to join at.
    pub manager_addr: String,
}

/// `weft swarm join`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmJoin {
    /// `SWMTKN-1-…`
    pub token: String,
    /// `host:port` of a manager.
    pub remote_addr: String,
    /// As for init.
    pub advertise_addr: Option<String>,
    /// As for init.
    pub listen_addr: Option<String>,
    /// As for init.
    pub data_path_addr: Option<String>,
}

/// Answer to [`SwarmJoin`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmJoinReply {
    /// The new node.
    pub node_id: NodeId,
    /// Role that the token gave.
    pub role: Role,
}

/// `weft swarm leave`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwarmLeave {
    /// Leave even as the last manager.
    #[serde(default)]
    pub force: bool,
}

/// `weft swarm join-token`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// `SWMTKN-1-…`
    pub token: String,
    /// `host:port` to join at.
    pub manager_addr: String,
}

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

/// A service and how many of its tasks run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDetail {
    /// The service.
    pub service: Service,
    /// Tasks in state running.
    pub running: u32,
    /// Tasks wanted.
    pub desired: u32,
    /// Published ports that a node could not bind, for people.
    pub port_errors: Vec<String>,
}

/// `weft service scale`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    /// Wanted number of tasks.
    pub replicas: u32,
}

/// `weft service update`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceUpdate {
    /// Ports to publish; one that is published already stays as it is.
    #[serde(default)]
    pub publish_add: Vec<PortSpec>,
    /// Ports to take back, by target and protocol; a published port of 0 and no address stand for
    /// every one of that target.
    #[serde(default)]
    pub publish_rm: Vec<PortSpec>,
    /// Which connections stay together. This and the fields after it are a [`ConnectionPolicy`]:
    /// what is absent stays.
    #[serde(default)]
    pub affinity: Option<Affinity>,
    /// Replicas on the node go first.
    #[serde(default)]
    pub local_first: Option<bool>,
    /// Connections at most; 0 takes the limit away.
    #[serde(default)]
    pub limit_connections: Option<u32>,
    /// Connections of one client at most; 0 takes the limit away.
    #[serde(default)]
    pub limit_client_connections: Option<u32>,
    /// Whether `network connect` on a worker may make replicas; absent, it stays.
    #[serde(default)]
    pub attach: Option<bool>,
}

impl ServiceUpdate {
    /// The policy after the update.
    #[must_use]
    pub fn connections(&self, before: ConnectionPolicy) -> ConnectionPolicy {
        ConnectionPolicy {
            affinity: self.affinity.unwrap_or(before.affinity),
            local_first: self.local_first.unwrap_or(before.local_first),
            limit: self.limit_connections.unwrap_or(before.limit),
            limit_per_client: self
                .limit_client_connections
                .unwrap_or(before.limit_per_client),
        }
    }
}

/// A row of `weft service ps` and `weft node ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// The task.
    pub task: Task,
    /// Host name of its node; empty before it is assigned.
    pub node_name: String,
    /// The node is down, carries no traffic, or is no member any more: what it reported last is all that is known.
    #[serde(default)]
    pub node_down: bool,
}

/// A row of `weft node ls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// The node.
    pub node: Node,
    /// True for the node that answers.
    pub is_self: bool,
    /// True for the manager that leads.
    pub is_leader: bool,
    /// Whom its gossip sees, as it said with its last heartbeat; absent where it has not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gossip: Option<NodeSight>,
    /// A second machine has shown the node's identity in the last half minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned: Option<NodeClone>,
}

/// Two machines with one identity: a data directory was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeClone {
    /// Address of the one with the session.
    pub first: IpAddr,
    /// Address of the one that was refused.
    pub second: IpAddr,
}

/// Whom the gossip of a node sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSight {
    /// Other members.
    pub others: u32,
    /// How many of them it sees.
    pub seen: u32,
    /// Names of those that it does not see; not all, where they are very many.
    pub unseen: Vec<String>,
}

/// `weft node rm`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRemove {
    /// Also a node that is not down.
    #[serde(default)]
    pub force: bool,
}

/// `weft node update`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUpdate {
    /// Whether the scheduler may use the node.
    pub availability: Availability,
}

/// Parameters of the query of `weft drops`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropsQuery {
    /// One port only: endpoint name, `underlay`, or `mesh`.
    pub port: Option<String>,
}

/// `weft drops`: packets not delivered, by reason and by port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Sum over all ports and workers; reasons that never happened are left out.
    pub total: Vec<DropCount>,
    /// By port; ports without drops are left out.
    pub ports: Vec<PortDrops>,
}

/// A reason and how often it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// Short name, as in the metrics.
    pub reason: String,
    /// One sentence.
    pub help: String,
    /// Packets.
    pub packets: u64,
}

/// Drops of one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDrops {
    /// Endpoint name, `underlay`, or `mesh`.
    pub port: String,
    /// Reasons with counts.
    pub drops: Vec<DropCount>,
}

/// `weft capture`: which frames, as parameters of the query. Every one may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureQuery {
    /// Endpoint name, `underlay`, or `mesh`.
    pub port: Option<String>,
    /// One direction only.
    pub dir: Option<CaptureDir>,
    /// The stream ends after so many frames.
    pub count: Option<u64>,
    /// Bytes kept of each frame, at most.
    pub snaplen: Option<u32>,
}

/// Direction of a frame, seen from its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureDir {
    /// Into the sandbox.
    In,
    /// Out of it, and on its way.
    Out,
    /// Dropped.
    Drop,
}

impl CaptureDir {
    /// As in the query.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Drop => "drop",
        }
    }
}

/// Parameters of the query of `weft mesh conns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnsQuery {
    /// Those of one service only: id, name, or unique prefix of an id.
    pub service: Option<String>,
    /// Connections at most; 10,000 when absent.
    pub limit: Option<u32>,
}

/// `weft mesh conns`: connections that the node balances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshConns {
    /// As many as were asked for.
    pub connections: Vec<MeshConn>,
    /// There are no others.
    pub complete: bool,
}

/// One connection, or one exchange of datagrams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshConn {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// Name of the endpoint that the client is; empty where it came by a published port.
    pub client_name: String,
    /// What the client connected to: `*:8000`, or a virtual address and a port.
    pub address: String,
    /// Name of the service; empty once it is gone.
    pub service: String,
    /// Network that the replica is reached on.
    pub network: String,
    /// The replica.
    pub replica: SocketAddr,
    /// Its name; empty once it is gone.
    pub replica_name: String,
    /// Host name of its node; empty once it is gone.
    pub node: String,
    /// How far it is, in conntrack's words.
    pub state: String,
    /// Milliseconds since the last packet of either side.
    pub idle_ms: u64,
}

/// A row of `weft mesh ls`: a published port on the node that answers, with its figures since it
/// was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshPort {
    /// The published port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Every node, or this one for its own task.
    pub mode: PublishMode,
    /// Name of the service.
    pub service: String,
    /// The one address that it is accepted on; every address when absent.
    pub host_ip: Option<IpAddr>,
    /// What brings packets to the balancer.
    pub front_end: String,
    /// Whether it is accepted.
    pub state: MeshPortState,
    /// Who holds a busy port; of an accepted one, the connection that keeps this node's own programs
    /// from it; empty otherwise.
    pub held_by: String,
    /// Replicas that take new connections, as this node knows.
    pub healthy: u32,
    /// Replicas that there are, or should be.
    pub total: u32,
    /// Connections accepted; for UDP, clients that began to send.
    pub accepted: u64,
    /// Connections open now.
    pub active: u64,
    /// Connections that found no replica.
    pub failed: u64,
    /// Times that a connection went on to another replica, which its client did not notice.
    pub retried: u64,
    /// Replicas that this node leaves out, after failures in a row.
    #[serde(default)]
    pub ejected: u32,
    /// Bytes from clients to replicas.
    pub rx_bytes: u64,
    /// Bytes from replicas to clients.
    pub tx_bytes: u64,
    /// How long connections to replicas took to open.
    #[serde(default)]
    pub connect: ConnectTime,
}

/// How long connections took to open, summed up since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectTime {
    /// Connections.
    pub count: u64,
    /// Microseconds of all of them together.
    pub total_us: u64,
}

impl Add for ConnectTime {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            total_us: self.total_us.saturating_add(other.total_us),
        }
    }
}

impl ConnectTime {
    /// Mean, in microseconds; none without a connection.
    #[must_use]
    pub const fn mean_us(self) -> Option<u64> {
        self.total_us.checked_div(self.count)
    }
}

/// Whether a published port is accepted on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeshPortState {
    /// Connections are accepted.
    Listening,
    /// The port is reserved, and clients are refused: no replica takes connections.
    NoReplica,
    /// Somebody else holds the port.
    Busy,
    /// It is published on an address that the node does not have.
    NoAddress,
}

/// A replica as one node sees it, on one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshReplica {
    /// Task name or given name.
    pub name: String,
    /// Host name of its node; empty before it has one.
    pub node: String,
    /// Name of the network; empty when nobody heard of an address.
    pub network: String,
    /// Its addresses there.
    pub ips: Vec<IpAddr>,
    /// Connections that this node has open to it.
    pub active: u32,
    /// The same over all nodes, as far as this one knows.
    pub active_everywhere: u32,
    /// Connections of this node that it answered.
    pub accepted: u64,
    /// Connections of this node that it refused or left unanswered.
    pub refused: u64,
    /// Those of `refused` that went on to another replica; the others failed.
    #[serde(default)]
    pub retried: u64,
    /// Bytes from clients of this node.
    #[serde(default)]
    pub rx_bytes: u64,
    /// Bytes to clients of this node.
    #[serde(default)]
    pub tx_bytes: u64,
    /// How long it took to answer connections of this node.
    #[serde(default)]
    pub connect: ConnectTime,
    /// This node leaves it out, after failures in a row.
    #[serde(default)]
    pub ejected: bool,
    /// How often this node left it out.
    #[serde(default)]
    pub ejections: u64,
    /// Why it takes no new connections; empty when it does.
    pub why_not: String,
}

/// `weft why`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// Port or name.
    pub asked: String,
    /// Host name of the node that answers.
    pub node: String,
    /// Name of the service; empty when it is none.
    pub service: String,
    /// The table that the answer comes from.
    pub source: String,
    /// What was found, for people.
    pub found: Vec<String>,
    /// Published ports that it is about.
    pub ports: Vec<MeshPort>,
    /// Who answers.
    pub replicas: Vec<MeshReplica>,
}

/// Parameters of the query of `weft ping`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingQuery {
    /// Bytes of the packet, without Ethernet and tunnel headers; as many as the way carries when
    /// absent.
    pub size: Option<u16>,
    /// How long its answer is waited for, in milliseconds; one second when absent.
    pub timeout_ms: Option<u64>,
}

/// `weft ping`: what came of one packet on the data path to another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Host name of the other node.
    pub node: String,
    /// This node's end of the data path.
    pub from: IpAddr,
    /// The other's.
    pub to: IpAddr,
    /// UDP port of the data path.
    pub port: u16,
    /// Bytes of the packet.
    pub size: u16,
    /// How long the answer took, in microseconds; absent when there was none.
    pub rtt_us: Option<u64>,
    /// Whether packets of this size arrive at the other node.
    pub there: Passage,
    /// Whether its own of this size arrive here.
    pub back: Passage,
}

/// Whether packets pass in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Passage {
    /// They do.
    Passes,
    /// They do not.
    Lost,
    /// Nobody can tell: the other direction is closed.
    Unknown,
}

/// One line of `weft doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub next: String,
}

/// Outcome of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Works, but slower or with less than it could.
    Warn,
    /// Does not work.
    Fail,
}
