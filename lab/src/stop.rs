//! Ctrl-C and SIGTERM: long work ends at its next look, and everything is cleaned up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

/// Set once somebody wants the work to end. The default is one that nobody sets.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens for SIGINT, SIGTERM and SIGHUP on a thread of its own: not before
    /// [`crate::gain_privileges`].
    ///
    /// # Errors
    /// No thread, or no descriptors for it.
    pub fn on_signals() -> anyhow::Result<Self> {
        let stop = Self(Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&stop.0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot listen for signals")?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _inside = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                });
                flag.store(true, Ordering::Relaxed);
            })?;
        Ok(stop)
    }

    /// Whether somebody does.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on as long as nobody does.
    ///
    /// # Errors
    /// It is set.
    pub fn going_on(&self) -> anyhow::Result<()> {
        if self.is_set() {
            bail!("stopped on request");
        }
        Ok(())
    }
}
