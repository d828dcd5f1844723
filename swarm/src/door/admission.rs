//! Who may connect now: a pure table of places.
//!
//! Strangers share a number of places, and each of their addresses has a part of them. Addresses
//! of known nodes have places of their own, and so has a node that has shown who it is. Nobody can
//! take the places of others; where places run out, those who came first and have said nothing
//! since make room.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use weft_model::id::NodeId;

/// What a door allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of all strangers together.
    pub strangers: usize,
    /// Open connections of one address that is not known.
    pub per_source: usize,
    /// Open connections of each known address that have not shown who they are.
    pub per_known: usize,
    /// Open connections of each node that has.
    pub per_member: usize,
    /// New connections that one address may make at once.
    pub burst: u32,
    /// New connections of one address in a second, in the long run.
    pub per_second: u32,
}

/// What a failed attempt to join costs, in connections.
const STRIKE: u64 = 8;
/// Addresses whose rate is remembered while none of their connections is open.
const REMEMBERED: usize = 1024;
/// One connection, in the unit of credits.
const ONE: u64 = 1_000_000;

/// An open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuestId(u64);

/// A connection that may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Its name until [`Admission::release`].
    pub(crate) id: GuestId,
    /// The connection that has to be closed for it; its place is given away already.
    pub(crate) displaced: Option<GuestId>,
}

/// Why a connection may not stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The address has all the connections that it may have.
    #[error("its address has too many connections open")]
    Crowded,
    /// The address makes connections faster than it may.
    #[error("its address makes connections too fast")]
    TooFast,
}

/// What has happened at a door since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tallies {
    /// Connections that were let in.
    pub(crate) admitted: u64,
    /// Those of them that showed the certificate of a member.
    pub(crate) proved: u64,
    /// Refused as [`Refusal::Crowded`].
    pub(crate) crowded: u64,
    /// Refused as [`Refusal::TooFast`].
    pub(crate) too_fast: u64,
    /// Closed to make room for another.
    pub(crate) displaced: u64,
}

/// Connections that are open now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Open {
    /// Of addresses that are not known.
    pub(crate) strangers: usize,
    /// Of known addresses, before they have shown who they are.
    pub(crate) known: usize,
    /// Of nodes that have.
    pub(crate) members: usize,
}

/// What counts as one address: whoever has an IPv6 prefix of 64 bits has all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4(Ipv4Addr),
    V6(u64),
}

