//! Where content of images comes from: a registry, another node.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::{Stream, StreamExt};

use crate::blob::Blob;
use crate::digest::Digest;
use crate::name::ImageName;

/// What a source does, in its time.
pub type SourceFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// Content by name and by digest. What it hands over is checked by who asked.
pub trait Source: Send + Sync {
    /// For messages: `registry.example:5000`, `node n3`.
    fn name(&self) -> String;

    /// The manifest, or the index, that a name stands for: of its digest where it has one.
    fn manifest<'a>(&'a self, name: &'a ImageName) -> SourceFuture<'a, Manifest>;

    /// Bytes of a blob of the image, from `offset` on, or from its beginning where the source cannot
    /// begin elsewhere: [`BlobStream::starts_at`].
    fn blob<'a>(
        &'a self,
        name: &'a ImageName,
        blob: &'a Blob,
        offset: u64,
    ) -> SourceFuture<'a, BlobStream>;

    /// What it sent of a blob was wrong, or ended early. True where it has another place to get the
    /// blob from, which it asks the next time.
    fn blame(&self, _blob: &Blob) -> bool {
        false
    }
}

/// A manifest or an index, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Of `bytes`, as the source says.
    pub digest: Digest,
    /// JSON.
    pub bytes: Vec<u8>,
}

/// What kind of trouble a source has, which decides what is tried next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// It does not have this.
    Missing,
    /// It does not give this to us. Registries say the same of what they do not have.
    Denied,
    /// It asks for patience.
    Busy {
        /// How long it asks for, where it says so.
        retry_after: Option<Duration>,
    },
    /// It cannot be reached, or fell silent, or broke off: another time it may do.
    Unreachable,
    /// It could not be reached a moment ago, and was not asked again: a while later it may do.
    Down,
    /// Its certificate is not trusted, its answer makes no sense: it stays so.
    Unusable,
}

/// Why a source gives nothing. The message names the source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What kind of trouble.
    pub kind: SourceErrorKind,
    /// A sentence for people.
    pub message: String,
}

impl SourceError {
    /// An error of this kind.
    #[must_use]
    pub fn new(kind: SourceErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// True where another attempt may end otherwise.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            SourceErrorKind::Busy { .. } | SourceErrorKind::Unreachable | SourceErrorKind::Down
        )
    }
}

/// Bytes of a blob as they come.
pub struct BlobStream {
    starts_at: u64,
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, SourceError>> + Send>>,
}

impl BlobStream {
    /// A stream whose first byte is at `starts_at` of the blob.
    pub fn new(
        starts_at: u64,
        chunks: impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static,
    ) -> Self {
        Self {
            starts_at,
            chunks: Box::pin(chunks),
        }
    }

    /// Where in the blob the first byte is. 0 where the source cannot begin in the middle.
    #[must_use]
    pub fn starts_at(&self) -> u64 {
        self.starts_at
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// What the source met.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        self.chunks.next().await.transpose()
    }
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream")
            .field("starts_at", &self.starts_at)
            .finish_non_exhaustive()
    }
}
