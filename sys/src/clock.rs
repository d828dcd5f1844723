//! The clock of the data plane, and the time of day.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`: since boot, never backwards, not counting suspend.
/// Through the vDSO, about 25 ns.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    // Neither part is negative for this clock.
    (t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64
}

/// Nanoseconds of CPU that the calling thread has used, in the kernel too (`CLOCK_THREAD_CPUTIME_ID`).
#[must_use]
pub fn thread_cpu_nanos() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    (t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64
}

/// How long CPUs had nothing to do since boot, all of them together, in steps of 10 ms
/// (`/proc/uptime`).
///
/// # Errors
/// When the kernel does not say.
pub fn idle_time() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    idle_of(&text).ok_or_else(|| io::Error::other("/proc/uptime has another form"))
}

/// The second number.
fn idle_of(uptime: &str) -> Option<Duration> {
    let seconds: f64 = uptime.split_whitespace().nth(1)?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Milliseconds since 1970, by the clock that people set.
#[must_use]
pub fn unix_ms() -> u64 {
    unix_millis(SystemTime::now())
}

/// The same of another moment; 0 before 1970.
#[must_use]
pub fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_does_not_go_backwards() {
        let a = super::monotonic_nanos();
        let b = super::monotonic_nanos();
        assert!(b >= a && a > 0);
    }

    #[test]
    fn idle_time_is_the_second_number_and_does_not_go_backwards() {
        let idle = super::idle_of("350735.47 234388.90\n").expect("two numbers");
        assert_eq!(idle.as_millis(), 234_388_900);
        assert!(super::idle_of("350735.47").is_none());
        assert!(super::idle_of("1.0 -1.0").is_none());
        let before = super::idle_time().expect("the kernel says");
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(super::idle_time().expect("the kernel says") >= before);
    }

    #[test]
    fn the_time_of_a_thread_counts_what_it_computes_and_not_how_long_it_sleeps() {
        let begun = super::thread_cpu_nanos();
        while super::thread_cpu_nanos() < begun + 1_000_000 {
            std::hint::spin_loop();
        }
        let (before, wall) = (super::thread_cpu_nanos(), super::monotonic_nanos());
        std::thread::sleep(std::time::Duration::from_millis(50));
        let used = super::thread_cpu_nanos() - before;
        assert!(used < super::monotonic_nanos() - wall, "{used}");
    }
}
