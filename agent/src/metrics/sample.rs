//! What one scrape reads.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use weft_dataplane::WorkerCounters;
use weft_mesh::ProbeCounters;
use weft_model::api::ConnectTime;
use weft_model::objects::Protocol;
use weft_wire::DropReason;

use crate::mesh::UnreachableCounters;

/// Where the figures come from: the node.
pub trait MetricsSource: fmt::Debug + Send + Sync + 'static {
    /// Reads every counter once. Called from an async task, so it must not block; values of
    /// different workers may be some packets apart.
    fn sample(&self) -> Sample;
}

/// Every figure of the node, read at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// One per port of the data plane; also `underlay` and `mesh`.
    pub ports: Vec<PortSample>,
    /// One per worker thread.
    pub workers: Vec<WorkerSample>,
    /// One per worker thread.
    pub worker_events: Vec<WorkerEvents>,
    /// Published ports of this node.
    pub mesh_ports: Vec<MeshPortSample>,
    /// Replicas of every service, as this node sees them.
    pub mesh_replicas: Vec<MeshReplicaSample>,
    /// Probes of ejected replicas.
    pub probes: ProbeCounters,
    /// Clients that were told of a refused datagram.
    pub unreachable: UnreachableCounters,
    /// DNS, over all sandboxes.
    pub dns: DnsSample,
    /// TCP ports for other nodes.
    pub doors: Vec<DoorSample>,
    /// Gossip.
    pub gossip: GossipSample,
    /// Table entries that are visible but cannot be decoded: another version wrote them, or a node
    /// misbehaves.
    pub gossip_undecodable: u64,
    /// Epoch of the snapshot that workers forward by.
    pub epoch: u64,
    /// True while the session to a manager is open.
    pub session_connected: bool,
}

/// Counters of one port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortSample {
    /// Endpoint name, `underlay`, or `mesh`.
    pub port: String,
    /// Name of its network; empty for `underlay` and `mesh`.
    pub network: String,
    /// Packets that the data plane took from the port. A super-frame counts once.
    pub rx_packets: u64,
    /// Bytes of those.
    pub rx_bytes: u64,
    /// Packets that the data plane gave to the port.
    pub tx_packets: u64,
    /// Bytes of those.
    pub tx_bytes: u64,
    /// Packets dropped, by reason; reasons may be left out when zero.
    pub drops: Vec<(DropReason, u64)>,
}

/// Figures of one worker thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerSample {
    /// Entries in its flow table.
    pub flows_active: u64,
}

/// What happened in one worker thread since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerEvents {
    /// Flows begun.
    pub flows_created: u64,
    /// Times that a connection was moved to another replica.
    pub flows_retried: u64,
    /// Connections that no replica took.
    pub flows_refused: u64,
    /// Flows ended by time.
    pub flows_expired: u64,
    /// Flows that were over and made room for new ones.
    pub flows_evicted_closed: u64,
    /// Connections not yet open that made room.
    pub flows_evicted_handshakes: u64,
    /// Exchanges of datagrams that made room.
    pub flows_evicted_datagrams: u64,
    /// Open connections of a client with more than its part that made room.
    pub flows_evicted_open: u64,
    /// Entries for other workers' flows that made room.
    pub flows_evicted_guests: u64,
    /// New flows for which there was no room.
    pub flows_full: u64,
    /// Connections reset because their replica was gone.
    pub flows_lost_replica: u64,
    /// Segmented sends that the kernel refused, sent again one by one.
    pub unsegmented: u64,
    /// Super-frames that the kernel segments with their tunnel headers.
    pub injected: u64,
    /// Loopback messages of other nodes that were answered.
    pub loopbacks_answered: u64,
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
            unsegmented: read(&counters.unsegmented),
            injected: read(&counters.injected),
            loopbacks_answered: read(&counters.loopbacks_answered),
        }
    }
}

/// Figures of one published port on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPortSample {
    /// Name of the service.
    pub service: String,
    /// The published port.
    pub published: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address that the port is bound to; `None` means every address.
    pub host_ip: Option<IpAddr>,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that found no replica.
    pub failed: u64,
    /// Connections open now.
    pub open: u64,
    /// Bytes from clients to replicas.
    pub rx_bytes: u64,
    /// Bytes from replicas to clients.
    pub tx_bytes: u64,
    /// Times that a connection went on to another replica.
    pub retried: u64,
    /// Replicas that this node leaves out.
    pub ejected: u64,
    /// How long connections to replicas took to open.
    pub connect: ConnectTime,
    /// Replicas that take new connections.
    pub healthy: u64,
    /// True while the node has the port.
    pub accepted_here: bool,
}

/// Figures of one replica on one network, from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshReplicaSample {
    /// Name of the service.
    pub service: String,
    /// Task name or given name.
    pub replica: String,
    /// Host name of its node.
    pub node: String,
    /// Name of the network.
    pub network: String,
    /// Takes new connections.
    pub healthy: bool,
    /// Connections open from this node.
    pub open: u64,
    /// Connections that it answered.
    pub accepted: u64,
    /// Connections that it refused or left unanswered.
    pub refused: u64,
    /// Those that went on to another replica.
    pub retried: u64,
    /// Bytes from clients of this node.
    pub rx_bytes: u64,
    /// Bytes to clients of this node.
    pub tx_bytes: u64,
    /// How long it took to answer.
    pub connect: ConnectTime,
    /// This node leaves it out.
    pub ejected: bool,
    /// How often this node left it out.
    pub ejections: u64,
}

/// DNS counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSample {
    /// Queries by outcome (`answered`, `nodata`, `nxdomain`, `forwarded`, `refused`, `malformed`,
    /// …).
    pub queries: Vec<(&'static str, u64)>,
    /// Replies in the cache now.
    pub cached: u64,
}

/// Gossip counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GossipSample {
    /// Members by state (`alive`, `suspect`, `down`).
    pub members: Vec<(&'static str, u64)>,
    /// Events by kind (`datagrams_sent`, `datagrams_received`, `bad_seal`, `syncs`, …).
    pub events: Vec<(&'static str, u64)>,
    /// Table entries that are visible now.
    pub entries: u64,
}

/// Counters of a TCP port for other nodes, which strangers can reach too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoorSample {
    /// `manager` or `gossip`.
    pub door: &'static str,
    /// What happened to connections and calls, by kind (`admitted`, `refused_crowded`, …).
    pub events: Vec<(&'static str, u64)>,
    /// Connections open now, by whose they are (`stranger`, `known`, `member`).
    pub open: Vec<(&'static str, u64)>,
}
