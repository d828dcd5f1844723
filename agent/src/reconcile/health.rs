//! How a task is, by what checks of it come to: docker's rules (moby, `daemon/health.go`). Time is an
//! argument, counted from the start of the task.

use std::time::Duration;

use weft_model::objects::HealthConfig;

/// How often is asked, and what a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// The first check comes with the start, not an interval after it.
    at_once: bool,
    /// From the end of one check to the next.
    interval: Duration,
    /// In its place while the start period lasts and the task was never healthy.
    start_interval: Duration,
    /// Failures do not count for so long, while it was never healthy.
    start_period: Duration,
    /// Failures in a row that count.
    retries: u32,
    /// Longest time of a check.
    pub(super) limit: Duration,
}

impl Pace {
    /// Of a port: a task is waited for without a limit here, as what it is part of has limits. Once it
    /// took connections, it takes none for a few seconds before it is left out.
    pub(super) const PORT: Self = Self {
        at_once: true,
        interval: Duration::from_secs(2),
        start_interval: Duration::from_millis(100),
        start_period: Duration::MAX,
        retries: 3,
        limit: Duration::from_secs(2),
    };

    /// Of a command, with docker's defaults where nothing is said.
    pub(super) fn of(config: &HealthConfig) -> Self {
        let or = |time: Duration, default: u64| {
            if time.is_zero() {
                Duration::from_secs(default)
            } else {
                time
            }
        };
        Self {
            at_once: false,
            interval: or(config.interval, 30),
            start_interval: or(config.start_interval, 5),
            start_period: config.start_period,
            retries: if config.retries == 0 {
                3
            } else {
                config.retries
            },
            limit: or(config.timeout, 30),
        }
    }
}

/// How a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No check has passed yet.
    Starting,
    /// The last ones that counted passed.
    Healthy,
    /// Too many failed in a row.
    Unhealthy,
}

/// The health of one task, as one sort of check sees it.
#[derive(Debug)]
pub(super) struct Health {
    pace: Pace,
    state: State,
    failures: u32,
    next: Duration,
}

impl Health {
    /// Of a task that starts, or of one that is known to have been healthy.
    pub(super) fn new(pace: Pace, known: bool) -> Self {
        let state = if known {
            State::Healthy
        } else {
            State::Starting
        };
        let mut this = Self {
            pace,
            state,
            failures: 0,
            next: Duration::ZERO,
        };
        if known || !pace.at_once {
            this.next = this.interval(Duration::ZERO);
        }
        this
    }

    /// When the next check is due.
    pub(super) fn next_check(&self) -> Duration {
        self.next
    }

    /// Takes what a check came to, and says how the task is now.
    pub(super) fn take(&mut self, begun: Duration, ended: Duration, passed: bool) -> State {
        let excused = self.state == State::Starting && begun < self.pace.start_period;
        if passed {
            self.failures = 0;
            self.state = State::Healthy;
        } else if !excused {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.pace.retries {
                self.state = State::Unhealthy;
            }
        }
        self.next = ended.saturating_add(self.interval(ended));
        self.state
    }

    fn interval(&self, now: Duration) -> Duration {
        if self.state == State::Starting && now < self.pace.start_period {
            self.pace.start_interval
        } else {
            self.pace.interval
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Checks that take a second each, until `end`: when each began, and how the task was then.
    fn run(mut health: Health, end: u64, passes: impl Fn(u64) -> bool) -> Vec<(u64, State)> {
        let mut seen = Vec::new();
        loop {
            let begun = health.next_check();
            if begun > secs(end) {
                return seen;
            }
            let passed = passes(begun.as_secs());
            let state = health.take(begun, begun + secs(1), passed);
            seen.push((begun.as_secs(), state));
        }
    }

    fn config(start_period: u64) -> HealthConfig {
        HealthConfig {
            start_period: secs(start_period),
            ..HealthConfig::shell("true")
        }
    }

    #[test]
    fn the_first_check_comes_after_an_interval_and_three_failures_count() {
        use State::{Healthy, Starting, Unhealthy};
        let health = || Health::new(Pace::of(&config(0)), false);
        let never = run(health(), 100, |_| false);
        assert_eq!(never, [(30, Starting), (61, Starting), (92, Unhealthy)]);
        let late = run(health(), 200, |at| at > 60);
        assert_eq!(late[..2], [(30, Starting), (61, Healthy)]);
        // Failures before a success are forgotten.
        let flaps = run(health(), 400, |at| at % 3 == 0);
        assert!(
            flaps.iter().all(|(_, state)| *state != Unhealthy),
            "{flaps:?}"
        );
        let breaks = run(health(), 200, |at| at < 80);
        let expected = [
            (30, Healthy),
            (61, Healthy),
            (92, Healthy),
            (123, Healthy),
            (154, Unhealthy),
            (185, Unhealthy),
        ];
        assert_eq!(breaks, expected);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_it_was_healthy() {
        use State::{Healthy, Starting, Unhealthy};
        let health = || Health::new(Pace::of(&config(20)), false);
        let never = run(health(), 100, |_| false);
        let expected = [
            (5, Starting),
            (11, Starting),
            (17, Starting),
            (23, Starting),
            (54, Starting),
            (85, Unhealthy),
        ];
        assert_eq!(never, expected);
        let once = run(health(), 120, |at| at == 5);
        let expected = [(5, Healthy), (36, Healthy), (67, Healthy), (98, Unhealthy)];
        assert_eq!(once, expected, "the interval is the usual one from then on");
    }

    #[test]
    fn what_was_healthy_stays_so_until_it_is_not() {
        let known = Health::new(Pace::of(&config(20)), true);
        assert_eq!(known.next_check(), secs(30));
        let port = Health::new(Pace::PORT, false);
        assert_eq!(port.next_check(), Duration::ZERO);
        let mut port = Health::new(Pace::PORT, true);
        let mut states = Vec::new();
        for passed in [false, false, false, true] {
            let at = port.next_check();
            states.push(port.take(at, at, passed));
        }
        let healthy = State::Healthy;
        assert_eq!(states, [healthy, healthy, State::Unhealthy, healthy]);
    }

    /// Without a limit, and ten times a second.
    #[test]
    fn a_port_is_waited_for() {
        let mut port = Health::new(Pace::PORT, false);
        for n in 0..10_000_u64 {
            let at = port.next_check();
            assert_eq!(at, Duration::from_millis(100 * n));
            assert_eq!(port.take(at, at, false), State::Starting);
        }
        let at = port.next_check();
        assert_eq!(port.take(at, at, true), State::Healthy);
        assert_eq!(port.next_check(), at + secs(2));
    }

    /// What is set counts, and times without end overflow nothing.
    #[test]
    fn what_is_set_is_kept_to() {
        let config = HealthConfig {
            interval: Duration::MAX,
            timeout: Duration::from_millis(1),
            retries: 1,
            start_interval: secs(2),
            ..config(3)
        };
        let pace = Pace::of(&config);
        assert_eq!(pace.limit, Duration::from_millis(1));
        let mut health = Health::new(pace, false);
        assert_eq!(health.next_check(), secs(2));
        assert_eq!(health.take(secs(2), secs(3), false), State::Starting);
        assert_eq!(health.next_check(), Duration::MAX);
        assert_eq!(health.take(secs(9), secs(9), false), State::Unhealthy);
    }
}
