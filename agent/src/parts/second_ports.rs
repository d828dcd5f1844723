//! The UDP ports, besides that of the data path, at which the kernels of nodes merge the packets of
//! flows that they carry.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use arc_swap::ArcSwap;

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct SecondPorts {
    own: AtomicU16,
    announced: ArcSwap<BTreeSet<Ipv4Addr>>,
    answering: ArcSwap<BTreeSet<Ipv4Addr>>,
    closed: ArcSwap<BTreeSet<Ipv4Addr>>,
    kept: AtomicBool,
}

impl SecondPorts {
    /// This node's; 0 where its kernel merges nothing.
    pub(crate) fn own(&self) -> u16 {
        self.own.load(Ordering::Relaxed)
    }

    pub(crate) fn set_own(&self, port: u16) {
        self.own.store(port, Ordering::Relaxed);
    }

    /// Whether what comes to this node's arrives at its device, as far as anybody knows.
    pub(crate) fn arrives(&self) -> bool {
        !self.kept.load(Ordering::Relaxed)
    }

    pub(crate) fn set_arrives(&self, arrives: bool) {
        self.kept.store(!arrives, Ordering::Relaxed);
    }

    /// Nodes that say that they have one, by VTEP.
    pub(crate) fn announced(&self) -> Arc<BTreeSet<Ipv4Addr>> {
        self.announced.load_full()
    }

    pub(crate) fn announce(&self, nodes: BTreeSet<Ipv4Addr>) {
        if **self.announced.load() != nodes {
            self.announced.store(Arc::new(nodes));
        }
    }

    /// Those of them that answer there: nothing on the way is closed.
    pub(crate) fn answering(&self) -> Arc<BTreeSet<Ipv4Addr>> {
        self.answering.load_full()
    }

    /// Those that have not answered several times.
    pub(crate) fn closed(&self) -> Arc<BTreeSet<Ipv4Addr>> {
        self.closed.load_full()
    }

    pub(crate) fn set_answers(&self, answering: BTreeSet<Ipv4Addr>, closed: BTreeSet<Ipv4Addr>) {
        if **self.answering.load() != answering {
            self.answering.store(Arc::new(answering));
        }
        if **self.closed.load() != closed {
            self.closed.store(Arc::new(closed));
        }
    }
}
