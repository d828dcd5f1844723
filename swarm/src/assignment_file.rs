//! The files that hold a node's last orders, so that a restart without managers changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use weft_model::assignment::{Assignment, Own, Shared};
use weft_sys::state_file::{self, Found};

use crate::identity::{Identity, IdentityError, replace_private};

/// The half of this node, and the one of all nodes.
pub(crate) const ASSIGNMENT_FILE: &str = "assignment.json";
pub(crate) const SHARED_FILE: &str = "shared.json";

/// Where the last orders are.
#[derive(Debug, Clone)]
pub(crate) struct AssignmentFile {
    shared: PathBuf,
    own: PathBuf,
}

impl AssignmentFile {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            shared: data_dir.join(SHARED_FILE),
            own: data_dir.join(ASSIGNMENT_FILE),
        }
    }

    /// Orders for this identity; nothing when there are none, or none that can be read. A manager
    /// sends them again.
    pub(crate) fn load(&self, identity: &Identity) -> Option<Assignment> {
        let shared: Arc<Shared> = Arc::new(read(&self.shared)?);
        let own: Arc<Own> = Arc::new(read(&self.own)?);
        let mine = own.node.id == *identity.node_id() && shared.cluster_id == identity.cluster_id();
        mine.then_some(Assignment { shared, own })
    }

    /// Replaces what there is of the orders: first the half that the other one refers to. Who is
    /// killed after this finds them again; who loses power may not before [`Self::sync`].
    pub(crate) fn replace(
        &self,
        shared: Option<&[u8]>,
        own: Option<&[u8]>,
    ) -> Result<(), IdentityError> {
        for (path, json) in [(&self.shared, shared), (&self.own, own)] {
            if let Some(json) = json {
                replace_private(path, json)?;
            }
        }
        Ok(())
    }

    /// Makes what was written last outlive the loss of power. Takes as long as the disk is busy;
    /// nothing to do when the files are gone.
    pub(crate) fn sync(&self) -> io::Result<()> {
        for path in [&self.shared, &self.own] {
            match std::fs::File::open(path) {
                Ok(file) => file.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        match self.own.parent() {
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// One half; nothing when there is none, or none that can be read. A damaged one is set aside and
/// in the log.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    match state_file::read(path) {
        Ok(Found::Value(half)) => Some(half),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the last orders");
            None
        }
    }
}
