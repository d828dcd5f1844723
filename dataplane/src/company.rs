//! Whether programs that compute are beside a worker.
//!
//! A worker that sleeps between its packets learns nothing of them by itself: it goes first when it
//! wakes. But where CPUs idle there is room, and nobody has to wait for a tick of the scheduler.

use std::time::Duration;

use weft_sys::clock::idle_time;
use weft_wire::Instant;

/// This part of one CPU's time has to be idle for the machine to have room.
const ROOM: u32 = 4;

/// Counts what the machine idles, from one question to the next.
#[derive(Debug, Default)]
pub(crate) struct Company {
    before: Option<(Instant, Duration)>,
}

impl Company {
    /// From now on it counts.
    pub(crate) fn begins(&mut self, now: Instant) {
        // A kernel that does not say is taken for one with room.
        self.before = idle_time().ok().map(|idle| (now, idle));
    }

    /// Whether the machine had no room since it was asked last. About 5 µs: not for each packet.
    pub(crate) fn is_there(&mut self, now: Instant) -> bool {
        let before = self.before.take();
        self.begins(now);
        match (before, self.before) {
            (Some((since, idle)), Some((now, idle_now))) => {
                is_crowded(now.since(since), idle_now.saturating_sub(idle))
            }
            _ => false,
        }
    }
}

/// `idle` is of all CPUs together.
fn is_crowded(time: Duration, idle: Duration) -> bool {
    idle < time / ROOM
}

#[cfg(test)]
mod tests {
    use weft_sys::clock::monotonic_nanos;

    use super::*;

    #[test]
    fn a_machine_is_crowded_that_idles_less_than_a_quarter_of_one_cpu() {
        let millis = Duration::from_millis;
        assert!(is_crowded(millis(64), millis(0)));
        assert!(is_crowded(millis(64), millis(10)));
        assert!(!is_crowded(millis(64), millis(20)));
        // Sixty idle CPUs of sixty-four.
        assert!(!is_crowded(millis(64), millis(3840)));
    }

    #[test]
    fn without_a_beginning_there_is_no_company() {
        let mut company = Company::default();
        let now = || Instant(monotonic_nanos());
        assert!(!company.is_there(now()));
        assert!(company.before.is_some(), "the kernel counts");
    }
}
