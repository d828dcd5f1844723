//! Signals that end a command half-way.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP in the masks of `/proc/PID/status` (proc(5)): signal 1 is the first bit.
const HANGUP: u64 = 1;

/// Ctrl-C, and what ends a program from outside: `kill`, the end of its terminal. From here on nothing
/// but what waits for them ends the command.
#[derive(Debug)]
pub(super) struct Ends {
    interrupt: Signal,
    terminate: Signal,
    /// None for `nohup`, which is not to be undone.
    hangup: Option<Signal>,
}

impl Ends {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn listen() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let hangup = match ignored(&status) & HANGUP {
            0 => Some(signal(SignalKind::hangup())?),
            _ => None,
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// Waits for one of them; what to call it.
    pub(super) async fn any(&mut self) -> &'static str {
        let (interrupt, terminate) = (&mut self.interrupt, &mut self.terminate);
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            () = killed(terminate, self.hangup.as_mut()) => "ended by a signal",
        }
    }

    /// The same without Ctrl-C, for what listens to that itself.
    pub(super) async fn outside(&mut self) {
        killed(&mut self.terminate, self.hangup.as_mut()).await;
    }

    /// Waits for Ctrl-C.
    pub(super) async fn interrupted(&mut self) {
        self.interrupt.recv().await;
    }
}

async fn killed(terminate: &mut Signal, hangup: Option<&mut Signal>) {
    let Some(hangup) = hangup else {
        terminate.recv().await;
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// The signals that a process ignores, by its status; none where it does not say.
fn ignored(status: &str) -> u64 {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_stays_so() {
        let status = "Name:\tweft\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored(status), 0x1001);
        assert_ne!(ignored(status) & HANGUP, 0);
        for other in ["", "SigIgn:\t0000000000001000\n", "SigIgn:\tx\n"] {
            assert_eq!(ignored(other) & HANGUP, 0, "{other:?}");
        }
    }
}
