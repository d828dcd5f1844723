//! What a node knows of one owner: its entries, and up to which number it has heard all of them.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use weft_model::id::NodeId;

use crate::entries::{Entries, Entry, EntryKey};
use crate::message::OwnerDigest;

const MAX_PENDING: usize = 4096;

/// Everything known of one owner.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owner {
    pub(crate) incarnation: u64,
    pub(crate) left: bool,
    pub(crate) entries: Arc<Entries>,
    pub(super) complete: u64,
    pub(super) highest: u64,
    /// Heard numbers above `complete`.
    pending: BTreeSet<u64>,
    /// Highest number of a deletion that is no longer remembered.
    pub(super) reaped: u64,
    pub(super) hash: u64,
    pub(super) hidden_since: Option<Duration>,
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
    pub(super) fn at(incarnation: u64) -> Self {
        Self {
            incarnation,
            ..Self::default()
        }
    }

    pub(super) fn insert(&mut self, key: EntryKey, entry: Entry) {
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

    pub(super) fn remove(&mut self, key: &EntryKey) {
        if let Some(old) = Arc::make_mut(&mut self.entries).remove(key)
            && old.deleted.is_none()
        {
            self.hash ^= entry_hash(key, old.seq);
        }
    }

    pub(super) fn heard(&mut self, seq: u64) {
        self.highest = self.highest.max(seq);
        if seq > self.complete && self.pending.len() < MAX_PENDING {
            self.pending.insert(seq);
        }
        self.advance();
    }

    pub(super) fn complete_to(&mut self, seq: u64) {
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

    pub(super) fn digest(&self, owner: &NodeId) -> OwnerDigest {
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
    pub(super) fn lacks(&self, theirs: &OwnerDigest) -> bool {
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
