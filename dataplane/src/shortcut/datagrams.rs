//! What workers tell each other of datagrams.
//!
//! A segment of TCP says what its sender has received. A datagram does not: who reads one direction of
//! a flow and not the other would take an exchange for a stream. So each datagram that stays on its
//! node, or has a replica's address to lose, is counted where all workers look. In the same way they
//! know which flows are to stay with them for a while, as either one could enter both directions.
//!
//! Flows are named by their hash, which is the same for all workers. Two of one place are counted, and
//! held back, together: that costs speed alone.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use weft_wire::Instant;

/// Flows that are told apart: enough for one sandbox with many of them to hold back few of others.
const PLACES: usize = 65_536;

/// Shared by all workers.
#[derive(Debug)]
pub(super) struct Datagrams {
    counts: Box<[AtomicU32]>,
    /// Until when flows stay with the workers.
    held: Box<[AtomicU64]>,
}

impl Datagrams {
    pub(super) fn new() -> Self {
        Self {
            counts: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
            held: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// So many datagrams of one direction were carried by a worker.
    pub(super) fn note(&self, flow: u64, count: u32) {
        self.counts[place(flow)].fetch_add(count, Ordering::Relaxed);
    }

    /// How many of that direction there have been; the number wraps.
    pub(super) fn count(&self, flow: u64) -> u32 {
        self.counts[place(flow)].load(Ordering::Relaxed)
    }

    /// No worker enters the flow before then.
    pub(super) fn hold(&self, flow: u64, until: Instant) {
        self.held[place(flow)].fetch_max(until.0, Ordering::Relaxed);
    }

    pub(super) fn is_held(&self, flow: u64, now: Instant) -> bool {
        self.held[place(flow)].load(Ordering::Relaxed) > now.0
    }
}

/// The lowest bit is set in all hashes.
const fn place(flow: u64) -> usize {
    (flow >> 1) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_one_worker_notes_another_one_finds() {
        let datagrams = Datagrams::new();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..1000).for_each(|_| datagrams.note(7, 2)));
            }
        });
        assert_eq!(datagrams.count(7), 4000);
        assert_eq!(datagrams.count(9), 0, "its neighbour");
        datagrams.note(7, u32::MAX);
        assert_eq!(datagrams.count(7), 3999, "it wraps");
    }

    #[test]
    fn a_flow_is_held_until_its_time_is_up() {
        let datagrams = Datagrams::new();
        let now = Instant(1_000_000_000);
        assert!(!datagrams.is_held(7, now));
        datagrams.hold(7, now.after(Duration::from_secs(60)));
        // The longer time counts.
        datagrams.hold(7, now.after(Duration::from_secs(10)));
        assert!(datagrams.is_held(7, now.after(Duration::from_secs(59))));
        assert!(!datagrams.is_held(7, now.after(Duration::from_secs(60))));
        assert!(!datagrams.is_held(9, now));
        datagrams.hold(7 + 2 * PLACES as u64, now.after(Duration::from_secs(90)));
        assert!(datagrams.is_held(7, now.after(Duration::from_secs(60))));
    }
}
