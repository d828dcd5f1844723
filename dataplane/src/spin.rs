//! How long an idle worker looks for more work before it sleeps.
//!
//! To wake a sleeping thread on another CPU costs ten times what the packet costs: an interrupt
//! between processors and the way out of idle. So a worker that has just worked polls for a moment.
//! Between two polls it offers its CPU to whoever wants it (`sched_yield`); when somebody did, the
//! CPU is contended, and polling would only take time from the very programs whose packets the
//! worker waits for. It then sleeps at once, and tries again after a pause that doubles each time.

use std::time::Duration;

use weft_wire::Instant;

/// A yield that took longer let another thread run for more than a moment.
const CONTENDED: Duration = Duration::from_micros(100);
/// Pause after the first contended yield.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// The longest pause.
///
/// A contended yield costs a slice of the scheduler, about 3 ms, so a worker that tries again after
/// 32 ms loses a tenth at worst. With a pause of 1 s one unlucky yield each second kept polling off
/// for good, which doubled the latency of a calm exchange beside bursts.
const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// Decides between polling and sleeping. Time is an argument.
#[derive(Debug)]
pub(crate) struct Spin {
    limit: Duration,
    until: Instant,
    paused_until: Instant,
    pause: Duration,
}

impl Spin {
    /// Polls for `limit` after the last work; zero never polls.
    pub(crate) const fn new(limit: Duration) -> Self {
        Self {
            limit,
            until: Instant(0),
            paused_until: Instant(0),
            pause: FIRST_PAUSE,
        }
    }

    /// There was work.
    pub(crate) fn worked(&mut self, now: Instant) {
        if now >= self.paused_until {
            self.until = now.after(self.limit);
        }
    }

    /// Whether to poll on instead of sleeping.
    pub(crate) fn polls(&self, now: Instant) -> bool {
        now < self.until
    }

    /// The CPU was offered to others at `before` and came back at `now`.
    pub(crate) fn yielded(&mut self, before: Instant, now: Instant) {
        if now.since(before) > CONTENDED {
            self.until = Instant(0);
            self.paused_until = now.after(self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        } else if now >= self.paused_until.after(self.pause) {
            // It went well for as long as the pause would be: contention is over.
            self.pause = FIRST_PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: u64 = 1_000;
    const MILLI: u64 = 1_000_000;

    #[test]
    fn polls_for_a_moment_after_work() {
        let mut spin = Spin::new(Duration::from_micros(50));
        assert!(!spin.polls(Instant(0)));
        spin.worked(Instant(MILLI));
        assert!(spin.polls(Instant(MILLI + 49 * MICRO)));
        assert!(!spin.polls(Instant(MILLI + 50 * MICRO)));
        let mut never = Spin::new(Duration::ZERO);
        never.worked(Instant(MILLI));
        assert!(!never.polls(Instant(MILLI)));
    }

    #[test]
    fn sleeps_while_others_want_the_cpu_and_tries_less_and_less_often() {
        let mut spin = Spin::new(Duration::from_micros(50));
        let mut now = Instant(MILLI);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            spin.worked(now);
            assert!(spin.polls(now));
            let back = Instant(now.0 + 3 * MILLI);
            spin.yielded(now, back);
            assert!(!spin.polls(back));
            let mut later = back;
            while !spin.polls(later) {
                later = Instant(later.0 + MILLI);
                spin.worked(later);
            }
            pauses.push((later.0 - back.0) / MILLI);
            now = later;
        }
        assert_eq!(pauses[..4], [4, 8, 16, 32]);
        assert_eq!(pauses.last(), Some(&32));

        // Alone again: short yields for longer than the pause forget it.
        let calm = Instant(now.0 + 3_000 * MILLI);
        spin.yielded(calm, Instant(calm.0 + MICRO));
        spin.worked(calm);
        assert!(spin.polls(calm));
        spin.yielded(calm, Instant(calm.0 + 2 * MILLI));
        let back = calm.0 + 2 * MILLI;
        spin.worked(Instant(back + 4 * MILLI));
        assert!(spin.polls(Instant(back + 4 * MILLI)));
    }
}
