//! Going on as two processes.

use std::io;

use rustix::process::Pid;

use super::Process;

/// Which of the two this is.
#[derive(Debug)]
pub enum Fork {
    /// The new one. It ends by [`leave`] or by becoming another program, never by returning to what
    /// its parent was about to do.
    Child,
    /// The old one, and the new one's handle.
    Parent(Process),
}

/// Splits the calling process, which must have one thread. After an `unshare` of PID namespaces the
/// first child is process 1 of the new one.
///
/// # Errors
/// When the process has several threads: the child would have the locks of those that it lacks.
/// What fork(2) says.
pub fn fork() -> io::Result<Fork> {
    crate::namespaces::single_threaded("fork")?;
    // SAFETY: there is one thread, so the child finds no lock held and no structure half changed.
    // Owned descriptors are the child's own copies.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid if pid > 0 => {
            let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("process id 0"))?;
            Ok(Fork::Parent(Process::of_child(pid)?))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends a forked child without what its parent has to do at its own end.
pub fn leave(code: u8) -> ! {
    // SAFETY: ends the process at once; nothing runs afterwards.
    unsafe { libc::_exit(code.into()) }
}
