//! A copy of the state under change, and the entropy that new ids are made of.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::object::{Change, Object, ObjectId};
use super::state::ClusterState;

/// Random numbers from a seed that the caller drew: the same seed gives the same changes.
#[derive(Debug)]
pub struct Entropy(StdRng);

impl Entropy {
    /// Starts from 32 bytes, of the operating system in production, fixed in tests.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    /// 128 bits, for ids.
    pub fn next_u128(&mut self) -> u128 {
        u128::from_le_bytes(self.bytes())
    }

    /// `N` bytes, for keys and secrets.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }
}

/// What a command wants to change, and the object that it made or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned<T> {
    /// For the log.
    pub changes: Vec<Change>,
    /// As it will be once the changes are applied.
    pub value: T,
}

/// Collects changes while later steps already see the earlier ones; the last change of an object
/// wins.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) state: ClusterState,
    pub(super) now: u64,
    pub(super) entropy: &'a mut Entropy,
    changes: BTreeMap<ObjectId, Change>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: &ClusterState, now: u64, entropy: &'a mut Entropy) -> Self {
        Self {
            state: state.clone(),
            now,
            entropy,
            changes: BTreeMap::new(),
        }
    }

    pub(super) fn put(&mut self, object: impl Into<Object>) {
        let mut object = object.into();
        let (now, id) = (self.now, object.id());
        let version = self.state.next_version(&id);
        if let Some(meta) = object.meta_mut() {
            meta.updated_at = now;
            if meta.created_at == 0 {
                meta.created_at = now;
            }
            // With this one already, the state and the log share the object.
            meta.version = version;
        }
        let change = Change::Put(object);
        self.state.apply_one(change.clone());
        self.changes.insert(id, change);
    }

    pub(super) fn delete(&mut self, id: ObjectId) {
        let change = Change::Delete(id.clone());
        self.state.apply_one(change.clone());
        self.changes.insert(id, change);
    }

    /// Ids of the objects changed so far.
    pub(super) fn changed(&self) -> impl Iterator<Item = &ObjectId> {
        self.changes.keys()
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes.into_values().collect()
    }

    pub(super) fn plan<T>(self, value: T) -> Planned<T> {
        Planned {
            changes: self.into_changes(),
            value,
        }
    }
}
