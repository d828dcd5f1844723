//! The tables: entries keyed by table, key and owner, ordered by (incarnation, sequence number).
//!
//! Only the owner writes its entries, and numbers its writes, so two nodes that heard the same
//! writes hold the same entries. Each node also knows up to which number it has heard everything
//! of an owner; that makes a comparison of two nodes one line per owner.

mod exchange;
mod owner;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use weft_model::id::NodeId;
use weft_model::records::Table;

use self::owner::Owner;
use super::entries::{Entry, EntryKey, table_code, table_of};
use super::identity::MAX_NODE_ID;
use super::message::Update;
use super::queue::ChangeKey;
use super::said::Said;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 256;

/// Longest value, in bytes.
pub const MAX_VALUE: usize = 60 * 1024;

const MAX_ENTRIES_PER_OWNER: usize = 65_536;
const MAX_OWNERS: usize = 16_384;

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
mod tests;