impl Source {
    fn of(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// Whose place a connection has.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    Stranger(Source),
    /// One address: nodes of one network share a prefix.
    Known(IpAddr),
    Member(NodeId),
}

#[derive(Debug)]
struct Guest {
    from: IpAddr,
    holder: Holder,
}

/// What an address has open, and what it may still make.
#[derive(Debug)]
struct Tally {
    open: usize,
    credit: u64,
    at: Instant,
}

impl Tally {
    fn refill(&mut self, limits: &Limits, now: Instant) {
        let since = now.saturating_duration_since(self.at);
        // No more than a burst is ever due, so that nothing overflows.
        let micros = since.min(Duration::from_secs(3600)).as_micros();
        let earned = u64::try_from(micros).unwrap_or(0) * u64::from(limits.per_second);
        self.credit = self.credit.saturating_add(earned).min(full(limits));
        self.at = self.at.max(now);
    }
}

fn full(limits: &Limits) -> u64 {
    u64::from(limits.burst) * ONE
}

/// The table of places of one door.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    next: u64,
    /// In the order of their arrival.
    guests: BTreeMap<GuestId, Guest>,
    /// Of strangers only.
    sources: BTreeMap<Source, Tally>,
    /// Addresses that nodes are known by.
    known: BTreeMap<NodeId, BTreeSet<IpAddr>>,
    /// Where a node came from when it last showed who it is: that may be another address.
    homes: BTreeMap<NodeId, IpAddr>,
    /// All addresses of both.
    addresses: BTreeSet<IpAddr>,
    tallies: Tallies,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 0,
            guests: BTreeMap::new(),
            sources: BTreeMap::new(),
            known: BTreeMap::new(),
            homes: BTreeMap::new(),
            addresses: BTreeSet::new(),
            tallies: Tallies::default(),
        }
    }

    /// Nodes of the cluster, and where they are expected to come from. What is open stays.
    pub(crate) fn set_known(&mut self, known: BTreeMap<NodeId, BTreeSet<IpAddr>>) {
        if self.known == known {
            return;
        }
        self.homes.retain(|node, _| known.contains_key(node));
        self.known = known;
        self.collect_addresses();
    }

    fn collect_addresses(&mut self) {
        let named = self.known.values().flatten();
        let all = named.chain(self.homes.values());
        self.addresses = all.map(IpAddr::to_canonical).collect();
    }

    /// True when a node of the cluster is known by this address.
    pub(crate) fn is_known(&self, addr: IpAddr) -> bool {
        self.addresses.contains(&addr.to_canonical())
    }

    /// Somebody connects.
    ///
    /// # Errors
    /// Why the connection has to be closed at once.
    pub(crate) fn admit(&mut self, from: IpAddr, now: Instant) -> Result<Admitted, Refusal> {
        let from = from.to_canonical();
        let (holder, displaced) = if self.is_known(from) {
            let holder = Holder::Known(from);
            let over = self.held(&holder).count() >= self.limits.per_known;
            let oldest = self.held(&holder).next();
            (holder, oldest.filter(|_| over))
        } else {
            let source = Source::of(from);
            self.check_source(source, now)?;
            let displaced = self.strangers() >= self.limits.strangers;
            let displaced = displaced.then(|| self.greediest()).flatten();
            (Holder::Stranger(source), displaced)
        };
        if let Some(displaced) = displaced {
            self.displace(displaced);
        }
        if let Holder::Stranger(source) = holder
            && let Some(tally) = self.sources.get_mut(&source)
        {
            tally.open += 1;
            tally.credit = tally.credit.saturating_sub(ONE);
        }
        let id = GuestId(self.next);
        self.next += 1;
        self.guests.insert(id, Guest { from, holder });
        self.tallies.admitted += 1;
        Ok(Admitted { id, displaced })
    }

    /// May one more connection come from there? Its tally is there afterwards.
    fn check_source(&mut self, source: Source, now: Instant) -> Result<(), Refusal> {
        if self.sources.len() >= REMEMBERED && !self.sources.contains_key(&source) {
            self.sources.retain(|_, tally| tally.open > 0);
        }
        let limits = self.limits;
        let tally = self.sources.entry(source).or_insert_with(|| Tally {
            open: 0,
            credit: full(&limits),
            at: now,
        });
        tally.refill(&limits, now);
        if tally.open >= limits.per_source {
            self.tallies.crowded += 1;
            return Err(Refusal::Crowded);
        }
        if tally.credit < ONE {
            self.tallies.too_fast += 1;
            return Err(Refusal::TooFast);
        }
        Ok(())
    }

    /// A connection has shown that it is this node's, and no longer takes a place of others.
    /// Returns the connection of that node that has to be closed for it.
    pub(crate) fn prove(&mut self, id: GuestId, node: &NodeId) -> Option<GuestId> {
        let guest = self.guests.get_mut(&id)?;
        let before = std::mem::replace(&mut guest.holder, Holder::Member(node.clone()));
        let from = guest.from;
        self.leave_source(&before);
        self.tallies.proved += 1;
        if self.homes.insert(node.clone(), from) != Some(from) {
            self.collect_addresses();
        }
        let holder = Holder::Member(node.clone());
        let over = self.held(&holder).count() > self.limits.per_member;
        let displaced = self.held(&holder).next().filter(|_| over)?;
        self.displace(displaced);
        Some(displaced)
    }

    /// Somebody at this address has tried what he may not: his next connections wait.
    pub(crate) fn strike(&mut self, from: IpAddr) {
        if let Some(tally) = self.sources.get_mut(&Source::of(from)) {
            tally.credit = tally.credit.saturating_sub(STRIKE * ONE);
        }
    }

    /// The connection is closed.
    pub(crate) fn release(&mut self, id: GuestId) {
        if let Some(guest) = self.guests.remove(&id) {
            self.leave_source(&guest.holder);
        }
    }

    /// Half of the strangers' connections, the oldest ones: the process has no descriptor left.
    pub(crate) fn shed(&mut self) -> Vec<GuestId> {
        let strangers = self.guests.iter();
        let strangers = strangers.filter(|(_, g)| matches!(g.holder, Holder::Stranger(_)));
        let all: Vec<GuestId> = strangers.map(|(id, _)| *id).collect();
        let (oldest, _) = all.split_at(all.len().div_ceil(2));
        for id in oldest {
            self.displace(*id);
        }
        oldest.to_vec()
    }

    /// What is open now.
    pub(crate) fn open(&self) -> Open {
        let mut open = Open::default();
        for guest in self.guests.values() {
            match guest.holder {
                Holder::Stranger(_) => open.strangers += 1,
                Holder::Known(_) => open.known += 1,
                Holder::Member(_) => open.members += 1,
            }
        }
        open
    }

    /// What has happened so far.
    pub(crate) const fn tallies(&self) -> Tallies {
        self.tallies
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.sources.len()
    }

    fn strangers(&self) -> usize {
        self.sources.values().map(|tally| tally.open).sum()
    }

    /// Connections in the places of `holder`, the oldest one first.
    fn held(&self, holder: &Holder) -> impl Iterator<Item = GuestId> {
        let guests = self.guests.iter();
        guests.filter_map(move |(id, guest)| (guest.holder == *holder).then_some(*id))
    }

    /// The oldest connection of the strangers' address with most of them.
    fn greediest(&self) -> Option<GuestId> {
        let most = self.sources.values().map(|tally| tally.open).max()?;
        self.guests.iter().find_map(|(id, guest)| {
            let Holder::Stranger(source) = &guest.holder else {
                return None;
            };
            let open = self.sources.get(source).map_or(0, |tally| tally.open);
            (open == most).then_some(*id)
        })
    }

    fn displace(&mut self, id: GuestId) {
        self.release(id);
        self.tallies.displaced += 1;
    }

    fn leave_source(&mut self, holder: &Holder) {
        if let Holder::Stranger(source) = holder
            && let Some(tally) = self.sources.get_mut(source)
        {
            tally.open = tally.open.saturating_sub(1);
        }
    }
}
