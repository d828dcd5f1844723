//! What every listener uses: settings, limits, and who its clients are.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::clients::Clients;
use super::unreachable::Unreachable;
use crate::config::MeshFrontEnd;
use crate::kept::HostRules;

/// Settings and limits.
#[derive(Debug, Clone)]
pub(crate) struct MeshConfig {
    /// Address behind `weft0`.
    pub(crate) mesh_addr: IpAddr,
    /// The same of IPv6, for the frame front end.
    pub(crate) mesh_addr6: Ipv6Addr,
    /// What takes packets from elsewhere.
    pub(crate) front_end: MeshFrontEnd,
    /// How long a replica may take to answer before the client is refused. Long enough for the
    /// worker to try another replica when the kernel repeats the SYN (after 1 s, 3 s and 7 s), and
    /// longer than it keeps a SYN for a service that has no replica just now (10 s).
    pub(crate) connect_timeout: Duration,
    /// Connections and UDP clients at most, over all ports.
    pub(crate) max_connections: usize,
    /// UDP clients at most, of one port.
    pub(crate) max_udp_clients: usize,
    /// A UDP client that was idle for so long is forgotten.
    pub(crate) udp_idle: Duration,
    /// The rules of the host.
    pub(crate) rules: Arc<HostRules>,
}

impl MeshConfig {
    /// Defaults for a mesh address: half of the file descriptors that the process may open, less
    /// a reserve, at two descriptors for each connection.
    #[must_use]
    pub(crate) fn new(mesh_addr: IpAddr, mesh_addr6: Ipv6Addr) -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .map_or(MOST_CONNECTIONS * 2, |n| {
                usize::try_from(n).unwrap_or(usize::MAX)
            });
        let max_connections =
            (descriptors.saturating_sub(DESCRIPTOR_RESERVE) / 2).clamp(64, MOST_CONNECTIONS);
        Self {
            mesh_addr,
            mesh_addr6,
            front_end: MeshFrontEnd::Socket,
            connect_timeout: Duration::from_secs(12),
            max_connections,
            // Senders can be forged: the rest is for others.
            max_udp_clients: max_connections / 2,
            udp_idle: crate::config::DEFAULT_UDP_IDLE,
            rules: Arc::default(),
        }
    }
}

/// Descriptors left to the rest of the agent.
const DESCRIPTOR_RESERVE: usize = 512;
/// Connections at most, whatever the process may open.
const MOST_CONNECTIONS: usize = 100_000;

/// What accept loops need.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: MeshConfig,
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) unreachable: Unreachable,
}
