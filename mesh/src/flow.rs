//! One connection, or one exchange of datagrams, between a client and a replica.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use weft_wire::frame::TCP;
use weft_wire::{Instant, Mac, PortId, Vni};

use crate::claims::Claims;
use crate::key::{Key, Scope};
use crate::load::OpenFlow;
use crate::state::FlowState;
use crate::store::Keyed;
use crate::syn_ring::SynRef;

/// Handshake that nobody finished: a little longer than Linux retransmits a SYN-ACK (63 s).
const HANDSHAKE: Duration = Duration::from_secs(75);
/// Both sides have closed: retransmissions of the last segments still need the rewrite.
const CLOSED: Duration = Duration::from_secs(10);
/// One side has closed and the other has sent nothing for so long. An entry for another worker's
/// flow that is idle for longer may make room.
pub(crate) const HALF_CLOSED: Duration = Duration::from_secs(3600);
/// A datagram entry that belongs to another worker, should that worker's removal be lost.
const GUEST_DATAGRAMS: Duration = Duration::from_secs(3600);

/// Limits and identity of a table.
#[derive(Debug, Clone)]
pub struct FlowConfig {
    /// Number of the worker that owns the table.
    pub worker: u16,
    /// Flows at most. Memory grows with use, up to about 300 bytes for each.
    pub capacity: usize,
    /// Unanswered connections, at most, that can be moved to another replica.
    pub syn_copies: usize,
    /// Clients, at most, that wait for a replica of a service that has none just now; a quarter of
    /// them of one service. About 300 bytes for each.
    pub waiting: usize,
    /// Seed of hashes and of random choices; draw it at random.
    pub seed: u64,
    /// Idle time after which datagrams that were never answered are forgotten.
    pub udp_idle: Duration,
    /// Idle time after which datagrams that were answered are forgotten.
    pub udp_answered_idle: Duration,
    /// The same for all workers of a node.
    pub claims: Arc<Claims>,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            worker: 0,
            capacity: 262_144,
            syn_copies: 4096,
            waiting: 4096,
            seed: 0,
            udp_idle: Duration::from_secs(30),
            udp_answered_idle: Duration::from_secs(180),
            claims: Arc::new(Claims::new(0)),
        }
    }
}

/// Where a client's frames come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A sandbox on this node that talks to a VIP of its network.
    Port {
        /// Network of the port.
        vni: Vni,
        /// The port.
        port: PortId,
    },
    /// `weft0`: connections to published ports.
    Mesh {
        /// The ingress network.
        vni: Vni,
        /// The node's address on it.
        node_ip: IpAddr,
        /// The Ethernet address that belongs to it.
        node_mac: Mac,
        /// Replicas see the client's own address, and their node sends the answers back here
        /// ([`crate::FlowTable::arrived`]); else they see `node_ip`.
        keeps_client: bool,
    },
}

impl Origin {
    /// Network that the replicas are on.
    #[must_use]
    pub const fn vni(&self) -> Vni {
        match self {
            Self::Port { vni, .. } | Self::Mesh { vni, .. } => *vni,
        }
    }

    /// Where frames for the client go.
    #[must_use]
    pub const fn target(&self) -> Target {
        match self {
            Self::Port { port, .. } => Target::Port(*port),
            Self::Mesh { .. } => Target::Mesh,
        }
    }

    /// Where what clients send has its meaning.
    pub(crate) const fn scope(&self) -> Scope {
        match self {
            Self::Port { vni, .. } => Scope::network(*vni),
            Self::Mesh { .. } => Scope::MESH,
        }
    }
}

/// Where a frame for a client goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Into a sandbox of this node.
    Port(PortId),
    /// Into the host, by `weft0`.
    Mesh,
}

/// Addresses and ports of a connection as its replica sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplicaSide {
    pub(crate) key: Key,
    /// In [`crate::Claims`].
    pub(crate) claimed: bool,
}

/// Ethernet addresses of those who take part in a flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Macs {
    pub(crate) client: Mac,
    /// What the client sends to: the VIP's, or the mesh address's.
    pub(crate) service: Mac,
    pub(crate) replica: Mac,
}

/// Whose flow an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FlowKind {
    /// This worker's: it reads the client's frames, keeps the state and counts the connection.
    Owned,
    /// Worker `owner`'s: only there so that the replica's frames, which this worker reads, are
    /// rewritten without a hop.
    Guest { owner: u16 },
    /// Another node's: a client of its published port talks to a replica here, under its own
    /// address. The entry says where the answers go.
    Return,
}

