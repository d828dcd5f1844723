//! The door of a TCP port that anybody can reach: places, log lines and counters.
//!
//! In: addresses that connect, and nodes that have shown who they are. Out: a [`Place`] for each
//! connection that may stay. Who may is decided by [`Admission`], which is pure; this is its shell.

mod admission;
mod quiet;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;
use weft_model::id::NodeId;

pub use admission::Limits;
use admission::{Admission, GuestId, Refusal};
pub use quiet::Quiet;

/// Connections that the kernel holds until they are accepted, which takes no longer than to count.
pub const BACKLOG: u32 = 1024;
/// Between two looks for log lines that were suppressed.
pub const FLUSH: Duration = Duration::from_secs(5);
/// Pause after an accept that failed.
const RETRY: Duration = Duration::from_millis(20);

/// A door. Shared by its listener and whoever reads its counters.
#[derive(Debug)]
pub struct Door {
    /// For log lines and metrics.
    name: &'static str,
    inner: Mutex<Inner>,
    counters: Counters,
    refused: Quiet,
    failing: Quiet,
}

#[derive(Debug)]
struct Inner {
    admission: Admission,
    guests: BTreeMap<GuestId, Arc<Notify>>,
}

impl Inner {
    fn turn_out(&mut self, guest: Option<GuestId>) {
        if let Some(out) = guest.and_then(|id| self.guests.remove(&id)) {
            out.notify_one();
        }
    }
}

/// What happens to connections after they were let in.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections without a TLS handshake in time, or with one that failed.
    pub handshakes_failed: AtomicU64,
    /// Connections closed because their time was over.
    pub expired: AtomicU64,
    /// Calls refused before their body was read.
    pub calls_refused: AtomicU64,
    /// Attempts to join that failed.
    pub joins_refused: AtomicU64,
}

/// Counters of a TCP port for other nodes, which strangers can reach too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DoorSample {
    /// `manager`, `gossip` or `images`.
    pub door: &'static str,
    /// What happened to connections and calls, by kind (`admitted`, `refused_crowded`, …).
    pub events: Vec<(&'static str, u64)>,
    /// Connections open now, by whose they are (`stranger`, `known`, `member`).
    pub open: Vec<(&'static str, u64)>,
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Door {
    /// A door of that name, with nobody inside.
    pub fn new(name: &'static str, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            name,
            inner: Mutex::new(Inner {
                admission: Admission::new(limits),
                guests: BTreeMap::new(),
            }),
            counters: Counters::default(),
            refused: Quiet::new("refused connections"),
            failing: Quiet::new("connections that could not be accepted"),
        })
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nodes of the cluster, and where they are expected to come from.
    pub fn set_known(&self, known: BTreeMap<NodeId, BTreeSet<IpAddr>>) {
        self.inner().admission.set_known(known);
    }

    /// True when a node of the cluster is known by this address.
    pub fn is_known(&self, addr: IpAddr) -> bool {
        self.inner().admission.is_known(addr)
    }

    /// A place for a connection that was just accepted; one that gets none is reset.
    pub fn enter(
        self: &Arc<Self>,
        stream: TcpStream,
        from: SocketAddr,
    ) -> Option<(TcpStream, Place)> {
        match self.admit(from.ip()) {
            Ok(place) => Some((stream, place)),
            Err(why) => {
                reset(stream);
                let door = self.name;
                self.refused
                    .say(|| tracing::warn!(door, %from, %why, "refused a connection"));
                None
            }
        }
    }

    fn admit(self: &Arc<Self>, from: IpAddr) -> Result<Place, Refusal> {
        let mut inner = self.inner();
        let admitted = inner.admission.admit(from, Instant::now())?;
        inner.turn_out(admitted.displaced);
        let out = Arc::new(Notify::new());
        inner.guests.insert(admitted.id, Arc::clone(&out));
        drop(inner);
        Ok(Place {
            door: Arc::clone(self),
            id: admitted.id,
            out,
        })
    }

    /// Somebody at this address has tried what he may not: his next connections wait.
    pub(crate) fn strike(&self, from: IpAddr) {
        self.inner().admission.strike(from);
    }

    /// An accept has failed, as a rule for want of descriptors: strangers give some back. Returns
    /// when the next attempt makes sense.
    pub async fn accept_failed(&self, error: &std::io::Error) {
        let door = self.name;
        self.failing
            .say(|| tracing::warn!(door, %error, "cannot accept a connection"));
        {
            let mut inner = self.inner();
            for guest in inner.admission.shed() {
                inner.turn_out(Some(guest));
            }
        }
        tokio::time::sleep(RETRY).await;
    }

    /// Tells of log lines that were suppressed.
    pub fn flush(&self) {
        self.refused.flush();
        self.failing.flush();
    }

    /// What happens to connections after they were let in, for whoever carries them.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// For `/metrics`.
    pub fn sample(&self) -> DoorSample {
        let (tallies, open) = {
            let inner = self.inner();
            (inner.admission.tallies(), inner.admission.open())
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        DoorSample {
            door: self.name,
            events: vec![
                ("admitted", tallies.admitted),
                ("proved", tallies.proved),
                ("refused_crowded", tallies.crowded),
                ("refused_too_fast", tallies.too_fast),
                ("displaced", tallies.displaced),
                ("handshake_failed", read(&counters.handshakes_failed)),
                ("expired", read(&counters.expired)),
                ("call_refused", read(&counters.calls_refused)),
                ("join_refused", read(&counters.joins_refused)),
            ],
            open: vec![
                ("stranger", open.strangers as u64),
                ("known", open.known as u64),
                ("member", open.members as u64),
            ],
        }
    }
}

/// Closes without a farewell: the kernel keeps nothing of it.
fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a refused connection is closed, not reset");
    }
}

/// The place of an open connection, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    door: Arc<Door>,
    id: GuestId,
    out: Arc<Notify>,
}

impl Place {
    /// Waits until the place is needed for another connection; this one has to be closed then.
    pub async fn turned_out(&self) {
        self.out.notified().await;
    }

    /// The connection has shown that it is this node's.
    pub fn prove(&self, node: &NodeId) {
        let mut inner = self.door.inner();
        let displaced = inner.admission.prove(self.id, node);
        inner.turn_out(displaced);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.door.inner();
        inner.admission.release(self.id);
        inner.guests.remove(&self.id);
    }
}

/// So many of `most` that a process with few descriptors keeps seven of eight for other things.
pub(crate) fn by_descriptors(most: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    most.min((limit / 8).max(8))
}
