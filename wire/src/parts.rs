//! Tables by address, in parts that their copies share: who changes one of 10,000 rows copies some 150.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::ids::{Mac, Vni};

const PARTS: usize = 64;

/// A key says itself in which part it is: by what differs from one address to the next. And which numbers
/// are hashed for it: to hash a slice of six or four bytes takes thrice as many instructions.
pub trait Part {
    /// Any number; its low six bits are the part's.
    fn part(&self) -> u8;

    /// Two keys that differ have other numbers, as a rule.
    fn words(&self) -> (u64, u64);
}

impl Part for (Vni, Mac) {
    #[inline]
    fn part(&self) -> u8 {
        self.1.0[5]
    }

    #[inline]
    fn words(&self) -> (u64, u64) {
        let [a, b, c, d, e, f] = self.1.0;
        let mac = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        (self.0.get().into(), mac)
    }
}

impl Part for (Vni, IpAddr) {
    #[inline]
    fn part(&self) -> u8 {
        match self.1 {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        }
    }

    #[inline]
    fn words(&self) -> (u64, u64) {
        let vni = u64::from(self.0.get());
        match self.1 {
            IpAddr::V4(ip) => (vni, ip.to_bits().into()),
            IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                ((bits >> 64) as u64 ^ vni, bits as u64)
            }
        }
    }
}

/// A number that is a hash.
impl Part for (Vni, u64) {
    #[inline]
    fn part(&self) -> u8 {
        self.1.to_le_bytes()[0]
    }

    #[inline]
    fn words(&self) -> (u64, u64) {
        (self.0.get().into(), self.1)
    }
}

#[inline]
fn hash(key: &impl Part) -> u64 {
    FixedState::default().hash_one(key.words())
}

type Rows<K, V> = HashTable<(K, V)>;

/// A hash table with as many keys as fit in memory. To copy it is to count references, and a look-up
/// is that of a hash table, behind one pointer more. The seed is fixed, as this crate draws no random
/// numbers: keys come from the control plane, not from packets.
#[derive(Debug, Clone)]
pub struct Parts<K, V> {
    parts: [Arc<Rows<K, V>>; PARTS],
    len: usize,
}

impl<K, V> Default for Parts<K, V> {
    fn default() -> Self {
        let empty = Arc::new(Rows::new());
        Self {
            parts: std::array::from_fn(|_| Arc::clone(&empty)),
            len: 0,
        }
    }
}

impl<K: Part + Eq, V: PartialEq> PartialEq for Parts<K, V> {
    fn eq(&self, other: &Self) -> bool {
        let mut pairs = self.parts.iter().zip(&other.parts);
        self.len == other.len
            && pairs.all(|(a, b)| {
                let mut rows = a.iter();
                Arc::ptr_eq(a, b) || rows.all(|(key, value)| find(b, key) == Some(value))
            })
    }
}

impl<K: Part + Eq, V: Eq> Eq for Parts<K, V> {}

#[inline]
fn find<'a, K: Part + Eq, V>(rows: &'a Rows<K, V>, key: &K) -> Option<&'a V> {
    let found = rows.find(hash(key), |(known, _)| known == key);
    found.map(|(_, value)| value)
}

impl<K, V> Parts<K, V> {
    /// How many keys there are. O(1).
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no key. O(1).
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K: Part + Clone + Eq, V: Clone> Parts<K, V> {
    /// The value of a key. O(1).
    #[must_use]
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        find(&self.parts[usize::from(key.part()) % PARTS], key)
    }

    /// Whether there is such a key. O(1).
    #[must_use]
    #[inline]
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    fn part_mut(&mut self, key: &K) -> &mut Rows<K, V> {
        Arc::make_mut(&mut self.parts[usize::from(key.part()) % PARTS])
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if !self.contains_key(key) {
            return None;
        }
        let found = self
            .part_mut(key)
            .find_mut(hash(key), |(known, _)| known == key);
        found.map(|(_, value)| value)
    }

