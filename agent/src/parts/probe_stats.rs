//! What came of the node's probes of replicas that it left out.

use std::sync::atomic::{AtomicU64, Ordering};

use weft_mesh::ProbeCounters;

/// Their counters, for metrics.
#[derive(Debug, Default)]
pub(crate) struct ProbeStats {
    sent: AtomicU64,
    passed: AtomicU64,
    refused: AtomicU64,
    silent: AtomicU64,
}

impl ProbeStats {
    /// What they count.
    pub(crate) fn read(&self) -> ProbeCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProbeCounters {
            sent: read(&self.sent),
            passed: read(&self.passed),
            refused: read(&self.refused),
            silent: read(&self.silent),
        }
    }

    /// Replaces them.
    pub(crate) fn store(&self, counters: ProbeCounters) {
        self.sent.store(counters.sent, Ordering::Relaxed);
        self.passed.store(counters.passed, Ordering::Relaxed);
        self.refused.store(counters.refused, Ordering::Relaxed);
        self.silent.store(counters.silent, Ordering::Relaxed);
    }
}
