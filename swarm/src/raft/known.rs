//! What the file of the log holds, as the running process knows it. From this the file is written
//! anew when it is lost under a running manager, and most reads are answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use openraft::EntryPayload;
use weft_cluster::{ClusterState, Reply};

use super::types::{LogEntry, LogId, Membership, Replies, SnapshotMeta, StoredMembership, Vote};

/// Entries that are kept in memory although all members have applied them, and their bytes: what a
/// member that is a little behind asks for.
const TAIL_ENTRIES: usize = 512;
const TAIL_BYTES: usize = 8 << 20;

/// What the log has made of the state so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Applied {
    /// The state.
    pub(super) state: Arc<ClusterState>,
    /// Of which entry it is.
    pub(super) last: Option<LogId>,
    /// Members by that entry.
    pub(super) membership: StoredMembership,
}

impl Applied {
    /// Takes the next entry. One that was taken before changes nothing: two lives of openraft may
    /// have the same committed entries in their hands for a moment.
    pub(super) fn take(&mut self, entry: &LogEntry) -> Replies {
        let id = entry.log_id;
        if self.last.is_some_and(|last| last.index >= id.index) {
            return Replies::default();
        }
        let replies = match &entry.payload {
            EntryPayload::Blank => Replies::default(),
            EntryPayload::Normal(batch) => {
                let replies = batch.0.iter().map(|entry| match entry.check(&self.state) {
                    Ok(()) => entry.apply(Arc::make_mut(&mut self.state)),
                    Err(stale) => Reply::Stale(stale),
                });
                Replies(replies.collect())
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership.clone());
                Replies::default()
            }
        };
        self.last = Some(id);
        replies
    }

    pub(super) fn index(&self) -> Option<u64> {
        self.last.map(|last| last.index)
    }
}

/// The newest entries. None that is not applied is missing.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    /// With the bytes that each has in the file.
    entries: BTreeMap<u64, (LogEntry, usize)>,
    bytes: usize,
}

impl Tail {
    pub(super) fn push(&mut self, entry: LogEntry, bytes: usize) {
        self.bytes += bytes;
        let index = entry.log_id.index;
        if let Some((_, before)) = self.entries.insert(index, (entry, bytes)) {
            self.bytes -= before;
        }
    }

    /// Removes this one and all after it.
    pub(super) fn truncate(&mut self, since: u64) {
        let cut = self.entries.split_off(&since);
        self.bytes -= cut.values().map(|(_, bytes)| bytes).sum::<usize>();
    }

    /// Lets go of old ones that are applied.
    pub(super) fn trim(&mut self, applied: Option<u64>) {
        while self.entries.len() > TAIL_ENTRIES || self.bytes > TAIL_BYTES {
            let Some(first) = self.entries.first_entry() else {
                return;
            };
            if applied.is_none_or(|applied| *first.key() > applied) {
                return;
            }
            self.bytes -= first.remove().1;
        }
    }

