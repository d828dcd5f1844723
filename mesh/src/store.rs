//! Where the entries of a table are: in numbered places, found by either of their two keys, and in
//! the order in which they are to be looked at again. What an entry is, only its keys tell.

use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use weft_wire::Instant;

use crate::key::Key;
use crate::wheel::Wheel;

/// Number of an entry's place. An entry that comes later may have it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowId(u32);

impl FlowId {
    /// The number.
    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    const fn place(self) -> usize {
        self.0 as usize
    }
}

/// What entries are found by. Keys of one kind differ from each other.
pub(crate) trait Keyed {
    /// What a client's frames have; they find the entry where [`Self::has_forward`] says so.
    fn forward(&self) -> &Key;
    /// Whether frames of a client find it.
    fn has_forward(&self) -> bool;
    /// What a replica's frames have.
    fn reverse(&self) -> &Key;
}

/// The entries. No lock, O(1) for each call; memory grows with the places that are in use at once.
#[derive(Debug)]
pub(crate) struct FlowStore<T> {
    places: Vec<Option<T>>,
    free: Vec<FlowId>,
    by_forward: HashTable<FlowId>,
    by_reverse: HashTable<FlowId>,
    wheel: Wheel,
    hasher: FixedState,
}

impl<T: Keyed> FlowStore<T> {
    /// None yet. Keys come from strangers: draw the seed of the hashes at random.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            by_forward: HashTable::new(),
            by_reverse: HashTable::new(),
            wheel: Wheel::new(),
            hasher: FixedState::with_seed(seed),
        }
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.by_reverse.len()
    }

    /// True when there is no entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_reverse.is_empty()
    }

    /// Places, free ones included.
    pub(crate) fn places(&self) -> usize {
        self.places.len()
    }

    #[inline]
    pub(crate) fn get(&self, id: FlowId) -> Option<&T> {
        self.places.get(id.place())?.as_ref()
    }

    /// An entry, to change anything but its keys: see [`Self::rekey`].
    #[inline]
    pub(crate) fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        self.places.get_mut(id.place())?.as_mut()
    }

    /// The entry at a place, where one is.
    pub(crate) fn at(&self, place: usize) -> Option<(FlowId, &T)> {
        let entry = self.places.get(place)?.as_ref()?;
        Some((FlowId(u32::try_from(place).ok()?), entry))
    }

    /// The entries at some places; none where these are not there.
    pub(crate) fn among(&self, places: Range<usize>) -> Option<impl Iterator<Item = &T>> {
        Some(self.places.get(places)?.iter().flatten())
    }

    /// The entry that a client's frame belongs to.
    #[inline]
    pub(crate) fn find_forward(&self, key: &Key) -> Option<FlowId> {
        let is_it = |id: &FlowId| self.get(*id).is_some_and(|entry| entry.forward() == key);
        self.by_forward
            .find(self.hasher.hash_one(key), is_it)
            .copied()
    }

    /// The entry that a replica's frame belongs to.
    #[inline]
    pub(crate) fn find_reverse(&self, key: &Key) -> Option<FlowId> {
        let is_it = |id: &FlowId| self.get(*id).is_some_and(|entry| entry.reverse() == key);
        self.by_reverse
            .find(self.hasher.hash_one(key), is_it)
            .copied()
    }

    /// Takes in an entry whose keys are not there yet; it has no turn until [`Self::schedule`]. None
    /// when there are four billion places.
    #[inline]
    pub(crate) fn insert(&mut self, entry: T) -> Option<FlowId> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.places.push(None);
                FlowId(u32::try_from(self.places.len() - 1).ok()?)
            }
        };
        let (forward, reverse) = (*entry.forward(), *entry.reverse());
        let has_forward = entry.has_forward();
        if let Some(place) = self.places.get_mut(id.place()) {
            *place = Some(entry);
        }
        if has_forward {
            self.link_forward(id, &forward);
        }
        self.link_reverse(id, &reverse);
        Some(id)
    }

    /// Takes an entry out.
    #[inline]
    pub(crate) fn remove(&mut self, id: FlowId) -> Option<T> {
        let entry = self.places.get_mut(id.place())?.take()?;
        self.wheel.unlink(id.0);
        unlink(&self.hasher, &mut self.by_reverse, entry.reverse(), id);
        if entry.has_forward() {
            unlink(&self.hasher, &mut self.by_forward, entry.forward(), id);
        }
        self.free.push(id);
        Some(entry)
    }

    /// Changes an entry whose reverse key is another one from then on: nothing finds it by the old
    /// one any more.
    pub(crate) fn rekey<R>(&mut self, id: FlowId, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let entry = self.places.get_mut(id.place())?.as_mut()?;
        let old = *entry.reverse();
        let result = change(entry);
        let new = *entry.reverse();
        unlink(&self.hasher, &mut self.by_reverse, &old, id);
        self.link_reverse(id, &new);
        Some(result)
    }

    /// Sets when an entry is to be looked at: soon after `deadline`, or never.
    pub(crate) fn schedule(&mut self, id: FlowId, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => self.wheel.schedule(id.0, deadline),
            None => self.wheel.unlink(id.0),
        }
    }

    /// The next entry whose turn has come; it has no other until [`Self::schedule`].
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<FlowId> {
        self.wheel.pop(now).map(FlowId)
    }

    /// The entry with the nearest turn.
    pub(crate) fn nearest(&self) -> Option<FlowId> {
        self.wheel.peek().map(FlowId)
    }

    /// The entry whose turn comes after that of `id`, which has one.
    pub(crate) fn after(&self, id: FlowId) -> Option<FlowId> {
        self.wheel.after(id.0).map(FlowId)
    }

    /// When [`Self::pop_due`] may have something next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.wheel.next_deadline()
    }

    fn link_forward(&mut self, id: FlowId, key: &Key) {
        let (hasher, places) = (&self.hasher, &self.places);
        self.by_forward
            .insert_unique(hasher.hash_one(key), id, |&id| {
                hash_of(hasher, places, id, T::forward)
            });
    }

    fn link_reverse(&mut self, id: FlowId, key: &Key) {
        let (hasher, places) = (&self.hasher, &self.places);
        self.by_reverse
            .insert_unique(hasher.hash_one(key), id, |&id| {
                hash_of(hasher, places, id, T::reverse)
            });
    }
}