/// What a table keeps of a flow.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Client to service, as the client sees it.
    pub(crate) forward: Key,
    /// Replica to client, as the replica sees it.
    pub(crate) reverse: Key,
    pub(crate) kind: FlowKind,
    pub(crate) origin: Origin,
    pub(crate) state: FlowState,
    pub(crate) client_mac: Mac,
    /// The address that the client sends to: that of the VIP, or of the mesh.
    pub(crate) service_mac: Mac,
    pub(crate) replica_mac: Mac,
    pub(crate) replica_key: u64,
    pub(crate) replica_local: bool,
    /// `reverse` is this flow's in [`crate::Claims`].
    pub(crate) claimed: bool,
    /// Somebody may carry it past this table, and has to be told when that ends.
    pub(crate) carried: bool,
    /// Tells apart successive flows with the same addresses; new with every replica.
    pub(crate) serial: u64,
    pub(crate) epoch: u64,
    pub(crate) last_seen: Instant,
    /// Sequence number after the last byte that the client has sent.
    pub(crate) client_end: u32,
    /// What the client has acknowledged, or will before anything else; 0 while that is not known.
    pub(crate) client_ack: u32,
    /// What the replica has acknowledged, which nobody else can say; 0 while it has nothing.
    pub(crate) replica_ack: u32,
    /// More may have been carried past this table than it was told: these three may be old.
    pub(crate) behind: bool,
    /// What a router on the client's side said that its link carries, in bytes; 0 while none has.
    pub(crate) path_mtu: u16,
    pub(crate) syn: Option<SynRef>,
    pub(crate) open: Option<OpenFlow>,
    /// The service, where connections of one client are limited; then it is counted there.
    pub(crate) limited: Option<NonZeroU64>,
}

impl Keyed for Flow {
    #[inline]
    fn forward(&self) -> &Key {
        &self.forward
    }

    #[inline]
    fn has_forward(&self) -> bool {
        !matches!(self.kind, FlowKind::Guest { .. })
    }

    #[inline]
    fn reverse(&self) -> &Key {
        &self.reverse
    }
}

impl Flow {
    /// A flow that begins: nobody has answered, nothing is counted, and its replica, which `reverse`
    /// has the address of, is not named yet.
    #[inline]
    pub(crate) fn new(
        kind: FlowKind,
        origin: Origin,
        forward: Key,
        reverse: ReplicaSide,
        macs: Macs,
        now: Instant,
    ) -> Self {
        Self {
            forward,
            reverse: reverse.key,
            kind,
            origin,
            state: if forward.tuple.proto == TCP {
                FlowState::SynSent
            } else {
                FlowState::Datagrams
            },
            client_mac: macs.client,
            service_mac: macs.service,
            replica_mac: macs.replica,
            replica_key: 0,
            replica_local: false,
            claimed: reverse.claimed,
            carried: false,
            serial: 0,
            epoch: 0,
            last_seen: now,
            client_end: 0,
            client_ack: 0,
            replica_ack: 0,
            behind: false,
            path_mtu: 0,
            syn: None,
            open: None,
            limited: None,
        }
    }

    /// How long the entry lives after its last packet; `None` for as long as it takes.
    pub(crate) fn timeout(&self, config: &FlowConfig) -> Option<Duration> {
        if let FlowKind::Guest { .. } = self.kind {
            return match self.state {
                FlowState::FinReplica => Some(HALF_CLOSED),
                FlowState::Datagrams | FlowState::DatagramsAnswered => Some(GUEST_DATAGRAMS),
                _ => None,
            };
        }
        match self.state {
            FlowState::SynSent | FlowState::SynAnswered => Some(HANDSHAKE),
            FlowState::Established => None,
            FlowState::FinClient | FlowState::FinReplica => Some(HALF_CLOSED),
            FlowState::Closing | FlowState::Reset => Some(CLOSED),
            FlowState::Datagrams => Some(config.udp_idle),
            FlowState::DatagramsAnswered => Some(config.udp_answered_idle),
        }
    }

    /// When the entry's time is up, unless a packet comes before; `None` while it does not end.
    pub(crate) fn deadline(&self, config: &FlowConfig) -> Option<Instant> {
        Some(self.last_seen.after(self.timeout(config)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_fits_in_four_cache_lines() {
        assert!(size_of::<Option<Flow>>() <= 256, "{}", size_of::<Flow>());
    }
}
