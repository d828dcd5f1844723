//! `weft bench overlay`: one TCP stream and 64-byte UDP request/response between two nodes, over
//! weft and over what Docker Swarm uses (veth, bridge and vxlan of the kernel), on labs of the same
//! make. The two sides take turns, so that a machine that changes its mind hits both.

mod cpu;
mod figures;
mod load;
mod side;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;

use crate::args::BenchOverlayArgs;
use crate::output::{Listing, Printer, complain};
use crate::stop::Stop;
use cpu::{Cpu, resident_bytes};
use figures::{median, percentile};
use load::{Exchanged, Streamed};
use side::Side;

/// Length of the runs that nobody counts, which warm caches and neighbours up.
const WARM_UP: Duration = Duration::from_millis(300);

/// What one run cost and brought.
#[derive(Debug, Clone, Default)]
struct Run {
    /// Bits or round trips per second.
    rate: f64,
    /// Bytes delivered; zero for round trips.
    bytes: f64,
    /// Microseconds.
    p50: f64,
    p99: f64,
    /// Wall time in seconds.
    seconds: f64,
    /// CPU seconds of both agents.
    agents: f64,
    /// CPU seconds of the whole machine, load generator included.
    machine: f64,
}

/// Runs of one test: weft and the kernel, in pairs.
struct Test {
    name: String,
    unit: &'static str,
    weft: Vec<Run>,
    kernel: Vec<Run>,
}

pub(crate) fn run(args: &BenchOverlayArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    weft_lab::gain_privileges()?;
    let stop = Stop::on_signals()?;
    let controls = controls(args)?;
    let weft = Side::weft(&stop)?;
    let kernel = Side::kernel(&stop)?;
    let length = Duration::from_secs(u64::from(args.seconds));
    let mut tests = Vec::new();
    for control in &controls {
        let measure = |side: &Side, length| {
            stop.going_on()?;
            stream(side, control, length)
        };
        let name = format!("TCP, one stream, {control}");
        tests.push(pairs(
            &name,
            "Gbit/s",
            args.pairs,
            length,
            (&weft, &kernel),
            measure,
        )?);
    }
    let name = "UDP, 64 B there and back";
    tests.push(pairs(
        name,
        "1/s",
        args.pairs,
        length,
        (&weft, &kernel),
        exchange,
    )?);

    out.raw(&listing(&tests).render(&args.format)?)?;
    if args.format.format.is_none() && !args.format.quiet {
        out.line(&format!(
            "\nMedians of {} alternating pairs of {} s. The load generators run on the same CPUs: their cost is in MACHINE/GB of both sides.",
            args.pairs, args.seconds
        ))?;
        for pid in weft.agents() {
            out.line(&format!(
                "weftd {pid}: {:.1} MB resident after the runs",
                resident_bytes(pid)? as f64 / 1e6
            ))?;
        }
    }
    weft.down()?;
    kernel.down()?;
    Ok(ExitCode::SUCCESS)
}

/// Congestion controls to use: those asked for, or cubic and bbr where the kernel has them.
fn controls(args: &BenchOverlayArgs) -> anyhow::Result<Vec<String>> {
    let path = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let text = std::fs::read_to_string(path)?;
    let available: Vec<&str> = text.split_ascii_whitespace().collect();
    if args.congestion.is_empty() {
        let usual = ["cubic", "bbr"].into_iter();
        return Ok(usual
            .filter(|name| available.contains(name))
            .map(str::to_owned)
            .collect());
    }
    for name in &args.congestion {
        if !available.contains(&name.as_str()) {
            bail!(
                "this kernel has no congestion control {name:?}: it has {}; more may come with `modprobe tcp_{name}`",
                available.join(", ")
            );
        }
    }
    Ok(args.congestion.clone())
}

fn pairs(
    name: &str,
    unit: &'static str,
    count: u8,
    length: Duration,
    (weft, kernel): (&Side, &Side),
    measure: impl Fn(&Side, Duration) -> anyhow::Result<Run>,
) -> anyhow::Result<Test> {
    let mut test = Test {
        name: name.to_owned(),
        unit,
        weft: Vec::new(),
        kernel: Vec::new(),
    };
    measure(weft, WARM_UP)?;
    measure(kernel, WARM_UP)?;
    for pair in 0..count {
        // Who goes first changes, so that neither side always finds the machine warmer.
        if pair % 2 == 0 {
            test.weft.push(measure(weft, length)?);
            test.kernel.push(measure(kernel, length)?);
        } else {
            test.kernel.push(measure(kernel, length)?);
            test.weft.push(measure(weft, length)?);
        }
        if let (Some(ours), Some(theirs)) = (test.weft.last(), test.kernel.last()) {
            complain(&format!(
                "{name}, pair {} of {count}: weft {}, kernel {} {unit}",
                pair + 1,
                shown(ours.rate, unit),
                shown(theirs.rate, unit)
            ));
        }
    }
    Ok(test)
}

