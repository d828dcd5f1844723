//! What all resolvers of this node use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use weft_dns::{Tenant, Zone};

use super::outside::Outside;
use super::stats::Counters;

/// The zone, the way outside, and what is counted.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) zone: ArcSwap<Zone>,
    pub(super) outside: Arc<Outside>,
    pub(super) counters: Arc<Counters>,
    seeds: AtomicU64,
    tenants: AtomicU64,
}

impl Shared {
    /// With an empty zone.
    pub(super) fn new(outside: Arc<Outside>, counters: Arc<Counters>) -> Self {
        Self {
            zone: ArcSwap::default(),
            outside,
            counters,
            seeds: AtomicU64::new(0),
            tenants: AtomicU64::new(0),
        }
    }

    /// A number that no sandbox had before.
    pub(super) fn next_tenant(&self) -> Tenant {
        Tenant(self.tenants.fetch_add(1, Ordering::Relaxed))
    }

    /// A number that differs from query to query; it only shuffles addresses.
    pub(super) fn next_seed(&self) -> u64 {
        self.seeds.fetch_add(1, Ordering::Relaxed)
    }
}
