//! `weft bench overlay`: TCP and UDP between two nodes, over weft and over what Docker Swarm uses
//! (veth, bridge and vxlan of the kernel), on labs of the same make.

mod garbage;
mod many;
mod plan;

use std::process::ExitCode;
use std::time::Duration;

use weft_cli::{Printer, complain};
use weft_lab::Stop;

use crate::args::{BenchOverlayArgs, BenchTest};
use crate::load::{self, Way};
use crate::measure::Work;
use crate::pairs::{Pace, Test};
use crate::setting::Setting;
use crate::side::{KernelSide, OvsSide, WeftSide};
use crate::trial::Trial;
use crate::{picture, report};
use plan::Plan;

/// Bytes of data in the datagrams that are sent as fast as possible.
const PAYLOADS: [usize; 3] = [64, 512, 1400];

pub(crate) fn run(args: &BenchOverlayArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(args)?;
    weft_lab::gain_privileges()?;
    let bench = Bench {
        pace: Pace {
            pairs: args.pairs,
            length: Duration::from_secs(u64::from(args.seconds)),
        },
        stop: Stop::on_signals()?,
        name: args.name.clone(),
        plan,
    };
    complain("building a lab of each kind, and warming up; a line comes with each pair");
    let mut tests = Vec::new();
    bench.against_kernel(&mut tests)?;
    bench.against_ovs(&mut tests)?;
    bench.many(&mut tests)?;
    let flood = bench.flood(&mut tests)?;
    if let Some(file) = &args.svg {
        let setting = Setting::of_now("weft bench overlay", bench.pace);
        picture::draw(&tests, &setting, file)?;
    }
    out.text(&report::render(&tests, &args.format, report::OVERLAY)?)?;
    if args.format.format.is_none() && !args.format.quiet {
        out.line(&format!(
            "Medians of {} alternating pairs of {} s.",
            args.pairs, args.seconds
        ))?;
    }
    if let Some(flood) = flood {
        if args.format.format.is_none() && !args.format.quiet {
            out.line(&flood)?;
        } else {
            complain(&flood);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What to measure, and how.
struct Bench {
    plan: Plan,
    pace: Pace,
    stop: Stop,
    /// Start of the names of all labs.
    name: String,
}

impl Bench {
    /// Name of a lab.
    fn lab(&self, side: &str) -> String {
        format!("{}-{side}", self.name)
    }

    /// Measures one test and keeps it.
    fn measure(
        &self,
        tests: &mut Vec<Test>,
        trial: Trial,
        ways: (&Way<'_>, &Way<'_>),
    ) -> anyhow::Result<()> {
        tests.push(trial.run(self.pace, ways, &self.stop, || Ok(()))?);
        Ok(())
    }

    /// weft against the kernel, and through a virtual address against direct.
    fn against_kernel(&self, tests: &mut Vec<Test>) -> anyhow::Result<()> {
        if !self.plan.needs_kernel() {
            return Ok(());
        }
        let weft = WeftSide::create(&self.lab("weft"), &self.stop)?;
        let kernel = KernelSide::create(&self.lab("kernel"), &self.stop)?;
        self.two_nodes(tests, (&weft.way(), &kernel.way()))?;
        if self.plan.has(BenchTest::Local) {
            self.one_node(tests, &weft, &kernel)?;
        }
        if self.plan.has(BenchTest::Vip) {
            self.virtual_address(tests, &weft)?;
        }
        weft.down()?;
        kernel.down()
    }

    /// weft against another data plane in user space.
    fn against_ovs(&self, tests: &mut Vec<Test>) -> anyhow::Result<()> {
        if !self.plan.has(BenchTest::Ovs) {
            return Ok(());
        }
        if let Some(why) = OvsSide::missing() {
            complain(&format!("{why}: its tests are left out"));
            return Ok(());
        }
        let weft = WeftSide::create(&self.lab("weft"), &self.stop)?;
        let ovs = OvsSide::create(&self.lab("ovs"), &self.stop)?;
        let control = self.plan.first_control();
        for (name, work) in [
            (
                format!("TCP, one stream, {control}"),
                Work::streams(1, control),
            ),
            (
                format!("TCP, 8 streams, {control}"),
                Work::streams(8, control),
            ),
            (
                "UDP 64 B, delivered".to_owned(),
                Work::Datagrams { payload: 64 },
            ),
            (
                "UDP 64 B there and back".to_owned(),
                Work::RoundTrips { concurrent: 1 },
            ),
        ] {
            let trial = Trial::new(name, work, "Open vSwitch");
            self.measure(tests, trial, (&weft.way(), &ovs.way()))?;
        }
        ovs.down()?;
        weft.down()
    }

    fn two_nodes(&self, tests: &mut Vec<Test>, ways: (&Way<'_>, &Way<'_>)) -> anyhow::Result<()> {
        for (test, count, name) in [
            (BenchTest::Tcp1, 1, "TCP, one stream"),
            (BenchTest::Tcp8, 8, "TCP, 8 streams"),
        ] {
            if self.plan.has(test) {
                for control in self.plan.controls() {
                    let work = Work::streams(count, control);
                    let trial = Trial::new(format!("{name}, {control}"), work, "kernel");
                    self.measure(tests, trial, ways)?;
                }
            }
        }
        if self.plan.has(BenchTest::Udp) {
            for payload in PAYLOADS {
                let work = Work::Datagrams { payload };
                let trial = Trial::new(format!("UDP {payload} B, delivered"), work, "kernel");
                self.measure(tests, trial, ways)?;
            }
        }
        for (test, concurrent, name) in [
            (BenchTest::Rr, 1, "UDP 64 B there and back"),
            (BenchTest::Rr64, 64, "UDP 64 B there and back, 64 at once"),
        ] {
            if self.plan.has(test) {
                let trial = Trial::new(name, Work::RoundTrips { concurrent }, "kernel");
                self.measure(tests, trial, ways)?;
            }
        }
        if self.plan.has(BenchTest::Tasks) {
            let trial = Trial::new("TCP, tasks of 1 ms", Work::Tasks, "kernel");
            self.measure(tests, trial, ways)?;
        }
        self.iperf3(tests, ways)
    }

    fn iperf3(&self, tests: &mut Vec<Test>, ways: (&Way<'_>, &Way<'_>)) -> anyhow::Result<()> {
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
            let trial = Trial::new(name, Work::Iperf3 { count, control }, "kernel");
            self.measure(tests, trial, ways)?;
        }
        Ok(())
    }

    fn one_node(
        &self,
        tests: &mut Vec<Test>,
        weft: &WeftSide,
        kernel: &KernelSide,
    ) -> anyhow::Result<()> {
        let (ours, theirs) = (weft.neighbour(&self.stop)?, kernel.neighbour(&self.stop)?);
        let control = self.plan.first_control();
        let trial = Trial::new(
            format!("TCP on one node, {control}"),
            Work::streams(1, control),
            "kernel",
        );
        let ways = (&weft.way_to(&ours), &kernel.way_to(&theirs));
        self.measure(tests, trial, ways)
    }

    fn virtual_address(&self, tests: &mut Vec<Test>, weft: &WeftSide) -> anyhow::Result<()> {
        let (replica, vip) = weft.service(&self.stop)?;
        let control = self.plan.first_control();
        let trial = Trial::new(
            format!("TCP through a VIP, {control}"),
            Work::streams(1, control),
            "direct",
        );
        // To the same replica: another sandbox may belong to another worker.
        let ways = (&weft.way_through(&replica, vip), &weft.way_to(&replica));
        self.measure(tests, trial, ways)
    }
}
