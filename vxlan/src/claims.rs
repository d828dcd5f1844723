//! Who claims a key of the tables, and who has it.

use std::hash::Hash;

use weft_wire::{Part, Parts};

use crate::fdb::Map;

/// Claims of keys: the greatest claim has the key, the others wait for it to go. What is told does
/// not depend on the order of the calls.
#[derive(Debug, Clone)]
pub(crate) struct Claims<K, V> {
    held: Parts<K, V>,
    /// All other claims of a key; rare.
    waiting: Map<K, Vec<V>>,
}

impl<K, V> Default for Claims<K, V> {
    fn default() -> Self {
        Self {
            held: Parts::default(),
            waiting: Map::default(),
        }
    }
}

impl<K: Copy + Eq + Hash + Part, V: Copy + Ord> Claims<K, V> {
    /// Who has each key.
    pub(crate) const fn held(&self) -> &Parts<K, V> {
        &self.held
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.held.get(key).copied()
    }

    pub(crate) fn add(&mut self, key: K, claim: V) {
        let Some(held) = self.held.get_mut(&key) else {
            self.held.insert(key, claim);
            return;
        };
        let beaten = if claim > *held {
            std::mem::replace(held, claim)
        } else {
            claim
        };
        self.waiting.entry(key).or_default().push(beaten);
    }

    /// Takes one such claim back; one that was never added changes nothing.
    pub(crate) fn remove(&mut self, key: &K, claim: V) {
        let others = self.waiting.get_mut(key);
        if let Some(others) = others {
            let wanted = if self.held.get(key) == Some(&claim) {
                others.iter().copied().max()
            } else {
                Some(claim)
            };
            let Some(at) = others.iter().position(|other| Some(*other) == wanted) else {
                return;
            };
            let freed = others.swap_remove(at);
            if others.is_empty() {
                self.waiting.remove(key);
            }
            if let Some(held) = self.held.get_mut(key)
                && *held == claim
            {
                *held = freed;
            }
        } else if self.held.get(key) == Some(&claim) {
            self.held.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use weft_wire::{Mac, Vni};

    use super::*;

    proptest! {
        /// Whatever came and went, in whatever order: of what is left the greatest has the key.
        #[test]
        fn the_greatest_claim_that_is_left_has_the_key(
            steps in prop::collection::vec((any::<bool>(), 0_u8..3, 0_u8..4), 0..60),
        ) {
            let mut claims = Claims::default();
            let mut all: BTreeMap<(Vni, Mac), Vec<u8>> = BTreeMap::new();
            for (adds, key, claim) in steps {
                let key = (Vni::new(1).unwrap(), Mac([2, 0x42, 10, 0, 0, key]));
                let known = all.entry(key).or_default();
                if adds {
                    claims.add(key, claim);
                    known.push(claim);
                } else {
                    claims.remove(&key, claim);
                    if let Some(at) = known.iter().position(|other| *other == claim) {
                        known.swap_remove(at);
                    }
                }
                for (key, known) in &all {
                    prop_assert_eq!(claims.get(key), known.iter().copied().max());
                }
            }
        }
    }
}
