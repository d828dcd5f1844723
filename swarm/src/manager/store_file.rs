//! The file of a manager's log, by its data directory.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use weft_cluster::CommandError;

use crate::desired_store::DesiredStore as _;
use crate::identity::Identity;
use crate::membership::{EARLIER_STORE_FILE, STORE_FILE};
use crate::raft::{Dialer, Links, RaftStore, Setup, Start, StoreError};
use crate::sealing::DataKeys;

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// Opens the log of a data directory, which shows the newest certificate to other managers.
///
/// # Errors
/// The file's, or it holds the state of another swarm than the certificate is of.
pub(super) async fn open_store(
    data_dir: &Path,
    keys: DataKeys,
    start: Start,
    own: &watch::Sender<Arc<Identity>>,
) -> Result<Arc<RaftStore>, CommandError> {
    let links = Arc::new(Links::default());
    let dialer = Dialer::new(own.subscribe(), Arc::clone(&links));
    let setup = Setup::on_disk(data_dir.join(STORE_FILE), keys, links);
    let store = RaftStore::open(setup, start, dialer).await?;
    let state = store.read();
    let of = own.borrow().cluster_id().to_owned();
    match &state.cluster {
        Some(cluster) if cluster.id != of => Err(CommandError::unavailable(format!(
            "{} holds the state of another swarm than {of}, which this node is part of: move it away \
             and start weftd again; what the other managers have comes from them",
            data_dir.join(STORE_FILE).display(),
        ))),
        _ => Ok(Arc::new(store)),
    }
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
