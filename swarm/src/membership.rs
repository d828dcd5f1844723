//! What a node remembers of the swarm that it is part of, besides its identity and its orders.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde::{Deserialize, Serialize};
use weft_cluster::NodeDescription;
use weft_model::assignment::Assignment;
use weft_model::objects::Role;
use weft_sys::state_file;

use crate::assignment_file::{ASSIGNMENT_FILE, AssignmentFile, SHARED_FILE};
use crate::identity::{
    Identity, IdentityError, NODE_FILE, ROOT_FILE, certificate_dir, damaged, remove_file,
    write_private,
};

const FILE: &str = "swarm.json";
/// Desired state: managers only.
pub(crate) const STORE_FILE: &str = "raft.redb";
/// The same of versions with a single manager, which had no log.
pub(crate) const EARLIER_STORE_FILE: &str = "manager.redb";

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
    /// Files that cannot be read or are damaged; a damaged `swarm.json` is made anew where there are
    /// orders.
    pub fn load(data_dir: &Path) -> Result<Option<(Self, Identity)>, IdentityError> {
        let Some(identity) = Identity::load(data_dir)? else {
            return Ok(None);
        };
        let path = data_dir.join(FILE);
        let failed = |action| {
            let path = path.clone();
            move |source| IdentityError::File {
                action,
                path,
                source,
            }
        };
        let why = match std::fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(membership) => return Ok(Some((membership, identity))),
                Err(error) => error.to_string(),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "it is missing".into(),
            Err(error) => return Err(failed("read")(error)),
        };
        // The orders say all of it; without them the file stays as it is.
        let Some(orders) = AssignmentFile::new(data_dir).load(&identity) else {
            return Err(damaged(&path.display().to_string(), why));
        };
        if path.exists() {
            state_file::set_aside(&path, why).map_err(failed("set aside"))?;
        }
        let membership = Self::from_orders(&orders, identity.role());
        membership.write(data_dir)?;
        tracing::warn!(path = %path.display(), "made anew from the last orders");
        Ok(Some((membership, identity)))
    }

    /// What the orders of a member say of its membership. They do not say where a manager listens:
    /// on all of its addresses, as by default.
    fn from_orders(orders: &Assignment, role: Role) -> Self {
        let node = &orders.own.node;
        let managers = orders
            .shared
            .nodes
            .iter()
            .filter(|n| n.role == Role::Manager);
        let listen = node.manager_addr().filter(|_| role == Role::Manager);
        Self {
            node: NodeDescription {
                hostname: node.description.hostname.clone(),
                engine_version: env!("CARGO_PKG_VERSION").to_owned(),
                addr: node.status.addr,
                data_path_addr: node.data_path_addr,
                gossip_port: node.gossip_port,
                manager_addr: node.manager_addr(),
            },
            managers: managers
                .filter_map(|n| n.manager_addr)
                .map(|addr| addr.to_string())
                .collect(),
            listen: listen.map(|addr| {
                let any = match addr {
                    SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                };
                SocketAddr::new(any, addr.port())
            }),
        }
    }

    fn write(&self, data_dir: &Path) -> Result<(), IdentityError> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| damaged(FILE, e))?;
        write_private(&data_dir.join(FILE), &text)
    }

    /// Writes the membership, then the identity that makes it count.
    ///
    /// # Errors
    /// The disk's; nothing is left behind then.
    pub(crate) fn save(&self, data_dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
        let written = self.write(data_dir).and_then(|()| identity.save(data_dir));
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
            data_dir.join(FILE),
            data_dir.join(ASSIGNMENT_FILE),
            data_dir.join(SHARED_FILE),
            data_dir.join(STORE_FILE),
            data_dir.join(EARLIER_STORE_FILE),
        ];
        let mut result = Ok(());
        for file in files {
            result = result.and(remove_file(&file));
        }
        result
    }
}
