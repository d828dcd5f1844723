//! Counters of what became of connections, what they carried, and how long they took to open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What became of connections: to one replica, or to one published port. Counted since the agent
/// started, by all workers.
#[derive(Debug)]
pub struct Tally {
    accepted: AtomicU64,
    refused: AtomicU64,
    retried: AtomicU64,
    traffic: Traffic,
    connect: ConnectTime,
}

impl Tally {
    /// Counters for so many workers.
    pub(crate) fn with_workers(workers: usize) -> Self {
        Self {
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            traffic: Traffic::new(workers),
            connect: ConnectTime::default(),
        }
    }

    /// Connections that a replica took.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections that were refused, or left unanswered.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Times that a connection went on to another replica.
    #[must_use]
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// Bytes from clients, headers left out.
    #[must_use]
    pub fn rx_bytes(&self) -> u64 {
        self.traffic.rx()
    }

    /// Bytes to clients, headers left out.
    #[must_use]
    pub fn tx_bytes(&self) -> u64 {
        self.traffic.tx()
    }

    /// How long connections took to open.
    #[must_use]
    pub const fn connect(&self) -> &ConnectTime {
        &self.connect
    }

    pub(crate) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_rx(&self, worker: u16, bytes: u64) {
        self.traffic.add_rx(worker, bytes);
    }

    pub(crate) fn count_tx(&self, worker: u16, bytes: u64) {
        self.traffic.add_tx(worker, bytes);
    }

    /// Takes in how long one connection took to open.
    pub(crate) fn note_connected(&self, took: Duration) {
        self.connect.add(took);
    }
}

/// Bytes in both directions. Each worker counts in words of its own, in a cache line of its own: a
/// packet costs two additions, without a lock and without another worker's line.
#[derive(Debug)]
struct Traffic(Box<[Words]>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Words {
    rx: AtomicU64,
    tx: AtomicU64,
}

impl Traffic {
    /// For so many workers; at least one.
    fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| Words::default()).collect())
    }

    /// Counts bytes from a client.
    fn add_rx(&self, worker: u16, bytes: u64) {
        add(self.of(worker).map(|words| &words.rx), bytes);
    }

    /// Counts bytes to a client.
    fn add_tx(&self, worker: u16, bytes: u64) {
        add(self.of(worker).map(|words| &words.tx), bytes);
    }

    /// Bytes from clients, over all workers.
    fn rx(&self) -> u64 {
        self.0.iter().map(|w| w.rx.load(Ordering::Relaxed)).sum()
    }

    /// Bytes to clients, over all workers.
    fn tx(&self) -> u64 {
        self.0.iter().map(|w| w.tx.load(Ordering::Relaxed)).sum()
    }

    fn of(&self, worker: u16) -> Option<&Words> {
        self.0.get(usize::from(worker)).or_else(|| self.0.last())
    }
}

/// Adds to a word that nobody else writes.
fn add(word: Option<&AtomicU64>, n: u64) {
    if let Some(word) = word {
        word.store(word.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }
}

/// How long connections took to open, from a SYN to the answer of the replica that it went to.
#[derive(Debug, Default)]
pub struct ConnectTime {
    count: AtomicU64,
    total_nanos: AtomicU64,
}

impl ConnectTime {
    /// Connections that were answered.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// What they took together.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total_nanos.load(Ordering::Relaxed))
    }

    fn add(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_count_apart_and_are_read_together() {
        let traffic = Traffic::new(2);
        traffic.add_rx(0, 1);
        traffic.add_rx(1, 2);
        traffic.add_tx(1, 5);
        traffic.add_rx(7, 10);
        assert_eq!((traffic.rx(), traffic.tx()), (13, 5));
        assert_eq!((size_of::<Words>(), Traffic::new(0).0.len()), (64, 1));
    }
}
