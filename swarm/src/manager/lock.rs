//! Keeps the key that seals this manager's disk in the form that the swarm asks for: locked by its
//! unlock key, or not. Where another unlock key counts, what is on the disk gets another key as well:
//! who has an old copy of the disk, and what opened that, reads nothing that is written from then on.
//!
//! A new key is added to the file first, then all is sealed anew by it, and the keys of before leave the
//! file at the end. Whenever this ends in between, the keys that are in the file open what there is, and
//! the next start goes on with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use weft_cluster::{Change, ClusterState, CommandError, Object, UnlockKey};

use crate::identity::{Identity, IdentityError, certificate_dir, create_private_dir, damaged};
use crate::raft::RaftStore;
use crate::sealing::{DataKeys, KEY_FILE, KeyFile, KeyRing};

/// Before what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The keys of one manager's disk, and their file.
#[derive(Debug)]
pub(super) struct Lock {
    data_dir: PathBuf,
    path: PathBuf,
    keys: DataKeys,
    raft: Arc<RaftStore>,
    /// How the disk is: locked by which key, or not; nothing while that is not known.
    held: Mutex<Option<Option<UnlockKey>>>,
    /// The manager has ended: the files may be another one's.
    is_closed: AtomicBool,
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
    ring: &KeyRing,
    unlock: Option<&UnlockKey>,
) -> Result<(), IdentityError> {
    let dir = certificate_dir(data_dir);
    create_private_dir(&dir)?;
    Ok(KeyFile::write(&dir.join(KEY_FILE), follows, ring, unlock)?)
}

/// The keys of the disk of a node that was made a manager, as far as they are to be had: an attempt before
/// this one may have left them in their file.
///
/// # Errors
/// The manager is locked and has its state already, or the file cannot be read.
pub(super) fn left_keys(
    data_dir: &Path,
    identity: &Identity,
    unlock: Option<&UnlockKey>,
) -> Result<Option<DataKeys>, IdentityError> {
    if let Some(keys) = identity.data_keys()? {
        return Ok(Some(keys.clone()));
    }
    let Some(file) = KeyFile::read(&certificate_dir(data_dir).join(KEY_FILE))? else {
        return Ok(None);
    };
    let unlocked = unlock.and_then(|unlock| file.unlock(unlock).ok());
    Ok(file.clear().cloned().or(unlocked).map(DataKeys::from))
}

/// The keys of the disk of a manager that was one before.
///
/// # Errors
/// They are locked, or missing.
pub(super) fn keys_of(identity: &Identity) -> Result<DataKeys, IdentityError> {
    let keys = identity.data_keys()?;
    keys.cloned().ok_or_else(|| {
        damaged(
            "the state of this manager",
            format!("certs/{KEY_FILE}, which opens it, is missing"),
        )
    })
}

/// How far the file is after the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    /// It follows a newer state: nothing was changed.
    Newer,
    /// It is as asked for, with one key.
    Done,
    /// It is as asked for, and what keys of before have sealed is to be sealed anew.
    Changing,
}

impl Lock {
    pub(super) fn new(data_dir: &Path, keys: DataKeys, raft: Arc<RaftStore>) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            path: certificate_dir(data_dir).join(KEY_FILE),
            keys,
            raft,
            held: Mutex::new(None),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Has the disk be as this state asks for; nothing to do when it is, or when its key follows a newer
    /// state.
    ///
    /// # Errors
    /// The disk's: whatever was not done by then is as it was.
    pub(super) async fn follow(self: &Arc<Self>, state: &ClusterState) -> Result<(), CommandError> {
        let Some(secrets) = &state.secrets else {
            return Ok(());
        };
        let mut held = self.held.lock().await;
        if held.as_ref() == Some(&secrets.unlock_key) {
            return Ok(());
        }
        *held = None;
        // Whoever waits for it may go away, and leave a change to somebody else that goes on all the same.
        let change = Arc::clone(self).change(state.version, secrets.unlock_key.clone());
        let is_so = tokio::spawn(change).await;
        let is_so = is_so.map_err(|error| CommandError::unavailable(error.to_string()))??;
        *held = is_so.then(|| secrets.unlock_key.clone());
        Ok(())
    }

    /// Waits for a change that is under way; there is none after it.
    pub(super) async fn close(&self) {
        let _one = self.keys.hold_change().await;
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// True when the disk is as that version of the state asks for.
    async fn change(
        self: Arc<Self>,
        version: u64,
        unlock: Option<UnlockKey>,
    ) -> Result<bool, CommandError> {
        let _one = self.keys.hold_change().await;
        if self.is_closed.load(Ordering::Relaxed) {
            return Err(CommandError::unavailable("the manager is stopping"));
        }
        let (this, by) = (Arc::clone(&self), unlock.clone());
        let begun = blocking(move || this.begin(version, by.as_ref())).await?;
        if begun != Begun::Changing {
            return Ok(begun == Begun::Done);
        }
        let sealed = self.raft.seal_anew().await.map_err(CommandError::from);
        let finished = match sealed {
            Ok(()) => blocking(move || self.finish(version, unlock.as_ref())).await,
            Err(error) => Err(error),
        };
        finished.map_err(|error| {
            CommandError::unavailable(format!(
                "the swarm has another unlock key, and this manager's disk is not sealed anew yet: \
                 {error}. Nothing is lost, and it is tried again every few seconds; until then an old copy \
                 of the disk may open what is written"
            ))
        })?;
        Ok(true)
    }

    /// Has the file hold the keys in this form, with a new one where what locks them is new.
    fn begin(&self, version: u64, unlock: Option<&UnlockKey>) -> Result<Begun, IdentityError> {
        let mut ring = self.keys.ring();
        let file = KeyFile::read(&self.path)?;
        if file.as_ref().is_some_and(|file| file.follows > version) {
            let is_so = file.is_some_and(|file| file.is(&ring, unlock));
            let is_done = is_so && ring.is_settled();
            return Ok(if is_done { Begun::Done } else { Begun::Newer });
        }
        if !file.is_some_and(|file| file.is(&ring, unlock)) {
            if unlock.is_some() {
                ring = ring.renewed();
            }
            KeyFile::write(&self.path, version, &ring, unlock)?;
            let how = if unlock.is_some() {
                "locked"
            } else {
                "not locked"
            };
            tracing::info!(path = %self.path.display(), how, "the key of this manager's disk");
            self.keys.set(ring.clone());
        }
        Ok(if ring.is_settled() {
            Begun::Done
        } else {
            Begun::Changing
        })
    }

    /// Drops the keys of before, once the log is sealed by the newest one.
    fn finish(&self, version: u64, unlock: Option<&UnlockKey>) -> Result<(), IdentityError> {
        Identity::seal_anew(&self.data_dir, &self.keys)?;
        let ring = self.keys.ring().settled();
        KeyFile::write(&self.path, version, &ring, unlock)?;
        self.keys.set(ring);
        tracing::info!(path = %self.path.display(), "this manager's disk is sealed by a new key");
        Ok(())
    }
}

/// Does what waits for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IdentityError> + Send + 'static,
) -> Result<T, CommandError> {
    let done = spawn_blocking(work).await;
    let done = done.map_err(|error| CommandError::unavailable(error.to_string()))?;
    Ok(done?)
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
            tracing::error!(%error, "this manager's disk is not sealed as the swarm asks for");
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
