//! How long an idle worker looks for more work before it sleeps.
//!
//! To wake a sleeping thread on another CPU costs ten times what the packet costs: an interrupt
//! between processors and the way out of idle. So a worker that has just worked polls for as long as
//! it is worth by the rhythm of its work and the price of a wake-up ([`Rhythm::window`]).
//!
//! Between two polls it offers its CPU to whoever wants it (`sched_yield`): a program that was woken
//! by the worker's last packet runs at once and answers, without an interrupt. A program that only
//! computes is another matter. A yield leaves the worker runnable, so no wake-up ever asks the
//! scheduler whose turn it is; the next tick does, up to 4 ms later (Linux 6.18, `HZ=250`:
//! `yield_task_fair` gives up a whole slice, and nobody looks at slices between ticks). A thread that
//! sleeps has it better: what wakes it compares both, and one with a short slice
//! (`affinity::ask_for_slice`) that did not use up its share goes first (`PREEMPT_SHORT`). And on a
//! busy CPU there is no idle to be left, so to sleep costs little there.
//!
//! Hence: after a yield that took long the worker pauses. Until the pause is over it never yields; it
//! looks for a few microseconds and sleeps. Whether the pause is over is first asked without a yield:
//! who was interrupted by another thread meanwhile still has company, and pauses on.

use std::time::Duration;

use weft_wire::Instant;

use crate::rhythm::Rhythm;

/// A yield that took longer let another thread run for more than a moment.
const CONTENDED: Duration = Duration::from_micros(100);
/// Pause after the first contended yield.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// The longest pause.
///
/// A contended yield costs a tick of the scheduler, 4 ms, so a worker that tries again after 64 ms
/// loses a sixteenth at worst. With a pause of 1 s one unlucky yield each second kept polling off
/// for good, which doubled the latency of a calm exchange beside bursts.
const LONGEST_PAUSE: Duration = Duration::from_millis(64);
/// How long a worker polls that does not yield.
const BRIEF: Duration = Duration::from_micros(5);
/// Work that came sooner was there when the worker asked; it needed neither.
const AT_ONCE: Duration = Duration::from_micros(2);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look for work, then offer the CPU to others.
    Yield,
    /// Look for work, and keep the CPU.
    Look,
    /// Sleep until there is work.
    Sleep,
}

/// Decides between polling and sleeping. Time, and how often the thread was interrupted by another
/// one, are arguments.
#[derive(Debug)]
pub(crate) struct Spin {
    limit: Duration,
    /// Of a wake-up.
    price: Duration,
    rhythm: Rhythm,
    window: Duration,
    /// When there was no more work; nothing while there is some, or when it does not count.
    idle_since: Option<Instant>,
    /// Whether the worker slept since.
    slept: bool,
    until: Instant,
    paused_until: Instant,
    pause: Duration,
    /// Interruptions when the last pause began, until one without any has passed.
    interrupted: Option<u64>,
}

impl Spin {
    /// Polls for `limit` after the last work at most, where a wake-up costs `price`; a limit of zero
    /// never polls.
    pub(crate) fn new(limit: Duration, price: Duration) -> Self {
        let rhythm = Rhythm::default();
        Self {
            limit,
            price,
            window: rhythm.window(price, limit),
            rhythm,
            idle_since: None,
            slept: false,
            until: Instant(0),
            paused_until: Instant(0),
            pause: FIRST_PAUSE,
            interrupted: None,
        }
    }

    /// There is nothing to do any more. Said again where there was none in between, it changes
    /// nothing.
    pub(crate) fn idle(&mut self, now: Instant, interruptions: impl FnOnce() -> u64) {
        if self.idle_since.is_some() {
            return;
        }
        self.idle_since = Some(now);
        self.slept = false;
        if let Some(before) = self.interrupted
            && now >= self.paused_until
        {
            let count = interruptions();
            if count > before {
                self.begin_pause(now, count);
            } else {
                self.interrupted = None;
            }
        }
        let window = if now < self.paused_until {
            self.window.min(BRIEF)
        } else {
            self.window
        };
        self.until = now.after(window);
    }

    /// What to do at this moment.
    pub(crate) fn step(&self, now: Instant) -> Step {
        if now >= self.until {
            Step::Sleep
        } else if now < self.paused_until {
            Step::Look
        } else {
            Step::Yield
        }
    }

    /// The worker goes to sleep.
    pub(crate) fn sleeps(&mut self) {
        self.slept = true;
    }

    /// There is work.
    pub(crate) fn worked(&mut self, now: Instant) {
        let Some(since) = self.idle_since.take() else {
            return;
        };
        let waited = now.since(since);
        if waited < AT_ONCE {
            return;
        }
        // A sleeper learns of its work later than it comes.
        let gap = if self.slept {
            waited.saturating_sub(self.price)
        } else {
            waited
        };
        self.rhythm.record(gap);
        self.window = self.rhythm.window(self.price, self.limit);
    }

    /// The CPU was offered to others at `before` and came back at `now`.
    pub(crate) fn yielded(
        &mut self,
        before: Instant,
        now: Instant,
        interruptions: impl FnOnce() -> u64,
    ) {
        if now.since(before) > CONTENDED {
            self.until = Instant(0);
            // Work may have come at any moment in between.
            self.idle_since = None;
            self.begin_pause(now, interruptions());
        } else if now >= self.paused_until.after(self.pause) {
            // It went well for as long as the pause would be: contention is over.
            self.pause = FIRST_PAUSE;
        }
    }

