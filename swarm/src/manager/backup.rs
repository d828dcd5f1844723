//! The state of a swarm and its authority as one file.
//!
//! ```text
//! header │ length of the facts (4) │ facts (JSON) │ snapshot of the state │ SHA-256 of all before
//!          └────── sealed by the unlock key, where the swarm has one ─────┘
//! ```
//!
//! The checksum finds what disks and copies damage; who may have changed a file is told by the seal.

use serde::{Deserialize, Serialize};
use weft_cluster::{ClusterState, CommandError, UnlockKey};
use weft_model::backup::{BackupHeader, NotABackup};
use zeroize::Zeroizing;

use super::ca::Authority;
use crate::join::digest;
use crate::raft::{NoSnapshot, decode_state, encode_state};
use crate::sealing::{Sealer, SecretKey};

/// Place of what is sealed.
const PLACE: &[u8] = b"weft swarm backup";
const DIGEST_LEN: usize = 32;

/// What is in a backup besides the state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    cluster: String,
    root_pem: String,
    root_key_pem: Zeroed,
}

/// A text that is overwritten when it is not needed any more.
#[derive(Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
struct Zeroed(String);

/// A backup that was read.
#[derive(Debug)]
pub(super) struct Backup {
    pub(super) cluster: String,
    pub(super) authority: Authority,
    pub(super) state: ClusterState,
}

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
pub(super) fn encode(cluster: &str, authority: &Authority, state: &ClusterState) -> Vec<u8> {
    let facts = Facts {
        cluster: cluster.to_owned(),
        root_pem: authority.root_pem().to_owned(),
        root_key_pem: Zeroed(authority.key_pem().to_owned()),
    };
    let facts = Zeroizing::new(serde_json::to_vec(&facts).expect("texts have no way to fail"));
    let state_bytes = Zeroizing::new(encode_state(state));
    let mut body = Zeroizing::new(Vec::with_capacity(4 + facts.len() + state_bytes.len()));
    body.extend_from_slice(&(facts.len() as u32).to_be_bytes());
    body.extend_from_slice(&facts);
    body.extend_from_slice(&state_bytes);
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
pub(super) fn decode(file: &[u8], unlock: Option<&UnlockKey>) -> Result<Backup, Unreadable> {
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
    let early = || damaged("what is in it ends too early");
    let (len, rest) = body.split_first_chunk::<4>().ok_or_else(early)?;
    let (facts, state) = rest
        .split_at_checked(u32::from_be_bytes(*len) as usize)
        .ok_or_else(early)?;
    let facts: Facts = serde_json::from_slice(facts).map_err(damaged)?;
    let key = Zeroizing::new(facts.root_key_pem.0.clone());
    let authority = Authority::new(facts.root_pem, key).map_err(damaged)?;
    let state = decode_state(state)?;
    let of = state.cluster.as_ref().map(|cluster| cluster.id.as_str());
    if of != Some(facts.cluster.as_str()) {
        return Err(damaged("its parts are of different swarms"));
    }
    Ok(Backup {
        cluster: facts.cluster,
        authority,
        state,
    })
}
