//! A content of another node in the form that pulling takes it in.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use weft_images::{BlobStream, SourceError, SourceErrorKind};

use super::lines::Transfer;

/// Pieces that wait to be taken.
const AHEAD: usize = 2;

/// The pieces as they come.
pub(super) fn of(mut transfer: Transfer) -> BlobStream {
    let starts_at = transfer.content.starts_at;
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let piece = tokio::select! {
                piece = transfer.content.piece() => piece,
                () = sender.closed() => return,
            };
            let Some(piece) = piece.transpose() else {
                return;
            };
            let piece = piece.map_err(broken);
            let over = piece.is_err();
            if sender.send(piece).await.is_err() || over {
                return;
            }
        }
    });
    BlobStream::new(starts_at, ReceiverStream::new(receiver))
}

/// Nobody has it, or gives it away soon.
pub(super) fn absent() -> SourceError {
    SourceError::new(SourceErrorKind::Missing, "no other node has it")
}

/// Whoever had it broke off.
pub(super) fn broken(error: std::io::Error) -> SourceError {
    SourceError::new(
        SourceErrorKind::Unreachable,
        format!("another node broke off: {error}"),
    )
}
