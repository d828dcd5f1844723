//! Room in a full table, fairly: what is nearly over goes first, and nobody loses an open
//! connection to somebody who holds more than his part.

use weft_wire::Instant;

use crate::flow::{Flow, FlowConfig, FlowKind, HALF_CLOSED, Origin};
use crate::state::FlowState;
use crate::store::{FlowId, FlowStore};
use crate::tenants::Tenants;

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

    pub(crate) fn count(&mut self, kind: FlowKind, state: FlowState) {
        let counter = match (kind, Rank::of(state)) {
            (FlowKind::Guest { .. } | FlowKind::Return, _) => &mut self.guests,
            (FlowKind::Owned, Rank::Over) => &mut self.closed,
            (FlowKind::Owned, Rank::Handshake) => &mut self.handshakes,
            (FlowKind::Owned, Rank::Datagrams | Rank::Exchange) => &mut self.datagrams,
            (FlowKind::Owned, Rank::Open) => &mut self.open,
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

/// Finds entries that may end for others.
#[derive(Debug, Default)]
pub(crate) struct Evictor {
    /// The place where the search goes on.
    hand: usize,
}

/// What it looks at: a table without room.
pub(crate) struct Full<'a> {
    pub(crate) store: &'a mut FlowStore<Flow>,
    pub(crate) tenants: &'a Tenants,
    pub(crate) config: &'a FlowConfig,
}

impl Evictor {
    /// The entry to end so that one more of `newcomer` fits, if one may. Looks at a bounded number
    /// of entries.
    pub(crate) fn choose(
        &mut self,
        full: &mut Full<'_>,
        now: Instant,
        newcomer: &Origin,
    ) -> Option<FlowId> {
        full.nearest(newcomer)
            .or_else(|| self.guest(full.store, now))
            .or_else(|| self.greedy(full, newcomer))
    }

    /// A flow of another worker that was idle for long: should its removal have been lost, nothing
    /// else would end it.
    fn guest(&mut self, store: &FlowStore<Flow>, now: Instant) -> Option<FlowId> {
        (0..GUESTS.min(store.places())).find_map(|_| {
            let (id, flow) = store.at(self.next_place(store))?;
            let idle = flow.kind != FlowKind::Owned && now.since(flow.last_seen) > HALF_CLOSED;
            idle.then_some(id)
        })
    }

    /// An entry, even an open connection, of a tenant that holds more than its part, for one that
    /// holds less.
    fn greedy(&mut self, full: &Full<'_>, newcomer: &Origin) -> Option<FlowId> {
        if full.has_its_part(newcomer) {
            return None;
        }
        let mut best: Option<((Rank, Instant), FlowId)> = None;
        for _ in 0..SAMPLED.min(full.store.places()) {
            let Some((id, flow)) = full.store.at(self.next_place(full.store)) else {
                continue;
            };
            let merit = (Rank::of(flow.state), flow.last_seen);
            if full.is_greedy(&flow.origin, newcomer) && best.is_none_or(|(least, _)| merit < least)
            {
                best = Some((merit, id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Goes round all places, a few with each call.
    fn next_place(&mut self, store: &FlowStore<Flow>) -> usize {
        self.hand = (self.hand + 1) % store.places().max(1);
        self.hand
    }
}

impl Full<'_> {
    fn is_greedy(&self, origin: &Origin, newcomer: &Origin) -> bool {
        let part = self.tenants.part(origin, newcomer, self.config.capacity);
        self.tenants.held(origin) > part
    }

    /// Whether the newcomer holds all that it may: it then takes only from itself.
    fn has_its_part(&self, newcomer: &Origin) -> bool {
        let part = self.tenants.part(newcomer, newcomer, self.config.capacity);
        self.tenants.held(newcomer) >= part
    }

    /// One of the flows that would have ended first, were they left alone.
    fn nearest(&mut self, newcomer: &Origin) -> Option<FlowId> {
        let full = self.has_its_part(newcomer);
        let mut best: Option<((Rank, bool, Instant), FlowId)> = None;
        let mut next = self.store.nearest();
        for _ in 0..NEAREST {
            let Some(id) = next else { break };
            next = self.store.after(id);
            let Some(flow) = self.store.get(id) else {
                continue;
            };
            let (rank, origin, owned) = (
                Rank::of(flow.state),
                flow.origin,
                flow.kind == FlowKind::Owned,
            );
            let last_seen = flow.last_seen;
            // It may have been used since it was put here: to where it now belongs.
            let deadline = flow.deadline(self.config);
            self.store.schedule(id, deadline);
            if !owned || rank == Rank::Open {
                continue;
            }
            let greedy = self.is_greedy(&origin, newcomer);
            let allowed = rank == Rank::Over
                || is_same_tenant(&origin, newcomer)
                || (!full && (greedy || rank < Rank::Exchange));
            let merit = (rank, !greedy, last_seen);
            if allowed && best.is_none_or(|(least, _)| merit < least) {
                best = Some((merit, id));
            }
        }
        best.map(|(_, id)| id)
    }
}

fn is_same_tenant(a: &Origin, b: &Origin) -> bool {
    match (a, b) {
        (Origin::Port { port: a, .. }, Origin::Port { port: b, .. }) => a == b,
        (Origin::Mesh { .. }, Origin::Mesh { .. }) => true,
        _ => false,
    }
}
