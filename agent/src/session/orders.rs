//! The file that holds a node's last orders, so that a restart without managers changes nothing.

use std::io;
use std::path::{Path, PathBuf};

use weft_control::assignment::Assignment;

use super::identity::{Identity, IdentityError, replace_private};
use super::membership::ASSIGNMENT_FILE;
use crate::state_file::{self, Found};

/// Where the last orders are.
#[derive(Debug, Clone)]
pub(super) struct OrdersFile(PathBuf);

impl OrdersFile {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(ASSIGNMENT_FILE))
    }

    /// Orders for this identity; nothing when there are none, or none that can be read. A manager
    /// sends them again.
    pub(super) fn load(&self, identity: &Identity) -> Option<Assignment> {
        match state_file::read::<Assignment>(&self.0) {
            Ok(Found::Value(a))
                if a.node_id() == identity.node_id() && a.cluster_id == identity.cluster_id() =>
            {
                Some(a)
            }
            // A damaged file is in the log already.
            Ok(_) => None,
            Err(error) => {
                let path = self.0.display();
                tracing::warn!(%path, %error, "cannot read the last orders");
                None
            }
        }
    }

    /// Replaces the orders. Who is killed after this finds them again; who loses power may not
    /// before [`Self::sync`].
    pub(super) fn replace(&self, json: &[u8]) -> Result<(), IdentityError> {
        replace_private(&self.0, json)
    }

    /// Makes what was written last outlive the loss of power. Takes as long as the disk is busy;
    /// nothing to do when the file is gone.
    pub(super) fn sync(&self) -> io::Result<()> {
        match std::fs::File::open(&self.0) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        match self.0.parent() {
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}
