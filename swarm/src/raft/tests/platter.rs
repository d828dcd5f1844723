//! A disk in memory that loses what was not synced, and fails when it is told to.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Database, StorageBackend};

use super::*;
use crate::raft::medium::{Fill, open_error};

#[derive(Debug, Default)]
struct Inner {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// Whoever opened it before does nothing to it any more.
    life: u32,
    syncs: u64,
    /// From this sync on nothing works.
    fails_at: Option<u64>,
}

/// See the module. Copies are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Platter(Arc<Mutex<Inner>>);

impl Platter {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing works from the sync of this number on, counted from now.
    pub(super) fn fail_at(&self, sync: u64) {
        let mut inner = self.inner();
        inner.fails_at = Some(inner.syncs + sync);
    }

    /// Whether it failed by now.
    pub(super) fn has_failed(&self) -> bool {
        let inner = self.inner();
        inner.fails_at.is_some_and(|at| inner.syncs >= at)
    }

    /// The machine loses its power, and has it again: what was not synced is gone.
    pub(super) fn crash(&self) {
        let mut inner = self.inner();
        inner.written = inner.synced.clone();
        inner.life += 1;
        inner.fails_at = None;
    }
}

#[derive(Debug)]
struct Opened {
    platter: Platter,
    life: u32,
}

impl Opened {
    fn alive(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.platter.inner();
        let has_failed = inner.fails_at.is_some_and(|at| inner.syncs >= at);
        if has_failed || inner.life != self.life {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(inner)
    }
}

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.alive()?;
        let start = offset as usize;
        let bytes = inner.written.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.alive()?.written.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.alive()?;
        inner.syncs += 1;
        if inner.fails_at.is_some_and(|at| inner.syncs >= at) {
            return Err(io::Error::other("the disk is gone"));
        }
        inner.synced = inner.written.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.alive()?;
        let start = offset as usize;
        let end = start + data.len();
        if inner.written.len() < end {
            inner.written.resize(end, 0);
        }
        inner.written[start..end].copy_from_slice(data);
        Ok(())
    }
}

impl Medium for Platter {
    fn name(&self) -> String {
        "the disk of a test".to_owned()
    }

    fn open(&self, check: bool) -> Result<Database, StoreError> {
        let life = self.inner().life;
        let opened = Opened {
            platter: self.clone(),
            life,
        };
        Database::builder()
            .set_cache_size(1 << 20)
            .set_check_integrity_on_open(check)
            .create_with_backend(opened)
            .map_err(|error| open_error(self.name(), error))
    }

    fn replace(&self, _fill: Fill<'_>) -> Result<Database, StoreError> {
        Err(StoreError::Damaged {
            path: self.name(),
            why: "a test damaged it".to_owned(),
        })
    }

    fn reserve(&self) {}
}
