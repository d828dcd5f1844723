//! One agent per network namespace.
//!
//! A file in a folder that nobody else may enter is the lock: abstract sockets and namespace files
//! would do without one, but those any user of the namespace may take first, and keep every agent
//! from starting. Its name is the namespace's inode. Agents that do not share the folder, as they
//! have a `/run` of their own each, do not see each other.

use std::io;
use std::path::{Path, PathBuf};

use crate::instance_lock::{InstanceLock, LockError};
use crate::netns::{Netns, NetnsError};
use crate::private_folder::{PrivateError, make_private};

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
    /// Local: the folder is not this user's alone, or cannot be made: others could keep every agent
    /// from starting.
    #[error(transparent)]
    Folder(#[from] PrivateError),
    /// Local: no file in the folder, or no namespace to name.
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

/// Owner, as this user namespace shows it, of what belongs to nobody in it.
const UNMAPPED: u32 = 65534;

impl NetnsLockError {
    /// True when the folder is for the user of the whole machine, who this process is not: it has no
    /// right to it, or its user namespace does not know the owner.
    #[must_use]
    pub fn is_for_another_user(&self) -> bool {
        match self {
            Self::Folder(PrivateError::Foreign { owner, .. }) => *owner == UNMAPPED,
            Self::Folder(PrivateError::Io { source, .. }) | Self::Kernel { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                )
            }
            _ => false,
        }
    }
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
        // Its parent is everybody's to look into.
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        make_private(folder)?;
        let inode = Netns::current()?.inode().map_err(failed)?;
        match InstanceLock::acquire(folder.join(format!("netns-{inode}"))) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err(LockError::Held { pid, .. }) => Err(NetnsLockError::Held { pid }),
            Err(LockError::Io { source, .. }) => Err(failed(source)),
        }
    }
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
        std::os::unix::fs::chown(&folder, Some(65534), None).expect("given away");
        let error = acquire(&here).expect_err("somebody else's");
        let text = error.to_string();
        assert!(text.contains("belongs to user 65534"), "{text}");
        assert!(error.is_for_another_user());
    }
}
