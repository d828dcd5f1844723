//! The state of a swarm, its authority with it, as one file.
//!
//! ```text
//! header │ snapshot of the state │ SHA-256 of all before
//!          └ sealed by the unlock key, where the swarm has one
//! ```
//!
//! The checksum finds what disks and copies damage; who may have changed a file is told by the seal.

use weft_cluster::{ClusterState, CommandError, UnlockKey};
use weft_model::backup::{BackupHeader, NotABackup};
use zeroize::Zeroizing;

use crate::raft::{NoSnapshot, decode_state, encode_state};
use crate::roots::digest;
use crate::sealing::{Sealer, SecretKey};

/// Place of what is sealed.
const PLACE: &[u8] = b"weft swarm backup";
const DIGEST_LEN: usize = 32;

/// Why a backup is not restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("the file cannot be restored: {0}")]
    Header(#[from] NotABackup),
    #[error(
        "the backup is damaged: {0}; take another copy of it, or an earlier one. Nothing was changed"
    )]
    Damaged(String),
    #[error(
        "the backup is sealed by the unlock key that the swarm had when it was made; give that key"
    )]
    NeedsKey,
    #[error(
        "the backup could not be opened: invalid key provided. It takes the unlock key that the swarm \
         had when it was made"
    )]
    WrongKey,
    #[error("the backup cannot be restored: {0}")]
    State(#[from] NoSnapshot),
}

impl From<Unreadable> for CommandError {
    fn from(error: Unreadable) -> Self {
        Self::bad(error.to_string())
    }
}

fn damaged(why: impl std::fmt::Display) -> Unreadable {
    Unreadable::Damaged(why.to_string())
}

/// Writes a backup.
pub(super) fn encode(state: &ClusterState) -> Vec<u8> {
    let body = Zeroizing::new(encode_state(state));
    let unlock = state.secrets.as_ref().and_then(|s| s.unlock_key.as_ref());
    let header = BackupHeader {
        sealed: unlock.is_some(),
    };
    let mut file = header.to_bytes();
    match unlock {
        Some(unlock) => {
            let sealer = Sealer::new(SecretKey::from(unlock));
            file.extend_from_slice(&sealer.close(PLACE, &body));
        }
        None => file.extend_from_slice(&body),
    }
    let sum = digest(&file);
    file.extend_from_slice(&sum);
    file
}

/// Reads a backup, with the unlock key where it needs one.
///
/// # Errors
/// It is none, damaged, of a version to come, or sealed by another key.
pub(super) fn decode(file: &[u8], unlock: Option<&UnlockKey>) -> Result<ClusterState, Unreadable> {
    let (header, _) = BackupHeader::read(file)?;
    let (content, sum) = file
        .split_last_chunk::<DIGEST_LEN>()
        .filter(|(content, _)| content.len() >= BackupHeader::LEN)
        .ok_or_else(|| damaged("it ends too early"))?;
    if digest(content) != *sum {
        return Err(damaged("its checksum is another one"));
    }
    let body = &content[BackupHeader::LEN..];
    let body = Zeroizing::new(if header.sealed {
        let unlock = unlock.ok_or(Unreadable::NeedsKey)?;
        let sealer = Sealer::new(SecretKey::from(unlock));
        sealer.open(PLACE, body).map_err(|_| Unreadable::WrongKey)?
    } else {
        body.to_vec()
    });
    let state = decode_state(&body)?;
    if state.cluster.is_none() || state.secrets.is_none() {
        return Err(damaged("it is the state of no swarm"));
    }
    Ok(state)
}
