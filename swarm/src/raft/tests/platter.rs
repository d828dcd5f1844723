//! A disk in memory that loses what was not synced, all of it or here and there, fails when it is told
//! to, and may be full.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use redb::{Database, StorageBackend};

use super::*;
use crate::raft::medium::{Fill, open_error, write_error};

/// What a disk writes as a whole or not at all, in bytes.
const SECTOR: usize = 512;

/// Something that was done to the disk.
#[derive(Debug)]
enum Step {
    Length(usize),
    Write(usize, Vec<u8>),
}

fn write(bytes: &mut Vec<u8>, start: usize, data: &[u8]) {
    let end = start + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

impl Step {
    fn happen(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(start, data) => write(bytes, *start, data),
        }
    }

    /// Those of its sectors that reached the disk. File systems keep lengths in their order.
    fn happen_in_part(&self, bytes: &mut Vec<u8>, rng: &mut StdRng, share: f64) {
        let Self::Write(start, data) = self else {
            return self.happen(bytes);
        };
        let (mut at, mut rest) = (*start, data.as_slice());
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
            if rng.random_bool(share) {
                write(bytes, at, part);
            }
            (at, rest) = (at + part.len(), after);
        }
    }
}

/// The bytes of one file.
#[derive(Debug, Default)]
struct Content {
    /// Another one for each file that was made: who has an earlier one open, which lost its name since,
    /// does nothing to this one.
    number: u64,
    written: Vec<u8>,
    synced: Vec<u8>,
    /// What makes the one of the other.
    unsynced: Vec<Step>,
}

#[derive(Debug, Default)]
struct Inner {
    /// The file, and one beside it that may take its place.
    files: [Content; 2],
    /// Which of them has the name, and which one has it once the power was lost.
    named: usize,
    named_synced: usize,
    /// Whoever opened it before does nothing to it any more.
    life: u32,
    syncs: u64,
    /// From this sync on nothing works.
    fails_at: Option<u64>,
    is_full: bool,
}

impl Inner {
    fn happen(&mut self, file: usize, step: Step) -> io::Result<()> {
        if self.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = &mut self.files[file];
        step.happen(&mut content.written);
        content.unsynced.push(step);
        Ok(())
    }

    fn has_failed(&self) -> bool {
        self.fails_at.is_some_and(|at| self.syncs >= at)
    }

    /// Counts a sync, which may be the one from which on nothing works.
    fn sync(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.has_failed() {
            return Err(gone());
        }
        Ok(())
    }

    /// What is on the disk is all there is.
    fn begin_again(&mut self) {
        for content in &mut self.files {
            content.unsynced.clear();
            content.written.clone_from(&content.synced);
        }
        self.named = self.named_synced;
        self.life += 1;
        self.fails_at = None;
    }
}

fn gone() -> io::Error {
    io::Error::other("the disk is gone")
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
        self.inner().has_failed()
    }

    /// Whether there is no room for anything.
    pub(super) fn set_full(&self, is_full: bool) {
        self.inner().is_full = is_full;
    }

    /// The machine loses its power, and has it again: what was not synced is gone.
    pub(super) fn crash(&self) {
        self.inner().begin_again();
    }

    /// The same, and some of what was not synced is there all the same: the disk had begun with it, in
    /// an order of its own.
    pub(super) fn crash_in_the_middle(&self, rng: &mut StdRng) {
        let mut inner = self.inner();
        let share: f64 = rng.random_range(0.05..0.95);
        for content in &mut inner.files {
            for step in std::mem::take(&mut content.unsynced) {
                step.happen_in_part(&mut content.synced, rng, share);
            }
        }
        if inner.named != inner.named_synced && rng.random_bool(share) {
            inner.named_synced = inner.named;
        }
        inner.begin_again();
    }

    /// The one, or by a seed the other.
    pub(super) fn cut_power(&self, seed: Option<u64>) {
        match seed {
            None => self.crash(),
            Some(seed) => self.crash_in_the_middle(&mut StdRng::seed_from_u64(seed)),
        }
    }
}

#[derive(Debug)]
struct Opened {
    platter: Platter,
    file: usize,
    number: u64,
    life: u32,
}

impl Opened {
    fn alive(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.platter.inner();
        let is_another = inner.files[self.file].number != self.number;
        if inner.has_failed() || inner.life != self.life || is_another {
            return Err(gone());
        }
        Ok(inner)
    }
}

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.alive()?.files[self.file].written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.alive()?;
        let start = offset as usize;
        let written = &inner.files[self.file].written;
        let bytes = written.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.alive()?.happen(self.file, Step::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.alive()?;
        inner.sync()?;
        let content = &mut inner.files[self.file];
        for step in std::mem::take(&mut content.unsynced) {
            step.happen(&mut content.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let step = Step::Write(offset as usize, data.to_vec());
        self.alive()?.happen(self.file, step)
    }
}

impl Platter {
    fn open_file(&self, file: usize, check: bool) -> Result<Database, StoreError> {
        let opened = {
            let inner = self.inner();
            Opened {
                platter: self.clone(),
                file,
                number: inner.files[file].number,
                life: inner.life,
            }
        };
        Database::builder()
            .set_cache_size(1 << 20)
            .set_check_integrity_on_open(check)
            .create_with_backend(opened)
            .map_err(|error| open_error(self.name(), error))
    }

    fn failed(&self, source: io::Error) -> StoreError {
        StoreError::Disk {
            path: self.name(),
            source,
        }
    }
}

impl Medium for Platter {
    fn name(&self) -> String {
        "the disk of a test".to_owned()
    }

    fn open(&self, check: bool) -> Result<Database, StoreError> {
        let file = self.inner().named;
        self.open_file(file, check)
    }

    fn beside(&self, fill: Fill<'_>) -> Result<Database, StoreError> {
        let file = {
            let mut inner = self.inner();
            if inner.has_failed() {
                return Err(self.failed(gone()));
            }
            let file = 1 - inner.named;
            let numbers = inner.files.iter().map(|content| content.number);
            let number = numbers.max().unwrap_or_default() + 1;
            inner.files[file] = Content {
                number,
                ..Content::default()
            };
            file
        };
        let database = self.open_file(file, false)?;
        fill(&database).map_err(|error| write_error(self.name(), &error))?;
        Ok(database)
    }

    /// The files of tests are not damaged while they are open.
    fn keep_aside(&self) -> Result<(), StoreError> {
        Err(StoreError::Damaged {
            path: self.name(),
            why: "a test damaged it".to_owned(),
        })
    }

    fn put_in_place(&self) -> Result<(), StoreError> {
        let mut inner = self.inner();
        inner.named = 1 - inner.named;
        let synced = inner.sync();
        if synced.is_ok() {
            inner.named_synced = inner.named;
        }
        drop(inner);
        synced.map_err(|source| self.failed(source))
    }

    fn reserve(&self) {}
}
