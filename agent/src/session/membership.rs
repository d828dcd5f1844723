//! What a node remembers of the swarm that it is part of, besides its identity and its orders.

use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use weft_control::cluster::NodeDescription;

use super::identity::{
    Identity, IdentityError, NODE_FILE, ROOT_FILE, ROOT_KEY_FILE, certificate_dir, damaged,
    remove_file, write_private,
};

const FILE: &str = "swarm.json";
/// Last orders, the node's own and those of all nodes: [`super::orders`] writes them.
pub(super) const ASSIGNMENT_FILE: &str = "assignment.json";
pub(super) const SHARED_FILE: &str = "shared.json";
/// Desired state: managers only.
pub(crate) const STORE_FILE: &str = "manager.redb";

/// How a node takes part: written when it becomes a member, read when `weftd` starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// What the node says about itself.
    pub node: NodeDescription,
    /// Managers, `host:port`, the one that it joined at first.
    pub managers: Vec<String>,
    /// Where a manager listens; absent on workers.
    pub listen: Option<SocketAddr>,
}

impl Membership {
    /// Reads the membership and identity of a data directory; nothing when the node is not part of
    /// a swarm.
    ///
    /// # Errors
    /// Files that cannot be read or are damaged.
    pub fn load(data_dir: &Path) -> Result<Option<(Self, Identity)>, IdentityError> {
        let Some(identity) = Identity::load(data_dir)? else {
            return Ok(None);
        };
        let path = data_dir.join(FILE);
        let text = std::fs::read(&path).map_err(|source| IdentityError::File {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let membership =
            serde_json::from_slice(&text).map_err(|e| damaged(&path.display().to_string(), e))?;
        Ok(Some((membership, identity)))
    }

    /// Writes the membership, then the identity that makes it count.
    ///
    /// # Errors
    /// The disk's; nothing is left behind then.
    pub fn save(&self, data_dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| damaged(FILE, e))?;
        let written =
            write_private(&data_dir.join(FILE), &text).and_then(|()| identity.save(data_dir));
        written.inspect_err(|_| {
            if let Err(error) = Self::forget(data_dir) {
                tracing::warn!(%error, "cannot remove a half-made membership");
            }
        })
    }

    /// Removes everything that made the node a member: identity, orders, and a manager's state.
    ///
    /// # Errors
    /// The first file that cannot be removed; the others are tried all the same.
    pub fn forget(data_dir: &Path) -> Result<(), IdentityError> {
        let certs = certificate_dir(data_dir);
        // The node's own file first: without it, what is left does not count.
        let files = [
            certs.join(NODE_FILE),
            certs.join(ROOT_FILE),
            certs.join(ROOT_KEY_FILE),
            data_dir.join(FILE),
            data_dir.join(ASSIGNMENT_FILE),
            data_dir.join(SHARED_FILE),
            data_dir.join(STORE_FILE),
        ];
        let mut result = Ok(());
        for file in files {
            result = result.and(remove_file(&file));
        }
        result
    }
}
