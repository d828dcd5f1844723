//! The node: one `weftd` put together.

use anyhow::Context;
use tokio::sync::watch;

use crate::api::ApiSocket;
use crate::config::Config;

/// Runs the node until `shutdown` becomes true.
///
/// # Errors
/// The node cannot start, or a part that it cannot do without has failed.
pub async fn run(config: Config, mut shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    let socket = ApiSocket::bind(&config.socket).context("the node API")?;
    tracing::info!(path = %socket.path().display(), "the node API listens");
    crate::notify::ready();
    shutdown
        .wait_for(|stop| *stop)
        .await
        .context("the shutdown flag lost its owner")?;
    Ok(())
}
