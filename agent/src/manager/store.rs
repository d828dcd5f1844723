//! The desired state in one file (redb): every proposal is one durable transaction.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition,
};
use tokio::sync::watch;
use weft_control::cluster::{
    BoxFuture, Change, ClusterState, DesiredStore, Object, ObjectId, ProposeError,
};
use weft_control::id::NodeId;

/// Format of the file and version of the state.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("weft.meta");
/// Objects as JSON, by their id as JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("weft.objects");
const FORMAT: u64 = 1;

/// Why the file cannot be opened. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it.
    #[error("{} is open in another process; is a second weftd running on this data directory?", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Not a file of ours, of a newer version, or damaged.
    #[error(
        "{} is damaged or not a state file of this version of weftd: {why}; restore it from a \
         backup, or move it away and start a new swarm", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The disk's fault.
    #[error("cannot use {}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// A [`DesiredStore`] of one manager.
#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: NodeId,
    state: watch::Sender<Arc<ClusterState>>,
    /// Nothing once closed. Held while a transaction runs: one writer at a time.
    database: Mutex<Option<Database>>,
}

impl RedbStore {
    /// Opens the file, or makes it; the state is read and checked as a whole.
    ///
    /// # Errors
    /// A file that is busy, damaged, not ours, or cannot be read.
    pub fn open(path: &Path, node: NodeId) -> Result<Self, StoreError> {
        let damaged = |why: String| StoreError::Damaged {
            path: path.to_owned(),
            why,
        };
        // The file holds join secrets: it must never be readable by others, not even while new.
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|source| StoreError::Disk {
                path: path.to_owned(),
                source,
            })?;
        let opened = Database::builder()
            .set_check_integrity_on_open(true)
            .create(path);
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::Busy {
                path: path.to_owned(),
            },
            DatabaseError::Storage(redb::StorageError::Io(source))
                if source.kind() != std::io::ErrorKind::InvalidData =>
            {
                StoreError::Disk {
                    path: path.to_owned(),
                    source,
                }
            }
            other => damaged(other.to_string()),
        })?;
        let state = load(&database).map_err(damaged)?;
        Ok(Self {
            shared: Arc::new(Shared {
                node,
                state: watch::Sender::new(Arc::new(state)),
                database: Mutex::new(Some(database)),
            }),
        })
    }

    /// Changes of the state, newest only.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.shared.state.subscribe()
    }

    /// Closes the file, after the transaction that runs now; later proposals fail.
    pub fn close(&self) {
        drop(lock(&self.shared.database).take());
    }
}

fn lock(database: &Mutex<Option<Database>>) -> std::sync::MutexGuard<'_, Option<Database>> {
    database.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(database: &Database) -> Result<ClusterState, String> {
    let text = |e: redb::Error| e.to_string();
    let transaction = database.begin_read().map_err(|e| e.to_string())?;
    let mut state = ClusterState::default();
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        // A new file.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(state),
        Err(e) => return Err(e.to_string()),
    };
    let number = |key: &str| match meta.get(key) {
        Ok(Some(value)) => Ok(value.value()),
        Ok(None) => Err(format!("it has no {key}")),
        Err(e) => Err(e.to_string()),
    };
    let format = number("format")?;
    if format != FORMAT {
        return Err(format!("its format is {format}, this weftd reads {FORMAT}"));
    }
    state.version = number("version")?;
    let objects = transaction
        .open_table(OBJECTS)
        .map_err(|e| text(e.into()))?;
    for entry in objects.iter().map_err(|e| text(e.into()))? {
        let (key, value) = entry.map_err(|e| text(e.into()))?;
        let object: Object = serde_json::from_slice(value.value())
            .map_err(|e| format!("object {}: {e}", key.value()))?;
        state.put(object);
    }
    Ok(state)
}

impl Shared {
    /// Blocks on the disk.
    fn write(&self, base: u64, changes: &[Change]) -> Result<Arc<ClusterState>, ProposeError> {
        let database = lock(&self.database);
        let Some(database) = &*database else {
            return Err(ProposeError::Storage("the manager is stopping".to_owned()));
        };
        let before = Arc::clone(&self.state.borrow());
        if before.version != base {
            return Err(ProposeError::Stale {
                planned: base,
                actual: before.version,
            });
        }
        let mut state = ClusterState::clone(&before);
        state.apply(changes);
        let ids: Vec<ObjectId> = changes.iter().map(Change::id).collect();
        commit(database, &state, &ids).map_err(|e| ProposeError::Storage(e.to_string()))?;
        let state = Arc::new(state);
        self.state.send_replace(Arc::clone(&state));
        Ok(state)
    }
}

fn commit(database: &Database, state: &ClusterState, ids: &[ObjectId]) -> Result<(), redb::Error> {
    let json = |e: serde_json::Error| redb::Error::Io(std::io::Error::other(e));
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("version", state.version)?;
        let mut objects = transaction.open_table(OBJECTS)?;
        for id in ids {
            let key = serde_json::to_string(id).map_err(json)?;
            match state.get(id) {
                Some(object) => {
                    let value = serde_json::to_vec(&object).map_err(json)?;
                    objects.insert(key.as_str(), value.as_slice())?;
                }
                None => {
                    objects.remove(key.as_str())?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

impl DesiredStore for RedbStore {
    fn state(&self) -> Arc<ClusterState> {
        Arc::clone(&self.shared.state.borrow())
    }

    fn watch(&self, seen: u64) -> BoxFuture<'_, Arc<ClusterState>> {
        let mut states = self.subscribe();
        Box::pin(async move {
            let newer = states.wait_for(|s| s.version > seen).await;
            if let Ok(state) = newer {
                return Arc::clone(&state);
            }
            // The sender lives as long as `self`.
            drop(newer);
            std::future::pending().await
        })
    }

    fn propose(
        &self,
        base: u64,
        changes: Vec<Change>,
    ) -> BoxFuture<'_, Result<Arc<ClusterState>, ProposeError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            // Runs to its end also when the caller goes away.
            tokio::task::spawn_blocking(move || shared.write(base, &changes))
                .await
                .map_err(|e| ProposeError::Storage(e.to_string()))?
        })
    }

    fn members(&self) -> Vec<NodeId> {
        vec![self.shared.node.clone()]
    }
}
