//! Two nodes compare what they hold: a line for each owner, then what one of them lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use weft_model::id::NodeId;

use super::owner::Owner;
use super::{Applied, MAX_OWNERS, Netdb};
use crate::entries::EntryKey;
use crate::identity::MAX_NODE_ID;
use crate::message::{OwnerDelta, OwnerDigest, Update};
use crate::queue::ChangeKey;

impl Netdb {
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
}
