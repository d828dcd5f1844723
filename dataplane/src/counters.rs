//! Counters that workers write and the agent reads: relaxed atomics, no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use weft_mesh::FlowTable;
use weft_wire::DropReason;

use crate::place::REFUSED;

/// One counter for each [`DropReason`].
#[derive(Debug)]
pub struct DropCounters([AtomicU64; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl DropCounters {
    /// Counts one packet.
    pub fn add(&self, reason: DropReason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `n` packets.
    pub fn add_many(&self, reason: DropReason, n: u64) {
        self.0[reason as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Packets dropped for this reason.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// Reasons that happened at least once, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL
            .iter()
            .map(|r| (*r, self.get(*r)))
            .filter(|(_, n)| *n > 0)
    }
}

/// What one worker counts besides the ports' own counters.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Drops of frames that came from the underlay and belong to no port.
    pub underlay: DropCounters,
    /// Datagrams received from the underlay (a GRO batch counts once).
    pub rx_datagrams: AtomicU64,
    /// Datagrams sent to the underlay (a GSO batch counts once).
    pub tx_datagrams: AtomicU64,
    /// Flows in the worker's table, as of its last round.
    pub flows: AtomicU64,
    /// Loopback messages of other nodes that were answered.
    pub loopbacks_answered: AtomicU64,
    /// Rounds of the event loop.
    pub rounds: AtomicU64,
    /// Epoch of the tables in use.
    pub(crate) epoch: AtomicU64,
    /// One more than the CPU that the worker is pinned to; 0 when it goes where there is room, and
    /// [`REFUSED`] when it may not choose.
    pub(crate) cpu: AtomicU64,
    /// Segmented sends that the kernel refused (`UDP_SEGMENT`, `EIO`), sent again one by one.
    pub unsegmented: AtomicU64,
    /// Super-frames that the kernel segments with their tunnel headers.
    pub injected: AtomicU64,
    /// Flows that the kernel carries, as of the last round.
    pub shortcuts: AtomicU64,
    /// Times that entries of a flow were written.
    pub shortcuts_made: AtomicU64,
    /// Flows begun. This one and those below are as of the last round.
    pub flows_created: AtomicU64,
    /// Times that a connection was moved to another replica.
    pub flows_retried: AtomicU64,
    /// Connections that no replica took.
    pub flows_refused: AtomicU64,
    /// Flows ended by time.
    pub flows_expired: AtomicU64,
    /// Flows that were over and made room for new ones.
    pub flows_evicted_closed: AtomicU64,
    /// Connections not yet open that made room for new flows.
    pub flows_evicted_handshakes: AtomicU64,
    /// Exchanges of datagrams that made room for new flows.
    pub flows_evicted_datagrams: AtomicU64,
    /// Open connections of a client with more than its part of the table that made room for
    /// another's.
    pub flows_evicted_open: AtomicU64,
    /// Entries for other workers' flows that made room.
    pub flows_evicted_guests: AtomicU64,
    /// New flows for which there was no room.
    pub flows_full: AtomicU64,
    /// Connections reset because their replica was gone.
    pub flows_lost_replica: AtomicU64,
    /// Connections that waited for a replica, as their service had none.
    pub flows_held: AtomicU64,
    /// Those of them that were refused in the end.
    pub flows_held_refused: AtomicU64,
}

impl WorkerCounters {
    /// The CPU that the worker has for itself: as long as it is worth it to poll.
    #[must_use]
    pub fn pinned_to(&self) -> Option<usize> {
        let cpu = self.cpu.load(Ordering::Relaxed);
        if cpu == REFUSED {
            return None;
        }
        usize::try_from(cpu).ok()?.checked_sub(1)
    }

    /// The kernel lets the worker choose no CPU.
    #[must_use]
    pub fn pin_refused(&self) -> bool {
        self.cpu.load(Ordering::Relaxed) == REFUSED
    }

    /// Segmented sends that the kernel refused.
    #[must_use]
    pub fn refused_segments(&self) -> u64 {
        self.unsegmented.load(Ordering::Relaxed)
    }

    /// Takes over what a worker's table counts.
    pub(crate) fn store_flows(&self, table: &FlowTable) {
        let n = table.counters();
        for (counter, value) in [
            (&self.flows, table.len() as u64),
            (&self.flows_created, n.created),
            (&self.flows_retried, n.retried),
            (&self.flows_refused, n.refused),
            (&self.flows_expired, n.expired),
            (&self.flows_evicted_closed, n.evicted.closed),
            (&self.flows_evicted_handshakes, n.evicted.handshakes),
            (&self.flows_evicted_datagrams, n.evicted.datagrams),
            (&self.flows_evicted_open, n.evicted.open),
            (&self.flows_evicted_guests, n.evicted.guests),
            (&self.flows_full, n.full),
            (&self.flows_lost_replica, n.lost_replica),
            (&self.flows_held, n.held),
            (&self.flows_held_refused, n.held_refused),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
    }
}
