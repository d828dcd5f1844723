//! The file of the log while a manager runs: durable transactions, one after the other, and what
//! happens when the disk does not take one.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction, ReadableDatabase as _, WriteTransaction};
use tokio::sync::watch;

use super::known::Known;
use super::medium::{Medium, StoreError, write_error};
use super::seal::Seal;
use super::tables::{self, Unreadable};
use super::types::{LogId, RaftId};
use crate::disk_thread::DiskThread;

/// Between two attempts to open the file again: the first pause, and the longest.
const REOPEN_MIN: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(2);

/// Between two attempts to store again after the disk failed: the first pause, and the longest.
const MEND_MIN: Duration = Duration::from_millis(500);
const MEND_MAX: Duration = Duration::from_secs(5);

/// Why something was not stored. The file is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The disk does not take it, for this reason.
    #[error("{0}")]
    Disk(String),
    /// The file was closed.
    #[error("the manager is stopping")]
    Closed,
}

/// See the module. Its locks are taken in this order: `opened`, `known`.
#[derive(Debug)]
pub(super) struct RaftFile {
    medium: Box<dyn Medium>,
    pub(super) member: RaftId,
    pub(super) seal: Seal,
    /// Held while a transaction runs: one writer at a time.
    opened: Mutex<Opened>,
    known: Mutex<Known>,
    /// Whether a snapshot is on its way to the file without which entries would be missing there.
    gap: watch::Sender<bool>,
    /// Why changes are not stored at present.
    trouble: watch::Sender<Option<String>>,
    disk: DiskThread,
}

/// redb does nothing any more after the first error of the disk, and has to be opened again.
#[derive(Debug)]
enum Opened {
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RaftFile {
    /// Makes a new file for the member of this name.
    ///
    /// # Errors
    /// It cannot be made, or is there already.
    pub(super) fn found(
        medium: Box<dyn Medium>,
        seal: Seal,
        member: RaftId,
        disk: DiskThread,
    ) -> Result<Self, StoreError> {
        let database = medium.open(true)?;
        if load(&*medium, &seal, &database)?.is_some() {
            return Err(StoreError::Damaged {
                path: medium.name(),
                why: "it is there already".to_owned(),
            });
        }
        tables::found(&database, &seal, member)
            .map_err(|error| write_error(medium.name(), &error))?;
        let known = Known::default();
        Ok(Self::new(medium, seal, database, (member, known), disk))
    }

    /// Opens the file of an earlier life; all of it is read and checked. Before anything runs on it
    /// `first` may change it, and who it belongs to.
    ///
    /// # Errors
    /// A file that is busy, damaged, not ours, or cannot be read or changed.
    pub(super) fn open(
        medium: Box<dyn Medium>,
        seal: Seal,
        disk: DiskThread,
        first: impl FnOnce(&Database, &Seal, (RaftId, &mut Known)) -> Result<RaftId, redb::Error>,
    ) -> Result<Self, StoreError> {
        let database = medium.open(true)?;
        let loaded = load(&*medium, &seal, &database)?;
        let (member, mut known) = loaded.ok_or_else(|| StoreError::Damaged {
            path: medium.name(),
            why: "it is empty".to_owned(),
        })?;
        let member = first(&database, &seal, (member, &mut known))
            .map_err(|error| write_error(medium.name(), &error))?;
        Ok(Self::new(medium, seal, database, (member, known), disk))
    }

    fn new(
        medium: Box<dyn Medium>,
        seal: Seal,
        database: Database,
        (member, known): (RaftId, Known),
        disk: DiskThread,
    ) -> Self {
        medium.reserve();
        Self {
            medium,
            member,
            seal,
            opened: Mutex::new(Opened::Open(database)),
            known: Mutex::new(known),
            gap: watch::Sender::new(false),
            trouble: watch::Sender::new(None),
            disk,
        }
    }

    /// What the file holds. Never held for long.
    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        locked(&self.known)
    }

    pub(super) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Waits until the file misses no entries.
    pub(super) async fn without_gap(&self) {
        // The sender is in `self`.
        drop(self.gap.subscribe().wait_for(|gap| !gap).await);
    }

