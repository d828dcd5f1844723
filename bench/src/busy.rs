//! Busy neighbours: loops that want CPUs all the while that a bench runs.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use weft_cli::complain;

use crate::usage::cpu_seconds;

/// Loops of a process of their own, at the usual priority and on no CPU in particular. They end with
/// this value, and with this process in any case, as their standard input does.
#[derive(Debug)]
pub(crate) struct BusyLoops {
    child: Child,
}

impl BusyLoops {
    /// Starts so many; nothing where that is none.
    pub(crate) fn start(count: u8) -> anyhow::Result<Option<Self>> {
        if count == 0 {
            return Ok(None);
        }
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        // A group of its own: Ctrl-C is for the bench, which ends its last run and then the loops.
        let child = Command::new(program)
            .args(["bench-spin", &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start busy loops")?;
        Ok(Some(Self { child }))
    }

    /// CPU seconds that they have used so far.
    ///
    /// # Errors
    /// They ended: what was measured meanwhile is not what it says.
    pub(crate) fn used(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.child.id()).context("the busy loops are gone: measure again")
    }
}

impl Drop for BusyLoops {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            complain(&format!("the busy loops could not be stopped: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_loops_are_no_process() {
        assert!(BusyLoops::start(0).unwrap().is_none());
    }

    #[test]
    fn loops_that_ended_are_noticed_and_others_end_with_the_value() {
        let sleep = |seconds: &str| BusyLoops {
            child: Command::new("sleep").arg(seconds).spawn().unwrap(),
        };
        let gone = sleep("0");
        // Until it has ended, which nobody waits for before the value goes.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while gone.used().is_ok() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        let error = gone.used().unwrap_err().to_string();
        assert!(error.contains("busy loops are gone"), "{error}");

        let running = sleep("600");
        let pid = running.child.id();
        assert!(running.used().unwrap() < 10.0);
        drop(running);
        assert!(cpu_seconds(pid).is_err());
    }
}
