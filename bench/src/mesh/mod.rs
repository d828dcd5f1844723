//! `weft bench mesh`: the same replicas on the same overlay behind weft's published port, HAProxy
//! and nginx. A client outside the cluster connects to the node, or to a namespace of that node
//! which has an address beside it and an endpoint on the network: each way has one cable from the
//! client to the balancer, and the overlay from there to the replicas.

mod client;
mod cluster;
mod crowd;
mod measure;
mod plan;

pub(crate) use cluster::Cluster;
pub(crate) use measure::Load;
pub(crate) use plan::check_control;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use weft_cli::{Printer, complain};
use weft_lab::{LabConfig, Stop};

use crate::args::{BenchMeshArgs, MeshTest};
use crate::pairs::{Pace, Test, WARM_UP, median_of};
use crate::proxies::Kind;
use crate::setting::Setting;
use crate::{picture, report};
use client::Front;
use cluster::SourcePorts;

/// Open files that 10,000 connections need in a balancer of two sockets each, and some more.
const OPEN_FILES: u64 = 200_000;

/// Connections that wait for something to do, where so many files may be open.
const IDLE: usize = 10_000;

/// Open files that are no connections.
const RESERVE: u64 = 200;

/// The kernel remembers ends of connections for a minute.
const FORGOTTEN: Duration = Duration::from_secs(61);

