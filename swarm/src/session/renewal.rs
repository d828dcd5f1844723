//! When a certificate is to be renewed. Clocks come in as arguments.
//!
//! A certificate speaks of the time of day, which people and NTP set; a process that runs for months
//! must not live on a certificate that only its own clock takes for young. So what runs out first
//! counts: the date, or the time that has passed on a clock that nobody sets since the process got
//! the certificate.

use std::time::{Duration, SystemTime};

/// From this share of its life on a certificate is renewed outside of sessions as well.
const OVERDUE: f64 = 0.9;

/// One certificate in the hands of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    from: SystemTime,
    life: Duration,
    /// Share of the life after which it is renewed.
    share: f64,
    /// Its age when it was taken up, and the steady clock then.
    age: Duration,
    taken: Duration,
}

impl Renewal {
    /// A certificate valid between two moments, taken up now: `wall` is the time of day, `steady`
    /// the time since some fixed moment. `share` of its life it is kept.
    pub(super) fn new(
        (from, until): (SystemTime, SystemTime),
        share: f64,
        wall: SystemTime,
        steady: Duration,
    ) -> Self {
        Self {
            from,
            life: until.duration_since(from).unwrap_or_default(),
            share,
            age: wall.duration_since(from).unwrap_or_default(),
            taken: steady,
        }
    }

    /// How long until it is to be renewed; nothing when that is now.
    pub(super) fn wait(&self, wall: SystemTime, steady: Duration) -> Duration {
        let due = self.life.mul_f64(self.share);
        let by_date = wall.duration_since(self.from).unwrap_or_default();
        let held = steady.saturating_sub(self.taken);
        let by_clock = self.age.saturating_add(held);
        due.saturating_sub(by_date.max(by_clock))
    }
}

/// The certificate does not count any more at that time of day.
pub(super) fn lapsed((_, until): (SystemTime, SystemTime), wall: SystemTime) -> bool {
    wall > until
}

/// It is so late in its life that the next session must not be waited for.
pub(super) fn overdue(validity: (SystemTime, SystemTime), wall: SystemTime) -> bool {
    let renewal = Renewal::new(validity, OVERDUE, wall, Duration::ZERO);
    renewal.wait(wall, Duration::ZERO).is_zero()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn day(n: u32) -> SystemTime {
        UNIX_EPOCH + 20_000 * DAY + n * DAY
    }

    #[test]
    fn what_runs_out_first_counts() {
        let valid = (day(0), day(90));
        let renewal = Renewal::new(valid, 0.5, day(10), DAY);
        let wait = |wall, steady| renewal.wait(wall, steady);
        assert_eq!(wait(day(10), DAY), 35 * DAY);
        assert_eq!(wait(day(45), 36 * DAY), Duration::ZERO);
        // The clock was set back, or stands still: 35 days have passed all the same.
        assert_eq!(wait(day(2), 11 * DAY), 25 * DAY);
        assert_eq!(wait(day(2), 36 * DAY), Duration::ZERO);
        // It was set ahead, and right again.
        assert_eq!(wait(day(80), 2 * DAY), Duration::ZERO);
        assert_eq!(wait(day(12), 3 * DAY), 33 * DAY);
        // One that is not valid yet is as good as new.
        let early = Renewal::new(valid, 0.5, UNIX_EPOCH, DAY);
        assert_eq!(early.wait(UNIX_EPOCH, DAY), 45 * DAY);
    }

    #[test]
    fn late_and_too_late() {
        let valid = (day(0), day(90));
        assert!(!overdue(valid, day(80)) && overdue(valid, day(81)));
        assert!(!lapsed(valid, day(90)) && lapsed(valid, day(91)));
        assert!(!overdue(valid, UNIX_EPOCH) && overdue(valid, day(300)));
    }
}
