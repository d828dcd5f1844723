//! A published port: what is wanted of it, why it is not open, and what it has counted.

use std::net::IpAddr;

use weft_model::api::ConnectTime;
use weft_model::objects::{ClientAddress, Protocol, PublishMode};

/// What tells ports of a node apart.
pub(super) type Key = (Option<IpAddr>, u16, Protocol);

/// A port that the node has to accept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Published {
    /// The one address to accept it on; every address when absent.
    pub(crate) host_ip: Option<IpAddr>,
    /// The port.
    pub(crate) port: u16,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// Name of the service, for people.
    pub(crate) service: String,
    /// On every node, or on this one for its own task.
    pub(crate) mode: PublishMode,
    /// What replicas learn of their clients.
    pub(crate) client_address: ClientAddress,
    /// Port at the mesh address that stands for it: its own number, unless several ports of the
    /// node have that number (on different addresses).
    pub(crate) mesh_port: u16,
    /// A replica takes new connections, or they wait for one that is about to. Else clients are
    /// refused at once.
    pub(crate) serving: bool,
    /// Connections of one client address at most; 0 is no limit.
    pub(crate) limit_per_client: u32,
    /// Clients of IPv6 can go to any replica as they are; else the listener speaks to replicas for
    /// them.
    pub(crate) ipv6: bool,
}

/// A published port that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BusyPort {
    /// Address that it was to be accepted on.
    pub(crate) host_ip: Option<IpAddr>,
    /// The port.
    pub(crate) port: u16,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// The service that published it.
    pub(crate) service: String,
    /// Who holds it, as in `nginx (pid 812)`; or what else the kernel said.
    pub(crate) owner: String,
}

/// Figures of one open port, since it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortStats {
    /// The port.
    pub(crate) published: Published,
    /// Connections accepted; for UDP, clients that began to send.
    pub(crate) accepted: u64,
    /// Connections that found no replica, or no room under the limit.
    pub(crate) refused: u64,
    /// Connections open now; for UDP, clients not yet forgotten.
    pub(crate) open: u64,
    /// Bytes from clients to replicas.
    pub(crate) rx_bytes: u64,
    /// Bytes from replicas to clients.
    pub(crate) tx_bytes: u64,
    /// How long replicas took to answer; nothing for UDP.
    pub(crate) connect: ConnectTime,
}
