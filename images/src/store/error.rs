//! What can go wrong in the store, as users read it.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::image::NoImage;
use crate::layer::LayerError;

/// Why the store did not do what it was asked for. Unless said, what was there before is there still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Local: the kernel refused.
    #[error("cannot use {path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Local: no room.
    #[error(
        "no space left for images on {path}: {needed} bytes are needed, {free} are free; `weft image prune` frees what nothing uses"
    )]
    Full {
        /// Of the store.
        path: PathBuf,
        /// At least.
        needed: u64,
        /// For this user.
        free: u64,
    },
    /// Local: another user may write there.
    #[error(transparent)]
    Private(#[from] weft_sys::private_folder::PrivateError),
    /// Local: it was never here, or is gone.
    #[error("{0} is not in the store: pull or load the image again")]
    Missing(Digest),
    /// Local: the disk does not have what was written to it. It is thrown away.
    #[error("{0} was damaged on disk and is removed: pull or load the image again")]
    Damaged(Digest),
    /// Remote: the content is not what its digest says. It is thrown away.
    #[error("content that was said to be {expected} is {found}: it is thrown away")]
    WrongDigest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Remote: more or less content than its descriptor says.
    #[error("{digest} has {size} bytes by its manifest, and {found} came")]
    WrongSize {
        /// Of what.
        digest: Digest,
        /// What was said.
        size: u64,
        /// What came, at least.
        found: u64,
    },
    /// Remote: a manifest or configuration of a size that nobody needs.
    #[error("{digest} has {size} bytes: manifests and configurations have {limit} at most")]
    TooLarge {
        /// Of what.
        digest: Digest,
        /// How large it is.
        size: u64,
        /// What is read.
        limit: u64,
    },
    /// Remote: manifest or configuration are no image that can run here.
    #[error("image {manifest}: {source}")]
    NoImage {
        /// Its manifest.
        manifest: Digest,
        /// Why.
        source: NoImage,
    },
    /// Remote or local: a layer was not unpacked.
    #[error("layer {layer}: {source}")]
    Layer {
        /// Which one.
        layer: Digest,
        /// Why.
        source: Box<LayerError>,
    },
    /// Remote: a layer is not the one that the configuration means.
    #[error("layer {layer}: its configuration calls it {expected}, and it is {found}")]
    WrongLayer {
        /// Which one.
        layer: Digest,
        /// What the configuration says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// User: nothing has this name or id.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// User: several images begin with it.
    #[error("{word} stands for {count} images: give more digits of the id, or name@digest")]
    Ambiguous {
        /// What was asked for.
        word: String,
        /// How many.
        count: usize,
    },
    /// User: an image has more names than the one that was meant.
    #[error(
        "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
    )]
    ManyNames {
        /// Of the image, short.
        id: String,
    },
    /// User: a task runs from it.
    #[error("conflict: unable to remove {word} ({hint}) - task {owner} is using its image {id}")]
    InUse {
        /// What was asked for.
        word: String,
        /// Whether force helps.
        hint: &'static str,
        /// Who holds it.
        owner: String,
        /// Of the image, short.
        id: String,
    },
    /// Local: content is on its way.
    #[error("images are being pulled, loaded or unpacked: try again when they are done")]
    Busy,
}

impl StoreError {
    /// The kernel's, about a path.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// True where content that a name or an image stands for is gone: it may be fetched again.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Damaged(_))
    }

    /// True when the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        };
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => full(source),
            Self::Layer { source, .. } => source.io().is_some_and(full),
            _ => false,
        }
    }
}
