//! Room in a full table, fairly: what is nearly over goes first, and nobody loses an open
//! connection to somebody who holds more than his part.

use weft_wire::Instant;

use crate::flow::{HALF_CLOSED, Origin, Role};
use crate::state::FlowState;
use crate::store::FlowId;
use crate::table::FlowTable;

/// Entries looked at, at most, among those that will end next.
const NEAREST: usize = 16;
/// Entries looked at, at most, for an entry of a tenant that holds more than its part.
const SAMPLED: usize = 64;
/// Entries of other workers looked at, at most.
const GUESTS: usize = 16;

/// Entries that made room for others, by what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evictions {
    /// Connections that were over already.
    pub closed: u64,
    /// Connections that nobody had opened completely.
    pub handshakes: u64,
    /// Datagrams, answered or not.
    pub datagrams: u64,
    /// Open connections of a client that held more than its part of the table.
    pub open: u64,
    /// Entries for flows of other workers or nodes.
    pub guests: u64,
}

impl Evictions {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.closed + self.handshakes + self.datagrams + self.open + self.guests
    }

    fn count(&mut self, role: Role, state: FlowState) {
        let counter = match (role, Rank::of(state)) {
            (Role::Guest { .. } | Role::Return, _) => &mut self.guests,
            (Role::Owner, Rank::Over) => &mut self.closed,
            (Role::Owner, Rank::Handshake) => &mut self.handshakes,
            (Role::Owner, Rank::Datagrams | Rank::Exchange) => &mut self.datagrams,
            (Role::Owner, Rank::Open) => &mut self.open,
        };
        *counter += 1;
    }
}

/// What is lost with an entry, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Nothing.
    Over,
    /// An attempt, which its client repeats.
    Handshake,
    /// Datagrams that nobody has answered.
    Datagrams,
    /// Answered datagrams: the next one may go to another replica.
    Exchange,
    /// A connection.
    Open,
}

impl Rank {
    const fn of(state: FlowState) -> Self {
        match state {
            FlowState::Closing | FlowState::Reset => Self::Over,
            FlowState::SynSent | FlowState::SynAnswered => Self::Handshake,
            FlowState::Datagrams => Self::Datagrams,
            FlowState::DatagramsAnswered => Self::Exchange,
            FlowState::Established | FlowState::FinClient | FlowState::FinReplica => Self::Open,
        }
    }
}

impl FlowTable {
    /// Whether one more entry of `newcomer` fits, after making room where it may. Looks at a
    /// bounded number of entries.
    pub(crate) fn make_room(&mut self, now: Instant, newcomer: &Origin) -> bool {
        self.len() < self.config.capacity
            || self.evict_nearest(newcomer)
            || self.evict_guest(now)
            || self.evict_from_greedy(newcomer)
    }

    fn is_greedy(&self, origin: &Origin, newcomer: &Origin) -> bool {
        let part = self.tenants.part(origin, newcomer, self.config.capacity);
        self.tenants.held(origin) > part
    }

    /// Whether the newcomer holds all that it may: it then takes only from itself.
    fn has_its_part(&self, newcomer: &Origin) -> bool {
        let part = self.tenants.part(newcomer, newcomer, self.config.capacity);
        self.tenants.held(newcomer) >= part
    }

    /// Ends one of the flows that would have ended first, were they left alone.
    fn evict_nearest(&mut self, newcomer: &Origin) -> bool {
        let full = self.has_its_part(newcomer);
        let mut best: Option<((Rank, bool, Instant), FlowId)> = None;
        let mut next = self.store.nearest();
        for _ in 0..NEAREST {
            let Some(at) = next else { break };
            next = self.store.after(at);
            let Some(flow) = self.store.get(at) else {
                continue;
            };
            let (rank, origin, owned) =
                (Rank::of(flow.state), flow.origin, flow.role == Role::Owner);
            let last_seen = flow.last_seen;
            // It may have been used since it was put here: to where it now belongs.
            self.reschedule(at);
            if !owned || rank == Rank::Open {
                continue;
            }
            let greedy = self.is_greedy(&origin, newcomer);
            let allowed = rank == Rank::Over
                || is_same_tenant(&origin, newcomer)
                || (!full && (greedy || rank < Rank::Exchange));
            let merit = (rank, !greedy, last_seen);
            if allowed && best.is_none_or(|(least, _)| merit < least) {
                best = Some((merit, at));
            }
        }
        best.is_some_and(|(_, at)| self.evict(at))
    }

    /// Forgets a flow of another worker that was idle for long: should its removal have been lost,
    /// nothing else would.
    fn evict_guest(&mut self, now: Instant) -> bool {
        for _ in 0..GUESTS.min(self.store.places()) {
            let place = self.next_place();
            let Some((at, flow)) = self.store.at(place) else {
                continue;
            };
            if flow.role != Role::Owner && now.since(flow.last_seen) > HALF_CLOSED {
                return self.evict(at);
            }
        }
        false
    }

    /// Takes an entry, even an open connection, from a tenant that holds more than its part, for
    /// one that holds less.
    fn evict_from_greedy(&mut self, newcomer: &Origin) -> bool {
        if self.has_its_part(newcomer) {
            return false;
        }
        let mut best: Option<((Rank, Instant), FlowId)> = None;
        for _ in 0..SAMPLED.min(self.store.places()) {
            let place = self.next_place();
            let Some((at, flow)) = self.store.at(place) else {
                continue;
            };
            let merit = (Rank::of(flow.state), flow.last_seen);
            if self.is_greedy(&flow.origin, newcomer) && best.is_none_or(|(least, _)| merit < least)
            {
                best = Some((merit, at));
            }
        }
        best.is_some_and(|(_, at)| self.evict(at))
    }

    fn evict(&mut self, at: FlowId) -> bool {
        let Some(flow) = self.remove(at) else {
            return false;
        };
        self.counters.evicted.count(flow.role, flow.state);
        true
    }

    /// Goes round all entries, a few with each call.
    fn next_place(&mut self) -> usize {
        self.hand = (self.hand + 1) % self.store.places().max(1);
        self.hand
    }
}

fn is_same_tenant(a: &Origin, b: &Origin) -> bool {
    match (a, b) {
        (Origin::Port { port: a, .. }, Origin::Port { port: b, .. }) => a == b,
        (Origin::Mesh { .. }, Origin::Mesh { .. }) => true,
        _ => false,
    }
}
