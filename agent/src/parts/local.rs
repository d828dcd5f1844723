//! Ports that exist on this node: what the data plane reads and what gossip tells the others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use weft_dataplane::Port;
use weft_model::id::EndpointId;
use weft_wire::{DropReason, PortId};

use super::earlier::EarlierDrops;
use crate::compile::known::LocalPort;

/// Every attachment on this node. Changed by task lifecycles and `network connect`, read by the
/// reconcile loop. No two of its locks are held at once.
#[derive(Debug, Default)]
pub(crate) struct LocalPorts {
    ports: Mutex<BTreeMap<EndpointId, LocalPort>>,
    earlier: Mutex<EarlierDrops>,
    next: AtomicU32,
    generation: AtomicU64,
    changed: Notify,
}

impl LocalPorts {
    /// A number that no port had since the agent started.
    #[must_use]
    pub(crate) fn next_id(&self) -> PortId {
        PortId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds or replaces an attachment.
    pub(crate) fn insert(&self, port: LocalPort) {
        let replaced = self.lock().insert(port.record.id.clone(), port);
        self.note_gone(replaced.as_ref());
        self.announce();
    }

    /// Forgets an attachment; the data plane stops reading it with the next snapshot.
    pub(crate) fn remove(&self, id: &EndpointId) -> Option<LocalPort> {
        let removed = self.lock().remove(id);
        self.note_gone(removed.as_ref());
        self.announce();
        removed
    }

    fn note_gone(&self, gone: Option<&LocalPort>) {
        if let Some(gone) = gone {
            self.earlier().add(Arc::clone(&gone.port.counters));
        }
    }

    /// Drops of ports that are gone, since the agent started.
    #[must_use]
    pub(crate) fn earlier_drops(&self) -> Vec<(DropReason, u64)> {
        self.earlier().counts()
    }

    /// Whether new connections and DNS may use the attachment.
    pub(crate) fn set_ready(&self, id: &EndpointId, ready: bool) {
        if let Some(port) = self.lock().get_mut(id) {
            Arc::make_mut(&mut port.record).ready = ready;
        }
        self.announce();
    }

    /// Neither new connections nor DNS may use the attachment any more.
    pub(crate) fn withdraw(&self, id: &EndpointId) {
        if let Some(port) = self.lock().get_mut(id) {
            let record = Arc::make_mut(&mut port.record);
            record.ready = false;
            record.draining = true;
        }
        self.announce();
    }

    /// Takes note of the published ports that the attachment's program accepts over IPv4 only.
    pub(crate) fn set_ipv4_only(&self, id: &EndpointId, ports: Vec<u16>) {
        let changed = match self.lock().get_mut(id) {
            Some(port) if port.record.ipv4_only != ports => {
                Arc::make_mut(&mut port.record).ipv4_only = ports;
                true
            }
            _ => false,
        };
        if changed {
            self.announce();
        }
    }

    /// The attachment, if it exists.
    #[must_use]
    pub(crate) fn get(&self, id: &EndpointId) -> Option<LocalPort> {
        self.lock().get(id).cloned()
    }

    /// All attachments, by id.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<LocalPort> {
        self.lock().values().cloned().collect()
    }

    /// All ports, without what is known of them.
    #[must_use]
    pub(crate) fn ports(&self) -> Vec<Arc<Port>> {
        self.lock().values().map(|p| Arc::clone(&p.port)).collect()
    }

    /// Counts changes.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn announce(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// Waits until something may have changed. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn earlier(&self) -> MutexGuard<'_, EarlierDrops> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EndpointId, LocalPort>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
