//! weft against itself, while somebody who is no node floods the receiver's VXLAN port.

use std::time::Duration;

use super::Bench;
use crate::args::BenchTest;
use crate::load::Garbage;
use crate::measure::Work;
use crate::pairs::Test;
use crate::side::{Dropped, WeftSide};

/// What waits in the receiver's socket is counted a moment after it was sent.
const SETTLE: Duration = Duration::from_millis(200);

impl Bench {
    /// One TCP stream under a flood, and the sentence about the flood itself.
    pub(super) fn flood(&self, tests: &mut Vec<Test>) -> anyhow::Result<Option<String>> {
        if !self.plan.has(BenchTest::Flood) {
            return Ok(None);
        }
        let lab = self.weft_lab("flood", self.plan.first_fast_path())?;
        let side = WeftSide::create(lab, &self.stop)?;
        let garbage = side.garbage()?;
        let before = side.dropped()?;
        let control = self.plan.first_control();
        let trial = self.trial(
            format!("TCP under a flood, {control}"),
            Work::streams(1, control),
            "no flood",
        );
        let ways = (&side.way(), &side.way());
        tests.push(trial.run(self.pace, ways, &self.stop, || garbage.start())?);
        std::thread::sleep(SETTLE);
        let told = told(&garbage, &side.dropped()?.since(&before));
        drop(garbage);
        side.down()?;
        Ok(Some(told))
    }
}

/// How many there were, and where they ended.
fn told(garbage: &Garbage, dropped: &Dropped) -> String {
    let (sent, took) = garbage.sent();
    let per_second = sent as f64 / took.as_secs_f64();
    let mut text = format!("Flood: {per_second:.0} datagrams/s, {sent} in all; dropped by weft: ");
    for (reason, packets) in &dropped.by_weft {
        text.push_str(&format!("{reason} {packets}, "));
    }
    let by_weft: u64 = dropped.by_weft.values().sum();
    let rest = sent.saturating_sub(by_weft + dropped.by_socket);
    text.push_str(&format!(
        "by the kernel at the full socket: {}, elsewhere: {rest}.",
        dropped.by_socket
    ));
    text
}
