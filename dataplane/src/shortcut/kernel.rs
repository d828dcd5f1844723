//! The kernel's side, shared by the workers and the agent.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weft_fastpath::selftest::{self, SelfTestError};
use weft_fastpath::{FlowCache, LoadError};
use weft_sys::clock::monotonic_nanos;
use weft_wire::Instant;

use super::cache::Memory;
use super::datagrams::Datagrams;
use super::epochs::FlowEpochs;
use super::sandbox::UnderlayRoute;
use crate::capture::Capture;
use crate::snapshot::Snapshot;

/// Why no flow takes a shortcut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FastPathError {
    /// The underlay is not IPv4.
    #[error("the data path's address is IPv6")]
    Family,
    /// The kernel does not take the programs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It does, and they do not do what they are to.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
}

/// Answers that did not come by the second port are not waited for there for so long.
const UNANSWERED: Duration = Duration::from_secs(600);

/// By VTEP.
type Routes = HashMap<Ipv4Addr, UnderlayRoute, RandomState>;

/// The programs, and what entries are made of besides the tables.
#[derive(Debug)]
pub(crate) struct Kernel<C = FlowCache> {
    pub(crate) cache: C,
    /// Flows of IPv6 as well.
    pub(crate) ipv6: bool,
    pub(super) datagrams: Datagrams,
    /// By which all workers tell flows.
    pub(super) hasher: RandomState,
    routes: ArcSwap<Routes>,
    /// The second port has its device, and what comes by it arrives.
    decapsulates: AtomicBool,
    /// Until when it does not; monotonic clock, ns.
    unanswered_until: AtomicU64,
    /// Grows with every change of the routes or of that, which makes all entries stale as well.
    generation: AtomicU32,
    /// What the kernel was told last. Locked by the agent's threads only.
    told: Mutex<Option<FlowEpochs>>,
}

impl Kernel {
    /// Loads the programs.
    ///
    /// # Errors
    /// [`FastPathError`]: every packet is carried by the workers.
    pub(crate) fn open(underlay: IpAddr) -> Result<Self, FastPathError> {
        if underlay.is_ipv6() {
            return Err(FastPathError::Family);
        }
        let mut cache = FlowCache::load()?;
        let supported = selftest::run(&cache)?;
        cache.forget_events()?;
        Ok(Self::new(cache, supported.ipv6))
    }
}

/// Odd factors: each epoch has its own word in a generation, and each generation for an epoch.
const fn mix(epoch: u32, generation: u32) -> u32 {
    epoch.wrapping_add(generation.wrapping_mul(0x9e37_79b1))
}

impl<C: Memory> Kernel<C> {
    /// No way leads anywhere yet.
    pub(super) fn new(cache: C, ipv6: bool) -> Self {
        Self {
            cache,
            ipv6,
            datagrams: Datagrams::new(),
            hasher: RandomState::default(),
            routes: ArcSwap::default(),
            decapsulates: AtomicBool::new(false),
            unanswered_until: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            told: Mutex::new(None),
        }
    }

    /// The word of an epoch, of the routes as of now. To be asked before [`Kernel::route`] is: an
    /// entry that is made of newer routes than its word says is stale and no harm.
    pub(super) fn word(&self, epoch: u32) -> u32 {
        mix(epoch, self.generation.load(Ordering::SeqCst))
    }

    /// The way to a VTEP.
    pub(super) fn route(&self, vtep: Ipv4Addr) -> Option<UnderlayRoute> {
        self.routes.load().get(&vtep).copied()
    }

    /// The tables are others; to be called once workers can see them.
    pub(crate) fn tell(&self, tables: &ArcSwap<Snapshot>) {
        let mut told = self.told();
        // Under the lock: the last one who tells has the newest.
        let tables = tables.load();
        let epochs = &tables.flow_epochs;
        let generation = self.generation.load(Ordering::SeqCst);
        epochs.tell(told.as_ref(), self.cache.epochs(), |epoch| {
            mix(epoch, generation)
        });
        *told = Some(epochs.clone());
    }

    /// The ways to other nodes are others.
    pub(crate) fn set_routes(&self, routes: impl IntoIterator<Item = (Ipv4Addr, UnderlayRoute)>) {
        let routes: Routes = routes.into_iter().collect();
        if **self.routes.load() == routes {
            return;
        }
        self.routes.store(routes.into());
        self.renew();
    }

    /// Whether answers to clients outside can come by the second port.
    pub(super) fn decapsulates(&self, now: Instant) -> bool {
        self.decapsulates.load(Ordering::SeqCst) && self.is_answered(now)
    }

    fn is_answered(&self, now: Instant) -> bool {
        now.0 >= self.unanswered_until.load(Ordering::SeqCst)
    }

    /// The device of the second port is there, or is gone. False while answers do not come by it.
    pub(crate) fn set_decapsulation(&self, on: bool, now: Instant) -> bool {
        let answered = self.is_answered(now);
        let on = on && answered;
        if self.decapsulates.swap(on, Ordering::SeqCst) != on {
            self.renew();
        }
        answered
    }

    /// A connection of a client outside has had no answer by the second port: a rule of the host may
    /// keep them. For a while there are no others, from the next [`Self::set_decapsulation`] on.
    pub(super) fn unanswered(&self, now: Instant) {
        let until = now.after(UNANSWERED).0;
        self.unanswered_until.fetch_max(until, Ordering::SeqCst);
    }

    /// Every entry is stale.
    fn renew(&self) {
        let told = self.told();
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(epochs) = told.as_ref() {
            epochs.tell(None, self.cache.epochs(), |epoch| mix(epoch, generation));
        }
    }

    /// Entries hold, unless every packet is to be seen.
    pub(crate) fn beat(&self, capture: &ArcSwapOption<Capture>) {
        self.beat_at(Instant(monotonic_nanos()), capture);
    }

    /// As [`Self::beat`], at that time.
    pub(super) fn beat_at(&self, now: Instant, capture: &ArcSwapOption<Capture>) {
        let heartbeat = self.cache.heartbeat();
        if capture.load().is_none() {
            heartbeat.beat(now);
        }
        // Looked at again: one may have begun in between.
        if capture.load().is_some() {
            heartbeat.stop();
        }
    }

    fn told(&self) -> MutexGuard<'_, Option<FlowEpochs>> {
        // What it holds is replaced as a whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
