//! `weft bench builds`: two builds of weft, each in labs of its own, under the same load of this
//! process. For the question that a change raises: is it slower? Pairs alternate, and the answer is
//! the median of their ratios with the interval that it is known to.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use weft_cli::{Printer, complain};
use weft_lab::{LabConfig, Stop};

use crate::args::{BenchBuildsArgs, BuildsTest};
use crate::load::Way;
use crate::measure::Work;
use crate::mesh::{self, Cluster, Load};
use crate::pairs::{Pace, Test, WARM_UP};
use crate::report;
use crate::side::WeftSide;
use crate::trial::Trial;

/// What rows are called that have the other build on the other side.
const OTHER: &str = "other build";

/// Connections at once through a published port.
const CONNECTIONS: u64 = 10_000;

pub(crate) fn run(args: &BenchBuildsArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    mesh::check_control(Some(&args.congestion))?;
    let other = args.other.canonicalize();
    let other = other.with_context(|| format!("no program {}", args.other.display()))?;
    let versions = [version(&std::env::current_exe()?)?, version(&other)?];
    weft_lab::gain_privileges()?;
    let bench = Bench {
        args,
        other,
        pace: Pace {
            pairs: args.pairs,
            length: Duration::from_secs(u64::from(args.seconds)),
        },
        stop: Stop::on_signals()?,
    };
    complain("building two labs, and warming up; a line comes with each pair");
    let mut tests = Vec::new();
    for _ in 0..args.labs {
        let mut more = Vec::new();
        bench.between_nodes(&mut more)?;
        bench.outward(&mut more)?;
        bench.published(&mut more)?;
        add(&mut tests, more);
    }
    out.text(&report::render(&tests, &args.format, report::BUILDS)?)?;
    if args.format.format.is_none() && !args.format.quiet {
        out.line(&format!(
            "{} against {} ({}), {} alternating pairs of {} s in each of {} labs, {}.",
            versions[0],
            versions[1],
            bench.other.display(),
            args.pairs,
            args.seconds,
            args.labs,
            args.congestion
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds the runs of other labs to those of the same tests.
fn add(tests: &mut Vec<Test>, more: Vec<Test>) {
    for test in more {
        match tests.iter_mut().find(|known| known.name == test.name) {
            Some(known) => {
                known.weft.extend(test.weft);
                known.other.extend(test.other);
            }
            None => tests.push(test),
        }
    }
}

/// What a program says that it is. Something that is no weft is found here, not in a lab.
fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be run", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let said = said.trim();
    if !output.status.success() || !said.starts_with("weft ") {
        bail!(
            "{} is no weft: name the program of another build, such as target/release/weft of another checkout",
            program.display()
        );
    }
    Ok(said.to_owned())
}

struct Bench<'a> {
    args: &'a BenchBuildsArgs,
    other: PathBuf,
    pace: Pace,
    stop: Stop,
}

impl Bench<'_> {
    fn has(&self, test: BuildsTest) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&test)
    }

    /// Labs of both builds.
    fn labs(&self, kind: &str) -> anyhow::Result<[LabConfig; 2]> {
        let ours = LabConfig::new(&format!("{}-{kind}-this", self.args.name))?;
        let other = LabConfig::new(&format!("{}-{kind}-other", self.args.name))?;
        let theirs = LabConfig {
            program: self.other.clone(),
            ..other
        };
        Ok([ours, theirs])
    }

    fn measure(
        &self,
        tests: &mut Vec<Test>,
        (name, work): (&str, Work),
        ways: (&Way<'_>, &Way<'_>),
    ) -> anyhow::Result<()> {
        let trial = Trial::new(name, work, OTHER);
        tests.push(trial.run(self.pace, ways, &self.stop, || Ok(()))?);
        Ok(())
    }

    fn between_nodes(&self, tests: &mut Vec<Test>) -> anyhow::Result<()> {
        use BuildsTest::{Rr, Tcp, Udp, Vip};
        if ![Tcp, Udp, Rr, Vip].into_iter().any(|test| self.has(test)) {
            return Ok(());
        }
        let [ours, theirs] = self.labs("overlay")?;
        let ours = WeftSide::of(ours, true, &self.stop)?;
        let theirs = WeftSide::of(theirs, true, &self.stop)?;
        let stream = Work::streams(1, &self.args.congestion);
        for (test, name, work) in [
            (Tcp, "TCP, one stream", stream.clone()),
            (Udp, "UDP 64 B", Work::Datagrams { payload: 64 }),
            (Rr, "UDP there and back", Work::RoundTrips { concurrent: 1 }),
        ] {
            if self.has(test) {
                self.measure(tests, (name, work), (&ours.way(), &theirs.way()))?;
            }
        }
        if self.has(Vip) {
            let (ours_replica, ours_vip) = ours.service(&self.stop)?;
            let (theirs_replica, theirs_vip) = theirs.service(&self.stop)?;
            let ways = (
                &ours.way_through(&ours_replica, ours_vip),
                &theirs.way_through(&theirs_replica, theirs_vip),
            );
            self.measure(tests, ("TCP through a VIP", stream), ways)?;
        }
        ours.down()?;
        theirs.down()
    }

    fn outward(&self, tests: &mut Vec<Test>) -> anyhow::Result<()> {
        if !self.has(BuildsTest::Egress) {
            return Ok(());
        }
        let [ours, theirs] = self.labs("egress")?;
        let ours = WeftSide::of(ours, false, &self.stop)?;
        let theirs = WeftSide::of(theirs, false, &self.stop)?;
        let (near, far) = (ours.outside()?, theirs.outside()?);
        let ways = (
            &ours.way_out(&near, &self.stop)?,
            &theirs.way_out(&far, &self.stop)?,
        );
        let stream = Work::streams(1, &self.args.congestion);
        self.measure(tests, ("TCP to the outside", stream), ways)?;
        drop((near, far));
        ours.down()?;
        theirs.down()
    }

    fn published(&self, tests: &mut Vec<Test>) -> anyhow::Result<()> {
        let wanted: Vec<(&str, Load)> = [
            (BuildsTest::Connections, "connections", Load::Connections),
            (BuildsTest::Keepalive, "kept connections", Load::Kept),
            (BuildsTest::Bulk, "published, one stream", Load::Streams(1)),
        ]
        .into_iter()
        .filter(|(test, ..)| self.has(*test))
        .map(|(_, name, load)| (name, load))
        .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let control = Some(self.args.congestion.as_str());
        let [ours, theirs] = self
            .labs("mesh")?
            .map(|lab| Cluster::create(lab, "frame", (&[], CONNECTIONS), control, &self.stop));
        let (ours, theirs) = (ours?, theirs?);
        for (name, load) in wanted {
            let run = |cluster: &Cluster, length| load.measure(&cluster.weft(), length, &self.stop);
            run(&ours, WARM_UP)?;
            run(&theirs, WARM_UP)?;
            let test = Test::new(name, load.meaning(), OTHER);
            let (this, that) = (|length| run(&ours, length), |length| run(&theirs, length));
            tests.push(test.run_both(self.pace, &self.stop, this, that)?);
        }
        ours.down()?;
        theirs.down()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_all_labs_count_as_pairs_of_one_test() {
        let run = |rate| crate::run::Run {
            rate,
            ..Default::default()
        };
        let lab = |rate| {
            let mut test = Test::new("TCP", Work::streams(1, "bbr").meaning(), OTHER);
            (test.weft, test.other) = (vec![run(rate)], vec![run(1.0)]);
            test
        };
        let mut tests = Vec::new();
        add(&mut tests, vec![lab(2.0)]);
        add(
            &mut tests,
            vec![lab(3.0), Test::new("UDP", Work::Rest.meaning(), OTHER)],
        );
        let rates: Vec<f64> = tests[0].weft.iter().map(|run| run.rate).collect();
        assert_eq!((tests.len(), rates), (2, vec![2.0, 3.0]));
        assert_eq!(tests[0].other.len(), 2);
    }

    #[test]
    fn something_else_is_no_build() {
        let error = version(Path::new("/bin/true")).unwrap_err().to_string();
        assert!(error.contains("/bin/true is no weft"), "{error}");
        let error = version(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("cannot be run"), "{error}");
    }
}
