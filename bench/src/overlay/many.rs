//! weft against itself: with many endpoints, and with many flows.

use std::time::{Duration, Instant};

use anyhow::bail;
use weft_cli::complain;

use super::Bench;
use crate::args::BenchTest;
use crate::load::Crowd;
use crate::measure::Work;
use crate::pairs::Test;
use crate::side::WeftSide;

/// Numbers of endpoints on the client's node.
const ENDPOINTS: [usize; 2] = [100, 1000];

/// Number of flows through the virtual address.
const FLOWS: usize = 100_000;

/// Share of the flows that is enough: a few datagrams may be lost on their way.
const ENOUGH: f64 = 0.98;

/// How long it may take until they are open.
const LIMIT: Duration = Duration::from_secs(60);

impl Bench {
    /// The tests that compare weft with itself; each side has a lab of its own.
    pub(super) fn many(&self, tests: &mut Vec<Test>) -> anyhow::Result<()> {
        let (endpoints, flows) = (BenchTest::Endpoints, BenchTest::Flows);
        if !self.plan.has(endpoints) && !self.plan.has(flows) {
            return Ok(());
        }
        let side = |name| {
            let lab = self.weft_lab(name, self.plan.first_fast_path())?;
            WeftSide::create(lab, &self.stop)
        };
        let one = side("one")?;
        if self.plan.has(flows) {
            let many = side("flows")?;
            self.flows(tests, &many, &one)?;
            many.down()?;
        }
        if self.plan.has(endpoints) {
            let many = side("endpoints")?;
            for count in ENDPOINTS {
                let begun = Instant::now();
                many.fill(count, &self.stop)?;
                complain(&format!(
                    "{count} endpoints after {:.1} s",
                    begun.elapsed().as_secs_f64()
                ));
                self.endpoints(tests, count, (&many, &one))?;
            }
            many.down()?;
        }
        one.down()
    }

    fn endpoints(
        &self,
        tests: &mut Vec<Test>,
        count: usize,
        (many, one): (&WeftSide, &WeftSide),
    ) -> anyhow::Result<()> {
        let control = self.plan.first_control();
        for (name, work) in [
            ("at rest", Work::Rest),
            ("TCP", Work::streams(1, control)),
            ("UDP 64 B", Work::Datagrams { payload: 64 }),
        ] {
            let trial = self.trial(format!("{count} endpoints, {name}"), work, "1 endpoint");
            let many = [(self.plan.first_fast_path(), many.way())];
            self.measure(tests, trial, &many, &one.way())?;
        }
        Ok(())
    }

    fn flows(&self, tests: &mut Vec<Test>, many: &WeftSide, one: &WeftSide) -> anyhow::Result<()> {
        let (our_replica, our_vip) = many.service(&self.stop)?;
        let (their_replica, their_vip) = one.service(&self.stop)?;
        let ours = many.way_through(&our_replica, our_vip);
        let theirs = one.way_through(&their_replica, their_vip);
        let crowd = Crowd::new(&ours, FLOWS)?;
        let deadline = Instant::now() + LIMIT;
        loop {
            self.stop.going_on()?;
            crowd.send(&ours)?;
            let open = many.open_flows()?;
            if open as f64 >= FLOWS as f64 * ENOUGH {
                complain(&format!("{open} flows are open"));
                break;
            }
            if Instant::now() > deadline {
                bail!(
                    "only {open} of {FLOWS} flows are open after {} s",
                    LIMIT.as_secs()
                );
            }
        }
        let control = self.plan.first_control();
        for (name, work) in [
            ("TCP", Work::streams(1, control)),
            (
                "UDP 64 B there and back",
                Work::RoundTrips { concurrent: 1 },
            ),
        ] {
            let trial = self.trial(format!("{FLOWS} flows, {name}"), work, "1 flow");
            // Datagram flows are forgotten when they are idle, so they are used before each run.
            let again = || crowd.send(&ours);
            tests.push(trial.run(self.pace, (&ours, &theirs), &self.stop, again)?);
        }
        Ok(())
    }
}
