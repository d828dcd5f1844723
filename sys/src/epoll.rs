//! Waiting for many descriptors at once, level-triggered.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// What is ready on one descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The value given to [`Epoll::add`].
    pub token: u64,
    /// There is something to read, or reading reports an error.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The device or peer is gone, or the descriptor has a pending error. For a TAP: its device was
    /// deleted (its namespace ended).
    pub closed: bool,
}

/// A level-triggered epoll set with its event buffer. No allocation after [`Epoll::new`].
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<epoll::Event>,
}

// SAFETY: the event buffer holds plain numbers; the pointer variant of their union is never used.
unsafe impl Send for Epoll {}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoll")
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

impl Epoll {
    /// A set that reports up to `capacity` descriptors per wait (at least one).
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self {
            fd: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(capacity.max(1)),
        })
    }

    /// Watches `fd` for reading. The descriptor leaves the set by [`Epoll::delete`]; closing it is
    /// enough only when no duplicate of it exists.
    ///
    /// # Errors
    /// `EEXIST` when it is watched already; `EPERM` when it cannot be polled.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        epoll::add(&self.fd, fd, data, epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Stops watching `fd`.
    ///
    /// # Errors
    /// `ENOENT` when it is not watched.
    pub fn delete(&self, fd: impl AsFd) -> io::Result<()> {
        epoll::delete(&self.fd, fd)?;
        Ok(())
    }

    /// Waits until something is ready or `timeout` is over (`None`: for ever; zero: not at all) and
    /// returns what is ready. An interrupting signal counts as nothing ready.
    ///
    /// # Errors
    /// As `epoll_wait(2)`; not seen in practice.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<impl ExactSizeIterator<Item = Ready> + '_> {
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        self.events.clear();
        match epoll::wait(&self.fd, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().map(|event| {
            let (flags, data) = (event.flags, event.data);
            Ready {
                token: data.u64(),
                readable: flags.contains(epoll::EventFlags::IN),
                writable: flags.contains(epoll::EventFlags::OUT),
                closed: flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP),
            }
        }))
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Wakeup;

    #[test]
    fn reports_tokens_until_drained_and_forgets_deleted_ones() {
        let mut epoll = Epoll::new(4).expect("epoll");
        let (a, b) = (Wakeup::new().expect("a"), Wakeup::new().expect("b"));
        epoll.add(&a, 7).expect("add a");
        epoll.add(&b, u64::MAX).expect("add b");
        assert_eq!(epoll.wait(Some(Duration::ZERO)).expect("wait").len(), 0);

        a.notify();
        b.notify();
        let mut tokens: Vec<u64> = epoll
            .wait(None)
            .expect("wait")
            .filter(|r| r.readable)
            .map(|r| r.token)
            .collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [7, u64::MAX]);

        a.drain();
        epoll.delete(&b).expect("delete");
        assert_eq!(epoll.wait(Some(Duration::ZERO)).expect("wait").len(), 0);
    }
}