pub(crate) fn run(args: &BenchMeshArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    check_control(args.congestion.as_deref())?;
    let fronts = plan::fronts(args.front)?;
    let kinds = installed()?;
    weft_lab::gain_privileges()?;
    let open_files = allow_open_files();
    let idle = idle_connections(open_files);
    if idle < IDLE && plan::has(&args.only, MeshTest::Idle) {
        complain(&format!(
            "only {open_files} files may be open (`ulimit -Hn`): {idle} idle connections instead of {IDLE}"
        ));
    }
    let bench = Bench {
        args,
        connections: connections(open_files),
        idle,
        kinds,
        pace: Pace {
            pairs: args.pairs,
            length: Duration::from_secs(u64::from(args.seconds)),
        },
        stop: Stop::on_signals()?,
    };
    complain("building a lab, and warming up; a line comes with each pair");
    let mut tests = Vec::new();
    for front in fronts {
        bench.front(&mut tests, front)?;
    }
    if let Some(file) = &args.svg {
        let setting = Setting::of_now("weft bench mesh", bench.pace);
        picture::draw(&tests, &setting, file)?;
    }
    out.text(&report::render(&tests, &args.format, report::MESH)?)?;
    if args.format.format.is_none() && !args.format.quiet {
        out.line(&format!(
            "Medians of {} alternating pairs of {} s.",
            args.pairs, args.seconds
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The balancers that this machine has.
fn installed() -> anyhow::Result<Vec<Kind>> {
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        match kind.missing() {
            None => kinds.push(kind),
            Some(what) => complain(&format!("{what}: its tests are left out")),
        }
    }
    if kinds.is_empty() {
        bail!("nothing to compare with: install haproxy, or nginx with its module for streams");
    }
    Ok(kinds)
}

/// Lets this process, and what it starts, open as many files as it may; returns how many that is.
fn allow_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let more = |maximum| Rlimit {
        current: maximum,
        maximum,
    };
    let enough = limit.maximum.map(|maximum| maximum.max(OPEN_FILES));
    for wanted in [enough, limit.maximum] {
        if setrlimit(Resource::Nofile, more(wanted)).is_ok() {
            return wanted.unwrap_or(OPEN_FILES);
        }
    }
    limit.current.unwrap_or(OPEN_FILES)
}

/// Connections at once through one that may open so many files, at two for each.
fn connections(open_files: u64) -> u64 {
    (open_files.saturating_sub(RESERVE) / 2).max(1)
}

/// Idle connections: as many as weftd takes, which keeps more files for itself.
fn idle_connections(open_files: u64) -> usize {
    let most = open_files.saturating_sub(5 * RESERVE) / 2;
    usize::try_from(most).map_or(IDLE, |most| most.clamp(1, IDLE))
}

struct Bench<'a> {
    args: &'a BenchMeshArgs,
    kinds: Vec<Kind>,
    /// At once, for a balancer.
    connections: u64,
    idle: usize,
    pace: Pace,
    stop: Stop,
}

impl Bench<'_> {
    /// All tests of one front end, in a lab of its own.
    fn front(&self, tests: &mut Vec<Test>, front: &str) -> anyhow::Result<()> {
        let name = format!("{}-{front}", self.args.name);
        let control = self.args.congestion.as_deref();
        let cluster = Cluster::create(
            LabConfig::new(&name)?,
            front,
            (&self.kinds, self.connections),
            control,
            &self.stop,
        )?;
        let has = |test| plan::has(&self.args.only, test);
        let idle = format!("{} idle connections", self.idle);
        for (test, load, name) in [
            // First, while nobody has grown by other work.
            (MeshTest::Idle, Load::Idle(self.idle), idle.as_str()),
            (MeshTest::Connections, Load::Connections, "connections"),
            (MeshTest::Keepalive, Load::Kept, "kept connections"),
            (MeshTest::Bulk, Load::Streams(1), "one stream"),
            (MeshTest::Bulk, Load::Streams(8), "8 streams"),
        ] {
            if has(test) {
                let name = format!("{name}, {front}");
                self.measure(tests, &cluster, &name, |_, _, _| Ok(load))?;
            }
        }
        if has(MeshTest::Latency) {
            for (kept, name) in [(false, "connections"), (true, "kept connections")] {
                let full = format!("{name}, {front}");
                let done = tests.clone();
                let name = format!("{name} at half load, {front}");
                self.measure(tests, &cluster, &name, |kind, weft, other| {
                    let rate = self.half_rate(&done, &full, kept, (kind, weft, other))?;
                    Ok(Load::Paced { kept, rate })
                })?;
            }
        }
        if has(MeshTest::Long) {
            self.long(tests, &cluster, front)?;
        }
        cluster.down()
    }

    /// One test against each of the others.
    fn measure(
        &self,
        tests: &mut Vec<Test>,
        cluster: &Cluster,
        name: &str,
        load: impl Fn(Kind, &Front<'_>, &Front<'_>) -> anyhow::Result<Load>,
    ) -> anyhow::Result<()> {
        let weft = cluster.weft();
        for (kind, other) in cluster.others() {
            let load = load(kind, &weft, &other)?;
            let run = |front, length| load.measure(front, length, &self.stop);
            if !matches!(load, Load::Idle(_)) {
                run(&weft, WARM_UP)?;
                run(&other, WARM_UP)?;
            }
            let test = Test::new(name, load.meaning(), kind.name());
            let (ours, theirs) = (|length| run(&weft, length), |length| run(&other, length));
            tests.push(test.run_both(self.pace, &self.stop, ours, theirs)?);
        }
        Ok(())
    }

    /// Half of the requests per second that the slower side answers: as measured, or measured now
    /// when that test was not asked for.
    fn half_rate(
        &self,
        done: &[Test],
        name: &str,
        kept: bool,
        (kind, weft, other): (Kind, &Front<'_>, &Front<'_>),
    ) -> anyhow::Result<u64> {
        let mut done = done.iter();
        let done = done.find(|test| test.name == name && test.against == kind.name());
        let load = if kept { Load::Kept } else { Load::Connections };
        let (ours, theirs) = if let Some(test) = done {
            let rate = |runs| median_of(runs, |run| run.rate);
            (rate(&test.weft), rate(&test.other))
        } else {
            let rate = |front| load.measure(front, self.pace.length, &self.stop);
            (rate(weft)?.rate, rate(other)?.rate)
        };
        Ok(half(ours, theirs))
    }

    /// Connections in a row, once each, with the source ports that a new namespace has.
    fn long(&self, tests: &mut Vec<Test>, cluster: &Cluster, front: &str) -> anyhow::Result<()> {
        cluster.set_source_ports(SourcePorts::Kernel)?;
        let weft = cluster.weft();
        for (kind, other) in cluster.others() {
            complain("waiting a minute until the kernel has forgotten earlier connections");
            let begun = Instant::now();
            while begun.elapsed() < FORGOTTEN {
                self.stop.going_on()?;
                std::thread::sleep(Duration::from_millis(100));
            }
            let name = format!("200000 connections in a row, {front}");
            let test = Test::new(name, Load::Long.meaning(), kind.name());
            let run = |front, length| Load::Long.measure(front, length, &self.stop);
            let (ours, theirs) = (|length| run(&weft, length), |length| run(&other, length));
            let once = Pace {
                pairs: 1,
                ..self.pace
            };
            tests.push(test.run_both(once, &self.stop, ours, theirs)?);
        }
        Ok(())
    }
}

/// Half of the smaller one, in whole requests per second.
fn half(ours: f64, theirs: f64) -> u64 {
    (ours.min(theirs) / 2.0).max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_set_the_limits() {
        assert_eq!(
            (connections(20_000), idle_connections(20_000)),
            (9900, 9500)
        );
        assert_eq!(idle_connections(OPEN_FILES), IDLE);
        assert_eq!((connections(0), idle_connections(0)), (1, 1));
    }

    #[test]
    fn half_of_the_slower_side() {
        assert_eq!(half(9000.0, 5001.0), 2500);
        assert_eq!(half(0.0, 5000.0), 1);
    }
}
