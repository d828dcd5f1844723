//! Where the file of the log lies: how it is opened, made and replaced. Tests have another one, which
//! fails when they say so.

use std::fmt;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError};
use rustix::fs::{FallocateFlags, fallocate};
use weft_sys::replace_file::{PRIVATE, sync_folder_of};
use weft_sys::state_file;

use super::tables::FORMAT;
use crate::membership::REBUILT_STORE_FILE;

/// Why the file cannot be opened. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// Another process has it.
    #[error("{path} is open in another process; is a second weftd running on this data directory?")]
    Busy {
        /// The file.
        path: String,
    },
    /// Not a file of ours, or damaged.
    #[error(
        "{path} is damaged or not a state file of weftd: {why}; restore it from a backup, or move it \
         away and start a new swarm"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Of another version.
    #[error(
        "{path} has format {found} of the swarm's state, this weftd reads format {FORMAT}; nothing in \
         it was changed. Start the version of weftd that wrote it, or restore a backup of this one"
    )]
    Format {
        /// The file.
        path: String,
        /// Of the file.
        found: u64,
    },
    /// Of a version whose managers had no log. It is not opened.
    #[error(
        "{path} is the state of a version of weftd without a log of the managers, which this weftd \
         does not read; nothing in it was changed. Start the version of weftd that wrote it, or leave \
         the swarm with --force and start a new one"
    )]
    Earlier {
        /// The file.
        path: String,
    },
    /// The disk's fault.
    #[error("cannot use {path}: {source}")]
    Disk {
        /// The file.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// The log does not begin to run.
    #[error("the log of the managers does not start: {0}")]
    Start(String),
}

/// Bytes of the file that are kept in memory.
const CACHE: usize = 16 << 20;
/// Room that is held for the file beyond its end, in bytes: what other programs fill the disk with
/// does not stop changes at once.
const RESERVE: u64 = 4 << 20;

/// A place for the file.
pub(crate) trait Medium: fmt::Debug + Send + Sync + 'static {
    /// Its name, for people.
    fn name(&self) -> String;

    /// Opens the file, or makes it, readable by nobody else. With `check` all of it is read.
    ///
    /// # Errors
    /// It is busy, damaged, not ours, or cannot be read.
    fn open(&self, check: bool) -> Result<Database, StoreError>;

    /// Has `fill` write a new file beside the one that is there.
    ///
    /// # Errors
    /// The disk's: there is no other file than before.
    fn beside(&self, fill: Fill<'_>) -> Result<Database, StoreError>;

    /// Keeps the file that is there under another name, too: it is damaged.
    ///
    /// # Errors
    /// The disk's.
    fn keep_aside(&self) -> Result<(), StoreError>;

    /// Puts the file that was written beside in the place of the one that is there. The name leads to one
    /// of them all the time, and for good to the new one when this returns.
    ///
    /// # Errors
    /// The disk's: which of them it leads to is not known.
    fn put_in_place(&self) -> Result<(), StoreError>;

    /// Holds room for what the file may grow by, as far as there is some.
    fn reserve(&self);
}

/// Writes what belongs in a new file.
pub(crate) type Fill<'a> = &'a mut dyn FnMut(&Database) -> Result<(), redb::Error>;

/// A file on a disk.
#[derive(Debug)]
pub(crate) struct OnDisk(pub(crate) PathBuf);

/// The file holds join secrets: it must never be readable by others, not even while new.
fn make_private(path: &Path) -> io::Result<()> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(PRIVATE)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(PRIVATE))
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

impl OnDisk {
    fn disk_error(&self, source: io::Error) -> StoreError {
        StoreError::Disk {
            path: self.name(),
            source,
        }
    }

    /// Where the file is made that is to take its place.
    fn fresh(&self) -> PathBuf {
        self.0.with_file_name(REBUILT_STORE_FILE)
    }

    fn open_at(&self, path: &Path, check: bool) -> Result<Database, StoreError> {
        make_private(path).map_err(|source| self.disk_error(source))?;
        Database::builder()
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(check)
            .create(path)
            .map_err(|error| open_error(self.name(), error))
    }
}

impl Medium for OnDisk {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn open(&self, check: bool) -> Result<Database, StoreError> {
        let database = self.open_at(&self.0, check)?;
        // The name may be new, or lead to another file than before, and not be on the disk yet.
        sync_folder_of(&self.0).map_err(|source| self.disk_error(source))?;
        Ok(database)
    }

    fn beside(&self, fill: Fill<'_>) -> Result<Database, StoreError> {
        let fresh = self.fresh();
        remove(&fresh).map_err(|source| self.disk_error(source))?;
        let filled = self.open_at(&fresh, false).and_then(|database| {
            fill(&database).map_err(|error| write_error(self.name(), &error))?;
            Ok(database)
        });
        filled.inspect_err(|_| {
            // It may have taken the room that there was.
            if let Err(error) = remove(&fresh) {
                tracing::warn!(path = %fresh.display(), %error, "left behind");
            }
        })
    }

    fn keep_aside(&self) -> Result<(), StoreError> {
        let aside = state_file::name_aside(&self.0);
        match std::fs::hard_link(&self.0, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            linked => linked.map_err(|source| self.disk_error(source))?,
        }
        tracing::error!(aside = %aside.display(), "the damaged state is kept there");
        Ok(())
    }

    fn put_in_place(&self) -> Result<(), StoreError> {
        std::fs::rename(self.fresh(), &self.0)
            .and_then(|()| sync_folder_of(&self.0))
            .map_err(|source| self.disk_error(source))
    }

    fn reserve(&self) {
        let reserved = std::fs::File::options().write(true).open(&self.0);
        let reserved = reserved.and_then(|file| {
            let len = file.metadata()?.len() + RESERVE;
            Ok(fallocate(&file, FallocateFlags::KEEP_SIZE, 0, len)?)
        });
        if let Err(error) = reserved {
            let path = self.name();
            tracing::debug!(path, %error, "no room is held for the manager's state");
        }
    }
}

/// What an error of opening says of the file.
pub(super) fn open_error(path: String, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Busy { path },
        DatabaseError::Storage(redb::StorageError::Io(source))
            if source.kind() != io::ErrorKind::InvalidData =>
        {
            StoreError::Disk { path, source }
        }
        other => StoreError::Damaged {
            path,
            why: other.to_string(),
        },
    }
}

/// What an error of writing says of the file.
pub(super) fn write_error(path: String, error: &redb::Error) -> StoreError {
    match error {
        redb::Error::Io(source) => StoreError::Disk {
            path,
            source: io::Error::new(source.kind(), source.to_string()),
        },
        redb::Error::PreviousIo => StoreError::Disk {
            path,
            source: io::Error::other(error.to_string()),
        },
        error => StoreError::Damaged {
            path,
            why: error.to_string(),
        },
    }
}
