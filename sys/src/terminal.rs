//! Terminals: what a person types without anybody seeing it, keys that go to another program as they
//! are, and terminals for programs.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

/// Longest line that is taken, in bytes.
const LONGEST: u64 = 4096;

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
    unlockpt(&ours)?;
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
    use super::*;

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
