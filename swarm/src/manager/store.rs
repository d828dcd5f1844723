//! The desired state in one file (redb): every proposal is one durable transaction.

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _,
    TableDefinition, WriteTransaction,
};
use rustix::fs::{FallocateFlags, fallocate};
use tokio::sync::watch;
use weft_cluster::{
    Change, ClusterState, Entry, Leadership, Object, ObjectId, ProposeError, Reply,
};
use weft_sys::replace_file::{PRIVATE, sync_folder_of};
use weft_sys::state_file;

use crate::desired_store::{BoxFuture, DesiredStore};
use crate::disk_thread::DiskThread;

/// Format of the file and version of the state.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("weft.meta");
/// Objects as JSON, by their id as JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("weft.objects");
/// Of the objects; docs/compatibility.md says when it grows.
const FORMAT: u64 = 2;

/// Why the file cannot be opened. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum StoreError {
    /// Another process has it.
    #[error("{} is open in another process; is a second weftd running on this data directory?", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Of another version.
    #[error(
        "{} has format {found} of the swarm's state, this weftd reads format {FORMAT}; nothing in it \
         was changed. Start the version of weftd that wrote it, or restore a backup of this one",
        path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Of the file.
        found: u64,
    },
    /// Not a file of ours, or damaged.
    #[error(
        "{} is damaged or not a state file of weftd: {why}; restore it from a backup, or move it away \
         and start a new swarm", path.display()
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

/// Room that is held for the file beyond its end, in bytes: what other programs fill the disk with
/// does not stop changes at once.
const RESERVE: u64 = 4 << 20;

/// Between two attempts to open the file again: the first pause, and the longest.
const REOPEN_MIN: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(2);

/// Between two attempts to store again after the disk failed: the first pause, and the longest.
const MEND_MIN: Duration = Duration::from_millis(500);
const MEND_MAX: Duration = Duration::from_secs(5);

/// A [`DesiredStore`] of one manager, which leads.
#[derive(Debug)]
pub(super) struct RedbStore {
    shared: Arc<Shared>,
    disk: DiskThread,
    /// There is nobody else.
    leadership: watch::Sender<Leadership>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// What counts. The file follows it, also after it was lost for a while.
    state: watch::Sender<Arc<ClusterState>>,
    /// Held while a transaction runs: one writer at a time.
    file: Mutex<StoreFile>,
    /// Why changes are not stored at present.
    trouble: watch::Sender<Option<String>>,
}

/// redb does nothing any more after the first error of the disk, and has to be opened again.
#[derive(Debug)]
enum StoreFile {
    Open(Database),
    /// Not open since an error.
    Lost {
        why: String,
        pause: Duration,
        /// Not tried again before.
        next: Instant,
    },
    /// The manager stops.
    Closed,
}

impl RedbStore {
    /// Opens the file, or makes it; the state is read and checked as a whole.
    ///
    /// # Errors
    /// A file that is busy, damaged, not ours, or cannot be read.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path).map_err(|source| StoreError::Disk {
            path: path.to_owned(),
            source,
        })?;
        let opened = Database::builder()
            .set_check_integrity_on_open(true)
            .create(path);
        let database = opened.map_err(|error| open_error(path, error))?;
        let state = load(&database).map_err(|error| {
            let path = path.to_owned();
            match error {
                Unreadable::Format(found) => StoreError::Format { path, found },
                Unreadable::Damaged(why) => StoreError::Damaged { path, why },
            }
        })?;
        reserve(path);
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                state: watch::Sender::new(Arc::new(state)),
                file: Mutex::new(StoreFile::Open(database)),
                trouble: watch::Sender::new(None),
            }),
            disk: DiskThread::start("weft-store"),
            leadership: watch::Sender::new(Leadership::Leader),
        })
    }

    /// Tries the disk again whenever it failed, until it stores again; for as long as it is polled.
    pub(super) async fn keep_mended(self: Arc<Self>) {
        let mut trouble = self.trouble();
        while trouble.wait_for(Option::is_some).await.is_ok() {
            let mut pause = MEND_MIN;
            loop {
                tokio::time::sleep(pause).await;
                if self.mend().await {
                    break;
                }
                pause = (pause * 2).min(MEND_MAX);
            }
        }
    }

    /// Tries whether the disk stores again; true when it does.
    async fn mend(&self) -> bool {
        let shared = Arc::clone(&self.shared);
        matches!(self.disk.run(move || shared.mend()).await, Ok(true))
    }
}

fn lock(file: &Mutex<StoreFile>) -> std::sync::MutexGuard<'_, StoreFile> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file holds join secrets: it must never be readable by others, not even while new.
fn make_private(path: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(PRIVATE))
}

