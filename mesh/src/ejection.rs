//! Replicas that fail again and again are left out for a while.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use weft_wire::Instant;

/// Failures in a row that eject a replica.
const FAILURES: u32 = 3;
/// The first back-off; each further one is twice as long.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
/// The longest back-off.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);
/// How long a replica whose back-off is over waits for its probe. Then connections try it after
/// all: a prober that has too much to do, or is gone, keeps nobody out for ever.
const PROBED_WITHIN: Duration = Duration::from_secs(30);

/// How a connection or a probe failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Refused with a reset.
    Refused,
    /// Not answered in time.
    Silent,
}

/// A replica that is left out, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// What is left of its back-off; zero while it waits for its probe.
    pub remaining: Duration,
    /// Connections and probes that it refused since it answered last.
    pub refused: u32,
    /// Connections and probes that it did not answer since it answered last.
    pub silent: u32,
    /// It comes back by a probe; else by a connection.
    pub probed: bool,
}

/// What a replica's answers say of it, shared by all workers.
///
/// Three failures in a row eject it for a second, and for twice as long each time that it fails
/// its trial, up to a minute. The trial is one connection, which any worker may send once the
/// back-off is over; with a prober ([`Health::set_probed`]) it is the prober's word. One success
/// ends it all. How many may be out at a time is up to the balancer, which knows how many there
/// are.
#[derive(Debug, Default)]
pub struct Health {
    failures: AtomicU32,
    /// Ejections since the last success.
    in_a_row: AtomicU32,
    /// When the back-off ends; 0 for a replica that is not ejected.
    until: AtomicU64,
    trial: AtomicBool,
    probed: AtomicBool,
    /// TCP port that it answered on last; 0 for none.
    answered_on: AtomicU32,
    /// TCP port where it failed last; 0 for none.
    failed_on: AtomicU32,
    /// Failures since the last success.
    refused: AtomicU32,
    silent: AtomicU32,
    ejections: AtomicU64,
}

