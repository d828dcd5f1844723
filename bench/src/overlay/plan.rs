//! Which tests to run.

use anyhow::bail;

use crate::args::{BenchOverlayArgs, BenchTest};

/// What this kernel can use.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// Tests that run when nobody says which: a few minutes.
const USUAL: &[BenchTest] = &[
    BenchTest::Tcp1,
    BenchTest::Tcp8,
    BenchTest::Udp,
    BenchTest::Rr,
    BenchTest::Rr64,
    BenchTest::Tasks,
    BenchTest::Local,
    BenchTest::Vip,
];

/// The tests and congestion controls that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    tests: Vec<BenchTest>,
    controls: Vec<String>,
}

impl Plan {
    pub(super) fn new(args: &BenchOverlayArgs) -> anyhow::Result<Self> {
        let available = std::fs::read_to_string(AVAILABLE)?;
        Self::with(&args.only, &args.congestion, &available)
    }

    fn with(only: &[BenchTest], wanted: &[String], available: &str) -> anyhow::Result<Self> {
        let available: Vec<&str> = available.split_ascii_whitespace().collect();
        for name in wanted {
            if !available.contains(&name.as_str()) {
                bail!(
                    "this kernel has no congestion control {name:?}: it has {}; more may come with `modprobe tcp_{name}`",
                    available.join(", ")
                );
            }
        }
        let mut controls = wanted.to_vec();
        if controls.is_empty() {
            let usual = ["cubic", "bbr"].into_iter();
            controls.extend(
                usual
                    .filter(|name| available.contains(name))
                    .map(str::to_owned),
            );
        }
        if controls.is_empty() {
            bail!(
                "this kernel has neither cubic nor bbr: choose from {} with --cc",
                available.join(", ")
            );
        }
        Ok(Self {
            tests: if only.is_empty() { USUAL } else { only }.to_vec(),
            controls,
        })
    }

    /// True when the test was asked for.
    pub(super) fn has(&self, test: BenchTest) -> bool {
        self.tests.contains(&test) || self.tests.contains(&BenchTest::All)
    }

    /// True when a test has the kernel on the other side, or runs in the same lab.
    pub(super) fn needs_kernel(&self) -> bool {
        let alone = [
            BenchTest::Endpoints,
            BenchTest::Flows,
            BenchTest::Flood,
            BenchTest::Ovs,
        ];
        !self.tests.iter().all(|test| alone.contains(test))
    }

    /// Congestion controls of the tests that are about them.
    pub(super) fn controls(&self) -> impl Iterator<Item = &str> {
        self.controls.iter().map(String::as_str)
    }

    /// The one of tests that are about something else.
    pub(super) fn first_control(&self) -> &str {
        self.controls.first().map_or("cubic", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(only: &[BenchTest], wanted: &[&str]) -> anyhow::Result<Plan> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        Plan::with(only, &wanted, "reno bbr cubic\n")
    }

    #[test]
    fn the_usual_ones_leave_out_what_takes_long() {
        let usual = plan(&[], &[]).unwrap();
        assert!(usual.has(BenchTest::Tcp8) && usual.has(BenchTest::Vip));
        assert!(!usual.has(BenchTest::Endpoints) && !usual.has(BenchTest::Flows));
        assert!(!usual.has(BenchTest::Flood));
        assert_eq!(usual.controls().collect::<Vec<_>>(), ["cubic", "bbr"]);
        assert_eq!(usual.first_control(), "cubic");
    }

    #[test]
    fn only_what_was_named_or_all() {
        let some = plan(&[BenchTest::Udp, BenchTest::Flows], &["reno"]).unwrap();
        assert!(some.has(BenchTest::Udp) && some.has(BenchTest::Flows));
        assert!(!some.has(BenchTest::Tcp1));
        assert_eq!(some.first_control(), "reno");
        assert!(some.needs_kernel());
        for alone in [BenchTest::Endpoints, BenchTest::Flood] {
            assert!(!plan(&[alone], &[]).unwrap().needs_kernel());
        }
        let all = plan(&[BenchTest::All], &[]).unwrap();
        assert!(all.has(BenchTest::Endpoints) && all.has(BenchTest::Tcp1));
    }

    #[test]
    fn what_the_kernel_has_not_is_refused() {
        let error = plan(&[], &["vegas"]).unwrap_err().to_string();
        assert!(error.contains("it has reno, bbr, cubic"), "{error}");
        assert!(error.contains("modprobe tcp_vegas"), "{error}");
        let error = Plan::with(&[], &[], "reno").unwrap_err().to_string();
        assert!(error.contains("choose from reno with --cc"), "{error}");
    }
}
