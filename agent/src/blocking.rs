//! Work that blocks, away from the async threads.

use anyhow::Context;

/// Runs it on a thread of its own.
///
/// # Errors
/// It panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("a blocking call panicked")
}
