//! The tables: entries keyed by table, key and owner, ordered by (incarnation, sequence number).
//!
//! Only the owner writes its entries, and numbers its writes, so two nodes that heard the same
//! writes hold the same entries. Each node also knows up to which number it has heard everything
//! of an owner; that makes a comparison of two nodes one line per owner.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use weft_model::id::NodeId;
use weft_model::records::Table;

use super::entries::{Entries, Entry, EntryKey, table_code, table_of};
use super::identity::MAX_NODE_ID;
use super::message::{OwnerDelta, OwnerDigest, Update};
use super::queue::ChangeKey;
use super::said::Said;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 256;

/// Longest value, in bytes.
pub const MAX_VALUE: usize = 60 * 1024;

const MAX_ENTRIES_PER_OWNER: usize = 65_536;
const MAX_OWNERS: usize = 16_384;
const MAX_PENDING: usize = 4096;

/// Why an entry was not stored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PutError {
    /// Empty, or longer than [`MAX_KEY`].
    #[error("gossip key of {0} bytes: give 1 to {MAX_KEY}")]
    Key(usize),
    /// Longer than [`MAX_VALUE`].
    #[error("gossip value of {0} bytes: give at most {MAX_VALUE}")]
    Value(usize),
    /// One node has too many entries.
    #[error("this node already gossips {MAX_ENTRIES_PER_OWNER} entries: remove some first")]
    Full,
}

/// Everything known of one owner.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    pub(crate) incarnation: u64,
    pub(crate) left: bool,
    pub(crate) entries: Arc<Entries>,
    complete: u64,
    highest: u64,
    /// Heard numbers above `complete`.
    pending: BTreeSet<u64>,
    /// Highest number of a deletion that is no longer remembered.
    reaped: u64,
    hash: u64,
    hidden_since: Option<Duration>,
}

fn entry_hash(key: &EntryKey, seq: u64) -> u64 {
    // FNV-1a: the same on every machine and in every version.
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for b in bytes {
                self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut h = Fnv(0xcbf2_9ce4_8422_2325);
    h.write(&key.0.to_be_bytes());
    h.write(key.1.as_bytes());
    h.write(&seq.to_be_bytes());
    h.finish()
}

impl Owner {
    fn at(incarnation: u64) -> Self {
        Self {
            incarnation,
            ..Self::default()
        }
    }

    fn insert(&mut self, key: EntryKey, entry: Entry) {
        if entry.deleted.is_none() {
            self.hash ^= entry_hash(&key, entry.seq);
        }
        let old = Arc::make_mut(&mut self.entries).insert(key.clone(), entry);
        if let Some(old) = old
            && old.deleted.is_none()
        {
            self.hash ^= entry_hash(&key, old.seq);
        }
    }

    fn remove(&mut self, key: &EntryKey) {
        if let Some(old) = Arc::make_mut(&mut self.entries).remove(key)
            && old.deleted.is_none()
        {
            self.hash ^= entry_hash(key, old.seq);
        }
    }

    fn heard(&mut self, seq: u64) {
        self.highest = self.highest.max(seq);
        if seq > self.complete && self.pending.len() < MAX_PENDING {
            self.pending.insert(seq);
        }
        self.advance();
    }

    fn complete_to(&mut self, seq: u64) {
        self.complete = self.complete.max(seq);
        self.highest = self.highest.max(seq);
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(first) = self.pending.first().copied() {
            if first > self.complete.saturating_add(1) {
                break;
            }
            self.complete = self.complete.max(first);
            self.pending.pop_first();
        }
    }

    fn digest(&self, owner: &NodeId) -> OwnerDigest {
        OwnerDigest {
            owner: owner.0.clone(),
            incarnation: self.incarnation,
            complete: self.complete,
            highest: self.highest,
            hash: self.hash,
            left: self.left,
        }
    }

    /// Whether a peer with `theirs` may know something that this node does not.
    fn lacks(&self, theirs: &OwnerDigest) -> bool {
        if theirs.incarnation != self.incarnation {
            return theirs.incarnation > self.incarnation;
        }
        if self.left || theirs.left {
            return theirs.left && !self.left;
        }
        theirs.complete > self.complete
            || (theirs.hash != self.hash && theirs.highest > self.complete)
    }
}

/// What an update from outside was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Newer,
    Same,
    Older,
    /// It claims to be this node's own, from a life with this incarnation that it does not know.
    OwnAhead(u64),
    /// Out of bounds.
    Invalid,
}

