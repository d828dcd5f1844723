//! The flows of one worker.

use std::collections::VecDeque;
use std::fmt;

use weft_wire::{FiveTuple, Instant, Vni};

use crate::balancer::Rng;
use crate::carriage::Ended;
use crate::clients::Clients;
use crate::context::Context;
use crate::ejection::Failure;
use crate::evict::{Evictions, Evictor, Full};
use crate::flow::{Flow, FlowConfig, FlowKind, Origin, ReplicaSide};
use crate::fragments::Fragments;
use crate::install::{Install, Removal};
use crate::journal::{Records, is_kept};
use crate::key::{Key, Scope};
use crate::outcome::{self, close, note_answer};
use crate::state::FlowState;
use crate::store::{FlowId, FlowStore};
use crate::syn_ring::{SYN_BYTES, SynRing};
use crate::tenants::Tenants;
use crate::waiting::WaitingRoom;

/// What happened to the flows of a table since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowCounters {
    /// Flows begun.
    pub created: u64,
    /// Times that a connection was moved to another replica.
    pub retried: u64,
    /// Connections that no replica took.
    pub refused: u64,
    /// Flows ended by time.
    pub expired: u64,
    /// Entries that made room for new ones.
    pub evicted: Evictions,
    /// New flows for which there was no room.
    pub full: u64,
    /// Connections reset because their replica was gone.
    pub lost_replica: u64,
    /// Connections that waited for a replica, as their service had none.
    pub held: u64,
    /// Those of them that were refused: no replica came in time, or others took their place.
    pub held_refused: u64,
}

/// How far a sweep has come.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    pub(crate) epoch: u64,
    /// The next place to look at.
    pub(crate) next: usize,
}

/// An entry that was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) at: FlowId,
    /// Its replica is still there.
    pub(crate) alive: bool,
}

/// Flows of one worker: no lock, bounded memory, O(1) for each frame.
///
/// Nothing is allocated but when the table grows towards its capacity.
pub struct FlowTable {
    pub(crate) config: FlowConfig,
    pub(crate) rng: Rng,
    pub(crate) store: FlowStore<Flow>,
    pub(crate) records: Records,
    tenants: Tenants,
    pub(crate) clients: Clients,
    pub(crate) fragments: Fragments,
    pub(crate) waiting: WaitingRoom,
    active: usize,
    serial: u64,
    evictor: Evictor,
    removals: VecDeque<Removal>,
    pub(crate) ended: Ended,
    pub(crate) syns: SynRing,
    pub(crate) scratch: Box<[u8; SYN_BYTES]>,
    pub(crate) scratch_len: usize,
    pub(crate) counters: FlowCounters,
    pub(crate) sweep: Sweep,
    /// A flow has met a narrow link.
    pub(crate) narrow: bool,
}

