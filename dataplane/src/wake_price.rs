//! What it costs to wake a worker, measured before the workers start: the time from a call on one
//! CPU until a thread that slept on another one runs. From outside it cannot be seen later, as nobody
//! tells a worker when its packet came.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weft_sys::affinity::pin;
use weft_sys::clock::monotonic_nanos;
use weft_sys::epoll::Epoll;
use weft_sys::event::Wakeup;

/// Calls of all measurements together.
const CALLS: usize = 32;
/// Calls of one CPU, at least: the first one finds a thread that has not slept yet.
const LEAST_CALLS: usize = 4;
/// All measurements together take no longer.
const TIME: Duration = Duration::from_millis(5);
/// What a wake-up costs at least: less is measured where the caller shares the CPU or it never
/// idles, and the latency of a packet is worth that much.
const LEAST: Duration = Duration::from_micros(20);
/// And at most: more is a busy machine, not its price.
const MOST: Duration = Duration::from_micros(200);
/// Where it could not be measured.
const ASSUMED: Duration = Duration::from_micros(50);

/// The price of a wake-up on each of `cpus`. Those that the time does not suffice for get the median
/// of the others.
pub(crate) fn measure(cpus: &[usize]) -> Vec<Duration> {
    let deadline = monotonic_nanos().saturating_add(nanos(TIME));
    let calls = (CALLS / cpus.len().max(1)).max(LEAST_CALLS);
    let medians: Vec<Option<u64>> = cpus
        .iter()
        .enumerate()
        .map(|(i, cpu)| {
            let caller = cpus[(i + 1) % cpus.len()];
            median(called(*cpu, caller, calls, deadline))
        })
        .collect();
    prices(&medians)
}

/// A price for each measurement, in nanoseconds, that came to something or not.
fn prices(medians: &[Option<u64>]) -> Vec<Duration> {
    let common = median(medians.iter().copied().flatten().collect());
    let price = |nanos: &Option<u64>| {
        let nanos = nanos.or(common);
        nanos.map_or(ASSUMED, |n| Duration::from_nanos(n).clamp(LEAST, MOST))
    };
    medians.iter().map(price).collect()
}

fn median(mut times: Vec<u64>) -> Option<u64> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// How long each call took, in nanoseconds, until a thread on `cpu` ran; none when a thread cannot be
/// where it should be.
fn called(cpu: usize, caller: usize, calls: usize, deadline: u64) -> Vec<u64> {
    let (Ok(call), Ok(answer)) = (Wakeup::new(), Wakeup::new()) else {
        return Vec::new();
    };
    let called_at = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| -> io::Result<Vec<u64>> {
            pin(cpu)?;
            let mut sleep = Sleep::until(&call, deadline)?;
            let mut times = Vec::with_capacity(calls);
            while times.len() < calls && sleep.woken()? {
                let took = monotonic_nanos().saturating_sub(called_at.load(Ordering::Acquire));
                times.push(took);
                call.drain();
                answer.notify();
            }
            Ok(times)
        });
        let caller = scope.spawn(|| -> io::Result<()> {
            pin(caller)?;
            let mut sleep = Sleep::until(&answer, deadline)?;
            for _ in 0..calls {
                called_at.store(monotonic_nanos(), Ordering::Release);
                call.notify();
                // Its own way out of sleep gives the other thread time to fall asleep.
                if !sleep.woken()? {
                    break;
                }
                answer.drain();
            }
            Ok(())
        });
        let heard = caller.join().is_ok_and(|ended| ended.is_ok());
        match sleeper.join() {
            Ok(Ok(times)) if heard => times,
            _ => Vec::new(),
        }
    })
}

/// A thread that sleeps until it is called, or the time is over.
struct Sleep {
    epoll: Epoll,
    deadline: u64,
}

impl Sleep {
    fn until(wakeup: &Wakeup, deadline: u64) -> io::Result<Self> {
        let epoll = Epoll::new(1)?;
        epoll.add(wakeup, 0)?;
        Ok(Self { epoll, deadline })
    }

    /// False when the time is over.
    fn woken(&mut self) -> io::Result<bool> {
        let left = self.deadline.saturating_sub(monotonic_nanos());
        if left == 0 {
            return Ok(false);
        }
        let mut ready = self.epoll.wait(Some(Duration::from_nanos(left)))?;
        Ok(ready.next().is_some())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use weft_sys::affinity::allowed;

    use super::*;

    #[test]
    fn a_price_is_the_median_within_bounds_or_that_of_the_others() {
        let micros = Duration::from_micros;
        assert_eq!(median(vec![9, 1, 5]), Some(5));
        assert_eq!(median(Vec::new()), None);
        let found = [Some(60_000), None, Some(1_000), Some(9_000_000)];
        assert_eq!(
            prices(&found),
            [micros(60), micros(60), micros(20), micros(200)]
        );
        assert_eq!(prices(&[None, None]), [ASSUMED, ASSUMED]);
        assert!(prices(&[]).is_empty());
    }

    #[test]
    fn every_cpu_has_a_price_and_one_that_does_not_exist_is_no_obstacle() {
        let mut cpus = allowed().expect("CPUs");
        cpus.truncate(2);
        cpus.push(usize::MAX);
        let found = measure(&cpus);
        assert_eq!(found.len(), cpus.len());
        for price in found {
            assert!((LEAST..=MOST).contains(&price), "{price:?}");
        }
        assert!(measure(&[]).is_empty());
    }

    #[test]
    fn no_time_is_no_measurement() {
        let cpu = allowed().expect("CPUs")[0];
        assert!(called(cpu, cpu, 4, monotonic_nanos()).is_empty());
    }
}
