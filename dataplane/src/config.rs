//! The settings of the data plane.

use std::net::SocketAddr;
use std::time::Duration;

use weft_wire::ecn::Dscp;

use crate::journal::JournalConfig;
use crate::way_out::TunnelOffload;

/// How the data plane is set up; fixed while it runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Number of worker threads; at least one.
    pub workers: usize,
    /// Address and port that VXLAN datagrams are received on, in the calling thread's namespace.
    pub underlay: SocketAddr,
    /// Flows of one worker, at most.
    pub flows: usize,
    /// Idle time after which UDP flows end; those that nobody answered after 30 s at most.
    pub udp_idle: Duration,
    /// How long a worker that ran out of work looks for more before it sleeps, at most: as long as
    /// that is worth it by the rhythm of its work and the price of a wake-up. Zero sleeps at once.
    pub spin: Duration,
    /// Send TCP super-frames through a TAP of the host where the kernel can segment them, tunnel and
    /// all, once a test of that has passed: [`Dataplane::injection`](crate::Dataplane::injection).
    pub tunnel_offload: TunnelOffload,
    /// Leave established flows to the kernel, once a test of that has passed:
    /// [`Dataplane::fast_path`](crate::Dataplane::fast_path).
    pub fast_path: bool,
    /// Class of service of packets to other nodes.
    pub dscp: Dscp,
    /// Where flows outlive the process; nowhere when absent.
    pub journal: Option<JournalConfig>,
    /// Numbers of interfaces that nothing of the underlay comes by: what does is not received.
    pub refused_interfaces: Vec<u32>,
    /// Seed of hashes and random choices; drawn at random by the caller.
    pub seed: u64,
}
