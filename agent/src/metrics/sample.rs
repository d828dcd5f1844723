//! What one scrape reads.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use weft_dataplane::WorkerCounters;
use weft_mesh::ProbeCounters;
use weft_model::api::ConnectTime;
use weft_model::objects::Protocol;
use weft_swarm::door::DoorSample;
use weft_wire::DropReason;

/// Where the figures come from: the node.
pub(crate) trait MetricsSource: fmt::Debug + Send + Sync + 'static {
    /// Reads every counter once. Called from an async task, so it must not block; values of
    /// different workers may be some packets apart.
    fn sample(&self) -> Arc<Sample>;
}

/// Every figure of the node, read at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// One per port of the data plane; also `underlay` and `mesh`.
    pub(crate) ports: Vec<PortSample>,
    /// One per worker thread.
    pub(crate) workers: Vec<WorkerSample>,
    /// One per worker thread.
    pub(crate) worker_events: Vec<WorkerEvents>,
    /// Published ports of this node.
    pub(crate) mesh_ports: Vec<MeshPortSample>,
    /// Replicas of every service, as this node sees them.
    pub(crate) mesh_replicas: Vec<MeshReplicaSample>,
    /// Flows that the kernel carries.
    pub(crate) fast_path: FastPathSample,
    /// Probes of ejected replicas.
    pub(crate) probes: ProbeCounters,
    /// Clients that were told of a refused datagram.
    pub(crate) unreachable: UnreachableCounters,
    /// DNS, over all sandboxes.
    pub(crate) dns: DnsSample,
    /// TCP ports for other nodes.
    pub(crate) doors: Vec<DoorSample>,
    /// Gossip.
    pub(crate) gossip: GossipSample,
    /// Table entries that are visible but cannot be decoded: another version wrote them, or a node
    /// misbehaves.
    pub(crate) gossip_undecodable: u64,
    /// Epoch of the snapshot that workers forward by.
    pub(crate) epoch: u64,
    /// True while the session to a manager is open.
    pub(crate) session_connected: bool,
    /// Messages of orders that were refused, by why (`damaged`, `misfit`, …).
    pub(crate) refused_orders: Vec<(&'static str, u64)>,
}

/// The kernel's flow cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FastPathSample {
    /// What happened to packets of flows that it knew (`out`, `in`, `stale`, …); empty without one.
    pub(crate) events: Vec<(&'static str, u64)>,
    /// Flows in it now.
    pub(crate) flows: u64,
    /// Times that a flow was entered.
    pub(crate) entries: u64,
}

/// What came of messages to clients whose datagram was refused, since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UnreachableCounters {
    /// Left the node.
    pub(crate) sent: u64,
    /// Beyond what a second may have: these clients wait in vain.
    pub(crate) held_back: u64,
    /// The kernel did not send them.
    pub(crate) failed: u64,
}

/// Counters of one port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PortSample {
    /// Endpoint name, `underlay`, or `mesh`.
    pub(crate) port: String,
    /// Name of its network; empty for `underlay` and `mesh`.
    pub(crate) network: String,
    /// Packets that the data plane took from the port. A super-frame counts once.
    pub(crate) rx_packets: u64,
    /// Bytes of those.
    pub(crate) rx_bytes: u64,
    /// Packets that the data plane gave to the port.
    pub(crate) tx_packets: u64,
    /// Bytes of those.
    pub(crate) tx_bytes: u64,
    /// Packets dropped, by reason; reasons may be left out when zero.
    pub(crate) drops: Vec<(DropReason, u64)>,
}

/// Figures of one worker thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WorkerSample {
    /// Entries in its flow table.
    pub(crate) flows_active: u64,
}

/// What happened in one worker thread since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WorkerEvents {
    /// Flows begun.
    pub(crate) flows_created: u64,
    /// Times that a connection was moved to another replica.
    pub(crate) flows_retried: u64,
    /// Connections that no replica took.
    pub(crate) flows_refused: u64,
    /// Flows ended by time.
    pub(crate) flows_expired: u64,
    /// Flows that were over and made room for new ones.
    pub(crate) flows_evicted_closed: u64,
    /// Connections not yet open that made room.
    pub(crate) flows_evicted_handshakes: u64,
    /// Exchanges of datagrams that made room.
    pub(crate) flows_evicted_datagrams: u64,
    /// Open connections of a client with more than its part that made room.
    pub(crate) flows_evicted_open: u64,
    /// Entries for other workers' flows that made room.
    pub(crate) flows_evicted_guests: u64,
    /// New flows for which there was no room.
    pub(crate) flows_full: u64,
    /// Connections reset because their replica was gone.
    pub(crate) flows_lost_replica: u64,
    /// Connections that waited for a replica, as their service had none.
    pub(crate) flows_held: u64,
    /// Those of them that were refused in the end.
    pub(crate) flows_held_refused: u64,
    /// Segmented sends that the kernel refused, sent again one by one.
    pub(crate) unsegmented: u64,
    /// Super-frames that the kernel segments with their tunnel headers.
    pub(crate) injected: u64,
    /// Loopback messages of other nodes that were answered.
    pub(crate) loopbacks_answered: u64,
}

