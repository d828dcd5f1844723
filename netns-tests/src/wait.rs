//! Conditions with deadlines, and figures for people.

use std::fmt::Debug;
use std::io::Write;
use std::time::{Duration, Instant};

/// How long a condition may take that has no deadline of its own. Generous: the machine may be
/// busy with other things.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Pause between two looks at something that only a look can tell.
const LOOK: Duration = Duration::from_millis(25);

/// Looks until `look` finds what it wants; returns that and how long it took.
///
/// # Panics
/// It does not within `limit`; with what the last look said.
pub fn within<T, E: Debug>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, E>,
) -> (T, Duration) {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return (found, started.elapsed()),
            Err(seen) if started.elapsed() > limit => {
                panic!("not after {:.1} s: {what}: {seen:?}", limit.as_secs_f64())
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// [`within`] the usual limit, when the time does not matter.
///
/// # Panics
/// As [`within`].
pub fn eventually<T, E: Debug>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    within(LIMIT, what, look).0
}

/// Prints a measured figure past the capture of the test harness: it is worth reading in the log
/// of a run that passed, too.
pub fn figure(text: &str) {
    // A closed stderr takes nothing away from the test.
    drop(writeln!(std::io::stderr(), "    figure: {text}"));
}

/// Prints what helps to understand a failure.
pub(crate) fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}
