//! The clock of the data plane.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`: since boot, never backwards, not counting suspend.
/// Through the vDSO, about 25 ns.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    // Neither part is negative for this clock.
    (t.tv_sec as u64) * 1_000_000_000 + t.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_does_not_go_backwards() {
        let a = super::monotonic_nanos();
        let b = super::monotonic_nanos();
        assert!(b >= a && a > 0);
    }
}
