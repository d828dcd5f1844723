//! `weft bench overlay`: TCP and UDP between two nodes, over weft and over what Docker Swarm uses
//! (veth, bridge and vxlan of the kernel), on labs of the same make.

mod between;
mod garbage;
mod many;
mod plan;
mod through;

use std::process::ExitCode;
use std::time::Duration;

use weft_cli::{Printer, complain};
use weft_lab::{Bed, LabConfig, Stop};

use crate::args::{BenchOverlayArgs, BenchTest};
use crate::busy::BusyLoops;
use crate::conditions::{Conditions, FastPath};
use crate::load::Way;
use crate::measure::Work;
use crate::pairs::{Pace, Test};
use crate::setting::Setting;
use crate::side::{KernelSide, OvsSide, WeftSide};
use crate::trial::Trial;
use crate::{picture, report};
use plan::Plan;

/// Ways through weft that are compared with the same other one.
type Sides<'a> = [(FastPath, Way<'a>)];

pub(crate) fn run(args: &BenchOverlayArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(args)?;
    weft_lab::gain_privileges()?;
    let mut bench = Bench {
        pace: Pace {
            pairs: args.pairs,
            length: Duration::from_secs(u64::from(args.seconds)),
        },
        stop: Stop::on_signals()?,
        busy: BusyLoops::start(args.beside)?,
        bed: Bed::default(),
        name: args.name.clone(),
        plan,
    };
    complain("building a lab of each kind, and warming up; a line comes with each pair");
    let (mut tests, mut floods) = (Vec::new(), Vec::new());
    for bed in bench.plan.beds() {
        bench.bed = *bed;
        bench.on_bed(&mut tests, &mut floods)?;
    }
    let conditions = bench.plan.conditions();
    if let Some(file) = &args.svg {
        let setting = Setting::of_now("weft bench overlay", bench.pace);
        picture::draw(&tests, &setting.under(conditions.clone()), file)?;
    }
    let report = report::render(&tests, &args.format, report::OVERLAY)?;
    let for_people = args.format.format.is_none() && !args.format.quiet;
    if for_people {
        out.line(&format!("{conditions}."))?;
        out.text(&report)?;
        out.line(&format!(
            "Medians of {} alternating pairs of {} s.",
            args.pairs, args.seconds
        ))?;
    } else {
        complain(&conditions);
        out.text(&report)?;
    }
    for flood in floods {
        if for_people {
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
    busy: Option<BusyLoops>,
    /// The one that labs stand on now.
    bed: Bed,
    /// Start of the names of all labs.
    name: String,
}

impl Bench {
    /// Everything that was asked for, on one bed.
    fn on_bed(&self, tests: &mut Vec<Test>, floods: &mut Vec<String>) -> anyhow::Result<()> {
        self.against_kernel(tests)?;
        self.against_ovs(tests)?;
        self.many(tests)?;
        floods.extend(self.flood(tests)?);
        Ok(())
    }

    /// A lab on the bed of now.
    fn lab(&self, side: &str) -> anyhow::Result<LabConfig> {
        Ok(LabConfig {
            bed: self.bed,
            ..LabConfig::new(&format!("{}-{side}", self.name))?
        })
    }

    /// The same with agents that have such a fast path.
    fn weft_lab(&self, side: &str, fast_path: FastPath) -> anyhow::Result<LabConfig> {
        Ok(LabConfig {
            agent_args: self.plan.agent_args(fast_path),
            ..self.lab(side)?
        })
    }

    /// A test that is still to be made, under the conditions of now.
    fn trial(&self, name: impl Into<String>, work: Work, against: &'static str) -> Trial<'_> {
        let conditions = Conditions {
            bed: self.bed,
            busy_loops: self.plan.busy_loops(),
            fast_path: self.plan.first_fast_path(),
        };
        Trial::new(name, work, against).under(conditions, self.busy.as_ref())
    }

    /// Measures one test on each of these sides of weft, and keeps it.
    fn measure(
        &self,
        tests: &mut Vec<Test>,
        trial: Trial<'_>,
        ours: &Sides<'_>,
        other: &Way<'_>,
    ) -> anyhow::Result<()> {
        tests.extend(trial.run_sides(self.pace, ours, other, &self.stop)?);
        Ok(())
    }

    /// weft against the kernel: from node to node, on one node, and to services.
    fn against_kernel(&self, tests: &mut Vec<Test>) -> anyhow::Result<()> {
        if !self.plan.needs_kernel() {
            return Ok(());
        }
        let mut wefts = Vec::new();
        for fast_path in self.plan.fast_paths() {
            let name = match fast_path {
                FastPath::Off => "weft",
                FastPath::Auto => "fast",
            };
            let lab = self.weft_lab(name, *fast_path)?;
            wefts.push((*fast_path, WeftSide::create(lab, &self.stop)?));
        }
        let kernel = KernelSide::create(self.lab("kernel")?, &self.stop)?;
        let ways = wefts
            .iter()
            .map(|(fast_path, weft)| (*fast_path, weft.way()));
        self.between(tests, &ways.collect::<Vec<_>>(), &kernel.way())?;
        if self.plan.has(BenchTest::Local) {
            self.one_node(tests, &wefts, &kernel)?;
        }
        self.through(tests, &wefts, &kernel)?;
        for (_, weft) in wefts {
            weft.down()?;
        }
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
        let fast_path = self.plan.first_fast_path();
        let weft = WeftSide::create(self.weft_lab("weft", fast_path)?, &self.stop)?;
        let ovs = OvsSide::create(self.lab("ovs")?, &self.stop)?;
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
            let trial = self.trial(name, work, "Open vSwitch");
            self.measure(tests, trial, &[(fast_path, weft.way())], &ovs.way())?;
        }
        ovs.down()?;
        weft.down()
    }

    fn one_node(
        &self,
        tests: &mut Vec<Test>,
        wefts: &[(FastPath, WeftSide)],
        kernel: &KernelSide,
    ) -> anyhow::Result<()> {
        let theirs = kernel.neighbour(&self.stop)?;
        let mut neighbours = Vec::new();
        for (_, weft) in wefts {
            neighbours.push(weft.neighbour(&self.stop)?);
        }
        let ours: Vec<_> = wefts
            .iter()
            .zip(&neighbours)
            .map(|((fast_path, weft), neighbour)| (*fast_path, weft.way_to(neighbour)))
            .collect();
        let control = self.plan.first_control();
        let trial = self.trial(
            format!("TCP on one node, {control}"),
            Work::streams(1, control),
            "kernel",
        );
        self.measure(tests, trial, &ours, &kernel.way_to(&theirs))
    }
}
