//! How old things are, by two clocks.
//!
//! A file carries the time of day at which it was written. People and NTP set that clock by hours:
//! output of a task that ended a minute ago would be a day old, or one of last year young for ever.
//! So the time of day only says how old something was when this process saw it first; from then on
//! a clock counts that nobody sets.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// What was seen, and how old it was then.
#[derive(Debug)]
pub(super) struct Ages<K>(BTreeMap<K, Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Another stamp is another thing.
    stamp: SystemTime,
    age: Duration,
    /// The steady clock then.
    at: Duration,
}

impl<K> Default for Ages<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Ages<K> {
    /// Ages of what is there, each with its stamp. `wall` is the time of day, `steady` the time since
    /// some fixed moment on a clock that is never set. What is not there any more is forgotten.
    pub(super) fn look(
        &mut self,
        there: &[(SystemTime, K)],
        wall: SystemTime,
        steady: Duration,
    ) -> Vec<Duration> {
        let mut earlier = std::mem::take(&mut self.0);
        let mut ages = Vec::with_capacity(there.len());
        for (stamp, key) in there {
            let known = earlier.remove(key).filter(|seen| seen.stamp == *stamp);
            let seen = known.unwrap_or(Seen {
                stamp: *stamp,
                // A stamp from the future was made before the clock was set back.
                age: wall.duration_since(*stamp).unwrap_or_default(),
                at: steady,
            });
            ages.push(seen.age.saturating_add(steady.saturating_sub(seen.at)));
            self.0.insert(key.clone(), seen);
        }
        ages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_counts_once() {
        const HOUR: Duration = Duration::from_secs(3600);
        let mut ages = Ages::default();
        let noon = SystemTime::UNIX_EPOCH + HOUR * 500_000;
        let mut age = |stamp, wall, hours: u32| {
            let ages = ages.look(&[(stamp, "it")], wall, HOUR * hours);
            ages.first().copied().unwrap_or_default()
        };
        assert_eq!(age(noon, noon + HOUR, 0), HOUR);
        for wall in [noon + HOUR * 9000, noon - HOUR * 9000] {
            assert_eq!(age(noon, wall, 2), HOUR * 3, "{wall:?}");
        }
        // It was written again, with a clock that was set back since.
        assert_eq!(age(noon + HOUR, noon, 5), Duration::ZERO);
        assert_eq!(age(noon + HOUR, noon, 30), HOUR * 25);
    }
}
