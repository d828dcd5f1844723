//! Why an archive is not read or written.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::manifest::ManifestError;
use crate::name::NameError;
use crate::platform::PlatformError;
use crate::store::StoreError;

/// Why an archive of images is not read or written. Images of it that were read before are kept.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// What it comes from broke off, or its compression is damaged.
    #[error("cannot read the archive: {0}")]
    Read(io::Error),
    /// It is unfolded in a file beside the store, and there is no room.
    #[error("cannot keep the archive in {}: {source}; TMPDIR names another folder", .folder.display())]
    Spool {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Compressed by something else.
    #[error("the archive is compressed by {0}: only gzip and zstd are read; unpack it first")]
    Compression(&'static str),
    /// More than any image has.
    #[error("the archive has more than {0} bytes when unpacked, and is refused")]
    TooLarge(u64),
    /// No tar, or one that ends too early.
    #[error("the archive is no tar archive, or is damaged at byte {at}: {reason}")]
    Damaged {
        /// In the unpacked archive.
        at: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// More entries than any archive of images has.
    #[error("the archive has more than {0} entries, and is refused")]
    Entries(usize),
    /// A tar of something else.
    #[error(
        "the archive holds no images: it has neither index.json nor manifest.json; make it with \
         docker save, podman save or skopeo"
    )]
    NoImages,
    /// A file that the archive speaks of is not in it.
    #[error("the archive is incomplete: {0} is not in it")]
    Missing(String),
    /// A file of the archive is not what it should be.
    #[error("{entry} in the archive is damaged: {reason}")]
    Entry {
        /// Its name in the archive.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that is not what its name says.
    #[error("wrong digest: {entry} in the archive is {got}")]
    WrongDigest {
        /// Its name in the archive.
        entry: String,
        /// What it is.
        got: Digest,
    },
    /// It has no image for this machine.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// An image of it cannot be used.
    #[error("{entry} in the archive: {source}")]
    Manifest {
        /// Its name in the archive.
        entry: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// An image of it has a name that is none.
    #[error("the archive names an image {name:?}: {source}")]
    Name {
        /// As it stands there, short.
        name: String,
        /// What is wrong.
        source: NameError,
    },
    /// The store does not take it, or does not have it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What it is written to broke off.
    #[error("cannot write the archive: {0}")]
    Write(io::Error),
}

/// A stranger's word, short and on one line.
pub(super) fn shown(word: &str) -> String {
    word.chars()
        .filter(|letter| !letter.is_control())
        .take(120)
        .collect()
}
