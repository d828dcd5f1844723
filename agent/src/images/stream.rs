//! A content of another node in the form that pulling takes it in.

use weft_images::{BlobStream, SourceError};

use super::lines::Transfer;

/// The pieces as they come.
pub(super) fn of(transfer: Transfer) -> BlobStream {
    let starts_at = transfer.content.starts_at;
    let pieces = tokio_stream::StreamExt::map(pieces(transfer), |piece| piece.map_err(broken));
    BlobStream::new(starts_at, pieces)
}
