//! Log lines that strangers can provoke: a few at once, then one now and then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines that may be written one after the other.
const BURST: u32 = 5;
/// Time after which one more may be.
const PERIOD: Duration = Duration::from_secs(10);

/// Decides which lines are written; the others are counted.
#[derive(Debug)]
pub(crate) struct LogLimiter {
    burst: u32,
    period: Duration,
    left: u32,
    /// When the lines that are left were last added to.
    at: Option<Instant>,
    suppressed: u64,
}

impl LogLimiter {
    /// At most `burst` lines at once, and one in each `period`, which is not zero.
    pub(crate) const fn new(burst: u32, period: Duration) -> Self {
        Self {
            burst,
            period,
            left: burst,
            at: None,
            suppressed: 0,
        }
    }

    fn refill(&mut self, now: Instant) {
        let at = *self.at.get_or_insert(now);
        let periods = now.saturating_duration_since(at).as_nanos() / self.period.as_nanos();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(periods).min(self.burst);
        // What is left of a period counts for the next line.
        self.at = if self.left == self.burst {
            Some(now)
        } else {
            at.checked_add(self.period.saturating_mul(periods))
        };
    }

    /// Something is to be said: returns how many lines were suppressed before this one when it may
    /// be written; counts it otherwise.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// Nothing is to be said: returns how many lines were suppressed, if any and if that may be
    /// told now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        if self.suppressed == 0 || self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// The lines of one kind, limited.
#[derive(Debug)]
pub struct Quiet {
    /// What the lines are about.
    about: &'static str,
    limiter: Mutex<LogLimiter>,
}

impl Quiet {
    /// Lines about that, none written yet.
    pub const fn new(about: &'static str) -> Self {
        Self {
            about,
            limiter: Mutex::new(LogLimiter::new(BURST, PERIOD)),
        }
    }

    fn limiter(&self) -> std::sync::MutexGuard<'_, LogLimiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line, by `line`, unless there were too many.
    pub fn say(&self, line: impl FnOnce()) {
        let Some(suppressed) = self.limiter().admit(Instant::now()) else {
            return;
        };
        self.tell(suppressed);
        line();
    }

    /// Tells of lines that were suppressed, when nothing has followed them. Call it now and then.
    pub fn flush(&self) {
        let suppressed = self.limiter().due(Instant::now());
        self.tell(suppressed.unwrap_or(0));
    }

    fn tell(&self, suppressed: u64) {
        if suppressed > 0 {
            tracing::warn!(about = self.about, "{suppressed} more were suppressed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_becomes_a_few_and_none_is_lost_from_the_count() {
        let mut limiter = LogLimiter::new(3, Duration::from_secs(10));
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (mut written, mut told) = (0_u64, 0);
        // A thousand lines a second for a minute.
        for ms in 0..60_000 {
            if let Some(suppressed) = limiter.admit(at(ms)) {
                written += 1;
                told += suppressed;
            }
        }
        assert_eq!(written, 3 + 5, "a burst, then one in ten seconds");
        assert_eq!(limiter.due(at(60_000)), Some(60_000 - written - told));
        assert_eq!(limiter.due(at(60_001)), None, "told once");
    }

    #[test]
    fn after_a_pause_lines_are_written_at_once_again() {
        let mut limiter = LogLimiter::new(2, Duration::from_secs(1));
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(limiter.due(at(0)), None);
        assert_eq!(limiter.admit(at(0)), Some(0));
        assert_eq!(limiter.admit(at(0)), Some(0));
        assert_eq!(limiter.admit(at(0)), None);
        assert_eq!(limiter.due(at(999)), None, "not yet");
        assert_eq!(limiter.admit(at(1_500)), Some(1));
        assert_eq!(limiter.admit(at(1_999)), None);
        assert_eq!(limiter.admit(at(2_000)), Some(1), "half a period was kept");
        let later = 3_600_000;
        assert_eq!(limiter.admit(at(later)), Some(0));
        assert_eq!(limiter.admit(at(later)), Some(0));
        assert_eq!(limiter.admit(at(later)), None, "a pause saves up no more");
        // A clock that stands still or goes back allows nothing and harms nothing.
        assert_eq!(limiter.admit(at(later - 5_000)), None);
        assert_eq!(limiter.admit(at(later + 1_000)), Some(2));
    }
}
