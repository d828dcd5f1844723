//! The state as openraft sees it: what committed entries make of it, and snapshots of it.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use tokio::sync::watch;
use weft_cluster::ClusterState;

use super::file::{Failure, RaftFile};
use super::known::Applied;
use super::snapshot;
use super::tables;
use super::types::{LogEntry, LogId, Replies, SnapshotMeta, StorageError, StoredMembership, Types};

/// Pause after a snapshot that the disk did not take. The log goes on meanwhile, as far as it fits.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(5);

/// The state of one manager; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) file: Arc<RaftFile>,
    /// Everybody hears of a new state here.
    pub(super) states: watch::Sender<Arc<ClusterState>>,
}

fn not_installed(why: impl std::fmt::Display) -> StorageError {
    StorageError::IO {
        source: StorageIOError::write_snapshot(None, AnyError::error(why)),
    }
}

fn not_read(failure: Failure) -> StorageError {
    StorageError::IO {
        source: StorageIOError::read_snapshot(None, AnyError::error(failure)),
    }
}

/// Puts a snapshot into the file, and removes the entries that it makes superfluous. One that is not
/// newer than what is there is left out.
async fn store(file: &Arc<RaftFile>, meta: SnapshotMeta, state: Vec<u8>) -> Result<(), Failure> {
    let keeper = Arc::clone(file);
    file.write(
        move |transaction| {
            let removable = {
                let known = keeper.known();
                if known.snapshot.is_some() && known.in_snapshot() >= meta.last_log_id {
                    return Ok(None);
                }
                let last = meta.last_log_id;
                known
                    .purged
                    .and_then(|purged| last.map(|last| purged.min(last)))
            };
            tables::put_snapshot(transaction, &keeper.seal, &meta, &state)?;
            if let Some(removable) = &removable {
                tables::purge(transaction, &keeper.seal, removable)?;
            }
            Ok(Some((meta, removable)))
        },
        |known, stored| {
            if let Some((meta, removable)) = stored {
                known.snapshot_stored(meta);
                if let Some(removable) = removable {
                    known.removed(removable);
                }
            }
        },
    )
    .await
}

impl Machine {
    /// Has everybody see the state that is known.
    fn publish(&self, applied: &Applied) {
        self.states.send_replace(Arc::clone(&applied.state));
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let known = self.file.known();
        Ok((known.applied.last, known.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Replies>, StorageError>
    where
        I: IntoIterator<Item = LogEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut known = self.file.known();
        let before = known.applied.state.version;
        let replies = entries.into_iter().map(|entry| known.applied.take(&entry));
        let replies = replies.collect();
        let index = known.applied.index();
        known.tail.trim(index);
        if known.applied.state.version != before {
            self.publish(&known.applied);
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            file: Arc::clone(&self.file),
            applied: self.file.known().applied.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = snapshot.into_inner();
        let read = self.file.run(move || {
            let state = snapshot::decode(&bytes).map_err(|e| Failure::Disk(e.to_string()))?;
            Ok((state, bytes))
        });
        let (state, bytes) = read.await.map_err(not_installed)?;
        store(&self.file, meta.clone(), bytes)
            .await
            .map_err(not_installed)?;
        let mut known = self.file.known();
        if known.applied.last < meta.last_log_id {
            known.applied = Applied {
                state: Arc::new(state),
                last: meta.last_log_id,
                membership: meta.last_membership.clone(),
            };
            self.publish(&known.applied);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let seal = self.file.seal.clone();
        let read = self
            .file
            .read(move |transaction| tables::stored_snapshot(transaction, &seal));
        let stored = read.await.map_err(not_read)?;
        Ok(stored.map(|(meta, state)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(state)),
        }))
    }
}

/// Makes a snapshot of a state that goes on meanwhile.
#[derive(Debug)]
pub(super) struct Builder {
    file: Arc<RaftFile>,
    applied: Applied,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let meta = snapshot::describe(&self.applied, self.file.member);
        loop {
            let state = Arc::clone(&self.applied.state);
            let encoded = self.file.run(move || Ok(snapshot::encode(&state)));
            let state = encoded.await.map_err(not_read)?;
            match store(&self.file, meta.clone(), state.clone()).await {
                Ok(()) => {
                    return Ok(Snapshot {
                        meta,
                        snapshot: Box::new(Cursor::new(state)),
                    });
                }
                Err(Failure::Closed) => return Err(not_installed(Failure::Closed)),
                // The file has said why. An error here would end the log.
                Err(Failure::Disk(_)) => tokio::time::sleep(SNAPSHOT_RETRY).await,
            }
        }
    }
}
