//! How long a worker waits for its next work, learnt from the gaps it has seen, and how long it is
//! worth to look out for it.
//!
//! Whether to poll or to sleep is the ski-rental problem: to look out is the rent, a wake-up the
//! price of skis. Somebody who polls for the price of one wake-up before he sleeps never pays more
//! than twice what the best choice costs. Who knows how gaps are distributed does better: he polls
//! exactly as long as most of the next work comes, or not at all (Karlin, Li, Manasse and Owicki,
//! Empirical Studies of Competitive Spinning for a Shared-Memory Multiprocessor, SOSP 1991).

use std::time::Duration;

/// Longest gap of each class, in microseconds; what is longer is in a class of its own. Two to each
/// power of two: with one, a limit between two of them would lose half of what it allows.
const BOUNDS_US: [u64; 14] = [4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384];

const CLASSES: usize = BOUNDS_US.len();

/// Gaps that count at most; then all of them lose half of their weight.
const REMEMBERED: u64 = 256;

/// Gaps from which on the distribution is believed.
const LEARNT: u64 = 16;

/// What a wake-up is worth in time of polling. It costs the CPU its price, and the packet as much
/// latency again.
const WORTH: u64 = 2;

/// The gaps of the last rounds, those of long ago with less and less weight.
#[derive(Debug, Default)]
pub(crate) struct Rhythm {
    /// Of each class: how many, and how long together, in nanoseconds.
    gaps: [(u64, u64); CLASSES],
    /// Longer ones.
    longer: u64,
}

impl Rhythm {
    /// There was no work for so long.
    pub(crate) fn record(&mut self, gap: Duration) {
        let nanos = nanos(gap);
        match BOUNDS_US.iter().position(|us| nanos <= us * 1_000) {
            Some(class) => {
                let (count, together) = &mut self.gaps[class];
                *count += 1;
                *together += nanos;
            }
            None => self.longer += 1,
        }
        if self.total() >= REMEMBERED {
            for (count, together) in &mut self.gaps {
                // Of one gap the half is none, and takes its time along.
                *together = if *count > 1 { *together / 2 } else { 0 };
                *count /= 2;
            }
            self.longer /= 2;
        }
    }

    /// How long to poll after the last work, `limit` at most; zero when it is not worth it.
    ///
    /// Of all windows the one that saves most: the wake-ups of those gaps that end within it, less
    /// the time polled in all gaps. None is longer than twice the price of a wake-up, so the worst
    /// that a change of the rhythm can cost is bounded.
    pub(crate) fn window(&self, price: Duration, limit: Duration) -> Duration {
        let total = self.total();
        if total < LEARNT {
            return price.min(limit);
        }
        let worth = WORTH * nanos(price);
        let most = worth.min(nanos(limit));
        let (mut caught, mut polled) = (0_u64, 0_u64);
        let (mut gain, mut window) = (0_u64, 0_u64);
        for ((count, together), us) in self.gaps.iter().zip(BOUNDS_US) {
            let bound = us * 1_000;
            if bound > most {
                break;
            }
            caught += count;
            polled += together;
            let cost = polled + bound * (total - caught);
            let left = (worth * caught).saturating_sub(cost);
            if left > gain {
                (gain, window) = (left, bound);
            }
        }
        Duration::from_nanos(window)
    }

    fn total(&self) -> u64 {
        self.gaps.iter().map(|(count, _)| count).sum::<u64>() + self.longer
    }
}

/// Of times that are short: an hour is as good as for ever.
fn nanos(time: Duration) -> u64 {
    const HOUR: u64 = 3_600_000_000_000;
    u64::try_from(time.as_nanos()).unwrap_or(HOUR).min(HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    /// The window after `rounds` times these gaps, in microseconds.
    fn after(gaps_us: &[u64], rounds: usize, price_us: u64) -> u128 {
        let mut rhythm = Rhythm::default();
        for _ in 0..rounds {
            for gap in gaps_us {
                rhythm.record(micros(*gap));
            }
        }
        let window = rhythm.window(micros(price_us), micros(1_000));
        window.as_micros()
    }

    #[test]
    fn before_anything_is_known_it_polls_for_the_price_of_one_wake_up() {
        assert_eq!(after(&[], 0, 60), 60);
        assert_eq!(after(&[10_000], 15, 60), 60);
        let rhythm = Rhythm::default();
        assert_eq!(rhythm.window(micros(60), micros(50)), micros(50));
        assert_eq!(rhythm.window(micros(60), Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_steady_exchange_is_caught_by_the_smallest_window_that_does() {
        // An answer every 100 µs, of which the work takes 20.
        assert_eq!(after(&[80], 100, 60), 96);
        assert_eq!(after(&[11], 100, 60), 12);
        assert_eq!(after(&[40], 100, 25), 48);
    }

    #[test]
    fn what_would_not_be_caught_is_not_polled_for() {
        // One packet each 10 ms.
        assert_eq!(after(&[10_000], 100, 60), 0);
        assert_eq!(after(&[10_000], 100, 200), 0);
        // Just beyond twice the price.
        assert_eq!(after(&[55], 100, 25), 0);
    }

    #[test]
    fn of_bursts_the_gaps_inside_are_caught_and_the_ones_between_are_not() {
        let burst = [20, 20, 20, 20, 20, 20, 20, 20, 20, 5_000];
        assert_eq!(after(&burst, 20, 25), 24);
        // Pairs: what is polled after the second of each is not worth what the first one saves.
        assert_eq!(after(&[30, 5_000], 50, 25), 0);
        // With a dear wake-up it is.
        assert_eq!(after(&[30, 5_000], 50, 60), 32);
    }

    #[test]
    fn stragglers_do_not_widen_the_window() {
        let gaps = [10, 10, 10, 10, 10, 10, 10, 10, 90, 10_000];
        assert_eq!(after(&gaps, 20, 60), 12);
    }

    #[test]
    fn no_window_is_longer_than_twice_the_price_or_than_the_limit() {
        for price in [20, 45, 100, 200] {
            for gap in [5, 30, 60, 90, 120, 250, 380, 900] {
                let mut rhythm = Rhythm::default();
                for _ in 0..100 {
                    rhythm.record(micros(gap));
                }
                let window = rhythm.window(micros(price), micros(1_000));
                assert!(window <= micros(2 * price), "{gap} {price}");
                // It is polled for what comes within it, or not at all.
                assert!(window.is_zero() || window >= micros(gap), "{gap} {price}");
                let narrow = rhythm.window(micros(price), micros(50));
                assert!(narrow <= micros(50), "{gap} {price}");
            }
        }
    }

    #[test]
    fn an_old_rhythm_is_forgotten() {
        let mut rhythm = Rhythm::default();
        let window = |rhythm: &Rhythm| rhythm.window(micros(60), micros(1_000));
        for _ in 0..100_000 {
            rhythm.record(micros(10));
        }
        assert_eq!(window(&rhythm), micros(12));
        let mut rounds = 0;
        while !window(&rhythm).is_zero() {
            rhythm.record(micros(10_000));
            rounds += 1;
        }
        assert!(rounds < 2_048, "{rounds}");
        let mut rounds = 0;
        while window(&rhythm).is_zero() {
            rhythm.record(micros(30));
            rounds += 1;
        }
        assert!(rounds < 512, "{rounds}");
        assert!(rhythm.total() < REMEMBERED);
        // What is longer than any clock can tell is just long.
        rhythm.record(Duration::MAX);
    }
}
