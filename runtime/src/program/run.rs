//! Runs a program that answers and ends: its output is bounded, and so is its time.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Of each stream; more is read, and dropped.
const MAX_OUTPUT: usize = 256 << 10;
/// Characters of what a program says that are shown.
const MAX_SAID: usize = 600;
/// Between two looks at whether it has ended: it takes some milliseconds.
const PAUSE: Duration = Duration::from_millis(1);
/// For what is in the pipes when the program is gone; one of its children may hold them open.
const REST: Duration = Duration::from_secs(1);

/// What became of it.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) success: bool,
    pub(super) stdout: String,
    stderr: String,
}

impl Ran {
    /// The end of what it complained of.
    pub(super) fn last_words(&self) -> String {
        let said = self.stderr.trim();
        let said = if said.is_empty() {
            self.stdout.trim()
        } else {
            said
        };
        let skip = said.chars().count().saturating_sub(MAX_SAID);
        said.chars().skip(skip).collect()
    }

    /// runc and crun say it alike.
    pub(super) fn says_none_such(&self) -> bool {
        ["does not exist", "No such file or directory"]
            .iter()
            .any(|words| self.stderr.contains(words))
    }
}

/// Runs it with nothing to read and Docker's environment: none but `PATH`.
///
/// # Errors
/// `TimedOut` when it was killed after `limit`; it cannot be started.
pub(super) fn run(program: &Path, args: &[&OsStr], limit: Duration) -> io::Result<Ran> {
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", crate::merged::DEFAULT_PATH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let success = wait(&mut child, limit)?;
    let text = |from: Option<Receiver<Vec<u8>>>| {
        let bytes = from.and_then(|from| from.recv_timeout(REST).ok());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    Ok(Ran {
        success,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// Reads all of it on a thread of its own: a pipe that is full stops the program.
fn collect(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (to, received) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 8192]);
        while let Ok(length) = from.read(&mut buffer) {
            if length == 0 {
                break;
            }
            let room = MAX_OUTPUT - kept.len();
            kept.extend_from_slice(&buffer[..length.min(room)]);
        }
        // Who asked may have gone.
        drop(to.send(kept));
    });
    received
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> io::Result<Ran> {
        run(
            Path::new("/bin/sh"),
            &[OsStr::new("-c"), OsStr::new(script)],
            limit,
        )
    }

    #[test]
    fn much_is_read_and_little_is_kept() {
        let script = "head -c 3000000 /dev/zero | tr '\\0' x; echo last >&2; exit 3";
        let ran = shell(script, Duration::from_secs(20)).expect("it ends");
        assert!(!ran.success);
        assert_eq!(ran.stdout.len(), MAX_OUTPUT);
        assert_eq!(ran.last_words(), "last");
    }

    #[test]
    fn who_hangs_is_killed() {
        let error = shell("sleep 60", Duration::from_millis(100)).expect_err("killed");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // One that leaves a child with the pipe behind is not waited for.
        let began = Instant::now();
        let ran = shell("sleep 5 & echo done", Duration::from_secs(20)).expect("it ends");
        assert!(ran.success);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
