//! The data plane's self-tests, run while the rest of the agent starts.

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use weft_dataplane::{SelfTest, Verdict, selftest};

/// What the self-tests found: of this process, so once for all memberships.
#[derive(Debug, Default)]
pub(crate) struct SelfTests(OnceLock<Vec<SelfTest>>);

impl SelfTests {
    /// Starts them on threads of their own: a restarted agent keeps its ports waiting for nothing
    /// that can be done beside.
    pub(crate) fn start() -> anyhow::Result<Arc<Self>> {
        let tests = Arc::new(Self::default());
        let this = Arc::clone(&tests);
        std::thread::Builder::new()
            .name("weft-self-tests".to_owned())
            .spawn(move || {
                this.found();
            })
            .context("cannot start the self-tests")?;
        Ok(tests)
    }

    /// Waits for them: some milliseconds, at most a second after the start.
    pub(crate) fn found(&self) -> &[SelfTest] {
        self.0.get_or_init(|| {
            let found = selftest::run();
            for test in &found {
                let (name, reason) = (test.name, test.reason.as_str());
                if test.verdict == Verdict::Passed {
                    tracing::info!(name, "self-test passed: {reason}");
                } else {
                    tracing::warn!(name, verdict = ?test.verdict, "self-test: {reason}");
                }
            }
            found
        })
    }
}
