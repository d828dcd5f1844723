//! Terminals: what a person types without anybody seeing it, keys that go to another program as they
//! are, and terminals for programs.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, makedev};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// Longest line that is taken, in bytes.
const LONGEST: u64 = 4096;

/// Device numbers of every multiplexer of terminals (pts(4)).
const MULTIPLEXER: (u32, u32) = (5, 2);

/// Columns and rows.
pub type Size = (u16, u16);

/// A terminal for a program: the side that reads and writes what it does, and the program's own.
///
/// # Errors
/// No more terminals, or `/dev/pts` is not mounted.
pub fn open_terminal(size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    with_other_side(ours, size)
}

/// The same among the terminals whose multiplexer this is, such as those of a container that the caller
/// has entered: the program's side has a name and an owner there.
///
/// # Errors
/// There is no multiplexer, or something else in its place; no more terminals.
pub fn open_terminal_of(multiplexer: &Path, size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    // What is in somebody else's folder may be anything, and is not waited for.
    let flags =
        OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let ours = rustix::fs::open(multiplexer, flags, Mode::empty())?;
    let stat = fstat(&ours)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_device || stat.st_rdev != makedev(MULTIPLEXER.0, MULTIPLEXER.1) {
        return Err(Errno::NOTTY.into());
    }
    with_other_side(ours, size)
}

fn with_other_side(ours: OwnedFd, size: Size) -> io::Result<(OwnedFd, OwnedFd)> {
    unlockpt(&ours)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    resize(&ours, size)?;
    Ok((ours, theirs))
}

/// Tells the program of a terminal how large that is.
///
/// # Errors
/// It is no terminal.
pub fn resize(terminal: &impl AsFd, (columns, rows): Size) -> io::Result<()> {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// How large the terminal is that is read from, or else the one that is written to; nothing where there
/// is none.
#[must_use]
pub fn size() -> Option<Size> {
    let size = tcgetwinsize(io::stdin())
        .or_else(|_| tcgetwinsize(io::stdout()))
        .ok()?;
    Some((size.ws_col, size.ws_row))
}

/// Standard input as a terminal that passes every key on, Ctrl-C too, until this is dropped.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Begins.
    ///
    /// # Errors
    /// Standard input is no terminal.
    pub fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before) {
            tracing::warn!(%error, "the terminal is not as it was: run `reset`");
        }
    }
}

/// Gives the terminal its echo back.
struct Silenced {
    before: Termios,
}

impl Silenced {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal does not show what is typed: run `stty echo`");
        }
    }
}

/// One line of standard input, without its end. A terminal is asked with `prompt`, on standard error,
/// and does not show what is typed.
///
/// # Errors
/// Input that cannot be read, is no text, or has no line end within 4,096 bytes.
pub fn read_secret(prompt: &str) -> io::Result<String> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read_line(input.lock());
    }
    let mut asked = io::stderr();
    asked.write_all(prompt.as_bytes())?;
    asked.flush()?;
    let silenced = Silenced::begin()?;
    let line = read_line(input.lock());
    drop(silenced);
    // The line end was not shown either.
    asked.write_all(b"\n")?;
    line
}

fn read_line(input: impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    let read = input.take(LONGEST).read_line(&mut line)?;
    if read as u64 == LONGEST && !line.ends_with('\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a line of more than {LONGEST} bytes"),
        ));
    }
    Ok(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, mknodat};

    use super::*;

    #[test]
    fn what_is_no_multiplexer_makes_no_terminal() {
        let dir = tempfile::tempdir().expect("dir");
        let path = |name: &str| dir.path().join(name);
        let mode = Mode::from_raw_mode(0o600);
        // Nobody has its other side open.
        mknodat(CWD, path("fifo").as_path(), FileType::Fifo, mode, 0).expect("fifo");
        std::fs::write(path("file"), "").expect("file");
        std::os::unix::fs::symlink("/dev/ptmx", path("link")).expect("link");
        let refused = |path: &Path| {
            let error = open_terminal_of(path, (80, 24)).expect_err("no terminal");
            error.raw_os_error()
        };
        let none = Some(Errno::NOTTY.raw_os_error());
        for other in [path("fifo"), path("file"), "/dev/null".into()] {
            assert_eq!(refused(&other), none, "{other:?}");
        }
        let link = Some(Errno::LOOP.raw_os_error());
        assert_eq!(refused(&path("link")), link);
        let missing = Some(Errno::NOENT.raw_os_error());
        assert_eq!(refused(&path("missing")), missing);
    }

    #[test]
    fn one_line_is_read_and_no_more() {
        assert_eq!(read_line(&b"key\r\nmore\n"[..]).expect("a line"), "key");
        assert_eq!(read_line(&b"  key"[..]).expect("a line"), "key");
        assert_eq!(read_line(&b""[..]).expect("nothing"), "");
        let long = vec![b'x'; 10_000];
        let error = read_line(&long[..]).expect_err("too long");
        assert!(error.to_string().contains("4096"), "{error}");
        assert!(read_line(&b"\xff\n"[..]).is_err(), "no text");
    }
}
