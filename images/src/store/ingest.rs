//! Content on its way: written beside its place, renamed when its digest is right, gone on with after
//! a connection, a process or a machine ended in the middle.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use super::lock::Lock;
use super::{Blob, Lease, Places, Store, StoreError, free, written};
use crate::digest::Hasher;

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;

/// Whether content has to come.
#[derive(Debug)]
pub enum Ingest {
    /// It is here.
    Present,
    /// Somebody else is at it, in this process or another one: ask again in a while.
    Busy,
    /// It is to be written.
    Writer(BlobWriter),
}

/// Writes one blob. Dropped, it keeps what it has: the next one goes on there.
pub struct BlobWriter {
    blob: Blob,
    /// The partial file, which nobody else writes meanwhile.
    lock: Lock,
    path: PathBuf,
    hasher: Hasher,
    offset: u64,
    places: Arc<Places>,
    _lease: Lease,
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobWriter")
            .field("blob", &self.blob)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Begins, or goes on, to bring content here. What an earlier writer left whole is content at once.
    ///
    /// # Errors
    /// [`StoreError::Full`] where there is no room for the rest of it; [`StoreError::Io`].
    pub fn ingest(&self, blob: &Blob) -> Result<Ingest, StoreError> {
        let lease = self.lease()?;
        if self.has(&blob.digest) {
            return Ok(Ingest::Present);
        }
        let path = self.places.partial(&blob.digest);
        let Some(lock) = Lock::try_now(&path)
            .map_err(|error| written(&self.places.shared, blob.size, error, &path))?
        else {
            return Ok(Ingest::Busy);
        };
        if self.has(&blob.digest) {
            // It came between the two looks; the partial file is one that was made just now.
            std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
            return Ok(Ingest::Present);
        }
        let mut writer = BlobWriter {
            blob: blob.clone(),
            lock,
            path,
            hasher: Hasher::new(),
            offset: 0,
            places: Arc::clone(&self.places),
            _lease: lease,
        };
        writer.resume()?;
        if writer.offset == blob.size {
            // Whoever wrote it ended just before it was content.
            match writer.finish() {
                Ok(()) => return Ok(Ingest::Present),
                // Nothing of it stays.
                Err(StoreError::WrongDigest { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let needed = blob.size - writer.offset;
        match free(&self.places.shared) {
            Some(free) if free < needed => Err(StoreError::Full {
                path: self.places.shared.clone(),
                needed,
                free,
            }),
            _ => Ok(Ingest::Writer(writer)),
        }
    }
}

impl BlobWriter {
    /// How much of it is here: where to go on.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes.
    ///
    /// # Errors
    /// [`StoreError::WrongSize`] when it is more than the descriptor says: what is here is thrown away
    /// then. [`StoreError::Full`], [`StoreError::Io`]: what is here stays.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.offset.saturating_add(bytes.len() as u64);
        if end > self.blob.size {
            self.restart()?;
            return Err(StoreError::WrongSize {
                digest: self.blob.digest.clone(),
                size: self.blob.size,
                found: end,
            });
        }
        if let Err(error) = self.lock.file.write_all(bytes) {
            let needed = self.blob.size - self.offset;
            let error = written(&self.places.shared, needed, error, &self.path);
            // A part of `bytes` may have been written: as if it was not.
            self.seek_back()?;
            return Err(error);
        }
        self.hasher.update(bytes);
        self.offset = end;
        Ok(())
    }

    /// From the start again, as where a registry does not go on in the middle.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.hasher = Hasher::new();
        self.offset = 0;
        self.seek_back()
    }

    /// All of it is written: it is content now.
    ///
    /// # Errors
    /// [`StoreError::WrongSize`] when there is less of it, which stays; [`StoreError::WrongDigest`]:
    /// what is here is thrown away; [`StoreError::Io`].
    pub fn commit(mut self) -> Result<(), StoreError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        if self.offset != self.blob.size {
            return Err(StoreError::WrongSize {
                digest: self.blob.digest.clone(),
                size: self.blob.size,
                found: self.offset,
            });
        }
        let found = std::mem::take(&mut self.hasher).finish();
        if found != self.blob.digest {
            self.restart()?;
            return Err(StoreError::WrongDigest {
                expected: self.blob.digest.clone(),
                found,
            });
        }
        let place = self.places.blob(&self.blob.digest);
        std::fs::rename(&self.path, &place).map_err(StoreError::io(&place))
    }

    /// Takes in what an earlier writer left.
    fn resume(&mut self) -> Result<(), StoreError> {
        let mut file: &File = &self.lock.file;
        let mut buffer = vec![0; BUFFER];
        let mut hasher = Hasher::new();
        let mut offset = 0;
        loop {
            let read = match file.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(StoreError::io(&self.path))?,
            };
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            offset += read as u64;
        }
        if offset > self.blob.size {
            // Of a descriptor that said another size.
            return self.restart();
        }
        (self.hasher, self.offset) = (hasher, offset);
        Ok(())
    }

    /// The file ends, and is written on, where this is.
    fn seek_back(&mut self) -> Result<(), StoreError> {
        let mut file: &File = &self.lock.file;
        file.set_len(self.offset)
            .and_then(|()| file.seek(SeekFrom::Start(self.offset)))
            .map(drop)
            .map_err(StoreError::io(&self.path))
    }
}
