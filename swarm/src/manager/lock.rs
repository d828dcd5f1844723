//! Keeps the key that seals this manager's disk in the form that the swarm asks for: locked by its
//! unlock key, or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use weft_cluster::{Change, ClusterState, CommandError, Object, UnlockKey};

use crate::identity::{Identity, IdentityError, certificate_dir, create_private_dir, damaged};
use crate::sealing::{KEY_FILE, KeyFile, KeyFileError, SecretKey};

/// Before a file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The key of one manager's disk, and its file.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    key: SecretKey,
    /// How the file has the key: locked by which one, or not; nothing while that is not known.
    held: Mutex<Option<Option<UnlockKey>>>,
}

/// The key that the swarm unlocks by, in changes that make it.
pub(super) fn planned_key(changes: &[Change]) -> Option<UnlockKey> {
    changes.iter().find_map(|change| match change {
        Change::Put(Object::Secrets(secrets)) => secrets.unlock_key.clone(),
        _ => None,
    })
}

/// Makes the key file of a new manager, before anything is sealed.
pub(super) fn found(
    data_dir: &Path,
    follows: u64,
    key: &SecretKey,
    unlock: Option<&UnlockKey>,
) -> Result<(), IdentityError> {
    let dir = certificate_dir(data_dir);
    create_private_dir(&dir)?;
    Ok(KeyFile::write(&dir.join(KEY_FILE), follows, key, unlock)?)
}

/// The key of the disk of a node that was made a manager, as far as it is to be had: an attempt before
/// this one may have left it in its file.
///
/// # Errors
/// The manager is locked and has its state already, or the file cannot be read.
pub(super) fn left_key(
    data_dir: &Path,
    identity: &Identity,
    unlock: Option<&UnlockKey>,
) -> Result<Option<SecretKey>, IdentityError> {
    if let Some(key) = identity.data_key()? {
        return Ok(Some(key.clone()));
    }
    let Some(file) = KeyFile::read(&certificate_dir(data_dir).join(KEY_FILE))? else {
        return Ok(None);
    };
    let unlocked = unlock.and_then(|unlock| file.unlock(unlock).ok());
    Ok(file.clear().cloned().or(unlocked))
}

/// The key of the disk of a manager that was one before.
///
/// # Errors
/// It is locked, or missing.
pub(super) fn key_of(identity: &Identity) -> Result<SecretKey, IdentityError> {
    let key = identity.data_key()?;
    key.cloned().ok_or_else(|| {
        damaged(
            "the state of this manager",
            format!("certs/{KEY_FILE}, which opens it, is missing"),
        )
    })
}

impl Lock {
    pub(super) fn new(data_dir: &Path, key: SecretKey) -> Self {
        Self {
            path: certificate_dir(data_dir).join(KEY_FILE),
            key,
            held: Mutex::new(None),
        }
    }

    /// Has the file be as this state asks for; nothing to do when it is, or when it follows a newer
    /// state.
    ///
    /// # Errors
    /// The disk's: the file is as it was.
    pub(super) async fn follow(self: &Arc<Self>, state: &ClusterState) -> Result<(), CommandError> {
        let Some(secrets) = &state.secrets else {
            return Ok(());
        };
        let mut held = self.held.lock().await;
        if held.as_ref() == Some(&secrets.unlock_key) {
            return Ok(());
        }
        let (this, version) = (Arc::clone(self), state.version);
        let unlock = secrets.unlock_key.clone();
        let written = spawn_blocking(move || this.rewrite(version, unlock.as_ref())).await;
        let is_so = written.map_err(|error| CommandError::unavailable(error.to_string()))??;
        *held = is_so.then(|| secrets.unlock_key.clone());
        Ok(())
    }

    /// True when the file is as that version of the state asks for.
    fn rewrite(&self, version: u64, unlock: Option<&UnlockKey>) -> Result<bool, KeyFileError> {
        if let Some(file) = KeyFile::read(&self.path)? {
            if file.is(&self.key, unlock) {
                return Ok(true);
            }
            if file.follows > version {
                return Ok(false);
            }
        }
        KeyFile::write(&self.path, version, &self.key, unlock)?;
        let how = if unlock.is_some() {
            "locked"
        } else {
            "not locked"
        };
        tracing::info!(path = %self.path.display(), how, "the key of this manager's disk");
        Ok(true)
    }
}

/// Follows each state until the manager stops.
pub(super) async fn keep_locked(
    lock: Arc<Lock>,
    mut states: watch::Receiver<Arc<ClusterState>>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let followed = lock.follow(&state).await;
        if let Err(error) = &followed {
            tracing::error!(%error, "the key of this manager's disk is as it was before");
        }
        let again = async {
            if followed.is_err() {
                tokio::time::sleep(RETRY).await;
            } else if states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = again => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}
