//! One agent per network namespace.
//!
//! An abstract unix socket is the lock: such names live in the network namespace, need no file that
//! two agents would have to agree on, and go with the process that has them.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

/// Name of the abstract socket.
const NAME: &str = "weftd";

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
        /// Who; nothing when it runs in another process namespace.
        pid: Option<u32>,
    },
    /// Local: the kernel refused.
    #[error("cannot lock the network namespace: {0}")]
    Kernel(#[from] io::Error),
}

fn holder(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// Held until dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub struct NetnsLock {
    _listener: UnixListener,
}

impl NetnsLock {
    /// Takes the lock of the calling thread's network namespace.
    ///
    /// # Errors
    /// See [`NetnsLockError`].
    pub fn acquire() -> Result<Self, NetnsLockError> {
        let name = SocketAddr::from_abstract_name(NAME)?;
        match UnixListener::bind_addr(&name) {
            Ok(listener) => Ok(Self {
                _listener: listener,
            }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(NetnsLockError::Held {
                pid: holder_of(&name),
            }),
            Err(error) => Err(error.into()),
        }
    }
}

/// The process that listened there, as the kernel noted it.
fn holder_of(name: &SocketAddr) -> Option<u32> {
    let stream = UnixStream::connect_addr(name).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    // A process that this process namespace does not show has the id 0.
    u32::try_from(peer.pid.as_raw_pid())
        .ok()
        .filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;

    #[test]
    fn a_namespace_has_one_holder_and_the_second_learns_who() {
        let (here, there) = (
            Netns::create_anonymous().expect("netns"),
            Netns::create_anonymous().expect("netns"),
        );
        let acquire = |netns: &Netns| netns.run_in(NetnsLock::acquire).expect("a thread");
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
    }
}