fn stream(side: &Side, control: &str, length: Duration) -> anyhow::Result<Run> {
    let before = Cpu::now(side.agents())?;
    let Streamed { bytes, took } = load::stream(side, control, length)?;
    let (agents, machine) = Cpu::now(side.agents())?.since(&before);
    let seconds = took.as_secs_f64();
    Ok(Run {
        rate: bytes as f64 * 8.0 / seconds,
        bytes: bytes as f64,
        seconds,
        agents,
        machine,
        ..Run::default()
    })
}

fn exchange(side: &Side, length: Duration) -> anyhow::Result<Run> {
    let before = Cpu::now(side.agents())?;
    let Exchanged { mut times, took } = load::exchange(side, length)?;
    let (agents, machine) = Cpu::now(side.agents())?.since(&before);
    let seconds = took.as_secs_f64();
    times.sort_unstable();
    Ok(Run {
        rate: times.len() as f64 / seconds,
        p50: percentile(&times, 50) / 1e3,
        p99: percentile(&times, 99) / 1e3,
        seconds,
        agents,
        machine,
        ..Run::default()
    })
}

/// A rate as people read it.
fn shown(rate: f64, unit: &str) -> String {
    match unit {
        "Gbit/s" => format!("{:.2}", rate / 1e9),
        "1/s" => format!("{rate:.0}"),
        _ => format!("{rate:.1}"),
    }
}

fn listing(tests: &[Test]) -> Listing {
    let mut listing = Listing::new(
        &[
            ("Test", "TEST"),
            ("Unit", "UNIT"),
            ("Weft", "WEFT"),
            ("Kernel", "KERNEL"),
            ("Ratio", "RATIO"),
            ("AgentCPU", "AGENT CPUS"),
            ("AgentPerGB", "AGENT/GB"),
            ("MachinePerGB", "MACHINE/GB"),
            ("KernelMachinePerGB", "KERNEL MACHINE/GB"),
        ],
        "{{.Test}}\t{{.Unit}}\t{{.Weft}}\t{{.Kernel}}\t{{.Ratio}}\t{{.AgentCPU}}\t{{.AgentPerGB}}\t{{.MachinePerGB}}\t{{.KernelMachinePerGB}}",
        "Test",
    );
    for test in tests {
        let of = |runs: &[Run], value: fn(&Run) -> f64| {
            median(&runs.iter().map(value).collect::<Vec<_>>())
        };
        let mut row = |name: &str, unit: &str, value: fn(&Run) -> f64, whole: bool| {
            let (ours, theirs) = (of(&test.weft, value), of(&test.kernel, value));
            let per_gb = |cpu: f64| {
                if whole && cpu.is_finite() {
                    format!("{cpu:.2} s")
                } else {
                    String::new()
                }
            };
            let all = |runs: &[Run]| runs.iter().map(value).collect::<Vec<_>>();
            listing.push(json!({
                "Test": name,
                "Unit": unit,
                "Weft": shown(ours, unit),
                "Kernel": shown(theirs, unit),
                "Ratio": format!("{:.2}x", ours / theirs),
                "AgentCPU": if whole || unit == "1/s" {
                    format!("{:.2}", of(&test.weft, |run| run.agents / run.seconds))
                } else {
                    String::new()
                },
                "AgentPerGB": per_gb(of(&test.weft, |run| run.agents / run.bytes * 1e9)),
                "MachinePerGB": per_gb(of(&test.weft, |run| run.machine / run.bytes * 1e9)),
                "KernelMachinePerGB": per_gb(of(&test.kernel, |run| run.machine / run.bytes * 1e9)),
                "WeftRuns": all(&test.weft),
                "KernelRuns": all(&test.kernel),
            }));
        };
        if test.unit == "1/s" {
            row(&test.name, test.unit, |run| run.rate, false);
            row("  time of a round trip, p50", "µs", |run| run.p50, false);
            row("  time of a round trip, p99", "µs", |run| run.p99, false);
        } else {
            row(&test.name, test.unit, |run| run.rate, true);
        }
    }
    listing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::FormatArgs;

    #[test]
    fn the_table_shows_medians_and_ratios() {
        let run = |rate: f64| Run {
            rate,
            bytes: 1e9,
            p50: 20.0,
            p99: 40.0,
            seconds: 2.0,
            agents: 1.0,
            machine: 3.0,
        };
        let tests = [
            Test {
                name: "TCP".to_owned(),
                unit: "Gbit/s",
                weft: vec![run(5e9), run(6e9), run(90e9)],
                kernel: vec![run(12e9)],
            },
            Test {
                name: "UDP".to_owned(),
                unit: "1/s",
                weft: vec![run(30_000.0)],
                kernel: vec![run(20_000.0)],
            },
        ];
        assert_eq!(
            listing(&tests).render(&FormatArgs::default()).unwrap(),
            "\
TEST                          UNIT     WEFT    KERNEL   RATIO   AGENT CPUS   AGENT/GB   MACHINE/GB   KERNEL MACHINE/GB
TCP                           Gbit/s   6.00    12.00    0.50x   0.50         1.00 s     3.00 s       3.00 s
UDP                           1/s      30000   20000    1.50x   0.50
  time of a round trip, p50   µs       20.0    20.0     1.00x
  time of a round trip, p99   µs       40.0    40.0     1.00x
"
        );
    }
}