    fn begin_pause(&mut self, now: Instant, interruptions: u64) {
        self.interrupted = Some(interruptions);
        self.paused_until = now.after(self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: u64 = 1_000;
    const MILLI: u64 = 1_000_000;

    const LIMIT: Duration = Duration::from_micros(200);
    const PRICE: Duration = Duration::from_micros(60);

    fn calm() -> u64 {
        0
    }

    /// Idle at `now`, and work after `gap`; whether it was polled for until then.
    fn exchange(spin: &mut Spin, now: &mut Instant, gap: Duration) -> bool {
        spin.idle(*now, calm);
        let came = now.after(gap);
        let polled = spin.step(Instant(came.0 - 1)) != Step::Sleep;
        *now = came;
        if !polled {
            spin.sleeps();
            *now = came.after(PRICE);
        }
        spin.worked(*now);
        // The work itself.
        *now = now.after(Duration::from_micros(20));
        polled
    }

    #[test]
    fn polls_for_a_moment_after_work_and_not_without_a_limit() {
        let mut spin = Spin::new(LIMIT, PRICE);
        assert_eq!(spin.step(Instant(0)), Step::Sleep);
        spin.idle(Instant(MILLI), calm);
        assert_eq!(spin.step(Instant(MILLI + 59 * MICRO)), Step::Yield);
        assert_eq!(spin.step(Instant(MILLI + 60 * MICRO)), Step::Sleep);
        let mut never = Spin::new(Duration::ZERO, PRICE);
        let mut now = Instant(MILLI);
        for _ in 0..100 {
            assert!(!exchange(&mut never, &mut now, Duration::from_micros(10)));
        }
    }

    #[test]
    fn a_timer_without_work_does_not_begin_to_poll_again() {
        let mut spin = Spin::new(LIMIT, PRICE);
        spin.idle(Instant(MILLI), calm);
        let later = Instant(2 * MILLI);
        spin.idle(later, calm);
        assert_eq!(spin.step(later), Step::Sleep);
        spin.worked(later);
        spin.idle(later, calm);
        assert_eq!(spin.step(later), Step::Yield);
    }

    #[test]
    fn the_window_follows_the_rhythm_from_sleep_to_polling_and_back() {
        let mut spin = Spin::new(LIMIT, PRICE);
        let mut now = Instant(MILLI);
        let mut after = |gap_us, rounds| {
            for _ in 0..rounds {
                exchange(&mut spin, &mut now, Duration::from_micros(gap_us));
            }
            let polled = exchange(&mut spin, &mut now, Duration::from_micros(gap_us));
            (polled, spin.window)
        };
        let never = (false, Duration::ZERO);
        // One packet each 10 ms: no polling, though each sleep adds its price to what is seen.
        assert_eq!(after(10_000, 64), never);
        // An answer every 100 µs, of which the work takes 20.
        assert_eq!(after(80, 600), (true, Duration::from_micros(96)));
        assert_eq!(after(10_000, 600), never);
    }

    #[test]
    fn work_that_is_there_at_once_is_no_reason_to_poll() {
        let mut spin = Spin::new(LIMIT, PRICE);
        let mut now = Instant(MILLI);
        for _ in 0..1_000 {
            spin.idle(now, calm);
            now = now.after(Duration::from_micros(1));
            spin.worked(now);
        }
        assert_eq!(spin.window, PRICE, "nothing was learnt");
    }

    #[test]
    fn after_a_contended_yield_it_keeps_off_yields_and_sleeps_soon() {
        let mut spin = Spin::new(LIMIT, PRICE);
        spin.idle(Instant(MILLI), calm);
        let back = Instant(4 * MILLI);
        spin.yielded(Instant(MILLI), back, || 7);
        assert_eq!(spin.step(back), Step::Sleep);
        spin.sleeps();
        let next = back.after(Duration::from_millis(1));
        // It counts for nothing, as nobody knows when it came.
        spin.worked(next);
        assert_eq!(spin.window, PRICE);
        spin.idle(next, || panic!("not before the pause is over"));
        assert_eq!(spin.step(next), Step::Look);
        assert_eq!(spin.step(next.after(BRIEF)), Step::Sleep);
    }

    #[test]
    fn company_is_noticed_without_a_yield_and_the_pause_grows() {
        let mut spin = Spin::new(LIMIT, PRICE);
        let mut now = Instant(MILLI);
        let mut interruptions = 0;
        spin.idle(now, calm);
        spin.yielded(now, Instant(now.0 + 3 * MILLI), || interruptions);
        now = Instant(now.0 + 3 * MILLI);
        let mut pauses = vec![(spin.paused_until.0 - now.0) / MILLI];
        for _ in 0..6 {
            now = spin.paused_until;
            interruptions += 1;
            spin.idle(now, || interruptions);
            assert_eq!(spin.step(now), Step::Look);
            pauses.push((spin.paused_until.0 - now.0) / MILLI);
            spin.worked(now.after(AT_ONCE));
        }
        assert_eq!(pauses, [4, 8, 16, 32, 64, 64, 64]);

        // A pause without an interruption: yields are tried again, and forget the long pause.
        now = spin.paused_until;
        spin.idle(now, || interruptions);
        assert_eq!(spin.step(now), Step::Yield);
        let calm_for = now.after(LONGEST_PAUSE);
        spin.yielded(calm_for, calm_for.after(Duration::from_micros(1)), || {
            panic!("it was short")
        });
        spin.yielded(calm_for, calm_for.after(CONTENDED * 2), || interruptions);
        let back = calm_for.after(CONTENDED * 2);
        assert_eq!(spin.paused_until, back.after(FIRST_PAUSE));
    }
}
