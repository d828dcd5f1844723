//! The terminal of a guest in a container: one of the container's own, so that it has a name and an owner
//! in there. The guest makes it once it is inside, and sends this side of it to who waits for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, fchmod, fchown};
use rustix::io::Errno;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use weft_sys::terminal::{Size, open_terminal_of};

use crate::passing;
use crate::user::User;

/// Where containers have theirs.
const MULTIPLEXER: &str = "/dev/pts/ptmx";

/// Who has it writes and reads, its group `tty` writes: as login(1) leaves terminals.
const MODE: u32 = 0o620;

/// What a guest says that makes none.
const NONE: &[u8] = b"none";

/// Where a terminal comes to.
#[derive(Debug)]
pub(super) struct Awaited(UnixStream);

impl Awaited {
    /// It, and what the guest has for its standard input meanwhile.
    pub(super) fn new() -> io::Result<(Self, File)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(ours), OwnedFd::from(theirs).into()))
    }

    /// Waits for this side of the terminal. `None` where the container has no place for any, and where
    /// the guest has ended before.
    ///
    /// # Errors
    /// It took longer than the limit.
    pub(super) fn wait(&self, limit: Duration) -> io::Result<Option<OwnedFd>> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match passing::receive(&self.0) {
                Ok(terminal) => return Ok(terminal),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Makes a terminal for this process, which has entered the container, and its user. Where that has no
/// place for one, it is the terminal of the node that standard output is.
///
/// # Errors
/// Nobody waits for it any more.
pub(super) fn take(size: Size, user: Option<&User>) -> io::Result<()> {
    let waits = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let Ok((ours, theirs)) = made(size, user) else {
        (&waits).write_all(NONE)?;
        return Ok(dup2_stdin(io::stdout())?);
    };
    dup2_stdin(&theirs)?;
    dup2_stdout(&theirs)?;
    dup2_stderr(&theirs)?;
    passing::send(&waits, ours.as_fd(), MULTIPLEXER)?;
    Ok(())
}

fn made(size: Size, user: Option<&User>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = open_terminal_of(Path::new(MULTIPLEXER), size)?;
    fchmod(&theirs, Mode::from_raw_mode(MODE))?;
    if let Some(user) = user {
        fchown(&theirs, Some(user.uid), None)?;
    }
    Ok((ours, theirs))
}

#[cfg(test)]
mod tests {
    use rustix::termios::isatty;
    use weft_sys::terminal::open_terminal;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn guest() -> (Awaited, UnixStream) {
        let (awaited, theirs) = Awaited::new().expect("sockets");
        (awaited, UnixStream::from(OwnedFd::from(theirs)))
    }

    #[test]
    fn what_the_guest_made_arrives() {
        let (awaited, guest) = guest();
        let (ours, _theirs) = open_terminal((80, 24)).expect("terminal");
        passing::send(&guest, ours.as_fd(), MULTIPLEXER).expect("sent");
        let got = awaited.wait(LIMIT).expect("in time").expect("one");
        assert!(isatty(&got));
    }

    #[test]
    fn a_guest_without_one_says_so_or_ends() {
        let (awaited, guest) = guest();
        (&guest).write_all(NONE).expect("said");
        assert!(awaited.wait(LIMIT).expect("in time").is_none());
        drop(guest);
        assert!(awaited.wait(LIMIT).expect("in time").is_none());
    }

    #[test]
    fn one_that_says_nothing_is_not_waited_for_without_end() {
        let (awaited, _guest) = guest();
        let error = awaited.wait(Duration::from_millis(10));
        let kind = error.expect_err("too late").kind();
        assert_eq!(kind, io::ErrorKind::TimedOut);
    }
}