impl Health {
    /// Notes a connection or a probe that was refused or not answered. `random` spreads the ends
    /// of back-offs, so that nodes do not come back at once.
    pub fn note_failure(&self, now: Instant, random: u64, failure: Failure) {
        let kind = match failure {
            Failure::Refused => &self.refused,
            Failure::Silent => &self.silent,
        };
        kind.fetch_add(1, Ordering::Relaxed);
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            let failures = self.failures.fetch_add(1, Ordering::Relaxed);
            if failures.saturating_add(1) >= FAILURES {
                self.eject(until, now, random);
            }
        } else if now.0 >= until || self.trial.swap(false, Ordering::Relaxed) {
            self.eject(until, now, random);
        }
        // Else it was begun before the ejection, and says nothing new.
    }

    /// Notes a connection or a probe that was answered: the replica is as good as any other.
    pub fn note_success(&self) {
        // Shared with every worker: written only when there is something to change.
        for failures in [&self.failures, &self.refused, &self.silent] {
            if failures.load(Ordering::Relaxed) != 0 {
                failures.store(0, Ordering::Relaxed);
            }
        }
        if self.until.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
            self.trial.store(false, Ordering::Relaxed);
            self.until.store(0, Ordering::Relaxed);
        }
    }

    /// Says whether somebody probes the replica: then no connection is its trial.
    pub fn set_probed(&self, probed: bool) {
        self.probed.store(probed, Ordering::Relaxed);
    }

    /// The TCP port to probe: where it answered last, or else where it failed.
    #[must_use]
    pub fn probe_port(&self) -> Option<u16> {
        [&self.answered_on, &self.failed_on]
            .into_iter()
            .filter_map(|port| u16::try_from(port.load(Ordering::Relaxed)).ok())
            .find(|port| *port != 0)
    }

    /// The TCP port that it failed on last.
    #[must_use]
    pub fn failed_port(&self) -> Option<u16> {
        let port = self.failed_on.load(Ordering::Relaxed);
        u16::try_from(port).ok().filter(|port| *port != 0)
    }

    /// Whether it is left out and why; none when it is as good as any other.
    #[must_use]
    pub fn ejection(&self, now: Instant) -> Option<Ejection> {
        let until = Instant(self.until.load(Ordering::Relaxed));
        (until.0 != 0).then(|| Ejection {
            remaining: until.since(now),
            refused: self.refused.load(Ordering::Relaxed),
            silent: self.silent.load(Ordering::Relaxed),
            probed: self.probed.load(Ordering::Relaxed),
        })
    }

    /// True when its back-off is over and a probe may bring it back.
    #[must_use]
    pub fn needs_probe(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && now.0 >= until
    }

    /// True when it should get no new connection.
    #[must_use]
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.out_until(now).is_some()
    }

    /// How often it was ejected, since the agent started.
    #[must_use]
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// When it may come back at the earliest; none when it is not out.
    pub(crate) fn out_until(&self, now: Instant) -> Option<u64> {
        let until = self.until.load(Ordering::Relaxed);
        if until > now.0 {
            return Some(until);
        }
        (until != 0 && self.awaits_probe(until, now)).then(|| now.0.saturating_add(1))
    }

    fn awaits_probe(&self, until: u64, now: Instant) -> bool {
        self.probed.load(Ordering::Relaxed) && now.since(Instant(until)) < PROBED_WITHIN
    }

    /// A connection is sent its way. The first one after the back-off is its trial: no other
    /// follows until it has an outcome, or another back-off has passed without one.
    pub(crate) fn begin_trial(&self, now: Instant) {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 || now.0 < until || self.awaits_probe(until, now) {
            return;
        }
        let again = now.after(back_off(self.in_a_row.load(Ordering::Relaxed), 0));
        if self.replace_until(until, again) {
            self.trial.store(true, Ordering::Relaxed);
        }
    }

    /// It has answered a connection to this port.
    pub(crate) fn note_answer_on(&self, port: u16) {
        if !self.has_answered_on(port) {
            self.answered_on.store(port.into(), Ordering::Relaxed);
        }
        self.note_success();
    }

    /// It has failed a connection to this port.
    pub(crate) fn note_failure_on(&self, port: u16) {
        self.failed_on.store(port.into(), Ordering::Relaxed);
    }

    /// True when this is where it has answered last: something listens there.
    pub(crate) fn has_answered_on(&self, port: u16) -> bool {
        self.answered_on.load(Ordering::Relaxed) == u32::from(port)
    }

    fn eject(&self, before: u64, now: Instant, random: u64) {
        let in_a_row = self.in_a_row.load(Ordering::Relaxed).saturating_add(1);
        // One worker counts it, should several notice.
        if self.replace_until(before, now.after(back_off(in_a_row, random))) {
            self.in_a_row.store(in_a_row, Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn replace_until(&self, before: u64, until: Instant) -> bool {
        self.until
            .compare_exchange(before, until.0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// Back-off of the `nth` ejection in a row, less a quarter at most.
fn back_off(nth: u32, random: u64) -> Duration {
    let doubled = 1u32 << nth.saturating_sub(1).min(16);
    let full = FIRST_BACK_OFF.saturating_mul(doubled).min(LONGEST_BACK_OFF);
    let less = ((full / 4).as_nanos() * u128::from(random)) >> 64;
    full.saturating_sub(Duration::from_nanos(u64::try_from(less).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(1_000_000_000 * seconds)
    }

    fn fail(health: &Health, now: Instant, times: u32) {
        for _ in 0..times {
            health.note_failure(now, 0, Failure::Refused);
        }
    }

    #[test]
    fn three_failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let h = Health::default();
        fail(&h, at(10), 2);
        h.note_success();
        fail(&h, at(10), 2);
        assert!(!h.is_ejected(at(10)));
        fail(&h, at(10), 1);
        assert!(h.is_ejected(at(10)));
        // What was under way says nothing new.
        fail(&h, at(10), 5);
        assert_eq!(h.ejections(), 1);
        assert!(!h.is_ejected(at(11)), "the first back-off is one second");
    }

    #[test]
    fn one_trial_decides_and_back_offs_double_up_to_a_minute() {
        let h = Health::default();
        let mut now = at(10);
        fail(&h, now, 3);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            now = now.after(Duration::from_secs(seconds));
            assert!(!h.is_ejected(now) && h.needs_probe(now));
            assert!(h.is_ejected(Instant(now.0 - 1)));
            h.begin_trial(now);
            assert!(h.is_ejected(now), "no second trial");
            fail(&h, now, 3);
        }
        assert_eq!(h.ejections(), 9);
        now = now.after(Duration::from_secs(60));
        h.begin_trial(now);
        h.note_success();
        assert!(!h.is_ejected(now));
        fail(&h, now, 3);
        assert!(!h.is_ejected(now.after(Duration::from_secs(1))), "as new");
    }

    #[test]
    fn a_trial_without_an_outcome_is_followed_by_another() {
        let h = Health::default();
        fail(&h, at(10), 3);
        h.begin_trial(at(11));
        assert!(h.is_ejected(at(11)) && !h.is_ejected(at(12)));
        assert_eq!(h.ejections(), 1);
    }

    #[test]
    fn with_a_prober_only_its_word_counts() {
        let h = Health::default();
        h.set_probed(true);
        fail(&h, at(10), 3);
        assert!(!h.needs_probe(at(10)) && h.needs_probe(at(11)));
        assert!(h.is_ejected(at(40)));
        h.begin_trial(at(40));
        assert!(h.needs_probe(at(40)), "a connection is no trial");
        h.note_failure(at(40), 0, Failure::Silent);
        assert!(!h.needs_probe(at(41)) && h.needs_probe(at(42)));
        h.note_success();
        assert!(!h.is_ejected(at(42)) && !h.needs_probe(at(42)));
        assert_eq!(h.ejection(at(42)), None);
    }

    #[test]
    fn a_prober_that_does_not_come_keeps_nobody_out() {
        let h = Health::default();
        h.set_probed(true);
        fail(&h, at(10), 3);
        assert!(h.is_ejected(at(40)) && !h.is_ejected(at(41)));
        h.begin_trial(at(41));
        assert!(h.is_ejected(at(41)), "its trial is under way");
    }

    #[test]
    fn an_ejection_says_for_how_long_and_why() {
        let h = Health::default();
        fail(&h, at(10), 1);
        assert_eq!(h.ejection(at(10)), None);
        h.note_success();
        fail(&h, at(10), 2);
        h.note_failure(at(10), 0, Failure::Silent);
        let ejection = |seconds| Ejection {
            remaining: Duration::from_secs(seconds),
            refused: 2,
            silent: 1,
            probed: false,
        };
        assert_eq!(h.ejection(at(10)), Some(ejection(1)));
        assert_eq!(h.ejection(at(20)), Some(ejection(0)));
    }

    #[test]
    fn it_is_probed_where_it_answered_or_else_where_it_failed() {
        let h = Health::default();
        assert_eq!(h.probe_port(), None);
        h.note_failure_on(81);
        assert_eq!(h.probe_port(), Some(81));
        h.note_answer_on(80);
        assert_eq!(h.probe_port(), Some(80));
    }

    proptest! {
        #[test]
        fn back_offs_stay_in_range(nth: u32, random: u64) {
            let b = back_off(nth, random);
            prop_assert!(b >= FIRST_BACK_OFF * 3 / 4 && b <= LONGEST_BACK_OFF);
        }

        #[test]
        fn nothing_keeps_a_replica_out_for_longer_than_a_minute(
            events in prop::collection::vec((0u8..4, 0u64..100, any::<u64>()), 0..60)
        ) {
            let h = Health::default();
            let mut now = Instant(0);
            for (event, seconds, random) in events {
                now = now.after(Duration::from_secs(seconds));
                match event {
                    0 | 1 => h.note_failure(now, random, Failure::Refused),
                    2 => h.begin_trial(now),
                    _ => h.note_success(),
                }
                prop_assert!(!h.is_ejected(now.after(LONGEST_BACK_OFF)));
            }
            h.note_success();
            prop_assert!(!h.is_ejected(now));
        }
    }
}