impl fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowTable")
            .field("config", &self.config)
            .field("len", &self.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl FlowTable {
    /// An empty table.
    #[must_use]
    pub fn new(config: FlowConfig) -> Self {
        let capacity = config.capacity.min(u32::MAX as usize / 2);
        let syn_copies = config.syn_copies.min(capacity);
        Self {
            rng: Rng::new(config.seed),
            store: FlowStore::new(config.seed),
            records: Records::default(),
            tenants: Tenants::new(config.seed),
            clients: Clients::new(config.seed),
            fragments: Fragments::new(config.seed),
            waiting: WaitingRoom::new(config.waiting, config.seed),
            active: 0,
            serial: 0,
            evictor: Evictor::default(),
            removals: VecDeque::new(),
            ended: Ended::default(),
            syns: SynRing::new(syn_copies),
            scratch: Box::new([0; SYN_BYTES]),
            narrow: false,
            scratch_len: 0,
            counters: FlowCounters::default(),
            sweep: Sweep::default(),
            config: FlowConfig { capacity, ..config },
        }
    }

    /// Entries, those of other workers included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// True when no frame can belong to a flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.store.is_empty()
    }

    /// Flows of this worker that are counted as load: neither closed nor reset.
    #[must_use]
    pub const fn active(&self) -> usize {
        self.active
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> FlowCounters {
        self.counters
    }

    /// State of the flow that a client's frame belongs to; for people and tests.
    #[must_use]
    pub fn state_of(&self, vni: Vni, tuple: FiveTuple) -> Option<FlowState> {
        let key = Key {
            scope: Scope::network(vni),
            tuple,
        };
        let at = self.store.find_forward(&key)?;
        self.store.get(at).map(|flow| flow.state)
    }

    /// Takes in an entry for a flow of another worker, in place of an older one.
    ///
    /// False when the table is full: replies will then reach the client as from a stranger, and
    /// the client will reset the connection.
    pub fn install(&mut self, now: Instant, install: Install) -> bool {
        if let Some(at) = self.store.find_reverse(&install.reverse) {
            if self
                .store
                .get(at)
                .is_some_and(|flow| flow.kind == FlowKind::Owned)
            {
                return false;
            }
            self.remove(at);
        }
        self.insert(install.into_flow(now)).is_some()
    }

    /// Removes an entry that belonged to a flow of another worker.
    pub fn uninstall(&mut self, removal: Removal) {
        if let Some(at) = self.store.find_reverse(&removal.reverse)
            && self.store.get(at).is_some_and(|flow| removal.is_of(flow))
        {
            self.remove(at);
        }
    }

    /// The next [`Removal`] to hand to the worker that reads that replica's frames. Ask until
    /// there is none, once for each round; those that concern this worker itself can be ignored.
    pub fn poll_removal(&mut self) -> Option<Removal> {
        self.removals.pop_front()
    }

    /// Ends flows whose time is up; looks at `budget` entries at most. Returns how many ended.
    pub fn expire(&mut self, now: Instant, budget: usize) -> usize {
        let mut ended = 0;
        for _ in 0..budget {
            let Some(at) = self.store.pop_due(now) else {
                break;
            };
            let flow = self.store.get(at);
            let deadline = flow.and_then(|flow| flow.deadline(&self.config));
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.note_silence(now, at);
                self.count_unanswered(at);
                self.remove(at);
                self.counters.expired += 1;
                ended += 1;
            } else {
                self.store.schedule(at, deadline);
            }
        }
        ended
    }

    /// Counts a connection that was never answered.
    fn count_unanswered(&self, at: FlowId) {
        let flow = self.store.get(at).filter(|flow| flow.state.is_unanswered());
        if let Some(open) = flow.and_then(|flow| flow.open.as_ref()) {
            open.count_failed();
        }
    }

    /// When [`FlowTable::expire`] or [`FlowTable::admit`] may have something to do next, if not at
    /// once.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.store.next_deadline(), self.waiting.next_deadline()) {
            (Some(flow), Some(client)) => Some(flow.min(client)),
            (flow, client) => flow.or(client),
        }
    }

    /// A flow and the frame that is built for it, both at once.
    pub(crate) fn flow_and_scratch(&mut self, at: FlowId) -> Option<(&Flow, &mut [u8])> {
        let flow = self.store.get(at)?;
        Some((flow, self.scratch.get_mut(..self.scratch_len)?))
    }

    /// The entry that a client's frame belongs to, and how it is.
    #[inline]
    pub(crate) fn lookup(&mut self, cx: &Context<'_>, key: &Key) -> Option<Found> {
        let at = self.store.find_forward(key)?;
        let alive = self.is_alive(cx, at);
        Some(Found { at, alive })
    }

    /// Whether the flow's replica is still there; looked up once for each snapshot.
    pub(crate) fn is_alive(&mut self, cx: &Context<'_>, at: FlowId) -> bool {
        let Some(flow) = self.store.get_mut(at) else {
            return false;
        };
        if flow.epoch == cx.epoch || flow.state.is_over() {
            return true;
        }
        if flow.kind == FlowKind::Return {
            let (vni, replica) = (flow.origin.vni(), flow.reverse.tuple.src);
            return cx.services.is_replica(vni, replica);
        }
        match cx.services.replica(flow.origin.vni(), flow.replica_key) {
            Some(replica) if replica.ip == flow.reverse.tuple.src => {
                flow.epoch = cx.epoch;
                flow.replica_mac = replica.mac;
                true
            }
            _ => false,
        }
    }

    /// Takes in a flow whose keys are not there yet; makes room where it can.
    pub(crate) fn insert(&mut self, flow: Flow) -> Option<FlowId> {
        if !self.make_room(flow.last_seen, &flow.origin) {
            self.release(flow.claimed, &flow.reverse);
            self.counters.full += 1;
            return None;
        }
        self.tenants.add(&flow.origin);
        self.clients.enter(&flow);
        if flow.open.is_some() {
            self.active += 1;
        }
        if flow.kind == FlowKind::Owned {
            self.counters.created += 1;
        }
        let deadline = flow.deadline(&self.config);
        let at = self.store.insert(flow)?;
        self.store.schedule(at, deadline);
        if let Some(flow) = self.store.get(at) {
            self.records.update(at, false, flow);
        }
        Some(at)
    }

    /// Whether one more entry of `newcomer` fits, after making room where it may.
    fn make_room(&mut self, now: Instant, newcomer: &Origin) -> bool {
        if self.len() < self.config.capacity {
            return true;
        }
        let mut full = Full {
            store: &mut self.store,
            tenants: &self.tenants,
            config: &self.config,
        };
        let evicted = self.evictor.choose(&mut full, now, newcomer);
        let Some(flow) = evicted.and_then(|at| self.remove(at)) else {
            return false;
        };
        self.counters.evicted.count(flow.kind, flow.state);
        true
    }

    /// Forgets a flow, takes its count back and tells the worker that helps with it.
    pub(crate) fn remove(&mut self, at: FlowId) -> Option<Flow> {
        let mut flow = self.store.remove(at)?;
        self.ended.note(&mut flow);
        self.records.forget(at, &flow);
        self.tenants.take(&flow.origin);
        self.clients.leave(&mut flow);
        self.release(flow.claimed, &flow.reverse);
        let state = flow.state;
        if close(&mut flow, state, &self.config) {
            self.active -= 1;
        }
        self.push_removal(Removal::of(&flow, self.config.worker));
        Some(flow)
    }

    /// Bounded, should nobody ask for them.
    fn push_removal(&mut self, removal: Option<Removal>) {
        if removal.is_some() && self.removals.len() >= self.config.capacity {
            self.removals.pop_front();
        }
        self.removals.extend(removal);
    }

    /// A number that no flow of this table had before.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn release(&self, claimed: bool, reverse: &Key) {
        if claimed {
            self.config.claims.release(reverse);
        }
    }

    /// Gives a flow another replica side: from then on only `reverse` finds it.
    pub(crate) fn move_reverse(&mut self, at: FlowId, reverse: ReplicaSide) {
        let serial = self.next_serial();
        let worker = self.config.worker;
        let moved = self.store.rekey(at, |flow| {
            let removal = Removal::of(flow, worker);
            let old = std::mem::replace(&mut flow.reverse, reverse.key);
            let claimed = std::mem::replace(&mut flow.claimed, reverse.claimed);
            flow.serial = serial;
            (removal, claimed, old)
        });
        if let Some((removal, claimed, old)) = moved {
            self.release(claimed, &old);
            self.push_removal(removal);
        }
    }

    /// Changes a flow's state and with it when it ends.
    pub(crate) fn set_state(&mut self, at: FlowId, state: FlowState) {
        let Some(flow) = self.store.get_mut(at) else {
            return;
        };
        if flow.state == state {
            return;
        }
        let kept = is_kept(flow);
        let before = std::mem::replace(&mut flow.state, state);
        if matches!(before, FlowState::SynSent | FlowState::SynAnswered)
            && matches!(state, FlowState::Established | FlowState::FinClient)
            && let Some(open) = &flow.open
        {
            open.count_accepted();
        }
        note_answer(flow, before);
        self.ended.note(flow);
        if !state.is_unanswered() {
            flow.syn = None;
        }
        if state.is_over() {
            self.clients.leave(flow);
            if close(flow, before, &self.config) {
                self.active -= 1;
            }
        }
        self.records.update(at, kept, flow);
        let deadline = flow.deadline(&self.config);
        self.store.schedule(at, deadline);
    }

    /// The replica has refused the connection.
    pub(crate) fn note_refusal(&mut self, now: Instant, at: FlowId) {
        self.note_failure(now, at, Failure::Refused);
    }

    /// The client asks again, or has given up.
    pub(crate) fn note_silence(&mut self, now: Instant, at: FlowId) {
        let flow = self.store.get(at);
        if flow.is_some_and(|flow| outcome::is_silent(flow, now)) {
            self.note_failure(now, at, Failure::Silent);
        }
    }

    fn note_failure(&mut self, now: Instant, at: FlowId, failure: Failure) {
        let random = self.rng.next_u64();
        if let Some(flow) = self.store.get(at) {
            outcome::note_failure(flow, now, random, failure);
        }
    }
}
