//! How much the node's tasks wait for it: between equally loaded replicas, the balancers of all
//! nodes prefer the one on the node with less pressure.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks: the kernel's shortest average is over ten seconds.
const PERIOD: Duration = Duration::from_secs(10);
/// Pressures below one percent are not told: they break no tie.
const NONE: u16 = 100;

/// Pressure stall information of the kernel (Documentation/accounting/psi.rst).
#[derive(Debug)]
pub(super) struct Pressure {
    dir: PathBuf,
    looked: Option<Instant>,
    last: Option<u16>,
}

impl Default for Pressure {
    fn default() -> Self {
        Self::at(Path::new("/proc/pressure"))
    }
}

impl Pressure {
    fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            looked: None,
            last: None,
        }
    }

    /// Share of the last ten seconds that some task waited for CPU, memory or I/O, the worst of
    /// them, in hundredths of a percent. To the power of two below, so that it seldom changes; none
    /// below one percent, or where the kernel does not say. Looks again after [`PERIOD`].
    pub(super) fn at_time(&mut self, now: Instant) -> Option<u16> {
        if self.looked.is_none_or(|last| now - last >= PERIOD) {
            self.looked = Some(now);
            self.last = ["cpu", "memory", "io"]
                .iter()
                .filter_map(|of| some_avg10(&std::fs::read_to_string(self.dir.join(of)).ok()?))
                .max()
                .filter(|pressure| *pressure >= NONE)
                .map(|pressure| 1 << pressure.ilog2());
        }
        self.last
    }
}

/// `some avg10=1.53 avg60=…`
fn some_avg10(text: &str) -> Option<u16> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("avg10="))?;
    let percent: f64 = value.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped before"
    )]
    let hundredths = (percent.clamp(0.0, 100.0) * 100.0) as u16;
    Some(hundredths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_counts_in_steps_and_little_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |of: &str, avg10: &str| {
            let text = format!(
                "some avg10={avg10} avg60=99.00 avg300=1.00 total=7\nfull avg10=88.00 avg60=0.00\n"
            );
            std::fs::write(dir.path().join(of), text).unwrap();
        };
        let start = Instant::now();
        let mut pressure = Pressure::at(dir.path());
        assert_eq!(pressure.at_time(start), None, "an old kernel");
        write("cpu", "0.99");
        assert_eq!(pressure.at_time(start + PERIOD), None);
        write("io", "12.34");
        assert_eq!(pressure.at_time(start + PERIOD), None, "not yet");
        assert_eq!(pressure.at_time(start + 2 * PERIOD), Some(1024));
        write("io", "nonsense");
        write("memory", "100.00");
        assert_eq!(pressure.at_time(start + 3 * PERIOD), Some(8192));
    }
}
