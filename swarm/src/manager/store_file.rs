//! The file of a manager's log, by its data directory.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use weft_cluster::CommandError;

use crate::identity::Identity;
use crate::membership::{EARLIER_STORE_FILE, STORE_FILE};
use crate::raft::{Dialer, Links, RaftStore, Setup, Start, StoreError};
use crate::sealing::SecretKey;

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// Opens the log of a data directory, which shows the newest certificate to other managers.
pub(super) async fn open_store(
    data_dir: &Path,
    key: SecretKey,
    start: Start,
    own: &watch::Sender<Arc<Identity>>,
) -> Result<Arc<RaftStore>, CommandError> {
    let links = Arc::new(Links::default());
    let dialer = Dialer::new(own.subscribe(), Arc::clone(&links));
    let setup = Setup::on_disk(data_dir.join(STORE_FILE), key, links);
    Ok(Arc::new(RaftStore::open(setup, start, dialer).await?))
}

/// Whether there is a file to open.
pub(super) fn check_store_file(data_dir: &Path) -> Result<(), CommandError> {
    let path = data_dir.join(STORE_FILE);
    if path.exists() {
        return Ok(());
    }
    let earlier = data_dir.join(EARLIER_STORE_FILE);
    if earlier.exists() {
        let path = earlier.display().to_string();
        return Err(StoreError::Earlier { path }.into());
    }
    Err(CommandError::unavailable(format!(
        "{} is missing, and with it the state of the swarm; restore it from a backup, or leave the \
         swarm with --force",
        path.display()
    )))
}
