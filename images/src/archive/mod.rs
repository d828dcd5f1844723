//! Images in files: archives of `docker save`, old and new, of podman and skopeo, and OCI layouts.
//!
//! An archive is unfolded into a file without a name, its headers are read, and only what its manifests
//! name goes into the store, each blob checked by its digest. No name in an archive becomes a path.

mod docker;
mod entries;
mod error;
mod intake;
mod layout;
mod save;
mod spool;

use std::io::{Read, Write};

pub use error::ArchiveError;

use self::docker::DockerImage;
use self::entries::Entries;
use crate::digest::Digest;
use crate::name::ImageName;
use crate::platform::Platform;
use crate::store::Store;

/// An image that came from an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// One of its names; an image with several is there once for each.
    pub name: Option<ImageName>,
    /// Of its configuration: what docker calls the id.
    pub id: Digest,
    /// Of its manifest.
    pub manifest: Digest,
}

/// Reads all images of an archive, plain or by gzip or zstd, that this machine can run.
///
/// # Errors
/// The archive is damaged, incomplete, or has nothing for this machine; the store does not take it.
pub fn load(store: &Store, input: impl Read) -> Result<Vec<Loaded>, ArchiveError> {
    load_for(store, input, &Platform::of_machine(), spool::MAX_BYTES)
}

fn load_for(
    store: &Store,
    input: impl Read,
    platform: &Platform,
    limit: u64,
) -> Result<Vec<Loaded>, ArchiveError> {
    let entries = Entries::read(spool::spool(input, limit)?)?;
    // Nothing of it is removed before it has its names.
    let lease = store.lease()?;
    let listed = DockerImage::list(&entries)?;
    let loaded = if entries.has(layout::INDEX) {
        layout::load(store, &entries, &listed, platform)?
    } else {
        docker::load(store, &entries, &listed, platform)?
    };
    if loaded.is_empty() {
        return Err(ArchiveError::NoImages);
    }
    for image in &loaded {
        match &image.name {
            Some(name) => store.set_name(name, &image.manifest)?,
            None => store.keep(&image.manifest)?,
        }
    }
    drop(lease);
    Ok(loaded)
}

/// Writes images, by name or id, as one tar archive that docker, podman, containerd and weft read: an OCI
/// layout with docker's `manifest.json`. The same images are always the same bytes.
///
/// # Errors
/// An image is not there; the archive cannot be written.
pub fn save(store: &Store, words: &[String], to: impl Write) -> Result<(), ArchiveError> {
    save::save(store, words, to)
}

#[cfg(test)]
mod tests;
