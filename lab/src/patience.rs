//! Waiting for what only a look can tell, and for commands to end.

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::stop::Stop;

/// Pause between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// How long something may take, and who may end the wait before.
#[derive(Debug, Clone)]
pub struct Patience {
    limit: Duration,
    stop: Stop,
}

impl Patience {
    /// Waits for `limit` at most, and no longer once `stop` is set.
    #[must_use]
    pub fn new(limit: Duration, stop: &Stop) -> Self {
        Self {
            limit,
            stop: stop.clone(),
        }
    }

    /// The longest wait.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Goes on as long as nobody wants the work to end.
    ///
    /// # Errors
    /// Somebody does.
    pub fn going_on(&self) -> anyhow::Result<()> {
        self.stop.going_on()
    }

    /// Looks until it works.
    ///
    /// # Errors
    /// What the last look said when the time was over, or that the work is to end.
    pub fn until<T>(&self, mut look: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + self.limit;
        loop {
            let error = match look() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.going_on()?;
            if Instant::now() > deadline {
                return Err(error.context(format!("not within {} s", self.limit.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Runs a command to its end, without input; one that fails is no error. No variable tells it which
    /// node to talk to.
    ///
    /// # Errors
    /// It cannot be started, or it was killed: it took too long, or the work is to end.
    pub fn run(&self, command: &mut Command) -> anyhow::Result<Output> {
        self.run_with_input(command, "")
    }

    /// As [`Patience::run`], for a command that reads this, less than a pipe holds (pipe(7): 64 KiB).
    ///
    /// # Errors
    /// As of [`Patience::run`].
    pub fn run_with_input(&self, command: &mut Command, input: &str) -> anyhow::Result<Output> {
        let source = if input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        };
        let mut child = command
            .env_remove("WEFT_HOST")
            .stdin(source)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input.as_bytes()) {
                // One that ended without reading says why.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                    child.kill()?;
                    child.wait()?;
                    return Err(error).context("cannot hand its input over");
                }
                _ => drop(stdin),
            }
        }
        // Both are read while it runs, so that it never waits for a reader.
        let stdout = reader(child.stdout.take());
        let stderr = reader(child.stderr.take());
        let status = self.wait(&mut child);
        if status.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let (stdout, stderr) = (collected(stdout), collected(stderr));
        let status = match status {
            Ok(status) => status,
            Err(error) if stdout.is_empty() && stderr.is_empty() => return Err(error),
            Err(error) => {
                let said = [stdout, stderr].concat();
                let said = String::from_utf8_lossy(&said).into_owned();
                return Err(error.context(format!("it said {said:?}")));
            }
        };
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    }

    /// Waits for the end of a process, which goes on when this does not.
    pub(crate) fn wait(&self, child: &mut Child) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + self.limit;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            self.going_on()?;
            if Instant::now() > deadline {
                bail!("no end after {} s", self.limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Reads all of a pipe, beside what else is done.
pub(crate) fn reader(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            drop(pipe.read_to_end(&mut bytes));
        }
        bytes
    })
}

pub(crate) fn collected(reader: JoinHandle<Vec<u8>>) -> Vec<u8> {
    reader.join().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(limit: Duration) -> Patience {
        Patience::new(limit, &Stop::default())
    }

    #[test]
    fn looks_go_on_until_one_works_or_the_time_is_over() {
        let mut left = 3;
        let found = patience(Duration::from_secs(20)).until(|| {
            left -= 1;
            anyhow::ensure!(left == 0, "{left} are left");
            Ok("found")
        });
        assert_eq!(found.unwrap(), "found");
        let never: anyhow::Result<()> =
            patience(Duration::ZERO).until(|| bail!("nothing is there"));
        let said = format!("{:#}", never.unwrap_err());
        assert_eq!(said, "not within 0 s: nothing is there");
    }

    #[test]
    fn commands_end_with_the_patience() {
        let patience = patience(Duration::from_secs(20));
        let mut command = Command::new("sh");
        let output = patience.run(command.args(["-c", "echo out; echo err >&2; exit 7"]));
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(7));
        let said = (output.stdout.as_slice(), output.stderr.as_slice());
        assert_eq!(said, (b"out\n".as_slice(), b"err\n".as_slice()));

        let output = patience.run_with_input(&mut Command::new("cat"), "a key\n");
        assert_eq!(output.unwrap().stdout, b"a key\n");
        let output = patience.run_with_input(&mut Command::new("true"), "a key\n");
        assert!(output.unwrap().status.success(), "nobody has to read it");

        let short = Patience {
            limit: Duration::from_secs(1),
            ..patience
        };
        let mut command = Command::new("sh");
        let error = short.run(command.args(["-c", "echo before; exec sleep 600"]));
        let error = format!("{:#}", error.unwrap_err());
        assert!(
            error.contains("before") && error.contains("no end"),
            "{error}"
        );
        let error = short.run(&mut Command::new("/no/such")).unwrap_err();
        assert!(error.to_string().contains("cannot run /no/such"), "{error}");
    }
}
