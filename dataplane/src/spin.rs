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
//! Hence: after a yield that took long there is company, and the worker pauses: until the pause is over
//! it sleeps as soon as it has nothing to do, on whatever CPU the scheduler finds best
//! ([`Place`](crate::place::Place)). The pause is over when the machine idles again
//! ([`Company`](crate::company::Company)).

use std::time::Duration;

use weft_wire::Instant;

use crate::rhythm::Rhythm;

/// A yield that took longer let another thread run for more than a moment.
const CONTENDED: Duration = Duration::from_micros(100);
/// Pause after the first contended yield: long enough to see by the kernel's count, which is in
/// hundredths of a second, whether the machine idles.
const FIRST_PAUSE: Duration = Duration::from_millis(64);
/// The longest pause.
///
/// A contended yield costs a tick of the scheduler, 4 ms, so a worker that is wrong about its company
/// once in a second loses less than the slowest hundredth.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Work that came sooner was there when the worker asked; it needed neither.
const AT_ONCE: Duration = Duration::from_micros(2);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look for work, then offer the CPU to others.
    Yield,
    /// Sleep until there is work.
    Sleep,
}

/// Decides between polling and sleeping. Time, and whether there is company, are arguments.
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
    /// There was company when it was asked last.
    crowded: bool,
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
            crowded: false,
        }
    }

    /// There is nothing to do any more. Said again where there was none in between, it changes
    /// nothing. `company` is asked when a pause is over, whether it is to go on.
    pub(crate) fn idle(&mut self, now: Instant, company: impl FnOnce() -> bool) {
        if self.idle_since.is_some() {
            return;
        }
        self.idle_since = Some(now);
        self.slept = false;
        if self.crowded && now >= self.paused_until {
            self.crowded = company();
            if self.crowded {
                self.begin_pause(now);
            }
        }
        self.until = if self.crowded {
            now
        } else {
            now.after(self.window)
        };
    }

    /// Whether it is worth anything to poll these days: as work comes, and beside whom.
    pub(crate) fn polls(&self) -> bool {
        !self.crowded && !self.window.is_zero()
    }

    /// What to do at this moment.
    pub(crate) fn step(&self, now: Instant) -> Step {
        if now >= self.until {
            Step::Sleep
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

    /// The CPU was offered to others at `before` and came back at `now`. True when somebody used it
    /// for long: a pause begins.
    pub(crate) fn yielded(&mut self, before: Instant, now: Instant) -> bool {
        if now.since(before) > CONTENDED {
            self.until = Instant(0);
            // Work may have come at any moment in between.
            self.idle_since = None;
            self.crowded = true;
            self.begin_pause(now);
            return true;
        }
        if now >= self.paused_until.after(self.pause) {
            // It went well for as long as the pause would be: contention is over.
            self.pause = FIRST_PAUSE;
        }
        false
    }

    fn begin_pause(&mut self, now: Instant) {
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

    fn calm() -> bool {
        false
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
    fn after_a_contended_yield_it_sleeps_at_once() {
        let mut spin = Spin::new(LIMIT, PRICE);
        assert!(spin.polls());
        spin.idle(Instant(MILLI), calm);
        let back = Instant(4 * MILLI);
        assert!(spin.yielded(Instant(MILLI), back));
        assert_eq!(spin.step(back), Step::Sleep);
        assert!(!spin.polls());
        spin.sleeps();
        let next = back.after(Duration::from_millis(1));
        // It counts for nothing, as nobody knows when it came.
        spin.worked(next);
        assert_eq!(spin.window, PRICE);
        spin.idle(next, || panic!("not before the pause is over"));
        assert_eq!(spin.step(next), Step::Sleep);
    }

    #[test]
    fn the_pause_grows_as_long_as_there_is_company_and_ends_without() {
        let mut spin = Spin::new(LIMIT, PRICE);
        let mut now = Instant(MILLI);
        spin.idle(now, calm);
        assert!(spin.yielded(now, Instant(now.0 + 3 * MILLI)));
        now = Instant(now.0 + 3 * MILLI);
        let mut pauses = vec![(spin.paused_until.0 - now.0) / MILLI];
        for _ in 0..6 {
            now = spin.paused_until;
            spin.worked(now);
            spin.idle(now, || true);
            assert_eq!(spin.step(now), Step::Sleep);
            assert!(!spin.polls());
            pauses.push((spin.paused_until.0 - now.0) / MILLI);
        }
        assert_eq!(pauses, [64, 128, 256, 512, 1000, 1000, 1000]);

        // Alone again: it polls, and after a while forgets the long pause.
        now = spin.paused_until;
        spin.worked(now);
        spin.idle(now, calm);
        assert!(spin.polls());
        assert_eq!(spin.step(now), Step::Yield);
        let early = now.after(Duration::from_millis(10));
        assert!(!spin.yielded(early, early));
        assert_eq!(spin.pause, LONGEST_PAUSE);
        let later = now.after(LONGEST_PAUSE);
        assert!(!spin.yielded(later, later.after(Duration::from_micros(1))));
        assert!(spin.yielded(later, later.after(CONTENDED * 2)));
        let back = later.after(CONTENDED * 2);
        assert_eq!(spin.paused_until, back.after(FIRST_PAUSE));
    }
}
