//! The log as openraft asks for it: entries, votes, and how far entries are sure.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};

use super::file::{Failure, RaftFile};
use super::tables;
use super::types::{LogEntry, LogId, StorageError, Types, Vote};

/// Bytes of entries that go to another member at once; an entry that has more goes alone.
const MAX_SENT: usize = 1 << 20;

/// The log in a file; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct LogStore(pub(super) Arc<RaftFile>);

fn not_read(failure: Failure) -> StorageError {
    StorageError::IO {
        source: StorageIOError::read_logs(AnyError::error(failure)),
    }
}

fn not_written(failure: Failure) -> StorageError {
    StorageError::IO {
        source: StorageIOError::write_logs(AnyError::error(failure)),
    }
}

fn no_vote(failure: Failure) -> StorageError {
    StorageError::IO {
        source: StorageIOError::write_vote(AnyError::error(failure)),
    }
}

/// The first index of a range, and the one after its last.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl LogStore {
    /// Entries from `start` to before `end` that there are, up to `limit` bytes and one at least.
    async fn get(&self, start: u64, end: u64, limit: usize) -> Result<Vec<LogEntry>, Failure> {
        let indices = {
            let known = self.0.known();
            let first = known.purged.map_or(0, |purged| purged.index + 1);
            let after = known.row.map_or(0, |row| row.index + 1);
            let (start, end) = (start.max(first), end.min(after));
            if start >= end {
                return Ok(Vec::new());
            }
            if let Some(entries) = known.tail.range(start, end, limit) {
                return Ok(entries);
            }
            start..end
        };
        let seal = self.0.seal.clone();
        let read = self
            .0
            .read(move |transaction| tables::entries(transaction, &seal, indices, limit));
        Ok(read.await?.into_iter().map(|(entry, _)| entry).collect())
    }

    async fn add(&self, entries: Vec<LogEntry>) -> Result<(), Failure> {
        self.0.without_gap().await;
        let file = Arc::clone(&self.0);
        self.0
            .write(
                move |transaction| {
                    let lengths = tables::append(transaction, &file.seal, &entries)?;
                    let committed = file.known().committed;
                    tables::put_committed(transaction, &file.seal, committed.as_ref())?;
                    Ok((entries, lengths))
                },
                |known, (entries, lengths)| known.appended(entries, lengths),
            )
            .await
    }

    async fn cut(&self, since: u64) -> Result<(), Failure> {
        let seal = self.0.seal.clone();
        self.0
            .write(
                move |transaction| tables::truncate(transaction, &seal, since),
                move |known, row| {
                    known.row = row;
                    known.tail.truncate(since);
                },
            )
            .await
    }

    async fn forget(&self, upto: LogId) -> Result<(), Failure> {
        let Some(removable) = self.0.forget(upto) else {
            // The snapshot that has them is on its way to the file, and they go with it.
            return Ok(());
        };
        let seal = self.0.seal.clone();
        self.0
            .write(
                move |transaction| tables::purge(transaction, &seal, &removable),
                move |known, ()| known.removed(removable),
            )
            .await
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<LogEntry>, StorageError> {
        let (start, end) = bounds(&range);
        self.get(start, end, usize::MAX).await.map_err(not_read)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<LogEntry>, StorageError> {
        self.get(start, end, MAX_SENT).await.map_err(not_read)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let known = self.0.known();
        Ok(LogState {
            last_purged_log_id: known.purged,
            last_log_id: known.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let (vote, seal) = (*vote, self.0.seal.clone());
        let saved = self.0.write(
            move |transaction| tables::put_vote(transaction, &seal, &vote),
            move |known, ()| known.vote = Some(vote),
        );
        saved.await.map_err(no_vote)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.0.known().vote)
    }

    /// It is in the file with the next entry: until then, a restarted leader finds out again.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.0.known().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.0.known().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        self.add(entries).await.map_err(not_written)?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.cut(log_id.index).await.map_err(not_written)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.forget(log_id).await.map_err(not_written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_a_first_index_and_one_after_the_last() {
        assert_eq!(bounds(&(3..7)), (3, 7));
        assert_eq!(bounds(&(3..=7)), (3, 8));
        assert_eq!(bounds(&(3..)), (3, u64::MAX));
        assert_eq!(bounds(&(..)), (0, u64::MAX));
        assert_eq!(bounds(&(..=u64::MAX)), (0, u64::MAX));
        let after = (Bound::Excluded(2), Bound::Unbounded);
        assert_eq!(bounds(&after), (3, u64::MAX));
    }
}
