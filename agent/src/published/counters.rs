//! Figures of one published port.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weft_model::api::ConnectTime;

use super::port::{PortStats, Published};

/// Counters that the accept loop and its connections share.
#[derive(Debug, Default)]
pub(crate) struct PortCounters {
    accepted: AtomicU64,
    refused: AtomicU64,
    open: AtomicU64,
    pub(crate) rx_bytes: AtomicU64,
    pub(crate) tx_bytes: AtomicU64,
    connects: AtomicU64,
    connect_us: AtomicU64,
}

impl PortCounters {
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A replica has taken a connection, after so long.
    pub(crate) fn connected(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.connect_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Counts one connection as accepted, and as open until the value is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> OpenConnection {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(self))
    }

    pub(crate) fn stats(&self, published: &Published) -> PortStats {
        PortStats {
            published: published.clone(),
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
            rx_bytes: self.rx_bytes.load(Ordering::Relaxed),
            tx_bytes: self.tx_bytes.load(Ordering::Relaxed),
            connect: ConnectTime {
                count: self.connects.load(Ordering::Relaxed),
                total_us: self.connect_us.load(Ordering::Relaxed),
            },
        }
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct OpenConnection(pub(crate) Arc<PortCounters>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
