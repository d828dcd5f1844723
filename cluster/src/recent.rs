//! Which objects changed with which version of the state, as far back as it is worth to know.

use std::collections::BTreeSet;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use super::object::ObjectId;

/// Changes that are remembered. Who is further behind looks at everything.
const MAX_CHANGES: usize = 1 << 14;

/// The last batches of changes, by the version that each of them made. Copies share them.
#[derive(Clone, Default)]
pub(super) struct RecentChanges {
    batches: RedBlackTreeMapSync<u64, Arc<[ObjectId]>>,
    /// Changes in all batches; an empty one counts as one.
    changes: usize,
}

impl RecentChanges {
    /// Versions follow each other without a gap.
    pub(super) fn record(&mut self, version: u64, changed: Arc<[ObjectId]>) {
        self.changes += changed.len().max(1);
        self.batches.insert_mut(version, changed);
        while self.changes > MAX_CHANGES && self.batches.size() > 1 {
            let Some((oldest, batch)) = self.batches.first() else {
                return;
            };
            let (oldest, changes) = (*oldest, batch.len().max(1));
            self.batches.remove_mut(&oldest);
            self.changes -= changes;
        }
    }

    /// What changed after version `seen`, up to `now`, the last one; nothing when that is not known.
    pub(super) fn since(&self, seen: u64, now: u64) -> Option<BTreeSet<&ObjectId>> {
        if seen == now {
            return Some(BTreeSet::new());
        }
        let next = seen.checked_add(1)?;
        self.batches.get(&next)?;
        let batches = self.batches.range::<u64, _>(next..);
        Some(batches.flat_map(|(_, batch)| batch.iter()).collect())
    }
}

#[cfg(test)]
mod tests {
    use weft_model::id::TaskId;

    use super::*;

    fn id(n: u64) -> ObjectId {
        ObjectId::Task(TaskId(n.to_string()))
    }

    #[test]
    fn what_is_long_ago_is_not_known() {
        let mut recent = RecentChanges::default();
        assert_eq!(recent.since(5, 5), Some(BTreeSet::new()));
        assert_eq!(recent.since(4, 5), None);
        for version in 6..=8 {
            recent.record(version, [id(version), id(0)].into());
        }
        assert_eq!(recent.since(4, 8), None);
        let changed = [id(0), id(6), id(7), id(8)];
        assert_eq!(recent.since(5, 8), Some(changed.iter().collect()));
        let changed = [id(0), id(8)];
        assert_eq!(recent.since(7, 8), Some(changed.iter().collect()));
        assert_eq!(recent.since(9, 8), None, "of another state");
        let many: Vec<ObjectId> = (0..MAX_CHANGES as u64).map(id).collect();
        recent.record(9, many.into());
        assert_eq!(recent.since(7, 9), None);
        assert_eq!(recent.since(8, 9).map(|all| all.len()), Some(MAX_CHANGES));
        assert_eq!(recent.changes, MAX_CHANGES);
    }
}
