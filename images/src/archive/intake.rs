//! Files of an archive into the store, each by its digest.

use std::io::Read;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::entries::{Entries, Region};
use super::error::{ArchiveError, shown};
use crate::blob::Blob;
use crate::digest::{Digest, Hasher};
use crate::manifest::{self, ManifestError};
use crate::name::ImageName;
use crate::platform::{Platform, PlatformError};
use crate::store::{Ingest, Store, StoreError};

/// Images in one archive.
pub(super) const MAX_IMAGES: usize = 1000;
/// Bytes that are copied at once.
const BUFFER: usize = 256 * 1024;
/// Between two looks at a blob that somebody else brings.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// For how long somebody else may take.
const BUSY_LIMIT: Duration = Duration::from_secs(600);

/// Name in an OCI layout.
pub(super) fn blob_entry(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Brings one blob of an OCI layout. What the store has need not be in the archive.
///
/// # Errors
/// It is in neither, or is not what its name says.
pub(super) fn layout_blob(
    store: &Store,
    entries: &Entries,
    blob: &Blob,
) -> Result<(), ArchiveError> {
    if store.has(&blob.digest) {
        return Ok(());
    }
    bring(store, entries, &blob_entry(&blob.digest), blob)
}

/// Brings one file as this blob.
///
/// # Errors
/// It is not there, has another size or digest, the store does not take it.
pub(super) fn bring(
    store: &Store,
    entries: &Entries,
    entry: &str,
    blob: &Blob,
) -> Result<(), ArchiveError> {
    let (mut from, size) = entries
        .open(entry)
        .ok_or_else(|| ArchiveError::Missing(shown(entry)))?;
    if size != blob.size {
        return Err(ArchiveError::Entry {
            entry: shown(entry),
            reason: format!("it has {size} bytes, its manifest says {}", blob.size),
        });
    }
    let since = Instant::now();
    let mut writer = loop {
        match store.ingest(blob)? {
            Ingest::Present => return Ok(()),
            Ingest::Writer(writer) => break writer,
            Ingest::Busy if since.elapsed() > BUSY_LIMIT => return Err(StoreError::Busy.into()),
            Ingest::Busy => sleep(BUSY_PAUSE),
        }
    };
    // A part of an unfinished pull may be there: the archive has all of it, from the beginning.
    if writer.offset() > 0 {
        writer.restart()?;
    }
    let wrong = |error| match error {
        StoreError::WrongDigest { found, .. } => ArchiveError::WrongDigest {
            entry: shown(entry),
            got: found,
        },
        other => other.into(),
    };
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).map_err(ArchiveError::Read)?;
        if n == 0 {
            break;
        }
        writer.write(&buffer[..n]).map_err(wrong)?;
    }
    writer.commit().map_err(wrong)
}

/// The digest of a file.
///
/// # Errors
/// [`ArchiveError::Read`].
pub(super) fn digest(mut from: Region<'_>) -> Result<Digest, ArchiveError> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).map_err(ArchiveError::Read)?;
        if n == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..n]);
    }
}

/// # Errors
/// The configuration is damaged, or says that its image is for another machine.
pub(super) fn check_platform(
    config: &[u8],
    digest: &Digest,
    wanted: &Platform,
) -> Result<(), ArchiveError> {
    let found = manifest::platform(config).map_err(|source| unusable(digest.as_str(), source))?;
    if wanted.runs(&found) {
        return Ok(());
    }
    let wanted = wanted.clone();
    Err(PlatformError::Other {
        wanted: Box::new(wanted),
        found: Box::new(found),
    }
    .into())
}

/// # Errors
/// [`ArchiveError::Name`].
pub(super) fn parse_name(text: &str) -> Result<ImageName, ArchiveError> {
    text.parse().map_err(|source| ArchiveError::Name {
        name: shown(text),
        source,
    })
}

/// An image of the archive cannot be used.
pub(super) fn unusable(entry: &str, source: ManifestError) -> ArchiveError {
    ArchiveError::Manifest {
        entry: entry.to_owned(),
        source,
    }
}