    /// Gives a key a value; returns the one that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let rows = self.part_mut(&key);
        let of_key = rows.entry(hash(&key), |(known, _)| *known == key, |(k, _)| hash(k));
        match of_key {
            Entry::Occupied(mut row) => Some(std::mem::replace(&mut row.get_mut().1, value)),
            Entry::Vacant(free) => {
                free.insert((key, value));
                self.len += 1;
                None
            }
        }
    }

    /// Takes a key away; returns its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        if !self.contains_key(key) {
            return None;
        }
        let found = self
            .part_mut(key)
            .find_entry(hash(key), |(known, _)| known == key);
        let ((_, value), _) = found.ok()?.remove();
        self.len -= 1;
        Some(value)
    }

    /// Changes the values of some keys, each by itself: there is no order. O(all keys).
    pub fn change(&mut self, which: impl Fn(&K, &V) -> bool, mut change: impl FnMut(&mut V)) {
        for part in &mut self.parts {
            if part.iter().any(|(key, value)| which(key, value)) {
                let rows = Arc::make_mut(part).iter_mut();
                let found = rows.filter(|(key, value)| which(key, value));
                found.for_each(|(_, value)| change(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(n: u64) -> (Vni, u64) {
        (Vni::new(1).unwrap(), n)
    }

    #[test]
    fn a_change_copies_its_part_only() {
        let mut table = Parts::default();
        for n in 0..10_000_u64 {
            table.insert(key(n), n);
        }
        let shown = table.clone();
        assert_eq!(table.insert(key(7), 0), Some(7));
        let parts = table.parts.iter().zip(&shown.parts);
        assert_eq!(parts.filter(|(a, b)| !Arc::ptr_eq(a, b)).count(), 1);
        assert_eq!(
            (table.get(&key(7)), shown.get(&key(7))),
            (Some(&0), Some(&7))
        );
        let same = table.clone();
        assert_eq!(table.remove(&key(10_000)), None);
        assert_eq!(table.get_mut(&key(10_000)), None);
        let mut parts = table.parts.iter().zip(&same.parts);
        assert!(
            parts.all(|(a, b)| Arc::ptr_eq(a, b)),
            "there is no such key"
        );
    }

    #[test]
    fn addresses_of_a_network_are_spread() {
        let vni = Vni::new(1).unwrap();
        let last = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut table = Parts::default();
        for n in 0..=255 {
            table.insert((vni, last(n)), ());
        }
        assert!(table.parts.iter().all(|part| part.len() == 4));
        let v6: IpAddr = "fd00::ab".parse().unwrap();
        assert_eq!((vni, v6).part(), 0xab);
        assert_eq!((vni, Mac([2, 0x42, 10, 0, 0, 9])).part(), 9);
    }

    proptest! {
        /// It says what a plain map says, and copies stay as they were.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((0_u8..5, 0_u64..200, any::<u8>()), 0..80)) {
            let mut table = Parts::default();
            let mut plain = BTreeMap::new();
            let mut told = Vec::new();
            for (what, n, value) in steps {
                match what {
                    0 | 1 => prop_assert_eq!(table.insert(key(n), value), plain.insert(n, value)),
                    2 => prop_assert_eq!(table.remove(&key(n)), plain.remove(&n)),
                    3 => {
                        if let Some(known) = plain.get_mut(&n) {
                            *known = value;
                        }
                        if let Some(known) = table.get_mut(&key(n)) {
                            *known = value;
                        }
                    }
                    _ => {
                        table.change(|(_, key), _| *key > n, |known| *known = value);
                        plain.range_mut(n + 1..).for_each(|(_, known)| *known = value);
                    }
                }
                told.push((table.clone(), plain.clone()));
            }
            for (table, plain) in told {
                prop_assert_eq!(table.len(), plain.len());
                prop_assert_eq!(table.is_empty(), plain.is_empty());
                for n in 0..200 {
                    prop_assert_eq!(table.get(&key(n)), plain.get(&n));
                }
                let mut anew = Parts::default();
                for (n, value) in plain.iter().rev() {
                    anew.insert(key(*n), *value);
                }
                prop_assert_eq!(anew, table);
            }
        }
    }
}