fn hash_of<T>(
    hasher: &FixedState,
    places: &[Option<T>],
    id: FlowId,
    key: impl Fn(&T) -> &Key,
) -> u64 {
    places
        .get(id.place())
        .and_then(Option::as_ref)
        .map_or(0, |entry| hasher.hash_one(key(entry)))
}

fn unlink(hasher: &FixedState, index: &mut HashTable<FlowId>, key: &Key, id: FlowId) {
    if let Ok(entry) = index.find_entry(hasher.hash_one(key), |found| *found == id) {
        entry.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use proptest::prelude::*;
    use weft_wire::{FiveTuple, Vni};

    use super::*;
    use crate::key::Scope;

    /// An entry of nothing but keys.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Pair {
        forward: Key,
        reverse: Key,
        found_by_both: bool,
    }

    impl Keyed for Pair {
        fn forward(&self) -> &Key {
            &self.forward
        }

        fn has_forward(&self) -> bool {
            self.found_by_both
        }

        fn reverse(&self) -> &Key {
            &self.reverse
        }
    }

    fn key(network: u32, port: u16) -> Key {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let tuple = FiveTuple {
            src: ip,
            dst: ip,
            sport: port,
            dport: 80,
            proto: 6,
        };
        let scope = Scope::network(Vni::new(network).unwrap());
        Key { scope, tuple }
    }

    fn pair(port: u16, found_by_both: bool) -> Pair {
        Pair {
            forward: key(1, port),
            reverse: key(2, port),
            found_by_both,
        }
    }

    #[test]
    fn an_entry_is_found_by_its_keys_and_never_by_an_old_one() {
        let mut store = FlowStore::new(7);
        let id = store.insert(pair(5, true)).unwrap();
        assert_eq!(store.find_forward(&key(1, 5)), Some(id));
        assert_eq!(store.find_reverse(&key(2, 5)), Some(id));
        assert_eq!(store.find_forward(&key(2, 5)), None);
        let old = store.rekey(id, |entry| std::mem::replace(&mut entry.reverse, key(2, 6)));
        assert_eq!(old, Some(key(2, 5)));
        assert_eq!(store.find_reverse(&key(2, 5)), None);
        assert_eq!(store.find_reverse(&key(2, 6)), Some(id));
        assert_eq!(store.len(), 1);
        assert!(store.remove(id).is_some() && store.remove(id).is_none());
        assert_eq!(store.find_reverse(&key(2, 6)), None);
        let guest = store.insert(pair(5, false)).unwrap();
        assert_eq!((guest, store.places()), (id, 1), "the place is used again");
        assert_eq!(store.find_forward(&key(1, 5)), None);
        assert_eq!(store.at(0), Some((guest, &pair(5, false))));
        assert_eq!((store.at(1), store.among(0..2).is_none()), (None, true));
    }

    #[test]
    fn whoever_is_gone_has_no_turn() {
        let at = |seconds| Instant(0).after(Duration::from_secs(seconds));
        let mut store = FlowStore::new(7);
        let [a, b, c] = [1, 2, 3].map(|port| store.insert(pair(port, true)).unwrap());
        for (id, seconds) in [(a, 3), (b, 2), (c, 1)] {
            store.schedule(id, Some(at(seconds)));
        }
        store.schedule(c, None);
        assert_eq!((store.nearest(), store.after(b)), (Some(b), Some(a)));
        store.remove(b);
        assert_eq!(store.pop_due(at(60)), Some(a));
        assert_eq!((store.pop_due(at(60)), store.next_deadline()), (None, None));
    }

    proptest! {
        /// Against a plain map, whatever comes and goes.
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0u16..40, 0u8..4), 0..300)) {
            let mut store = FlowStore::new(7);
            let mut plain: BTreeMap<u16, (FlowId, Pair)> = BTreeMap::new();
            for (port, step) in steps {
                match (plain.remove(&port), step) {
                    (None, _) => {
                        let entry = pair(port, step != 0);
                        plain.insert(port, (store.insert(entry).unwrap(), entry));
                    }
                    (Some((id, mut entry)), 1) => {
                        let network = entry.reverse.scope.vni().unwrap().get();
                        entry.reverse = key(network + 1, port);
                        store.rekey(id, |kept| kept.reverse = entry.reverse);
                        plain.insert(port, (id, entry));
                    }
                    (Some((id, entry)), _) => prop_assert_eq!(store.remove(id), Some(entry)),
                }
                prop_assert_eq!(store.len(), plain.len());
                prop_assert_eq!(store.is_empty(), plain.is_empty());
                for (id, entry) in plain.values() {
                    prop_assert_eq!(store.get(*id), Some(entry));
                    prop_assert_eq!(store.find_reverse(&entry.reverse), Some(*id));
                    let forward = entry.found_by_both.then_some(*id);
                    prop_assert_eq!(store.find_forward(&entry.forward), forward);
                }
            }
        }
    }
}