    /// Those from `start` to before `end`, the first of them up to `limit` bytes and one at least;
    /// nothing when the file has to be asked.
    pub(super) fn range(&self, start: u64, end: u64, limit: usize) -> Option<Vec<LogEntry>> {
        let first = *self.entries.first_key_value()?.0;
        if start < first {
            return None;
        }
        let mut found = Vec::new();
        if start >= end {
            return Some(found);
        }
        let mut total = 0_usize;
        for (entry, bytes) in self.entries.range(start..end).map(|(_, held)| held) {
            total = total.saturating_add(*bytes);
            if total > limit && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Some(found)
    }

    /// All after this one.
    pub(super) fn after(&self, index: Option<u64>) -> impl Iterator<Item = &LogEntry> {
        let start = index.map_or(0, |index| index + 1);
        self.entries.range(start..).map(|(_, (entry, _))| entry)
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Whom this member gave its vote last.
    pub(super) vote: Option<Vote>,
    /// As far as entries are sure. Not in the file before the next entry is.
    pub(super) committed: Option<LogId>,
    /// The last entry that is not to be had any more.
    pub(super) purged: Option<LogId>,
    /// The last entry in the file.
    pub(super) row: Option<LogId>,
    /// The snapshot in the file.
    pub(super) snapshot: Option<SnapshotMeta>,
    /// Entries were purged that the file does not have, for a snapshot that is still on its way there.
    pub(super) gap: Option<LogId>,
    /// The newest entries.
    pub(super) tail: Tail,
    /// The state.
    pub(super) applied: Applied,
}

impl Known {
    /// The last entry that there is or was.
    pub(super) fn last(&self) -> Option<LogId> {
        match (self.row, self.purged) {
            (Some(row), Some(purged)) if row.index <= purged.index => Some(purged),
            (Some(row), _) => Some(row),
            (None, purged) => purged,
        }
    }

    /// The last entry in the snapshot of the file.
    pub(super) fn in_snapshot(&self) -> Option<LogId> {
        self.snapshot.as_ref().and_then(|meta| meta.last_log_id)
    }

    /// The newest list of members, committed or not.
    pub(super) fn members(&self) -> &Membership {
        let newest = self.tail.after(self.applied.index());
        let lists = newest.filter_map(|entry| match &entry.payload {
            EntryPayload::Membership(list) => Some(list),
            EntryPayload::Blank | EntryPayload::Normal(_) => None,
        });
        lists.last().unwrap_or(self.applied.membership.membership())
    }

    /// Entries are in the file, each with its bytes there.
    pub(super) fn appended(&mut self, entries: Vec<LogEntry>, bytes: Vec<usize>) {
        for (entry, bytes) in entries.into_iter().zip(bytes) {
            self.row = Some(entry.log_id);
            self.tail.push(entry, bytes);
        }
        self.tail.trim(self.applied.index());
    }

    /// Entries up to this one are to be forgotten.
    pub(super) fn purge(&mut self, upto: LogId) {
        self.purged = self.purged.max(Some(upto));
        let in_file = self.row.map(|row| row.index);
        let in_snapshot = self.in_snapshot().map(|last| last.index);
        if in_file < Some(upto.index) && in_snapshot < Some(upto.index) {
            self.gap = Some(upto);
        }
    }

    /// As far as entries may be removed from the file: what is in no snapshot there stays.
    pub(super) fn removable(&self) -> Option<LogId> {
        let (purged, snapshot) = (self.purged?, self.in_snapshot()?);
        Some(if purged.index <= snapshot.index {
            purged
        } else {
            snapshot
        })
    }

    /// Entries up to this one are not in the file any more.
    pub(super) fn removed(&mut self, upto: LogId) {
        if self.row.is_some_and(|row| row.index <= upto.index) {
            self.row = None;
        }
    }

    /// A snapshot is in the file.
    pub(super) fn snapshot_stored(&mut self, meta: SnapshotMeta) {
        let last = meta.last_log_id.map(|last| last.index);
        if self.gap.is_some_and(|gap| Some(gap.index) <= last) {
            self.gap = None;
        }
        self.snapshot = Some(meta);
    }

    /// The file has what a copy of this says; what is not of the file went on since.
    pub(super) fn written_anew(&mut self, written: Self) {
        self.row = written.row;
        self.purged = self.purged.max(written.purged);
        if let Some(meta) = written.snapshot {
            self.snapshot_stored(meta);
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::testing::{blank_ent, log_id};
    use weft_cluster::{Entry, Stale};

    use super::*;
    use crate::raft::types::{Batch, Types};

    fn entry(index: u64) -> LogEntry {
        blank_ent::<Types>(1, 1, index)
    }

    fn indices(entries: Option<Vec<LogEntry>>) -> Option<Vec<u64>> {
        Some(entries?.iter().map(|e| e.log_id.index).collect())
    }

    #[test]
    fn the_tail_keeps_what_is_not_applied_whatever_its_length() {
        let mut tail = Tail::default();
        for index in 10..1000 {
            tail.push(entry(index), TAIL_BYTES / 100);
        }
        tail.trim(None);
        assert_eq!(indices(tail.range(10, 12, usize::MAX)), Some(vec![10, 11]));
        tail.trim(Some(500));
        assert_eq!(indices(tail.range(500, 502, usize::MAX)), None);
        assert_eq!(
            indices(tail.range(501, 503, usize::MAX)),
            Some(vec![501, 502])
        );
        assert_eq!(
            indices(tail.range(501, 600, 1)),
            Some(vec![501]),
            "one at least"
        );
        assert_eq!(indices(tail.range(700, 700, 1)), Some(vec![]));
        tail.truncate(503);
        assert_eq!(
            indices(tail.range(501, 600, usize::MAX)),
            Some(vec![501, 502])
        );
        assert_eq!(tail.after(Some(501)).count(), 1);
        tail.trim(Some(2000));
        assert_eq!(tail.bytes, TAIL_BYTES / 100 * 2);
        assert_eq!(tail.after(None).count(), 2, "as there is room for them");
    }

    #[test]
    fn each_of_a_batch_has_its_own_reply_and_an_entry_counts_once() {
        let change = |base| Entry {
            base,
            changes: Vec::new(),
        };
        let batch = Batch::new(vec![change(0), change(0), change(1)]);
        let entry = LogEntry {
            log_id: log_id(1, 1, 4),
            payload: EntryPayload::Normal(batch),
        };
        let mut applied = Applied::default();
        let stale = Stale {
            planned: 0,
            actual: 1,
        };
        let replies = [
            Reply::Applied { version: 1 },
            Reply::Stale(stale),
            Reply::Applied { version: 2 },
        ];
        assert_eq!(applied.take(&entry).0, replies);
        assert_eq!((applied.state.version, applied.index()), (2, Some(4)));
        assert_eq!(applied.take(&entry), Replies::default());
        assert_eq!(applied.state.version, 2);
    }

    #[test]
    fn what_is_in_no_snapshot_is_not_removed() {
        let mut known = Known::default();
        known.appended((1..=5).map(entry).collect(), vec![1; 5]);
        known.purge(log_id(1, 1, 3));
        assert_eq!((known.removable(), known.gap), (None, None));
        assert_eq!(known.last(), Some(log_id(1, 1, 5)));
        known.purge(log_id(1, 1, 9));
        assert_eq!(known.last(), Some(log_id(1, 1, 9)));
        assert_eq!(known.gap, Some(log_id(1, 1, 9)), "the file ends before");
        known.snapshot_stored(SnapshotMeta {
            last_log_id: Some(log_id(1, 1, 9)),
            ..SnapshotMeta::default()
        });
        assert_eq!(known.gap, None);
        assert_eq!(known.removable(), Some(log_id(1, 1, 9)));
        known.removed(log_id(1, 1, 9));
        assert_eq!((known.row, known.last()), (None, Some(log_id(1, 1, 9))));
    }

    #[test]
    fn what_goes_on_while_the_file_is_written_anew_stays() {
        let mut known = Known::default();
        known.appended((1..=5).map(entry).collect(), vec![1; 5]);
        let mut written = known.clone();
        known.committed = Some(log_id(1, 1, 5));
        known.purge(log_id(1, 1, 9));
        written.purged = Some(log_id(1, 1, 3));
        written.snapshot_stored(SnapshotMeta {
            last_log_id: Some(log_id(1, 1, 3)),
            ..SnapshotMeta::default()
        });
        known.written_anew(written);
        assert_eq!(known.row, Some(log_id(1, 1, 5)));
        assert_eq!(known.in_snapshot(), Some(log_id(1, 1, 3)));
        assert_eq!(known.committed, Some(log_id(1, 1, 5)));
        assert_eq!(known.purged, Some(log_id(1, 1, 9)));
        assert_eq!(known.gap, Some(log_id(1, 1, 9)), "the file ends before");
    }
}
