//! The manager's own certificate, which it makes for itself.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use weft_cluster::CommandError;
use weft_model::objects::Role;

use super::engine::{Engine, stopped};
use super::listener::server_config;

/// How often the time of day is compared with the life of the manager's own certificate.
const RENEWAL_LOOK: Duration = Duration::from_secs(60);

/// Pause after an attempt that failed.
const RETRY: Duration = Duration::from_secs(1);

/// A certificate of this manager for itself.
#[derive(Debug, Clone, Copy)]
struct Made {
    /// Of the roots that it was made by.
    generation: u64,
    life: Duration,
    at: SystemTime,
    steady: Instant,
}

/// A new certificate for the manager itself: what it shows to nodes, and its own node to it. With it
/// come the roots that count from now on.
///
/// # Errors
/// The state is not there yet, or damaged.
pub(super) fn certify_self(core: &Engine) -> Result<(), CommandError> {
    certify(core).map(drop)
}

fn certify(core: &Engine) -> Result<Made, CommandError> {
    let (at, steady) = (SystemTime::now(), Instant::now());
    let authority = core.authority()?;
    let identity = authority.issue(&core.node, Role::Manager, &core.cluster, at)?;
    let identity = identity.sealed_like(&core.own.borrow());
    let (_, until) = identity.validity();
    core.tls.store(server_config(&identity)?);
    core.own.send_replace(Arc::new(identity));
    Ok(Made {
        generation: authority.generation(),
        life: until.duration_since(at).unwrap_or_default(),
        at,
        steady,
    })
}

/// The manager certifies itself anew at each start, a few times in a long life, and whenever the roots
/// are others.
pub(super) async fn keep_certified(core: Arc<Engine>) {
    let mut stop = core.stop.subscribe();
    let mut states = core.store.subscribe();
    let mut made: Option<Made> = None;
    loop {
        states.mark_unchanged();
        if is_due(&core, made) {
            match certify(&core) {
                Ok(now) => made = Some(now),
                Err(error) => {
                    tracing::error!(%error, "cannot renew the manager's certificate");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(RENEWAL_LOOK) => {}
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}

fn is_due(core: &Engine, made: Option<Made>) -> bool {
    let state = core.state();
    let Some(secrets) = &state.secrets else {
        return false;
    };
    made.is_none_or(|made| {
        let held = made.steady.elapsed();
        made.generation != secrets.roots.generation
            || !is_fresh(made.life, made.at, SystemTime::now(), held)
    })
}

/// Whether a certificate with that life, `made` then, is young by the time of day, and by a clock that
/// nobody sets. A clock that was set back may make it too new for others.
pub(super) fn is_fresh(life: Duration, made: SystemTime, now: SystemTime, held: Duration) -> bool {
    let young = |age| age < life / 3;
    now.duration_since(made).is_ok_and(young) && young(held)
}