impl From<&WorkerCounters> for WorkerEvents {
    fn from(counters: &WorkerCounters) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            flows_created: read(&counters.flows_created),
            flows_retried: read(&counters.flows_retried),
            flows_refused: read(&counters.flows_refused),
            flows_expired: read(&counters.flows_expired),
            flows_evicted_closed: read(&counters.flows_evicted_closed),
            flows_evicted_handshakes: read(&counters.flows_evicted_handshakes),
            flows_evicted_datagrams: read(&counters.flows_evicted_datagrams),
            flows_evicted_open: read(&counters.flows_evicted_open),
            flows_evicted_guests: read(&counters.flows_evicted_guests),
            flows_full: read(&counters.flows_full),
            flows_lost_replica: read(&counters.flows_lost_replica),
            flows_held: read(&counters.flows_held),
            flows_held_refused: read(&counters.flows_held_refused),
            unsegmented: read(&counters.unsegmented),
            injected: read(&counters.injected),
            loopbacks_answered: read(&counters.loopbacks_answered),
        }
    }
}

/// Figures of one published port on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MeshPortSample {
    /// Name of the service.
    pub(crate) service: String,
    /// The published port.
    pub(crate) published: u16,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// Address that the port is bound to; `None` means every address.
    pub(crate) host_ip: Option<IpAddr>,
    /// Connections accepted.
    pub(crate) accepted: u64,
    /// Connections that found no replica.
    pub(crate) failed: u64,
    /// Connections open now.
    pub(crate) open: u64,
    /// Bytes from clients to replicas.
    pub(crate) rx_bytes: u64,
    /// Bytes from replicas to clients.
    pub(crate) tx_bytes: u64,
    /// Times that a connection went on to another replica.
    pub(crate) retried: u64,
    /// Replicas that this node leaves out.
    pub(crate) ejected: u64,
    /// How long connections to replicas took to open.
    pub(crate) connect: ConnectTime,
    /// Replicas that take new connections.
    pub(crate) healthy: u64,
    /// True while the node has the port.
    pub(crate) accepted_here: bool,
}

/// Figures of one replica on one network, from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MeshReplicaSample {
    /// Name of the service.
    pub(crate) service: String,
    /// Task name or given name.
    pub(crate) replica: String,
    /// Host name of its node.
    pub(crate) node: String,
    /// Name of the network.
    pub(crate) network: String,
    /// Takes new connections.
    pub(crate) healthy: bool,
    /// Connections open from this node.
    pub(crate) open: u64,
    /// Connections that it answered.
    pub(crate) accepted: u64,
    /// Connections that it refused or left unanswered.
    pub(crate) refused: u64,
    /// Those that went on to another replica.
    pub(crate) retried: u64,
    /// Bytes from clients of this node.
    pub(crate) rx_bytes: u64,
    /// Bytes to clients of this node.
    pub(crate) tx_bytes: u64,
    /// How long it took to answer.
    pub(crate) connect: ConnectTime,
    /// This node leaves it out.
    pub(crate) ejected: bool,
    /// How often this node left it out.
    pub(crate) ejections: u64,
}

impl MeshReplicaSample {
    /// True once something was counted of it. Counters only grow, so this stays true as long as the
    /// replica lives, and no series of one goes away before it.
    pub(super) const fn was_used(&self) -> bool {
        let counted = self.accepted | self.refused | self.retried | self.rx_bytes | self.tx_bytes;
        (counted | self.connect.count | self.connect.total_us | self.ejections) != 0
    }
}

/// DNS counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DnsSample {
    /// Queries by outcome (`answered`, `nodata`, `nxdomain`, `forwarded`, `refused`, `malformed`,
    /// …).
    pub(crate) queries: Vec<(&'static str, u64)>,
    /// Replies in the cache now.
    pub(crate) cached: u64,
}

/// Gossip counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GossipSample {
    /// Members by state (`alive`, `suspect`, `down`).
    pub(crate) members: Vec<(&'static str, u64)>,
    /// Events by kind (`datagrams_sent`, `datagrams_received`, `bad_seal`, `syncs`, …).
    pub(crate) events: Vec<(&'static str, u64)>,
    /// Table entries that are visible now.
    pub(crate) entries: u64,
}
