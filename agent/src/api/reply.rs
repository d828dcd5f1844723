//! How calls are carried out and answered that are more than a value.

use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::error::ApiError;

/// Answer of calls that return nothing: `{}`.
#[derive(serde::Serialize)]
pub(super) struct Empty {}

/// Runs a call that changes something to its end, also when the client goes away meanwhile (axum
/// drops the handler then): nothing half-made is left behind. A panic becomes an answer.
pub(super) async fn whole<T: Send + 'static>(
    call: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(call).await {
        Ok(answer) => answer,
        Err(error) if error.is_panic() => Err(ApiError::internal(
            "weftd has a defect: the call panicked. Its log says where; please report it.",
        )),
        Err(_) => Err(ApiError::unavailable(
            "weftd stopped before the call had ended. Look at the result once it runs again.",
        )),
    }
}

/// An answer that comes in pieces.
pub(super) fn streamed(kind: &'static str, pieces: mpsc::Receiver<Bytes>) -> impl IntoResponse {
    let pieces = ReceiverStream::new(pieces);
    let body = axum::body::Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>));
    ([(header::CONTENT_TYPE, kind)], body)
}
