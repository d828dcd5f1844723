//! A map in parts that its copies share: who changes one of 20,000 names copies a hundred.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// In which of 256 parts a key is. The same on every machine.
pub(crate) trait Part {
    fn part(&self) -> u8;
}

impl Part for str {
    fn part(&self) -> u8 {
        // FNV-1a, folded.
        let mut hash = 0x811c_9dc5_u32;
        for byte in self.bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        hash.to_be_bytes()
            .into_iter()
            .fold(0, |fold, byte| fold ^ byte)
    }
}

impl Part for String {
    fn part(&self) -> u8 {
        self.as_str().part()
    }
}

impl Part for IpAddr {
    fn part(&self) -> u8 {
        // Of both families, what differs from one endpoint to the next.
        match self {
            Self::V4(ip) => ip.octets()[3],
            Self::V6(ip) => ip.octets()[15],
        }
    }
}

/// The map. To copy it is to count references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shards<K, V> {
    /// None is empty.
    parts: BTreeMap<u8, Arc<BTreeMap<K, V>>>,
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self {
            parts: BTreeMap::new(),
        }
    }
}

impl<K, V> Shards<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.parts.values().map(|part| part.len()).sum()
    }
}

impl<K: Ord + Clone + Part, V: Clone + Default + PartialEq> Shards<K, V> {
    pub(crate) fn get<Q: Ord + Part + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.parts.get(&key.part())?.get(key)
    }

    /// Changes the value of a key, which is the default where there is none; one that becomes the
    /// default is removed.
    pub(crate) fn change(&mut self, key: K, change: impl FnOnce(&mut V)) {
        let number = key.part();
        let part = Arc::make_mut(self.parts.entry(number).or_default());
        let value = part.entry(key.clone()).or_default();
        change(value);
        if *value == V::default() {
            part.remove(&key);
        }
        if part.is_empty() {
            self.parts.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_copies_its_part_only_and_nothing_empty_stays() {
        let mut map: Shards<String, Vec<u8>> = Shards::default();
        let empty = map.clone();
        let names: Vec<String> = (0..1000).map(|n| format!("web.{n}")).collect();
        for name in &names {
            map.change(name.clone(), |value| value.push(1));
        }
        assert_eq!(map.len(), 1000);
        assert!(map.parts.len() > 200, "{} parts", map.parts.len());
        let shown = map.clone();
        map.change(names[7].clone(), |value| value.push(2));
        let copied = map.parts.iter().filter(|(number, part)| {
            let old = shown.parts.get(number).expect("no part went");
            !Arc::ptr_eq(old, part)
        });
        assert_eq!(copied.count(), 1);
        assert_eq!(map.get("web.7"), Some(&vec![1, 2]));
        assert_eq!(shown.get("web.7"), Some(&vec![1]));
        for name in names {
            map.change(name, Vec::clear);
        }
        assert_eq!((map.len(), map.get("web.7")), (0, None));
        assert_eq!(map, empty);
    }
}
