//! The manager's own certificate, which it makes for itself.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use weft_cluster::CommandError;
use weft_model::objects::Role;

use super::ca::NODE_LIFE;
use super::engine::{Engine, stopped};
use super::listener::server_config;

/// How often the time of day is compared with the life of the manager's own certificate.
const RENEWAL_LOOK: Duration = Duration::from_secs(60);

/// A new certificate for the manager itself: what it shows to nodes, and its own node to it.
pub(super) fn certify_self(core: &Engine) -> Result<Arc<ServerConfig>, CommandError> {
    let now = SystemTime::now();
    let identity = core
        .authority
        .issue(&core.node, Role::Manager, &core.cluster, now)?;
    let identity = identity.sealed_like(&core.own.borrow());
    let config = server_config(&identity)?;
    core.own.send_replace(Arc::new(identity));
    Ok(config)
}

/// The manager certifies itself anew at each start, and a few times in a long life.
pub(super) async fn keep_certified(core: Arc<Engine>, tls: Arc<ArcSwap<ServerConfig>>) {
    let mut stop = core.stop.subscribe();
    let (mut made, mut steady) = (SystemTime::now(), Instant::now());
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(RENEWAL_LOOK) => {}
        }
        if is_fresh(made, SystemTime::now(), steady.elapsed()) {
            continue;
        }
        match certify_self(&core) {
            Ok(config) => {
                (made, steady) = (SystemTime::now(), Instant::now());
                tls.store(config);
            }
            Err(error) => tracing::error!(%error, "cannot renew the manager's certificate"),
        }
    }
}

/// Whether a certificate that was `made` then is young by the time of day, and by a clock that
/// nobody sets. A clock that was set back may make it too new for others.
pub(super) fn is_fresh(made: SystemTime, now: SystemTime, held: Duration) -> bool {
    let young = |age| age < NODE_LIFE / 3;
    now.duration_since(made).is_ok_and(young) && young(held)
}
