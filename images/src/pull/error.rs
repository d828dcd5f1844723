//! Why an image does not come.

use crate::manifest::ManifestError;
use crate::platform::PlatformError;
use crate::source::{SourceError, SourceErrorKind};
use crate::store::StoreError;

/// Why an image does not come. What came of it is kept for the next attempt.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No source gives it; what the last one said, with its name.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It has nothing for this machine.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// It is damaged, or of a kind that weft does not know.
    #[error("{image}: {source}")]
    Manifest {
        /// The name, as people write it.
        image: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// An index of indexes of indexes.
    #[error("{0} is an index that names other indexes, over and over, and is refused")]
    Nested(String),
    /// The store does not take it: the disk is full, or damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody was to be asked.
    #[error("No such image: {0}: it is not on this node, and there is nobody to ask for it")]
    NoSource(String),
    /// The node stops.
    #[error("the pull was interrupted: try again")]
    Interrupted,
}

impl PullError {
    /// True where there is no such image, as far as anybody says.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Source(error) => error.kind == SourceErrorKind::Missing,
            Self::NoSource(_) => true,
            _ => false,
        }
    }

    /// True where another attempt, a while later, may end otherwise.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Source(error) => error.is_transient(),
            Self::Store(_) | Self::Interrupted => true,
            _ => false,
        }
    }
}
