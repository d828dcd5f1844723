//! Tests of the offloads that kernels have broken before, run at the start in a network namespace
//! of their own. What fails is not used.
//!
//! A new test is a function that returns what it found, and a line in [`run`].

mod datagrams;
mod tap;

use std::time::{Duration, Instant};

use weft_sys::netns::Netns;

/// How long a test waits for what it sent.
const PATIENCE: Duration = Duration::from_millis(200);

/// Name of the test of `UDP_SEGMENT`.
pub const UDP_SEGMENT: &str = "udp-segment";
/// Name of the test of `UDP_GRO`.
pub const UDP_GRO: &str = "udp-gro";
/// Name of the test of TCP super-frames written into a TAP.
pub const TAP_TCP: &str = "tap-tcp-write";
/// Name of the test of UDP super-frames written into a TAP.
pub const TAP_UDP: &str = "tap-udp-write";

/// Name of the test of TCP super-frames that the kernel segments with their tunnel headers; it runs
/// beside the workers (`inject`).
pub const TUNNEL_OFFLOAD: &str = "tunnel-offload";

/// What a test came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works, and is used.
    Passed,
    /// It does not, and is not used where there is another way.
    Failed,
    /// It could not be tried; it is used, and given up when the kernel refuses.
    Untested,
}

/// One test and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    /// What was tested; stable.
    pub name: &'static str,
    /// The outcome.
    pub verdict: Verdict,
    /// Why, and what follows, for people.
    pub reason: String,
}

/// Why a test did not pass.
#[derive(Debug)]
enum Trouble {
    /// The kernel does it wrong.
    Broken(String),
    /// The test could not be set up.
    NoTest(String),
}

impl Trouble {
    fn no_test(error: impl std::fmt::Display) -> Self {
        Self::NoTest(format!("it could not be tried: {error}"))
    }
}

type Test = fn() -> Result<String, Trouble>;

/// Runs all tests at the same time: some milliseconds, at most a second. Blocks.
#[must_use]
pub fn run() -> Vec<SelfTest> {
    let tests: [(&'static str, Test); 4] = [
        (UDP_SEGMENT, datagrams::segment),
        (UDP_GRO, datagrams::gro),
        (TAP_TCP, tap::tcp),
        (TAP_UDP, tap::udp),
    ];
    std::thread::scope(|scope| {
        let running = tests.map(|(name, test)| (name, scope.spawn(move || alone(test))));
        running
            .into_iter()
            .map(|(name, thread)| {
                let found = thread.join();
                let found = found.unwrap_or_else(|_| Err(Trouble::no_test("it panicked")));
                let (verdict, reason) = match found {
                    Ok(reason) => (Verdict::Passed, reason),
                    Err(Trouble::Broken(reason)) => (Verdict::Failed, reason),
                    Err(Trouble::NoTest(reason)) => (Verdict::Untested, reason),
                };
                SelfTest {
                    name,
                    verdict,
                    reason,
                }
            })
            .collect()
    })
}

/// In a namespace that ends with it.
fn alone(test: Test) -> Result<String, Trouble> {
    let netns = Netns::create_anonymous().map_err(Trouble::no_test)?;
    netns.run_in(test).map_err(Trouble::no_test)?
}

/// Whether a test says that something must not be used.
pub(crate) fn failed(tests: &[SelfTest], name: &str) -> bool {
    let mut tests = tests.iter();
    tests.any(|t| t.name == name && t.verdict == Verdict::Failed)
}

/// Tries until something is there, with patience.
fn wait_for<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::yield_now();
    }
}

/// Bytes of which no two segments are alike.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_passes() {
        let found = run();
        let names: Vec<_> = found.iter().map(|t| t.name).collect();
        assert_eq!(names, [UDP_SEGMENT, UDP_GRO, TAP_TCP, TAP_UDP]);
        for test in &found {
            assert_eq!(test.verdict, Verdict::Passed, "{test:?}");
        }
    }

    #[test]
    fn only_a_failure_is_a_reason_to_go_without() {
        let test = |verdict| SelfTest {
            name: UDP_GRO,
            verdict,
            reason: String::new(),
        };
        assert!(failed(&[test(Verdict::Failed)], UDP_GRO));
        assert!(!failed(&[test(Verdict::Failed)], UDP_SEGMENT));
        assert!(!failed(&[test(Verdict::Untested)], UDP_GRO));
        assert!(!failed(&[], UDP_GRO));
    }
}
