//! The terminal of a container: its runtime program makes it, among the container's own, and sends this
//! side of it through a socket (`--console-socket`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{isatty, tcgetwinsize};
use weft_sys::terminal::{self, Size};

use crate::{files, passing};

/// Columns and rows of a terminal that nobody looks at.
const DEFAULT_SIZE: Size = (80, 24);

/// This side of a container's terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// What the container writes there; read without waiting.
    pub(crate) ours: File,
    /// The container's side, held open for as long as the task runs: with nobody there the kernel says
    /// EIO on this one, as at an end, also where a program closed it and opens it again. `None` where
    /// the kernel does not give it (Linux before 4.13).
    pub(crate) theirs: Option<OwnedFd>,
}

/// Waits for the terminal of one container.
#[derive(Debug)]
pub(crate) struct Console {
    /// The task's folder.
    dir: OwnedFd,
    path: PathBuf,
    listener: UnixListener,
    stream: Option<UnixStream>,
    terminal: Option<OwnedFd>,
}

impl Console {
    /// Listens in a folder.
    pub(crate) fn listen(dir: &Path) -> io::Result<Self> {
        let path = dir.join(files::CONSOLE);
        files::remove(&path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, flags, Mode::empty())?;
        let listener = UnixListener::bind(short_path("self", &dir))?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            dir,
            path,
            listener,
            stream: None,
            terminal: None,
        })
    }

    /// What the runtime program is to connect to. An address has room for 107 bytes, which the name of a
    /// task's folder may need alone.
    pub(crate) fn address(&self) -> PathBuf {
        short_path(&std::process::id().to_string(), &self.dir)
    }

    /// Readable when [`Console::take`] has something to do; `None` when it never will.
    pub(crate) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        match (&self.terminal, &self.stream) {
            (Some(_), _) => None,
            (None, Some(stream)) => Some(stream.as_fd()),
            (None, None) => Some(self.listener.as_fd()),
        }
    }

    /// Takes what has come, without waiting.
    pub(crate) fn take(&mut self) -> io::Result<()> {
        let mut looked = 0;
        while self.terminal.is_none() && looked < 2 {
            looked += 1;
            let Some(stream) = &self.stream else {
                match self.listener.accept() {
                    Ok((stream, _)) => self.stream = Some(stream),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
                continue;
            };
            match passing::receive(stream) {
                // Whoever that was has gone without a word.
                Ok(None) => self.stream = None,
                Ok(Some(terminal)) => {
                    give_size(&terminal)?;
                    self.terminal = Some(terminal);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The terminal, if it came.
    pub(crate) fn terminal(mut self) -> io::Result<Option<Terminal>> {
        self.take()?;
        let Some(terminal) = self.terminal.take().filter(|fd| isatty(fd)) else {
            return Ok(None);
        };
        rustix::fs::fcntl_setfl(&terminal, OFlags::NONBLOCK)?;
        // Never the shim's own terminal, and not for what the shim starts.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(&terminal, flags).ok();
        Ok(Some(Terminal {
            ours: terminal.into(),
            theirs,
        }))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if files::remove(&self.path).is_err() {
            // It is of no use to anybody, and goes with the task's folder.
        }
    }
}

/// At once, where it has none yet: programs look when they start, and divide by it.
fn give_size(terminal: &OwnedFd) -> io::Result<()> {
    if !isatty(terminal) {
        return Ok(());
    }
    let size = tcgetwinsize(terminal)?;
    if size.ws_col == 0 || size.ws_row == 0 {
        terminal::resize(terminal, DEFAULT_SIZE)?;
    }
    Ok(())
}

fn short_path(process: &str, dir: &OwnedFd) -> PathBuf {
    let number = dir.as_raw_fd();
    let name = files::CONSOLE;
    format!("/proc/{process}/fd/{number}/{name}").into()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn send(console: &Console, descriptor: &OwnedFd) {
        let stream = UnixStream::connect(console.address()).expect("connect");
        passing::send(&stream, descriptor.as_fd(), "/dev/ptmx").expect("send");
    }

    /// In a folder whose name no address has room for.
    fn folder(dir: &tempfile::TempDir) -> PathBuf {
        let folder = dir.path().join("x".repeat(200));
        std::fs::create_dir(&folder).expect("folder");
        folder
    }

    #[test]
    fn a_terminal_comes_through_the_socket_with_a_size() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = folder(&dir);
        let mut console = Console::listen(&folder).expect("listen");
        console.take().expect("nobody there yet");
        assert!(console.waits_for().is_some());
        let (ours, theirs) = terminal::open_terminal((0, 0)).expect("terminal");
        send(&console, &ours);
        console.take().expect("taken");
        assert!(console.waits_for().is_none());
        let Terminal {
            ours: mut got,
            theirs: held,
        } = console.terminal().expect("usable").expect("it came");
        let size = tcgetwinsize(&theirs).expect("size");
        assert_eq!((size.ws_col, size.ws_row), DEFAULT_SIZE);
        let kind = got.read(&mut [0; 8]).expect_err("nothing written").kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
        writeln!(File::from(theirs), "hello").expect("write");
        let mut buffer = [0; 16];
        let len = got.read(&mut buffer).expect("read");
        assert_eq!(&buffer[..len], b"hello\r\n");
        // The container has closed its side: nothing to read, and no end.
        assert!(held.is_some());
        let kind = got.read(&mut buffer).expect_err("nothing written").kind();
        assert_eq!(kind, io::ErrorKind::WouldBlock);
        assert!(!folder.join(files::CONSOLE).exists(), "the socket goes");
    }

    #[test]
    fn what_is_no_terminal_is_none() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = folder(&dir);
        let console = Console::listen(&folder).expect("listen");
        assert!(console.terminal().expect("nothing came").is_none());
        let mut console = Console::listen(&folder).expect("listen");
        // One that says nothing, then one that sends a file.
        drop(UnixStream::connect(console.address()).expect("connect"));
        console.take().expect("taken");
        let file = OwnedFd::from(File::open("/dev/null").expect("open"));
        send(&console, &file);
        console.take().expect("taken");
        assert!(console.terminal().expect("usable").is_none());
    }
}
