//! Commands on a terminal, as a person sees them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use anyhow::Context;
use weft_sys::terminal::{Size, open_terminal};

use crate::patience::{Patience, collected, reader};
use crate::screen::Screen;

/// With room for docker's bars, which need more than 110 columns.
pub const WIDE: Size = (160, 50);

/// What a command left on its terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// How it ended.
    pub status: ExitStatus,
    /// Lines that its output ended with, without spaces at their end.
    pub lines: Vec<String>,
    /// What it wrote to standard error, which is none.
    pub err: String,
}

/// Runs a command to its end, without input and with a terminal of that size as its output; one that
/// fails is no error.
///
/// # Errors
/// There is no terminal, or it shows what nobody knows; or as [`Patience::run`].
pub fn run_typed(command: &mut Command, size: Size, patience: &Patience) -> anyhow::Result<Typed> {
    let (ours, theirs) = open_terminal(size).context("cannot open a terminal")?;
    let spawned = command
        .env_remove("WEFT_HOST")
        .stdin(Stdio::null())
        .stdout(Stdio::from(theirs))
        .stderr(Stdio::piped())
        .spawn();
    // The terminal ends with the last one that has it open.
    command.stdout(Stdio::null());
    let mut child =
        spawned.with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let shown = screen(ours);
    let err = reader(child.stderr.take());
    let status = patience.wait(&mut child);
    if status.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let text = shown.join().unwrap_or_default();
    let err = String::from_utf8_lossy(&collected(err)).into_owned();
    let lines = Screen::after(&String::from_utf8_lossy(&text))?;
    let status = status.with_context(|| format!("it said {:?} {err:?}", lines.join("\n")))?;
    Ok(Typed { status, lines, err })
}

/// Reads until nobody has the other side open.
fn screen(terminal: OwnedFd) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut terminal, mut all) = (File::from(terminal), Vec::new());
        let mut buffer = [0; 4096];
        loop {
            match terminal.read(&mut buffer) {
                Ok(count) if count > 0 => all.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Linux says EIO there (pts(4)).
                _ => return all,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stop::Stop;

    #[test]
    fn a_command_has_a_terminal_and_what_it_shows_is_read() {
        let patience = Patience::new(Duration::from_secs(20), &Stop::default());
        let mut command = Command::new("sh");
        let script = "test -t 1 && echo terminal; printf 'a\\n\\033[1AB\\n'; echo err >&2; exit 7";
        let typed = run_typed(command.args(["-c", script]), WIDE, &patience).unwrap();
        assert_eq!(typed.lines, ["terminal", "B"]);
        assert_eq!(
            (typed.status.code(), typed.err.as_str()),
            (Some(7), "err\n")
        );
        let error = run_typed(&mut Command::new("/no/such"), WIDE, &patience).unwrap_err();
        assert!(error.to_string().contains("cannot run /no/such"), "{error}");
    }
}
