//! The flows of one worker.

use std::collections::VecDeque;
use std::fmt;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use weft_wire::{FiveTuple, Instant, IpInfo, Vni};

use crate::balancer::Rng;
use crate::clients::Clients;
use crate::context::Context;
use crate::evict::Evictions;
use crate::flow::{Flow, FlowConfig, Install, Removal, ReplicaSide, Role};
use crate::fragments::Fragments;
use crate::journal::{Journal, is_kept};
use crate::key::Key;
use crate::outcome::{close, note_answer};
use crate::state::FlowState;
use crate::sweep::Sweep;
use crate::syn_ring::{SYN_BYTES, SynRing};
use crate::tenants::Tenants;
use crate::wheel::Wheel;

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
}

/// Flows of one worker: no lock, bounded memory, O(1) for each frame.
///
/// Nothing is allocated but when the table grows towards its capacity.
pub struct FlowTable {
    pub(crate) config: FlowConfig,
    pub(crate) rng: Rng,
    hasher: FixedState,
    pub(crate) flows: Vec<Option<Flow>>,
    pub(crate) journal: Option<Box<dyn Journal>>,
    free: Vec<u32>,
    by_forward: HashTable<u32>,
    by_reverse: HashTable<u32>,
    pub(crate) wheel: Wheel,
    pub(crate) tenants: Tenants,
    pub(crate) clients: Clients,
    pub(crate) fragments: Fragments,
    active: usize,
    serial: u64,
    /// Where the search for an entry to evict goes on.
    pub(crate) hand: usize,
    removals: VecDeque<Removal>,
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
            hasher: FixedState::with_seed(config.seed),
            flows: Vec::new(),
            journal: None,
            free: Vec::new(),
            by_forward: HashTable::new(),
            by_reverse: HashTable::new(),
            wheel: Wheel::new(),
            tenants: Tenants::new(config.seed),
            clients: Clients::new(config.seed),
            fragments: Fragments::new(config.seed),
            active: 0,
            serial: 0,
            hand: 0,
            removals: VecDeque::new(),
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
        self.by_reverse.len()
    }

    /// True when no frame can belong to a flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_reverse.is_empty()
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
            scope: vni.get(),
            tuple,
        };
        let at = self.find_forward(&key)?;
        self.get(at).map(|flow| flow.state)
    }

    /// Takes in an entry for a flow of another worker, in place of an older one.
    ///
    /// False when the table is full: replies will then reach the client as from a stranger, and
    /// the client will reset the connection.
    pub fn install(&mut self, now: Instant, install: Install) -> bool {
        if let Some(at) = self.find_reverse(&install.reverse) {
            if self.get(at).is_some_and(|flow| flow.role == Role::Owner) {
                return false;
            }
            self.remove(at);
        }
        self.insert(install.into_flow(now, 0)).is_some()
    }

    /// Removes an entry that belonged to a flow of another worker.
    pub fn uninstall(&mut self, removal: Removal) {
        if let Some(at) = self.find_reverse(&removal.reverse)
            && self.get(at).is_some_and(|flow| {
                flow.serial == removal.serial
                    && flow.role
                        == Role::Guest {
                            owner: removal.owner,
                        }
            })
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
            let Some(at) = self.wheel.pop(now) else {
                break;
            };
            if self.deadline(at).is_some_and(|deadline| deadline <= now) {
                self.note_silence(now, at);
                self.count_unanswered(at);
                self.remove(at);
                self.counters.expired += 1;
                ended += 1;
            } else {
                self.reschedule(at);
            }
        }
        ended
    }

    /// Counts a connection that was never answered.
    fn count_unanswered(&self, at: u32) {
        let flow = self.get(at).filter(|flow| flow.state.is_unanswered());
        if let Some(open) = flow.and_then(|flow| flow.open.as_ref()) {
            open.count_failed();
        }
    }

    /// When [`FlowTable::expire`] may have something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    pub(crate) fn get(&self, at: u32) -> Option<&Flow> {
        self.flows.get(at as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut Flow> {
        self.flows.get_mut(at as usize)?.as_mut()
    }

    /// A flow and the frame that is built for it, both at once.
    pub(crate) fn flow_and_scratch(&mut self, at: u32) -> Option<(&Flow, &mut [u8])> {
        let flow = self.flows.get(at as usize)?.as_ref()?;
        Some((flow, self.scratch.get_mut(..self.scratch_len)?))
    }

    /// Number of places for entries, free ones included.
    pub(crate) fn slots(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn key_of(vni_or_scope: u32, info: &IpInfo) -> Key {
        Key {
            scope: vni_or_scope,
            tuple: info.five_tuple(),
        }
    }

    pub(crate) fn find_forward(&self, key: &Key) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.by_forward
            .find(hash, |&at| self.get(at).is_some_and(|f| f.forward == *key))
            .copied()
    }

    pub(crate) fn find_reverse(&self, key: &Key) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.by_reverse
            .find(hash, |&at| self.get(at).is_some_and(|f| f.reverse == *key))
            .copied()
    }

    /// Whether the flow's replica is still there; looked up once for each snapshot.
    pub(crate) fn is_alive(&mut self, cx: &Context<'_>, at: u32) -> bool {
        let Some(flow) = self.get_mut(at) else {
            return false;
        };
        if flow.epoch == cx.epoch || flow.state.is_over() {
            return true;
        }
        if flow.role == Role::Return {
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
    pub(crate) fn insert(&mut self, flow: Flow) -> Option<u32> {
        if !self.make_room(flow.last_seen, &flow.origin) {
            self.release(flow.claimed, &flow.reverse);
            self.counters.full += 1;
            return None;
        }
        self.tenants.add(&flow.origin);
        self.clients.enter(&flow);
        let owned = flow.role == Role::Owner;
        let has_forward = flow.has_forward();
        if flow.open.is_some() {
            self.active += 1;
        }
        let (forward, reverse) = (flow.forward, flow.reverse);
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.flows.push(None);
                u32::try_from(self.flows.len() - 1).ok()?
            }
        };
        if let Some(place) = self.flows.get_mut(at as usize) {
            *place = Some(flow);
        }
        if owned {
            self.counters.created += 1;
        }
        if has_forward {
            self.link_forward(at, &forward);
        }
        self.link_reverse(at, &reverse);
        self.reschedule(at);
        self.record(at, false);
        Some(at)
    }

    /// Forgets a flow, takes its count back and tells the worker that helps with it.
    pub(crate) fn remove(&mut self, at: u32) -> Option<Flow> {
        let mut flow = self.flows.get_mut(at as usize)?.take()?;
        self.wheel.unlink(at);
        self.forget_record(at, &flow);
        self.tenants.take(&flow.origin);
        self.clients.leave(&mut flow);
        unlink(&self.hasher, &mut self.by_reverse, &flow.reverse, at);
        if flow.has_forward() {
            unlink(&self.hasher, &mut self.by_forward, &flow.forward, at);
        }
        self.release(flow.claimed, &flow.reverse);
        let state = flow.state;
        if close(&mut flow, state, &self.config) {
            self.active -= 1;
        }
        self.free.push(at);
        self.push_removal(flow.removal(self.config.worker));
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
    pub(crate) fn move_reverse(&mut self, at: u32, reverse: ReplicaSide) {
        let serial = self.next_serial();
        let worker = self.config.worker;
        let Some(flow) = self.get_mut(at) else {
            return;
        };
        let removal = flow.removal(worker);
        let old = std::mem::replace(&mut flow.reverse, reverse.key);
        let claimed = std::mem::replace(&mut flow.claimed, reverse.claimed);
        flow.serial = serial;
        self.release(claimed, &old);
        self.push_removal(removal);
        unlink(&self.hasher, &mut self.by_reverse, &old, at);
        self.link_reverse(at, &reverse.key);
    }

    /// Changes a flow's state and with it when it ends.
    pub(crate) fn set_state(&mut self, at: u32, state: FlowState) {
        let Some(Some(flow)) = self.flows.get_mut(at as usize) else {
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
        if !state.is_unanswered() {
            flow.syn = None;
        }
        if state.is_over() {
            self.clients.leave(flow);
            if close(flow, before, &self.config) {
                self.active -= 1;
            }
        }
        self.record(at, kept);
        self.reschedule(at);
    }

    pub(crate) fn reschedule(&mut self, at: u32) {
        match self.deadline(at) {
            Some(deadline) => self.wheel.schedule(at, deadline),
            None => self.wheel.unlink(at),
        }
    }

    fn deadline(&self, at: u32) -> Option<Instant> {
        let flow = self.get(at)?;
        Some(flow.last_seen.after(flow.timeout(&self.config)?))
    }

    fn link_forward(&mut self, at: u32, key: &Key) {
        let (hasher, flows) = (&self.hasher, &self.flows);
        self.by_forward
            .insert_unique(hasher.hash_one(key), at, |&i| {
                hash_of(hasher, flows, i, |f| &f.forward)
            });
    }

    fn link_reverse(&mut self, at: u32, key: &Key) {
        let (hasher, flows) = (&self.hasher, &self.flows);
        self.by_reverse
            .insert_unique(hasher.hash_one(key), at, |&i| {
                hash_of(hasher, flows, i, |f| &f.reverse)
            });
    }
}

fn hash_of(
    hasher: &FixedState,
    flows: &[Option<Flow>],
    at: u32,
    key: impl Fn(&Flow) -> &Key,
) -> u64 {
    flows
        .get(at as usize)
        .and_then(Option::as_ref)
        .map_or(0, |flow| hasher.hash_one(key(flow)))
}

fn unlink(hasher: &FixedState, index: &mut HashTable<u32>, key: &Key, at: u32) {
    if let Ok(entry) = index.find_entry(hasher.hash_one(key), |&i| i == at) {
        entry.remove();
    }
}
