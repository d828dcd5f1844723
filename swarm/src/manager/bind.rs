//! The port that a manager listens on.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use weft_cluster::CommandError;

use super::ManagerConfig;
use super::listener::listen;

/// Binds the control port, before anything is written.
pub(super) async fn bind(
    config: &ManagerConfig,
) -> Result<(TcpListener, SocketAddr, SocketAddr), CommandError> {
    let addr = config.listen;
    let fail = |e: std::io::Error| {
        CommandError::bad(format!(
            "cannot listen on {addr} for nodes: {e}; choose another --listen-addr"
        ))
    };
    let listener = match listen(addr) {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            // All of /proc is read for it.
            let holder_of = config.holder_of;
            let holder = tokio::task::spawn_blocking(move || holder_of(addr.port()))
                .await
                .unwrap_or_else(|_| "another process".to_owned());
            return Err(CommandError::conflict(format!(
                "cannot listen on {addr} for nodes: the port is held by {holder}; stop that, or \
                 choose another --listen-addr"
            )));
        }
        bound => bound.map_err(fail)?,
    };
    let local = listener.local_addr().map_err(fail)?;
    let mut advertise = config.advertise;
    if advertise.port() == 0 {
        advertise.set_port(local.port());
    }
    Ok((listener, local, advertise))
}
