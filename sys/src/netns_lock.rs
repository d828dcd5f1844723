//! One agent per network namespace.
//!
//! A file in a folder that nobody else may enter is the lock: abstract sockets and namespace files
//! would do without one, but those any user of the namespace may take first, and keep every agent
//! from starting. Its name is the namespace's inode. Agents that do not share the folder, as they
//! have a `/run` of their own each, do not see each other.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::instance_lock::{InstanceLock, LockError};
use crate::netns::{Netns, NetnsError};

/// Where agents keep their locks: one place whatever their settings are.
pub const FOLDER: &str = "/run/weft/locks";

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsLockError {
    /// Local: another agent has it.
    #[error(
        "another weftd{} is part of a swarm in this network namespace, and its interfaces, ports and rules would be in the way: use that one, or start this one in a namespace of its own (`ip netns exec NAME weftd …`)",
        holder(.pid)
    )]
    Held {
        /// Who, as it was written down; a process of another process namespace has another number
        /// here.
        pid: Option<u32>,
    },
    /// Local: the folder belongs to somebody else, who could keep every agent from starting.
    #[error(
        "{path} belongs to user {owner}: remove it, as whoever owns it decides which weftd may start"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// Local: no folder, or no namespace to name.
    #[error("cannot lock the network namespace by a file in {path}: {source}")]
    Kernel {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Local: the namespace cannot be looked at.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

fn holder(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// Held until dropped, or until the process ends in whatever way. The file stays: one for each
/// namespace that had an agent, until the machine starts again.
#[derive(Debug)]
pub struct NetnsLock {
    _lock: InstanceLock,
}

impl NetnsLock {
    /// Takes the lock of the calling thread's network namespace by a file in `folder`, which is made
    /// for this user alone.
    ///
    /// # Errors
    /// See [`NetnsLockError`].
    pub fn acquire(folder: &Path) -> Result<Self, NetnsLockError> {
        let failed = |source| NetnsLockError::Kernel {
            path: folder.to_owned(),
            source,
        };
        make_private(folder)?;
        let inode = Netns::current()?.inode().map_err(failed)?;
        match InstanceLock::acquire(folder.join(format!("netns-{inode}"))) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err(LockError::Held { pid, .. }) => Err(NetnsLockError::Held { pid }),
            Err(LockError::Io { source, .. }) => Err(failed(source)),
        }
    }
}

/// Makes the folder, or checks that it is this user's and shuts the others out of it.
fn make_private(folder: &Path) -> Result<(), NetnsLockError> {
    let failed = |source| NetnsLockError::Kernel {
        path: folder.to_owned(),
        source,
    };
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    // The folder itself, not where a link leads.
    let found = std::fs::symlink_metadata(folder).map_err(failed)?;
    if !found.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(NetnsLockError::Foreign {
            path: folder.to_owned(),
            owner: found.uid(),
        });
    }
    if found.mode() & 0o077 != 0 {
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(folder, mode).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    #[test]
    fn a_namespace_has_one_holder_and_the_second_learns_who() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = dir.path().join("weft/locks");
        let (here, there) = (
            Netns::create_anonymous().expect("netns"),
            Netns::create_anonymous().expect("netns"),
        );
        // The name that was the lock once, and that anybody may take.
        let taken = || {
            let name = SocketAddr::from_abstract_name("weftd").expect("a name");
            UnixListener::bind_addr(&name)
        };
        let _taken = here.run_in(taken).expect("a thread").expect("a listener");
        let acquire = |netns: &Netns| {
            let locked = netns.run_in(|| NetnsLock::acquire(&folder));
            locked.expect("a thread")
        };
        let first = acquire(&here).expect("first");
        let error = acquire(&here).expect_err("second");
        let text = error.to_string();
        assert!(
            text.contains(&format!("(process {})", std::process::id())),
            "{text}"
        );
        let other = acquire(&there).expect("another namespace");
        drop(first);
        let again = acquire(&here).expect("after the first let go");
        drop((other, again));
        let mode = std::fs::metadata(&folder).expect("there").mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_folder_is_ours_alone_or_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = dir.path().join("locks");
        std::fs::create_dir(&folder).expect("made");
        let mode = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&folder, mode).expect("a mode");
        };
        mode(0o777);
        drop(NetnsLock::acquire(&folder).expect("ours"));
        let now = std::fs::metadata(&folder).expect("there").mode();
        assert_eq!(now & 0o777, 0o700);
        std::os::unix::fs::chown(&folder, Some(65534), None).expect("given away");
        let error = NetnsLock::acquire(&folder).expect_err("somebody else's");
        assert!(
            error.to_string().contains("belongs to user 65534"),
            "{error}"
        );
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).expect("a link");
        let error = NetnsLock::acquire(&link).expect_err("a link");
        assert!(matches!(error, NetnsLockError::Kernel { .. }), "{error}");
    }
}
