//! Published ports, replicas and connections, as one node sees them.

use std::net::{IpAddr, SocketAddr};
use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::objects::{Protocol, PublishMode};

/// Parameters of the query of `weft mesh conns`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnsQuery {
    /// Those of one service only: id, name, or unique prefix of an id.
    pub service: Option<String>,
    /// Connections at most; 10,000 when absent.
    pub limit: Option<u32>,
}

/// `weft mesh conns`: connections that the node balances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MeshConns {
    /// As many as were asked for.
    pub connections: Vec<MeshConn>,
    /// There are no others.
    pub complete: bool,
}

/// One connection, or one exchange of datagrams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
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
#[serde(rename_all = "PascalCase")]
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
    #[serde(rename = "HostIP")]
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
#[serde(rename_all = "PascalCase")]
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
#[serde(rename_all = "PascalCase")]
pub struct MeshReplica {
    /// Task name or given name.
    pub name: String,
    /// Host name of its node; empty before it has one.
    pub node: String,
    /// Name of the network; empty when nobody heard of an address.
    pub network: String,
    /// Its addresses there.
    #[serde(rename = "IPs")]
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
#[serde(rename_all = "PascalCase")]
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
