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
use crate::sealing::KEY_FILE;
use crate::tls::DEFAULT_MANAGER_PORT;

const FILE: &str = "swarm.json";
/// Desired state: managers only.
pub(crate) const STORE_FILE: &str = "raft.redb";
/// Takes its place when it is whole. What a kill left of one is found under this name.
pub(crate) const REBUILT_STORE_FILE: &str = "raft.rebuilt";
/// The same of versions with a single manager, which had no log.
pub(crate) const EARLIER_STORE_FILE: &str = "manager.redb";

/// How a node takes part: written when it becomes a member, read when `weftd` starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// What the node says about itself.
    pub node: NodeDescription,
    /// Managers, `host:port`, the one that it joined at first.
    pub managers: Vec<String>,
    /// Where it listens while it is a manager; absent in files of workers of earlier versions.
    pub listen: Option<SocketAddr>,
}

/// All addresses of the family of one, with its port.
fn any(addr: SocketAddr) -> SocketAddr {
    let any = match addr {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(any, addr.port())
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
                Ok(membership) => return Ok(Some((Self::complete(membership), identity))),
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
        let membership = Self::from_orders(&orders);
        membership.write(data_dir)?;
        tracing::warn!(path = %path.display(), "made anew from the last orders");
        Ok(Some((membership, identity)))
    }

    /// What the orders of a member say of its membership. They do not say where a manager listens:
    /// on all of its addresses, as by default.
    fn from_orders(orders: &Assignment) -> Self {
        let node = &orders.own.node;
        let managers = orders
            .shared
            .nodes
            .iter()
            .filter(|n| n.role == Role::Manager);
        Self::complete(Self {
            node: NodeDescription {
                hostname: node.description.hostname.clone(),
                engine_version: env!("CARGO_PKG_VERSION").to_owned(),
                addr: node.status.addr,
                data_path_addr: node.data_path_addr,
                gossip_port: node.gossip_port,
                manager_addr: node.manager_addr(),
                platform: node.description.platform.clone(),
                resources: node.description.resources,
                runtimes: node.description.engine.runtimes.clone(),
            },
            managers: managers
                .filter_map(|n| n.manager_addr)
                .map(|addr| addr.to_string())
                .collect(),
            listen: None,
        })
    }

    /// Says where it is reached as a manager, and where it listens, where a file does not: a worker
    /// may become one.
    fn complete(mut self) -> Self {
        let (listen, manager) = self.manager_addrs();
        self.node.manager_addr = Some(manager);
        self.listen = Some(listen);
        self
    }

    /// Where the node listens while it is a manager, and where others reach it then.
    #[must_use]
    pub fn manager_addrs(&self) -> (SocketAddr, SocketAddr) {
        let usual = SocketAddr::new(self.node.addr, DEFAULT_MANAGER_PORT);
        let manager = self.node.manager_addr.unwrap_or(usual);
        (self.listen.unwrap_or_else(|| any(manager)), manager)
    }

    /// The same of a node that others reach at `addr` now: as a manager too, on the port as before.
    #[must_use]
    pub fn moved_to(&self, addr: IpAddr) -> Self {
        let node = self.node.moved_to(addr);
        let before = self.node.manager_addr.map(|manager| manager.to_string());
        let own = node.manager_addr.map(|manager| manager.to_string());
        let managers = self.managers.iter().map(|manager| match (&before, &own) {
            (Some(before), Some(own)) if manager == before => own.clone(),
            _ => manager.clone(),
        });
        Self {
            managers: managers.collect(),
            // One that listens on its old address alone would not be found.
            listen: self.listen.map(|listen| {
                if listen.ip() == self.node.addr {
                    SocketAddr::new(addr, listen.port())
                } else {
                    listen
                }
            }),
            node,
        }
    }

    /// The same where these are the managers by now, `host:port`. What was told by a name stays behind
    /// them: it may lead to another address since.
    #[must_use]
    pub fn with_managers(&self, newest: &[String]) -> Self {
        let is_name = |manager: &String| {
            manager.parse::<SocketAddr>().is_err() && manager.parse::<IpAddr>().is_err()
        };
        let names = self.managers.iter();
        let names = names.filter(|manager| is_name(manager) && !newest.contains(manager));
        Self {
            managers: newest.iter().chain(names).cloned().collect(),
            ..self.clone()
        }
    }

    /// Writes it in place of the one on disk.
    ///
    /// # Errors
    /// The disk's: the one before stays.
    pub fn replace(&self, data_dir: &Path) -> Result<(), IdentityError> {
        self.write(data_dir)
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

    /// Removes what only a manager has, of a node that is none any more: the log, and the key that seals
    /// it. That one first: without it the log is of no use, and a locked one that stayed would lock the
    /// node should it be a manager again.
    ///
    /// # Errors
    /// The first file that cannot be removed; the others are tried all the same.
    pub fn forget_manager(data_dir: &Path) -> Result<(), IdentityError> {
        let certs = certificate_dir(data_dir);
        let files = [
            certs.join(KEY_FILE),
            data_dir.join(STORE_FILE),
            data_dir.join(REBUILT_STORE_FILE),
            data_dir.join(EARLIER_STORE_FILE),
        ];
        let mut result = Ok(());
        for file in files {
            result = result.and(remove_file(&file));
        }
        result
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
            certs.join(KEY_FILE),
            data_dir.join(FILE),
            data_dir.join(ASSIGNMENT_FILE),
            data_dir.join(SHARED_FILE),
            data_dir.join(STORE_FILE),
            data_dir.join(REBUILT_STORE_FILE),
            data_dir.join(EARLIER_STORE_FILE),
        ];
        let mut result = Ok(());
        for file in files {
            result = result.and(remove_file(&file));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use weft_model::objects::{Platform, Resources};

    use super::*;

    fn worker(listen: Option<SocketAddr>) -> Membership {
        let addr = IpAddr::from([192, 0, 2, 1]);
        Membership {
            node: NodeDescription {
                hostname: "n1".to_owned(),
                engine_version: "0.1.0".to_owned(),
                addr,
                data_path_addr: addr,
                gossip_port: 7946,
                manager_addr: None,
                platform: Platform::default(),
                resources: Resources::default(),
                runtimes: Vec::new(),
            },
            managers: vec!["192.0.2.9:2377".to_owned(), "192.0.2.1:2377".to_owned()],
            listen,
        }
    }

    #[test]
    fn a_worker_knows_where_it_would_be_a_manager_and_takes_that_along() {
        let whole = worker(None).complete();
        let at = |ip: [u8; 4]| SocketAddr::from((ip, 2377));
        assert_eq!(whole.manager_addrs(), (at([0; 4]), at([192, 0, 2, 1])));
        let moved = whole.moved_to(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(moved.manager_addrs(), (at([0; 4]), at([192, 0, 2, 7])));
        assert_eq!(moved.node.data_path_addr, moved.node.addr);
        assert_eq!(moved.managers, ["192.0.2.9:2377", "192.0.2.7:2377"]);
        assert_eq!(moved.moved_to(moved.node.addr), moved);

        // One that listens on its own address does so on the new one.
        let bound = worker(Some(at([192, 0, 2, 1]))).complete();
        let moved = bound.moved_to(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(moved.listen, Some(at([192, 0, 2, 7])));
    }

    #[test]
    fn the_newest_addresses_of_managers_are_kept_and_names_beside_them() {
        let mut before = worker(None);
        before.managers.push("swarm.example:2377".to_owned());
        let newest = ["192.0.2.4:2377".to_owned(), "192.0.2.5:2377".to_owned()];
        let after = before.with_managers(&newest);
        let kept = ["192.0.2.4:2377", "192.0.2.5:2377", "swarm.example:2377"];
        assert_eq!(after.managers, kept);
        assert_eq!(after.with_managers(&newest), after);
        assert_eq!(after.node, before.node);
    }

    #[test]
    fn who_is_no_manager_any_more_keeps_no_file_of_one() {
        for forget in [Membership::forget_manager, Membership::forget] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            let files = [STORE_FILE, REBUILT_STORE_FILE, EARLIER_STORE_FILE];
            for file in files {
                std::fs::write(dir.join(file), b"secrets").unwrap();
            }
            forget(dir).unwrap();
            let left = std::fs::read_dir(dir).unwrap().count();
            assert_eq!(left, 0);
        }
    }
}
