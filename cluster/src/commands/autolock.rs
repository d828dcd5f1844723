//! Whether managers lock what they keep on disk, and by which key.

use super::super::draft::{Draft, Entropy, Planned};
use super::super::error::CommandError;
use super::super::secrets::Secrets;
use super::super::state::ClusterState;
use super::super::unlock_key::UnlockKey;

fn secrets(state: &ClusterState) -> Result<Secrets, CommandError> {
    let secrets = state.secrets.clone();
    secrets.ok_or_else(|| CommandError::unavailable("This node is not part of a swarm"))
}

/// `weft swarm update --autolock`: a new key where managers were not locked before, and none where
/// they are not to be. Whether anything changes.
///
/// # Errors
/// There is no cluster yet.
pub(super) fn set_autolock(draft: &mut Draft<'_>, on: bool) -> Result<bool, CommandError> {
    let mut secrets = secrets(&draft.state)?;
    let changes = secrets.unlock_key.is_some() != on;
    if changes {
        secrets.unlock_key = on.then(|| UnlockKey::from_bytes(draft.entropy.bytes()));
        draft.put(secrets);
    }
    Ok(changes)
}

/// `weft swarm unlock-key --rotate`: another key. Managers that are down meanwhile open with the one
/// before, and with the new one once they have heard of it.
///
/// # Errors
/// There is no cluster yet, or its managers are not locked.
pub fn rotate_unlock_key(
    state: &ClusterState,
    now: u64,
    entropy: &mut Entropy,
) -> Result<Planned<()>, CommandError> {
    let mut secrets = secrets(state)?;
    if secrets.unlock_key.is_none() {
        return Err(CommandError::conflict(
            "cannot rotate because autolock is not turned on; turn it on with \"weft swarm update \
             --autolock=true\"",
        ));
    }
    let mut draft = Draft::new(state, now, entropy);
    secrets.unlock_key = Some(UnlockKey::from_bytes(draft.entropy.bytes()));
    draft.put(secrets);
    Ok(draft.plan(()))
}