    /// Lets go of entries up to this one: as far as they may be removed from the file by now.
    pub(super) fn forget(&self, upto: LogId) -> Option<LogId> {
        let mut known = self.known();
        known.purge(upto);
        self.gap.send_replace(known.gap.is_some());
        known.removable()
    }

    /// Does `work` in one durable transaction; when it is on the disk, `then` with the outcome, before
    /// anything else is written.
    ///
    /// # Errors
    /// It is not on the disk, and will not be.
    pub(super) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error> + Send + 'static,
        then: impl FnOnce(&mut Known, T) + Send + 'static,
    ) -> Result<(), Failure> {
        let file = Arc::clone(self);
        self.run(move || {
            let mut opened = locked(&file.opened);
            let value = file.attempt(&mut opened, |database| tables::transact(database, work))?;
            file.is_fine();
            let mut known = file.known();
            then(&mut known, value);
            file.gap.send_replace(known.gap.is_some());
            Ok(())
        })
        .await
    }

    /// Reads by `work`.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let file = Arc::clone(self);
        self.run(move || {
            let mut opened = locked(&file.opened);
            file.attempt(&mut opened, |database| work(&database.begin_read()?))
        })
        .await
    }

    /// Has `work` done on the thread of the disk.
    ///
    /// # Errors
    /// Its own; or it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let done = self.disk.run(work).await;
        done.unwrap_or_else(|panicked| Err(Failure::Disk(panicked.to_string())))
    }

    /// Tries whether the disk stores again; true when it does.
    pub(super) async fn mend(self: &Arc<Self>) -> bool {
        let file = Arc::clone(self);
        let mended = self.run(move || {
            let mut opened = locked(&file.opened);
            if let Opened::Lost { next, .. } = &mut *opened {
                // Whoever calls this has waited.
                *next = Instant::now();
            }
            let committed = file.known().committed;
            file.attempt(&mut opened, |database| {
                tables::transact(database, |transaction| {
                    tables::put_committed(transaction, &file.seal, committed.as_ref())
                })
            })?;
            file.is_fine();
            Ok(())
        });
        mended.await.is_ok()
    }

    /// Writes all that the file holds into a new one, sealed by the newest key, and puts that in its place;
    /// what is to be read or written meanwhile waits. Nothing that was sealed by another key is left in the
    /// file, not even where it has no use for the room.
    ///
    /// # Errors
    /// The disk's: what is in the file is sealed as before.
    pub(super) async fn seal_anew(self: &Arc<Self>) -> Result<(), StoreError> {
        let file = Arc::clone(self);
        let done = self.disk.run(move || {
            let mut opened = locked(&file.opened);
            if matches!(*opened, Opened::Lost { .. }) {
                file.reopen(&mut opened);
            }
            let Opened::Open(database) = &*opened else {
                let path = file.medium.name();
                let source = std::io::Error::other("it is not open");
                return Err(StoreError::Disk { path, source });
            };
            let copy = &mut |fresh: &Database| tables::copy_anew(database, fresh, &file.seal);
            let fresh = file.medium.beside(copy)?;
            if let Err(error) = file.medium.put_in_place() {
                // Whichever file has the name now is the one to go on with.
                drop(fresh);
                *opened = Opened::Lost {
                    why: error.to_string(),
                    pause: REOPEN_MIN,
                    next: Instant::now(),
                };
                file.reopen(&mut opened);
                return Err(error);
            }
            *opened = Opened::Open(fresh);
            file.medium.reserve();
            Ok(())
        });
        done.await.unwrap_or_else(|panicked| {
            Err(StoreError::Disk {
                path: self.medium.name(),
                source: std::io::Error::other(panicked),
            })
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

    /// Lets go of the file, after what is being written now.
    pub(super) async fn close(self: &Arc<Self>) {
        // What is committed is in the file from now on: a manager that starts without the others
        // shows all that it knew.
        self.mend().await;
        let file = Arc::clone(self);
        let closed = self.run(move || {
            *locked(&file.opened) = Opened::Closed;
            Ok(())
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the manager's state is not closed");
        }
    }

    /// Does `work`, on the disk's thread. When it fails, the file is as before, and open again where
    /// that is possible: the next change may be one that fits.
    fn attempt<T>(
        &self,
        opened: &mut Opened,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, Failure> {
        match opened {
            Opened::Open(_) => {}
            Opened::Closed => return Err(Failure::Closed),
            Opened::Lost { why, next, .. } if Instant::now() < *next => {
                return Err(Failure::Disk(why.clone()));
            }
            Opened::Lost { .. } => self.reopen(opened),
        }
        let error = match opened {
            Opened::Open(database) => match work(database) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            },
            Opened::Lost { why, .. } => return Err(Failure::Disk(why.clone())),
            Opened::Closed => return Err(Failure::Closed),
        };
        let why = self.explain(&error);
        self.tell(&why);
        // The old one first, which holds the file.
        *opened = Opened::Lost {
            why: why.clone(),
            pause: REOPEN_MIN,
            next: Instant::now(),
        };
        self.reopen(opened);
        Err(Failure::Disk(why))
    }

    /// The disk took a change.
    fn is_fine(&self) {
        if self.trouble.send_replace(None).is_some() {
            tracing::info!(path = self.medium.name(), "changes are stored again");
        }
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
    /// it gets those that are known.
    fn reopen(&self, opened: &mut Opened) {
        let pause = match opened {
            Opened::Lost { pause, .. } => *pause,
            _ => REOPEN_MIN,
        };
        // Should the attempt panic, the next one is not far.
        let lost = |why: String| Opened::Lost {
            why,
            pause: (pause * 2).min(REOPEN_MAX),
            next: Instant::now() + pause,
        };
        *opened = lost(format!("{} cannot be opened again", self.medium.name()));
        match self.open_as_known() {
            Ok(database) => {
                *opened = Opened::Open(database);
                self.medium.reserve();
            }
            Err(error) => {
                let why = error.to_string();
                self.tell(&why);
                *opened = lost(why);
            }
        }
    }

    /// Works on a copy of what is known: the disk may take long, and the state is read and goes on
    /// meanwhile. What the file has changes under `opened` alone, which is held here.
    fn open_as_known(&self) -> Result<Database, StoreError> {
        let mut known = self.known().clone();
        let opened = self.medium.open(false).and_then(|database| {
            tables::agree(&database, &self.seal, self.member, &mut known)
                .map_err(|error| write_error(self.medium.name(), &error))?;
            Ok(database)
        });
        let database = match opened {
            Err(StoreError::Damaged { path, why }) => {
                tracing::error!(path, why, "the manager's state is written anew");
                let fresh = self.medium.beside(&mut |database| {
                    tables::fill(database, &self.seal, self.member, &mut known)
                });
                fresh.and_then(|database| {
                    self.medium.keep_aside()?;
                    self.medium.put_in_place()?;
                    Ok(database)
                })
            }
            opened => opened,
        }?;
        self.known().written_anew(known);
        Ok(database)
    }

    /// Has the file be lost as after an error, once `before` has done something to it.
    #[cfg(test)]
    pub(super) fn lose(&self, before: impl FnOnce(&Database)) {
        let mut opened = locked(&self.opened);
        if let Opened::Open(database) = &*opened {
            before(database);
        }
        *opened = Opened::Lost {
            why: "the test says so".to_owned(),
            pause: REOPEN_MAX,
            next: Instant::now(),
        };
    }

    /// What happened and what to do.
    fn explain(&self, error: &redb::Error) -> String {
        let path = self.medium.name();
        match error {
            redb::Error::Io(source)
                if matches!(
                    source.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded
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

/// What a file holds that was opened just now.
fn load(
    medium: &dyn Medium,
    seal: &Seal,
    database: &Database,
) -> Result<Option<(RaftId, Known)>, StoreError> {
    let path = medium.name();
    match tables::load(database, seal) {
        Ok(found) => Ok(found),
        Err(Unreadable::Format(found)) => Err(StoreError::Format { path, found }),
        Err(Unreadable::Snapshot(error)) => Err(StoreError::Damaged {
            path,
            why: error.to_string(),
        }),
        Err(Unreadable::File(error)) => Err(write_error(path, &error)),
    }
}
