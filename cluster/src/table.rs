//! Maps of objects that share what is the same in two versions of the state.

use std::fmt;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

/// Objects by id, in its order. A clone is a pointer; a change of it copies the path to what
/// changed, and no object.
pub struct Table<K, V>(RedBlackTreeMapSync<K, Arc<V>>);

impl<K: Ord, V> Table<K, V> {
    /// The object of that id.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.shared(key).map(|value| &**value)
    }

    /// The same, to be kept.
    #[must_use]
    pub fn shared(&self, key: &K) -> Option<&Arc<V>> {
        #[cfg(test)]
        looks::count();
        self.0.get(key)
    }

    /// True when there is an object of that id.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.shared(key).is_some()
    }

    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.size()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ids with their objects, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| {
            #[cfg(test)]
            looks::count();
            (key, &**value)
        })
    }

    /// Ids, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Objects, in the order of their ids.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Ids that are not before `first`, with their objects, in order.
    pub(super) fn starting_at(&self, first: K) -> impl Iterator<Item = (&K, &V)> {
        self.0.range::<K, _>(first..).map(|(key, value)| {
            #[cfg(test)]
            looks::count();
            (key, &**value)
        })
    }

    /// True when nothing has been changed between the two: one is a copy of the other. Where it is
    /// false they may be equal all the same.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }

    // What changes a table is for the state alone, which keeps its index in step.

    pub(super) fn insert(&mut self, key: K, value: Arc<V>) {
        self.0.insert_mut(key, value);
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.0.remove_mut(key);
    }
}

impl<K: Ord, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(RedBlackTreeMapSync::new_sync())
    }
}

impl<K: Ord, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Ord, V: Eq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K: Ord, V: Eq> Eq for Table<K, V> {}

impl<K: Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter()).finish()
    }
}

impl<K: Ord, V> std::ops::Index<&K> for Table<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("an object of that id is in the state")
    }
}

/// How many objects and entries of the index this thread has looked at.
#[cfg(test)]
pub(super) mod looks {
    use std::cell::Cell;

    thread_local! {
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    pub(crate) fn count() {
        LOOKS.with(|looks| looks.set(looks.get() + 1));
    }

    /// Since the last call.
    pub(crate) fn take() -> u64 {
        LOOKS.with(|looks| looks.replace(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_shares_its_objects_and_goes_its_own_way() {
        let mut one = Table::default();
        for key in 0..1000 {
            one.insert(key, Arc::new(key.to_string()));
        }
        let mut other = one.clone();
        assert!(other.is(&one));
        other.insert(500, Arc::new("five hundred".to_owned()));
        other.remove(&501);
        assert_eq!((one.len(), other.len()), (1000, 999));
        assert_eq!(
            (one[&500].as_str(), other[&500].as_str()),
            ("500", "five hundred")
        );
        let shared = |key| Some(Arc::as_ptr(one.shared(&key)?));
        assert_eq!(shared(7), other.shared(&7).map(Arc::as_ptr));
        assert_ne!(one, other);
        assert!(!other.is(&one));
        let from: Vec<_> = other
            .starting_at(499)
            .map(|(key, _)| *key)
            .take(3)
            .collect();
        assert_eq!(from, [499, 500, 502]);
        assert!(one.keys().is_sorted());
    }
}