/// Holds room for the file and for what it may grow by; where that fails there is none to hold.
fn reserve(path: &Path) {
    let reserved = std::fs::File::options().write(true).open(path);
    let reserved = reserved.and_then(|file| {
        let len = file.metadata()?.len() + RESERVE;
        Ok(fallocate(&file, FallocateFlags::KEEP_SIZE, 0, len)?)
    });
    if let Err(error) = reserved {
        tracing::debug!(path = %path.display(), %error, "no room is held for the manager's state");
    }
}

fn open_error(path: &Path, error: DatabaseError) -> StoreError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Busy { path },
        DatabaseError::Storage(redb::StorageError::Io(source))
            if source.kind() != std::io::ErrorKind::InvalidData =>
        {
            StoreError::Disk { path, source }
        }
        other => StoreError::Damaged {
            path,
            why: other.to_string(),
        },
    }
}

/// Why the contents of a file say nothing.
enum Unreadable {
    /// They are of this format.
    Format(u64),
    /// They are damaged, in these words.
    Damaged(String),
}

impl From<String> for Unreadable {
    fn from(why: String) -> Self {
        Self::Damaged(why)
    }
}

fn load(database: &Database) -> Result<ClusterState, Unreadable> {
    let text = |e: redb::Error| e.to_string();
    let transaction = database.begin_read().map_err(|e| e.to_string())?;
    let mut state = ClusterState::default();
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        // A new file.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(state),
        Err(e) => return Err(e.to_string().into()),
    };
    let number = |key: &str| match meta.get(key) {
        Ok(Some(value)) => Ok(value.value()),
        Ok(None) => Err(format!("it has no {key}")),
        Err(e) => Err(e.to_string()),
    };
    let format = number("format")?;
    if format != FORMAT {
        return Err(Unreadable::Format(format));
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
    fn write(&self, entry: &Entry) -> Result<Arc<ClusterState>, ProposeError> {
        let mut file = lock(&self.file);
        if matches!(*file, StoreFile::Closed) {
            return Err(ProposeError::Closed);
        }
        let before = Arc::clone(&self.state.borrow());
        // Before all of it is copied.
        entry.check(&before)?;
        let mut state = ClusterState::clone(&before);
        if let Reply::Stale(stale) = entry.apply(&mut state) {
            return Err(stale.into());
        }
        let ids: Vec<ObjectId> = entry.changes.iter().map(Change::id).collect();
        self.store(&mut file, &before, &state, &ids)
            .map_err(ProposeError::Disk)?;
        let state = Arc::new(state);
        self.state.send_replace(Arc::clone(&state));
        Ok(state)
    }

    /// Writes what there is once more; true when the disk took it.
    fn mend(&self) -> bool {
        let mut file = lock(&self.file);
        if let StoreFile::Lost { next, .. } = &mut *file {
            // Whoever calls this has waited.
            *next = Instant::now();
        }
        let state = Arc::clone(&self.state.borrow());
        self.store(&mut file, &state, &state, &[]).is_ok()
    }

    /// One transaction from `before` to `state`. When it fails the file is as before, and open
    /// again where that is possible: the next change may be one that fits.
    fn store(
        &self,
        file: &mut StoreFile,
        before: &ClusterState,
        state: &ClusterState,
        ids: &[ObjectId],
    ) -> Result<(), String> {
        let database = match file {
            StoreFile::Open(database) => database,
            StoreFile::Closed => return Err("the manager is stopping".to_owned()),
            StoreFile::Lost { why, next, .. } if Instant::now() < *next => {
                return Err(why.clone());
            }
            StoreFile::Lost { .. } => self.reopen(file, before)?,
        };
        let Err(error) = commit(database, state, ids) else {
            if self.trouble.send_replace(None).is_some() {
                tracing::info!(path = %self.path.display(), "changes are stored again");
            }
            return Ok(());
        };
        let why = self.explain(&error);
        self.tell(&why);
        // The old one first, which holds the file.
        *file = StoreFile::Lost {
            why: why.clone(),
            pause: REOPEN_MIN,
            next: Instant::now(),
        };
        drop(self.reopen(file, before));
        Err(why)
    }

    /// Sets the trouble; in the log when it is another one: a node that is lost has ten attempts
    /// made in a second, and the log may be on the very disk.
    fn tell(&self, why: &str) {
        let is_new = self.trouble.send_if_modified(|trouble| {
            let is_new = trouble.as_deref() != Some(why);
            *trouble = Some(why.to_owned());
            is_new
        });
        if is_new {
            tracing::error!("a change was not stored: {why}");
        }
    }

    /// Opens the file again. It may hold a change that was refused, or have lost its contents: then
    /// it gets those of `state`.
    fn reopen<'f>(
        &self,
        file: &'f mut StoreFile,
        state: &ClusterState,
    ) -> Result<&'f mut Database, String> {
        let pause = match file {
            StoreFile::Lost { pause, .. } => *pause,
            _ => REOPEN_MIN,
        };
        // Should the attempt panic, the next one is not far.
        let lost = |why: String| StoreFile::Lost {
            why,
            pause: (pause * 2).min(REOPEN_MAX),
            next: Instant::now() + pause,
        };
        *file = lost(format!("{} cannot be opened again", self.path.display()));
        let opened = match self.open_with(state) {
            Err(StoreError::Damaged { path, why }) => {
                tracing::error!(path = %path.display(), why, "the manager's state is written anew");
                self.rebuild(state)
            }
            opened => opened,
        };
        match opened {
            Ok(database) => {
                *file = StoreFile::Open(database);
                reserve(&self.path);
            }
            Err(error) => {
                let why = error.to_string();
                self.tell(&why);
                *file = lost(why.clone());
            }
        }
        match file {
            StoreFile::Open(database) => Ok(database),
            StoreFile::Lost { why, .. } => Err(why.clone()),
            StoreFile::Closed => Err("the manager is stopping".to_owned()),
        }
    }

    fn open_with(&self, state: &ClusterState) -> Result<Database, StoreError> {
        make_private(&self.path).map_err(|source| self.disk_error(source))?;
        let database = Database::builder()
            .create(&self.path)
            .map_err(|error| open_error(&self.path, error))?;
        // What cannot be read is written anew as well.
        if !matches!(version(&database), Ok(found) if found.unwrap_or(0) == state.version) {
            commit_all(&database, state).map_err(|error| self.store_error(&error))?;
        }
        Ok(database)
    }

    /// Writes a new file and sets the damaged one aside; the path leads to one of them all the time.
    fn rebuild(&self, state: &ClusterState) -> Result<Database, StoreError> {
        let failed = |source| self.disk_error(source);
        let fresh = self.path.with_extension("rebuilt");
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        make_private(&fresh).map_err(failed)?;
        let database = Database::builder()
            .create(&fresh)
            .map_err(|error| open_error(&fresh, error))?;
        commit_all(&database, state).map_err(|error| self.store_error(&error))?;
        let aside = state_file::name_aside(&self.path);
        match std::fs::hard_link(&self.path, &aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        std::fs::rename(&fresh, &self.path)
            .and_then(|()| sync_folder_of(&self.path))
            .map_err(failed)?;
        tracing::error!(aside = %aside.display(), "the damaged state is kept there");
        Ok(database)
    }

    fn store_error(&self, error: &redb::Error) -> StoreError {
        match error {
            redb::Error::Io(source) => {
                let source = std::io::Error::new(source.kind(), source.to_string());
                self.disk_error(source)
            }
            redb::Error::PreviousIo => self.disk_error(std::io::Error::other(error.to_string())),
            error => StoreError::Damaged {
                path: self.path.clone(),
                why: error.to_string(),
            },
        }
    }

    fn disk_error(&self, source: std::io::Error) -> StoreError {
        StoreError::Disk {
            path: self.path.clone(),
            source,
        }
    }

    /// What happened and what to do.
    fn explain(&self, error: &redb::Error) -> String {
        let path = self.path.display();
        match error {
            redb::Error::Io(source)
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
                ) =>
            {
                format!(
                    "the disk of {path} has no room for it ({source}): nothing was changed; make \
                     room there and try again"
                )
            }
            error => format!("{path}: {error}; nothing was changed"),
        }
    }
}

