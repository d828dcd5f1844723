//! Waking a worker thread from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd: readable from [`Wakeup::notify`] until [`Wakeup::drain`]. Any number of notifications
/// in between count as one.
#[derive(Debug)]
pub struct Wakeup(OwnedFd);

impl Wakeup {
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    /// Makes the descriptor readable. Never blocks.
    pub fn notify(&self) {
        // The one error possible is EAGAIN on counter overflow: it is readable already then.
        if let Err(error) = rustix::io::write(&self.0, &1u64.to_ne_bytes()) {
            tracing::trace!(%error, "wakeup already pending");
        }
    }

    /// Makes the descriptor unreadable again; true when it was notified since the last call.
    pub fn drain(&self) -> bool {
        let mut count = [0u8; 8];
        rustix::io::read(&self.0, &mut count).is_ok()
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_merged() {
        let wakeup = Wakeup::new().expect("eventfd");
        assert!(!wakeup.drain());
        wakeup.notify();
        wakeup.notify();
        assert!(wakeup.drain());
        assert!(!wakeup.drain());
    }
}