/// The tables of one node.
#[derive(Debug)]
pub(crate) struct Netdb {
    me: NodeId,
    owners: BTreeMap<NodeId, Owner>,
}

impl Netdb {
    pub(crate) fn new(me: NodeId, incarnation: u64) -> Self {
        let owners = BTreeMap::from([(me.clone(), Owner::at(incarnation))]);
        Self { me, owners }
    }

    pub(crate) const fn owners(&self) -> &BTreeMap<NodeId, Owner> {
        &self.owners
    }

    fn own(&mut self) -> &mut Owner {
        self.owners.entry(self.me.clone()).or_default()
    }

    /// Writes an own entry; `false` when it already has this value.
    pub(crate) fn put(&mut self, table: Table, key: &str, value: Bytes) -> Result<bool, PutError> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(PutError::Key(key.len()));
        }
        if value.len() > MAX_VALUE {
            return Err(PutError::Value(value.len()));
        }
        let key = (table_code(table), key.to_owned());
        let own = self.own();
        match own.entries.get(&key) {
            Some(old) if old.deleted.is_none() && old.value == value => return Ok(false),
            None if own.entries.len() >= MAX_ENTRIES_PER_OWNER => return Err(PutError::Full),
            _ => {}
        }
        self.write(key, value, None);
        Ok(true)
    }

    /// Deletes an own entry; `false` when there is none.
    pub(crate) fn delete(&mut self, now: Duration, table: Table, key: &str) -> bool {
        let key = (table_code(table), key.to_owned());
        let live = self
            .own()
            .entries
            .get(&key)
            .is_some_and(|e| e.deleted.is_none());
        if live {
            self.write(key, Bytes::new(), Some(now));
        }
        live
    }

    fn write(&mut self, key: EntryKey, value: Bytes, deleted: Option<Duration>) {
        let said = match deleted {
            Some(_) => Said::Nothing,
            None => Said::of(table_of(key.0), self.me.as_str(), &key.1, &value),
        };
        let own = self.own();
        let seq = own.highest + 1;
        own.insert(
            key,
            Entry {
                seq,
                value,
                said,
                deleted,
            },
        );
        own.complete_to(seq);
    }

    /// Gives all own entries new numbers in a new incarnation, above one that others still hold.
    pub(crate) fn rebase(&mut self, incarnation: u64) -> Vec<ChangeKey> {
        let me = self.me.clone();
        let own = self.own();
        let old = std::mem::replace(own, Owner::at(incarnation));
        let mut changed = Vec::new();
        for (code, key, entry) in old.entries.iter().filter(|(.., e)| e.deleted.is_none()) {
            let seq = own.highest + 1;
            let key = (code, key.to_owned());
            own.insert(
                key.clone(),
                Entry {
                    seq,
                    ..entry.clone()
                },
            );
            own.complete_to(seq);
            changed.push((me.clone(), key));
        }
        changed
    }

    /// This node leaves: its entries end here and now.
    pub(crate) fn leave(&mut self) -> ChangeKey {
        let own = self.own();
        let mut gone = Owner::at(own.incarnation);
        gone.left = true;
        *own = gone;
        (self.me.clone(), (0, String::new()))
    }

    /// Takes all entries of an owner away, as if it had left.
    pub(crate) fn expel(&mut self, node: &NodeId, incarnation: u64) {
        if *node == self.me {
            return;
        }
        let known = self.owners.get(node).map_or(0, |o| o.incarnation);
        let mut gone = Owner::at(known.max(incarnation));
        gone.left = true;
        self.owners.insert(node.clone(), gone);
    }

    /// Forgets that there was such an owner.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        if *node != self.me {
            self.owners.remove(node);
        }
    }

    /// The content of a change to be sent, if there still is one.
    pub(crate) fn update(&self, (owner, key): &ChangeKey) -> Option<Update> {
        let state = self.owners.get(owner)?;
        let mut update = Update {
            owner: owner.0.clone(),
            incarnation: state.incarnation,
            ..Update::default()
        };
        if key.0 == 0 {
            update.left = state.left;
            return state.left.then_some(update);
        }
        let entry = state.entries.get(key)?;
        update.seq = entry.seq;
        update.table = key.0;
        update.key.clone_from(&key.1);
        update.value = entry.value.clone();
        update.deleted = entry.deleted.is_some();
        Some(update)
    }

    /// The owner's process runs with `incarnation`: what an earlier one said is void.
    ///
    /// True when something was dropped.
    pub(crate) fn observe_incarnation(&mut self, node: &NodeId, incarnation: u64) -> bool {
        if *node == self.me {
            return false;
        }
        let owner = self
            .owners
            .entry(node.clone())
            .or_insert_with(|| Owner::at(incarnation));
        if owner.incarnation >= incarnation {
            return false;
        }
        let dropped = !owner.entries.is_empty() || owner.left;
        *owner = Owner::at(incarnation);
        dropped
    }

    /// Merges one update from another node.
    pub(crate) fn apply(&mut self, now: Duration, update: &Update) -> Applied {
        if update.owner.is_empty()
            || update.owner.len() > MAX_NODE_ID
            || update.key.len() > MAX_KEY
            || update.value.len() > MAX_VALUE
            || (!update.left && (update.table == 0 || update.key.is_empty() || update.seq == 0))
        {
            return Applied::Invalid;
        }
        let id = NodeId::from(update.owner.as_str());
        if id == self.me {
            let own = self.own();
            let ahead = update.incarnation > own.incarnation
                || (update.incarnation == own.incarnation
                    && !own.left
                    && (update.left || update.seq > own.highest));
            return if ahead && !own.left {
                Applied::OwnAhead(update.incarnation)
            } else {
                Applied::Older
            };
        }
        if !self.owners.contains_key(&id) && self.owners.len() >= MAX_OWNERS {
            return Applied::Invalid;
        }
        let owner = self
            .owners
            .entry(id)
            .or_insert_with(|| Owner::at(update.incarnation));
        if update.incarnation < owner.incarnation {
            return Applied::Older;
        }
        if update.incarnation > owner.incarnation {
            *owner = Owner::at(update.incarnation);
        }
        if update.left {
            if owner.left {
                return Applied::Same;
            }
            let mut gone = Owner::at(update.incarnation);
            gone.left = true;
            *owner = gone;
            return Applied::Newer;
        }
        if owner.left {
            return Applied::Older;
        }
        let key = (update.table, update.key.clone());
        match owner.entries.get(&key) {
            Some(known) if known.seq == update.seq => return Applied::Same,
            Some(known) if known.seq > update.seq => return Applied::Older,
            None if update.seq <= owner.complete => return Applied::Older,
            None if owner.entries.len() >= MAX_ENTRIES_PER_OWNER => return Applied::Invalid,
            _ => {}
        }
        let said = if update.deleted {
            Said::Nothing
        } else {
            let table = table_of(update.table);
            Said::of(table, &update.owner, &update.key, &update.value)
        };
        owner.insert(
            key,
            Entry {
                seq: update.seq,
                // A copy of its own: a slice would keep the whole datagram alive.
                value: Bytes::copy_from_slice(&update.value),
                said,
                deleted: update.deleted.then_some(now),
            },
        );
        owner.heard(update.seq);
        Applied::Newer
    }

    /// One line for each owner.
    pub(crate) fn digest(&self) -> Vec<OwnerDigest> {
        self.owners.iter().map(|(id, o)| o.digest(id)).collect()
    }

    /// Of the peer's lines those that tell of something this node lacks, as this node's own lines.
    pub(crate) fn wanted(&self, theirs: &[OwnerDigest]) -> Vec<OwnerDigest> {
        theirs
            .iter()
            .filter(|d| !d.owner.is_empty() && d.owner.len() <= MAX_NODE_ID)
            .filter_map(|d| {
                let id = NodeId::from(d.owner.as_str());
                if id == self.me {
                    return None;
                }
                match self.owners.get(&id) {
                    Some(mine) => mine.lacks(d).then(|| mine.digest(&id)),
                    None => Some(OwnerDigest {
                        owner: d.owner.clone(),
                        ..OwnerDigest::default()
                    }),
                }
            })
            .collect()
    }

    /// The incarnation of an unknown own life that the peer's digest tells of.
    pub(crate) fn own_ahead(&self, theirs: &[OwnerDigest]) -> Option<u64> {
        let own = self.owners.get(&self.me)?;
        if own.left {
            return None;
        }
        theirs
            .iter()
            .filter(|d| d.owner == self.me.0)
            .filter(|d| {
                d.incarnation > own.incarnation
                    || (d.incarnation == own.incarnation && (d.left || d.highest > own.highest))
            })
            .map(|d| d.incarnation)
            .max()
    }

    /// What a peer with this digest lacks, up to about `budget` bytes.
    ///
    /// With `listed_only`, owners that the digest does not name are skipped.
    pub(crate) fn deltas(
        &self,
        theirs: &[OwnerDigest],
        listed_only: bool,
        mut budget: usize,
    ) -> Vec<OwnerDelta> {
        let by_owner: BTreeMap<&str, &OwnerDigest> =
            theirs.iter().map(|d| (d.owner.as_str(), d)).collect();
        let nothing = OwnerDigest::default();
        let mut out = Vec::new();
        for (id, mine) in &self.owners {
            let theirs = match by_owner.get(id.as_str()) {
                Some(d) => *d,
                None if listed_only => continue,
                None => &nothing,
            };
            let Some(from) = self.delta_start(id, mine, theirs) else {
                continue;
            };
            let mut delta = OwnerDelta {
                owner: id.0.clone(),
                incarnation: mine.incarnation,
                left: mine.left,
                from,
                to: mine.complete,
                entries: Vec::new(),
            };
            let entries = mine.entries.iter();
            let mut changes: Vec<_> = entries.filter(|(.., e)| e.seq > from).collect();
            changes.sort_unstable_by_key(|(.., e)| e.seq);
            budget = budget.saturating_sub(id.0.len() + 64);
            let mut last = from;
            for (table, key, entry) in changes {
                let cost = key.len() + entry.value.len() + 48;
                if cost > budget {
                    delta.to = delta.to.min(last);
                    budget = 0;
                    break;
                }
                budget -= cost;
                last = entry.seq;
                delta.entries.push(Update {
                    seq: entry.seq,
                    table,
                    key: key.to_owned(),
                    value: entry.value.clone(),
                    deleted: entry.deleted.is_some(),
                    ..Update::default()
                });
            }
            out.push(delta);
            if budget == 0 {
                break;
            }
        }
        out
    }

    /// From which number on the peer needs the changes of `id`; `None` if it needs nothing.
    fn delta_start(&self, id: &NodeId, mine: &Owner, theirs: &OwnerDigest) -> Option<u64> {
        if theirs.incarnation != mine.incarnation {
            return (theirs.incarnation < mine.incarnation).then_some(0);
        }
        if mine.left || theirs.left {
            return (mine.left && !theirs.left).then_some(0);
        }
        let known = theirs.complete;
        if mine.complete > known || (mine.hash != theirs.hash && mine.highest > known) {
            // Deletions that are no longer remembered show only in a full list.
            return Some(if known >= mine.reaped { known } else { 0 });
        }
        (mine.hash != theirs.hash && *id == self.me && known <= mine.complete).then_some(0)
    }

    /// An owner of whom this node and the peer claim to have heard all, and do not hold the same.
    pub(crate) fn disputed(&self, theirs: &[OwnerDigest]) -> Option<NodeId> {
        let all = |complete, highest| complete == highest;
        theirs.iter().find_map(|d| {
            let id = NodeId::from(d.owner.as_str());
            let mine = self.owners.get(&id)?;
            let same_life = d.incarnation == mine.incarnation && !d.left && !mine.left;
            let disputed = id != self.me
                && same_life
                && all(d.complete, d.highest)
                && all(mine.complete, mine.highest)
                && d.complete == mine.complete
                && d.hash != mine.hash;
            disputed.then_some(id)
        })
    }

    /// Merges what a peer sent after a comparison; what was new goes to `news`. What the owner
    /// itself lists from the beginning replaces what others made of it.
    pub(crate) fn apply_delta(
        &mut self,
        now: Duration,
        delta: OwnerDelta,
        by_owner: bool,
        news: &mut Vec<ChangeKey>,
    ) -> Applied {
        let head = Update {
            owner: delta.owner.clone(),
            incarnation: delta.incarnation,
            left: true,
            ..Update::default()
        };
        if delta.left || delta.owner == self.me.0 {
            let ahead = delta.left
                || self.owners.get(&self.me).is_none_or(|own| {
                    delta.incarnation > own.incarnation || delta.to > own.highest
                });
            if !ahead {
                return Applied::Older;
            }
            let applied = self.apply(now, &head);
            if applied == Applied::Newer {
                news.push((NodeId(delta.owner), (0, String::new())));
            }
            return applied;
        }
        let id = NodeId(delta.owner);
        if by_owner
            && delta.from == 0
            && let Some(owner) = self.owners.get_mut(&id)
            && owner.incarnation == delta.incarnation
            && !owner.left
        {
            owner.complete = 0;
        }
        let mut result = Applied::Same;
        let mut named = BTreeSet::new();
        for mut entry in delta.entries {
            entry.owner.clone_from(&id.0);
            entry.incarnation = delta.incarnation;
            entry.left = false;
            match self.apply(now, &entry) {
                Applied::Newer => {
                    result = Applied::Newer;
                    news.push((id.clone(), (entry.table, entry.key.clone())));
                }
                Applied::Invalid => return Applied::Invalid,
                _ => {}
            }
            named.insert((entry.table, entry.key));
        }
        if id.0.is_empty()
            || id.0.len() > MAX_NODE_ID
            || (!self.owners.contains_key(&id) && self.owners.len() >= MAX_OWNERS)
        {
            return Applied::Invalid;
        }
        let owner = self
            .owners
            .entry(id.clone())
            .or_insert_with(|| Owner::at(delta.incarnation));
        if owner.incarnation < delta.incarnation {
            *owner = Owner::at(delta.incarnation);
        }
        if owner.incarnation == delta.incarnation
            && !owner.left
            && delta.from <= owner.complete
            && delta.to >= owner.complete
        {
            let vanished: Vec<EntryKey> = owner
                .entries
                .iter()
                .filter(|(.., e)| e.seq > delta.from && e.seq <= delta.to)
                .map(|(code, key, _)| (code, key.to_owned()))
                .filter(|key| !named.contains(key))
                .collect();
            for key in vanished {
                owner.remove(&key);
                result = Applied::Newer;
                news.push((id.clone(), key));
            }
            owner.complete_to(delta.to);
        }
        result
    }

    /// Forgets old deletions, and the entries of nodes that failed long ago.
    ///
    /// `alive` tells which owners are members now.
    pub(crate) fn reap(
        &mut self,
        now: Duration,
        tombstone_life: Duration,
        failed_life: Duration,
        alive: impl Fn(&NodeId) -> bool,
    ) {
        for (id, owner) in &mut self.owners {
            let old: Vec<(EntryKey, u64)> = owner
                .entries
                .iter()
                .filter(|(.., e)| {
                    e.deleted
                        .is_some_and(|at| at.saturating_add(tombstone_life) <= now)
                })
                .map(|(code, key, e)| ((code, key.to_owned()), e.seq))
                .collect();
            for (key, seq) in old {
                owner.remove(&key);
                owner.reaped = owner.reaped.max(seq);
            }
            if *id == self.me || alive(id) {
                owner.hidden_since = None;
            } else if owner
                .hidden_since
                .get_or_insert(now)
                .saturating_add(failed_life)
                <= now
                && !owner.left
            {
                // As if it had left: should it come back, it sees this and starts afresh.
                let mut gone = Owner::at(owner.incarnation);
                gone.left = true;
                *owner = gone;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Duration = Duration::ZERO;

    fn db(name: &str) -> Netdb {
        Netdb::new(name.into(), 7)
    }

    fn sync(now: Duration, a: &mut Netdb, b: &mut Netdb) {
        let mut news = Vec::new();
        for delta in b.deltas(&a.digest(), false, usize::MAX) {
            a.apply_delta(now, delta, false, &mut news);
        }
        for delta in a.deltas(&b.digest(), false, usize::MAX) {
            b.apply_delta(now, delta, false, &mut news);
        }
    }

    fn live(db: &Netdb, owner: &str) -> Vec<(String, Vec<u8>)> {
        db.owners
            .get(&NodeId::from(owner))
            .into_iter()
            .flat_map(|o| o.entries.iter())
            .filter(|(.., e)| e.deleted.is_none())
            .map(|(_, key, e)| (key.to_owned(), e.value.to_vec()))
            .collect()
    }

    fn put(db: &mut Netdb, key: &str, value: &'static [u8]) -> Update {
        db.put(Table::Endpoint, key, Bytes::from_static(value))
            .unwrap();
        db.update(&(db.me.clone(), (2, key.to_owned()))).unwrap()
    }

    #[test]
    fn newest_wins_in_any_order() {
        let (mut a, mut b) = (db("a"), db("b"));
        let one = put(&mut a, "k", b"1");
        let two = put(&mut a, "k", b"2");
        assert_eq!(b.apply(T0, &two), Applied::Newer);
        assert_eq!(b.apply(T0, &two), Applied::Same);
        assert_eq!(b.apply(T0, &one), Applied::Older);
        assert_eq!(live(&b, "a"), [("k".to_owned(), b"2".to_vec())]);
        assert!(
            !a.put(Table::Endpoint, "k", Bytes::from_static(b"2"))
                .unwrap()
        );
    }

    #[test]
    fn deletion_survives_its_tombstone() {
        let (mut a, mut b, mut c) = (db("a"), db("b"), db("c"));
        let old = put(&mut a, "k", b"1");
        put(&mut a, "other", b"1");
        sync(T0, &mut a, &mut b);
        sync(T0, &mut a, &mut c);
        assert!(a.delete(T0, Table::Endpoint, "k"));
        assert!(!a.delete(T0, Table::Endpoint, "k"));
        sync(T0, &mut a, &mut b);
        let later = Duration::from_secs(3600);
        for d in [&mut a, &mut b] {
            d.reap(later, Duration::from_secs(60), Duration::MAX, |_| true);
            assert_eq!(d.owners[&NodeId::from("a")].entries.len(), 1);
        }
        // c slept through all of it, and the tombstone is gone everywhere.
        sync(later, &mut b, &mut c);
        assert_eq!(live(&c, "a"), [("other".to_owned(), b"1".to_vec())]);
        assert_eq!(c.apply(later, &old), Applied::Older);
        assert!(a.deltas(&c.digest(), false, usize::MAX).is_empty());
    }

    #[test]
    fn both_owners_of_one_key_are_kept() {
        let (mut a, mut b) = (db("a"), db("b"));
        put(&mut a, "k", b"a");
        put(&mut b, "k", b"b");
        sync(T0, &mut a, &mut b);
        for d in [&a, &b] {
            assert_eq!(live(d, "a")[0].1, b"a");
            assert_eq!(live(d, "b")[0].1, b"b");
        }
    }

    #[test]
    fn a_later_life_voids_an_earlier_one() {
        let (mut a, mut b) = (db("a"), db("b"));
        let old = put(&mut a, "k", b"1");
        sync(T0, &mut a, &mut b);
        assert!(b.observe_incarnation(&"a".into(), 8));
        assert!(live(&b, "a").is_empty());
        assert_eq!(b.apply(T0, &old), Applied::Older);
    }

    #[test]
    fn own_entries_of_an_unknown_life_are_outbid() {
        let (mut a, mut b) = (Netdb::new("a".into(), 100), db("b"));
        put(&mut a, "stale", b"1");
        sync(T0, &mut a, &mut b);
        // The clock of a went backwards over a restart.
        let mut a = Netdb::new("a".into(), 50);
        put(&mut a, "k", b"2");
        assert_eq!(a.own_ahead(&b.digest()), Some(100));
        let echo = b
            .update(&("a".into(), (2, "stale".to_owned())))
            .expect("b has it");
        assert_eq!(a.apply(T0, &echo), Applied::OwnAhead(100));
        assert_eq!(a.rebase(101).len(), 1);
        sync(T0, &mut a, &mut b);
        assert_eq!(live(&b, "a"), [("k".to_owned(), b"2".to_vec())]);
    }

    #[test]
    fn left_drops_entries_and_refuses_late_ones() {
        let (mut a, mut b) = (db("a"), db("b"));
        let old = put(&mut a, "k", b"1");
        sync(T0, &mut a, &mut b);
        let key = a.leave();
        let update = a.update(&key).unwrap();
        assert_eq!(b.apply(T0, &update), Applied::Newer);
        assert_eq!(b.apply(T0, &update), Applied::Same);
        assert_eq!(b.apply(T0, &old), Applied::Older);
        assert!(live(&b, "a").is_empty());
    }

    #[test]
    fn failed_for_long_counts_as_left() {
        let (mut a, mut b) = (db("a"), db("b"));
        put(&mut a, "k", b"1");
        sync(T0, &mut a, &mut b);
        let day = Duration::from_secs(86_400);
        b.reap(T0, day, day, |_| false);
        assert_eq!(live(&b, "a").len(), 1);
        b.reap(day, day, day, |_| false);
        assert!(live(&b, "a").is_empty());
        assert_eq!(a.own_ahead(&b.digest()), Some(7));
    }

    #[test]
    fn small_budget_still_gets_there() {
        let (mut a, mut b) = (db("a"), db("b"));
        for i in 0..50 {
            put(&mut a, &format!("k{i}"), b"0123456789");
        }
        let mut rounds = 0;
        let mut news = Vec::new();
        loop {
            let deltas = a.deltas(&b.digest(), false, 600);
            if deltas.is_empty() {
                break;
            }
            for delta in deltas {
                b.apply_delta(T0, delta, false, &mut news);
            }
            rounds += 1;
            assert!(rounds < 50);
        }
        assert_eq!(live(&a, "a"), live(&b, "a"));
        assert!(rounds > 2);
    }

    #[test]
    fn limits_are_named() {
        let mut a = db("a");
        assert_eq!(a.put(Table::Node, "", Bytes::new()), Err(PutError::Key(0)));
        assert_eq!(
            a.put(Table::Node, "k", Bytes::from(vec![0; MAX_VALUE + 1])),
            Err(PutError::Value(MAX_VALUE + 1))
        );
        assert_eq!(a.apply(T0, &Update::default()), Applied::Invalid);
    }

    proptest! {
        /// Whatever was lost, doubled or reordered: after comparing pairwise all hold the same.
        #[test]
        fn always_converges(
            ops in prop::collection::vec((0_usize..3, 0_u8..4, any::<bool>(), 0_u8..8), 1..60),
            order in prop::collection::vec((0_usize..60, 0_usize..3), 0..120),
            syncs in prop::collection::vec((0_usize..3, 0_usize..3), 0..6),
        ) {
            let mut dbs = [db("a"), db("b"), db("c")];
            let mut sent = Vec::new();
            for (at, (who, key, delete, value)) in ops.into_iter().enumerate() {
                let key = format!("k{key}");
                if delete {
                    dbs[who].delete(T0, Table::Endpoint, &key);
                } else {
                    dbs[who].put(Table::Endpoint, &key, Bytes::from(vec![value])).unwrap();
                }
                let me = dbs[who].me.clone();
                sent.extend(dbs[who].update(&(me, (2, key))));
                if let Some((x, y)) = syncs.get(at).filter(|(x, y)| x < y) {
                    let (left, right) = dbs.split_at_mut(*y);
                    sync(T0, &mut left[*x], &mut right[0]);
                }
            }
            for (which, to) in order {
                if let Some(update) = sent.get(which) {
                    dbs[to].apply(T0, update);
                }
            }
            for (x, y) in [(0, 1), (0, 2), (1, 2), (0, 1)] {
                let (left, right) = dbs.split_at_mut(y);
                sync(T0, &mut left[x], &mut right[0]);
            }
            for owner in ["a", "b", "c"] {
                prop_assert_eq!(live(&dbs[0], owner), live(&dbs[1], owner));
                prop_assert_eq!(live(&dbs[0], owner), live(&dbs[2], owner));
            }
            prop_assert!(dbs[0].deltas(&dbs[1].digest(), false, usize::MAX).is_empty());
        }
    }
}
