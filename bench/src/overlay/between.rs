//! weft against the kernel, from one node to the other.

use weft_cli::complain;

use super::{Bench, Sides};
use crate::args::BenchTest;
use crate::load::{self, Way};
use crate::measure::Work;
use crate::pairs::{Test, WARM_UP, shown};

/// Bytes of data in the datagrams that are sent as fast as possible.
const PAYLOADS: [usize; 3] = [64, 512, 1400];

impl Bench {
    /// All of these tests that were asked for.
    pub(super) fn between(
        &self,
        tests: &mut Vec<Test>,
        ours: &Sides<'_>,
        kernel: &Way<'_>,
    ) -> anyhow::Result<()> {
        for (test, count, name) in [
            (BenchTest::Tcp1, 1, "TCP, one stream"),
            (BenchTest::Tcp8, 8, "TCP, 8 streams"),
        ] {
            if self.plan.has(test) {
                for control in self.plan.controls() {
                    let work = Work::streams(count, control);
                    let trial = self.trial(format!("{name}, {control}"), work, "kernel");
                    self.measure(tests, trial, ours, kernel)?;
                }
            }
        }
        if self.plan.has(BenchTest::Half) {
            self.half_load(tests, ours, kernel)?;
        }
        if self.plan.has(BenchTest::Udp) {
            for payload in PAYLOADS {
                let work = Work::Datagrams { payload };
                let trial = self.trial(format!("UDP {payload} B, delivered"), work, "kernel");
                self.measure(tests, trial, ours, kernel)?;
            }
        }
        let trips = |concurrent| Work::RoundTrips { concurrent };
        for (test, work, name) in [
            (BenchTest::Rr, trips(1), "UDP 64 B there and back"),
            (
                BenchTest::Rr64,
                trips(64),
                "UDP 64 B there and back, 64 at once",
            ),
            (BenchTest::TcpRr, Work::Kept, "TCP 64 B there and back"),
            (BenchTest::Tasks, Work::Tasks, "TCP, tasks of 1 ms"),
        ] {
            if self.plan.has(test) {
                self.measure(tests, self.trial(name, work, "kernel"), ours, kernel)?;
            }
        }
        self.iperf3(tests, ours, kernel)
    }

    /// One stream at half of what the kernel carries now. Where a side is faster than that, what
    /// counts is what it costs and who waits beside it.
    fn half_load(
        &self,
        tests: &mut Vec<Test>,
        ours: &Sides<'_>,
        kernel: &Way<'_>,
    ) -> anyhow::Result<()> {
        let control = self.plan.first_control();
        let full = Work::streams(1, control);
        // The first one warms up.
        full.measure(kernel, WARM_UP)?;
        let rate = full.measure(kernel, WARM_UP)?.rate / 2.0;
        complain(&format!("half load is {} Gbit/s", shown(rate, "Gbit/s")));
        let work = Work::Paced {
            control: control.to_owned(),
            bits_per_second: rate as u64,
        };
        let trial = self.trial(format!("TCP at half load, {control}"), work, "kernel");
        self.measure(tests, trial, ours, kernel)
    }

    fn iperf3(
        &self,
        tests: &mut Vec<Test>,
        ours: &Sides<'_>,
        kernel: &Way<'_>,
    ) -> anyhow::Result<()> {
        if !self.plan.has(BenchTest::Iperf3) {
            return Ok(());
        }
        if !load::has_iperf3() {
            complain("iperf3 is not installed: its tests are left out");
            return Ok(());
        }
        for (count, name) in [(1, "one stream"), (8, "8 streams")] {
            let control = self.plan.first_control().to_owned();
            let name = format!("iperf3, {name}, {control}");
            let trial = self.trial(name, Work::Iperf3 { count, control }, "kernel");
            self.measure(tests, trial, ours, kernel)?;
        }
        Ok(())
    }
}
