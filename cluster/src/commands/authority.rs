//! The root certificate.

use std::time::Duration;

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::secrets::{RootPair, Successor};
use super::super::state::ClusterState;
use super::swarm::checked_expiry;

/// `weft swarm ca --rotate`: begins to put `root` in the place of the present root; `cross_signed` is
/// its certificate signed by the present one. In the middle of another rotation, that one's successor
/// is given up. The present root itself ends a rotation where it began. Node certificates live for
/// `expiry` from now on, where it is given.
///
/// # Errors
/// There is no cluster, or a life that is out of its bounds.
pub fn rotate_root(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    root: &RootPair,
    cross_signed: &str,
    expiry: Option<Duration>,
) -> Result<Planned<()>, CommandError> {
    let (Some(mut secrets), Some(mut cluster)) = (state.secrets.clone(), state.cluster.clone())
    else {
        return Err(CommandError::unavailable(
            "This node is not part of a swarm",
        ));
    };
    if let Some(expiry) = expiry {
        cluster.spec.ca_config.node_cert_expiry = checked_expiry(expiry)?;
    }
    let mut draft = Draft::new(state, now, entropy);
    let stays = secrets.roots.current.digest == root.digest;
    let successor = (!stays).then(|| Successor {
        root: root.clone(),
        cross_signed: cross_signed.to_owned(),
    });
    if secrets.roots.successor != successor {
        secrets.roots.successor = successor;
        secrets.roots.generation += 1;
        draft.put(secrets);
    }
    cluster.spec.ca_config.force_rotate += 1;
    draft.put(cluster);
    Ok(draft.plan(()))
}