/// Version of the state in the file; nothing in a new one.
fn version(database: &Database) -> Result<Option<u64>, redb::Error> {
    let transaction = database.begin_read()?;
    match transaction.open_table(META) {
        Ok(meta) => Ok(meta.get("version")?.map(|v| v.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Replaces whatever the file holds.
fn commit_all(database: &Database, state: &ClusterState) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.delete_table(OBJECTS)?;
    put(&transaction, state, &state.ids())?;
    transaction.commit()?;
    Ok(())
}

fn commit(database: &Database, state: &ClusterState, ids: &[ObjectId]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    put(&transaction, state, ids)?;
    transaction.commit()?;
    Ok(())
}

fn put(
    transaction: &WriteTransaction,
    state: &ClusterState,
    ids: &[ObjectId],
) -> Result<(), redb::Error> {
    let json = |e: serde_json::Error| redb::Error::Io(std::io::Error::other(e));
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
    Ok(())
}

impl DesiredStore for RedbStore {
    fn read(&self) -> Arc<ClusterState> {
        Arc::clone(&self.shared.state.borrow())
    }

    fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.shared.state.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.shared.trouble.subscribe()
    }

    fn propose(&self, entry: Entry) -> BoxFuture<'_, Result<Arc<ClusterState>, ProposeError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            self.disk
                .run(move || shared.write(&entry))
                .await
                .map_err(|e| ProposeError::Disk(e.to_string()))?
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let close = move || {
                *lock(&shared.file) = StoreFile::Closed;
            };
            if let Err(error) = self.disk.run(close).await {
                tracing::error!(%error, "the manager's state is not closed");
            }
        })
    }
}

#[cfg(test)]
mod tests;
