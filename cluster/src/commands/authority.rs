//! The root certificate.

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::secrets::{RootPair, Successor};
use super::super::state::ClusterState;

/// `weft swarm ca --rotate`: begins to put `root` in the place of the present root; `cross_signed` is
/// its certificate signed by the present one. In the middle of another rotation, that one's successor
/// is given up. The present root itself ends a rotation where it began.
///
/// # Errors
/// There is no cluster.
pub fn rotate_root(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
    root: &RootPair,
    cross_signed: &str,
) -> Result<Planned<()>, CommandError> {
    let (Some(mut secrets), Some(mut cluster)) = (state.secrets.clone(), state.cluster.clone())
    else {
        return Err(CommandError::unavailable(
            "This node is not part of a swarm",
        ));
    };
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
