//! The table and the JSON.

use serde_json::{Value, json};
use weft_cli::{FormatArgs, Listing};

use crate::figures::{P50, P90, P99, P99_9, interval, median};
use crate::pairs::{Test, median_of, shown};
use crate::run::{Carrier, Run};

/// Headings of all fields that a table shows.
const HEADINGS: &[(&str, &str)] = &[
    ("Test", "TEST"),
    ("Bed", "BED"),
    ("Unit", "UNIT"),
    ("Weft", "WEFT"),
    ("Other", "OTHER"),
    ("Against", "AGAINST"),
    ("Ratio", "RATIO"),
    ("PairRatio", "RATIO"),
    ("Interval", "95 % BETWEEN"),
    ("Per", "PER"),
    ("AgentCPUs", "AGENT CPUS"),
    ("AgentPer", "AGENT"),
    ("OtherAgentPer", "OTHER AGENT"),
    ("MachinePer", "MACHINE"),
    ("OtherMachinePer", "OTHER MACHINE"),
    ("GeneratorPer", "GENERATOR"),
    ("OtherGeneratorPer", "OTHER GENERATOR"),
    ("SwitchesPer", "SWITCHES"),
    ("AgentMB", "AGENT MB"),
    ("Balancer", "BALANCER"),
    ("OtherBalancer", "OTHER BALANCER"),
    ("OtherOverlay", "OTHER'S WEFTD"),
    ("BalancerMB", "MB"),
    ("OtherMB", "OTHER MB"),
];

/// The first table.
const RESULTS: &str = "{{.Test}}\t{{.Unit}}\t{{.Weft}}\t{{.Other}}\t{{.Against}}\t{{.Ratio}}";

/// The same where the bench has a choice of beds.
const ON_BEDS: &str =
    "{{.Test}}\t{{.Bed}}\t{{.Unit}}\t{{.Weft}}\t{{.Other}}\t{{.Against}}\t{{.Ratio}}";

/// The same where a difference of a few percent matters.
const PAIRED: &str = "{{.Test}}\t{{.Unit}}\t{{.Weft}}\t{{.Other}}\t{{.PairRatio}}\t{{.Interval}}";

/// The second table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    /// The first one.
    results: &'static str,
    template: &'static str,
    /// What its columns mean.
    legend: &'static str,
}

/// Between two nodes.
pub(crate) const OVERLAY: Costs = Costs {
    results: ON_BEDS,
    template: "table {{.Test}}\t{{.Bed}}\t{{.Against}}\t{{.Per}}\t{{.AgentCPUs}}\t{{.AgentPer}}\t{{.MachinePer}}\t{{.OtherMachinePer}}\t{{.GeneratorPer}}\t{{.OtherGeneratorPer}}\t{{.SwitchesPer}}\t{{.AgentMB}}",
    legend: "\
CPU seconds and context switches for each PER. AGENT: both weftd. MACHINE: everything but busy loops,
on both sides.
GENERATOR: this process, which makes the load and takes it in; where the kernel is the data plane,
its work for a packet is done in the sender's name and counts there. AGENT MB: the bigger weftd, in RAM.
",
};

/// Through a published port.
pub(crate) const MESH: Costs = Costs {
    results: RESULTS,
    template: "table {{.Test}}\t{{.Against}}\t{{.Per}}\t{{.Balancer}}\t{{.OtherBalancer}}\t{{.OtherOverlay}}\t{{.MachinePer}}\t{{.OtherMachinePer}}\t{{.GeneratorPer}}\t{{.OtherGeneratorPer}}\t{{.BalancerMB}}\t{{.OtherMB}}",
    legend: "\
CPU seconds for each PER. BALANCER: both weftd, with the overlay's work. OTHER BALANCER: all processes of
the one weft is compared with; OTHER'S WEFTD: both weftd, which carry its packets to the replicas.
MACHINE: everything, replicas included. GENERATOR: this process, the client. MB: memory in RAM of the
balancer's processes; what the kernel keeps for their sockets is not in it.
",
};

/// Two builds.
pub(crate) const BUILDS: Costs = Costs {
    results: PAIRED,
    template: "table {{.Test}}\t{{.Per}}\t{{.AgentPer}}\t{{.OtherAgentPer}}\t{{.MachinePer}}\t{{.OtherMachinePer}}\t{{.AgentMB}}",
    legend: "\
WEFT is this build. RATIO: median of the ratios of pairs; the true one is in the interval in at least 95
of 100 cases. CPU seconds for each PER. AGENT: all weftd on the way. MACHINE: everything. AGENT MB: the
bigger weftd, in RAM.
",
};

/// Everything, in the form that was asked for.
pub(crate) fn render(tests: &[Test], format: &FormatArgs, second: Costs) -> anyhow::Result<String> {
    let mut out = results(tests, second.results).render(format)?;
    if format.format.is_none() && !format.quiet {
        out.push('\n');
        out.push_str(&costs(tests, second)?);
        out.push_str(second.legend);
    }
    Ok(out)
}

/// One row for each rate, loss and percentile.
fn results(tests: &[Test], table: &'static str) -> Listing {
    let mut listing = Listing::new(HEADINGS, table, "Test");
    for test in tests {
        let unit = test.meaning.unit;
        let mut main = row(test, &test.name, unit, |run| run.rate);
        if let (Some(main), Some(costs)) = (main.as_object_mut(), costs_of(test).as_object()) {
            main.extend(costs.clone());
            let all = |runs: &[Run]| runs.iter().map(Run::json).collect::<Value>();
            main.insert(
                "Runs".to_owned(),
                json!({
                    "Weft": all(&test.weft),
                    "Other": all(&test.other),
                }),
            );
        }
        listing.push(main);
        let mut more = |name: &str, unit: &str, value: fn(&Run) -> f64| {
            listing.push(row(test, name, unit, value));
        };
        if has_latency(test) {
            more("  p50", "µs", |run| latency(run, P50));
            more("  p90", "µs", |run| latency(run, P90));
            more("  p99", "µs", |run| latency(run, P99));
            more("  p99.9", "µs", |run| latency(run, P99_9));
        }
        if (unit == "1/s" || has_latency(test)) && loses(test) {
            more("  lost", "%", |run| run.lost * 100.0);
        }
        let figures = test.weft.first().map(|run| run.more.as_slice());
        for (index, figure) in figures.unwrap_or_default().iter().enumerate() {
            let value = |run: &Run| run.more.get(index).map_or(f64::NAN, |figure| figure.value);
            listing.push(row(test, figure.name, figure.unit, value));
        }
    }
    listing
}

fn has_latency(test: &Test) -> bool {
    test.weft.iter().any(|run| run.latency.is_some())
}

/// Datagrams always say what was lost; round trips only if something was.
fn loses(test: &Test) -> bool {
    !has_latency(test)
        || test
            .weft
            .iter()
            .chain(&test.other)
            .any(|run| run.lost > 0.0)
}

fn latency(run: &Run, at: usize) -> f64 {
    run.latency.map_or(f64::NAN, |times| times[at])
}

fn row(test: &Test, name: &str, unit: &str, value: impl Fn(&Run) -> f64) -> Value {
    let (weft, other) = (
        median_of(&test.weft, &value),
        median_of(&test.other, &value),
    );
    let all = |runs: &[Run]| runs.iter().map(&value).collect::<Vec<_>>();
    let ratio = weft / other;
    let pairs = test.weft.iter().zip(&test.other);
    let ratios: Vec<f64> = pairs
        .map(|(ours, theirs)| value(ours) / value(theirs))
        .filter(|ratio| ratio.is_finite())
        .collect();
    let paired = median(&ratios);
    let mut row = json!({
        "Test": name,
        "Side": test.side,
        "Unit": unit,
        "Weft": shown(weft, unit),
        "Other": shown(other, unit),
        "Against": test.against,
        // Nothing lost on the other side gives no ratio.
        "Ratio": if ratio.is_finite() { format!("{ratio:.2}x") } else { String::new() },
        "PairRatio": if paired.is_finite() { format!("{paired:.3}x") } else { String::new() },
        "Interval": interval(&ratios)
            .map_or(String::new(), |[low, high]| format!("{low:.3}-{high:.3}")),
        "WeftRuns": all(&test.weft),
        "OtherRuns": all(&test.other),
    });
    put_conditions(&mut row, test);
    row
}

/// What a row has where the bench has a choice of them.
fn put_conditions(row: &mut Value, test: &Test) {
    if let Some(conditions) = test.conditions {
        row["Bed"] = json!(conditions.bed.name());
        row["BusyLoops"] = json!(conditions.busy_loops);
        row["FastPath"] = json!(conditions.fast_path.name());
    }
}

fn costs(tests: &[Test], second: Costs) -> anyhow::Result<String> {
    let mut listing = Listing::new(HEADINGS, second.template, "Test");
    for test in tests {
        listing.push(costs_of(test));
    }
    listing.render(&FormatArgs {
        format: Some(second.template.to_owned()),
        quiet: false,
    })
}

fn costs_of(test: &Test) -> Value {
    let amount = test.meaning.amount;
    let cost = |runs: &[Run], value: fn(&Run) -> f64, decimals: usize| {
        let cost = median_of(runs, |run| value(run) / amount(run));
        if cost.is_finite() {
            format!("{cost:.decimals$}")
        } else {
            String::new()
        }
    };
    let mut row = json!({
        "Test": test.name,
        // Tests of one name may have several other sides.
        "Against": test.against,
        "Per": test.meaning.per,
        "AgentCPUs": format!("{:.2}", median_of(&test.weft, |run| run.usage.agents / run.seconds)),
        "AgentPer": cost(&test.weft, |run| run.usage.agents, 2),
        "OtherAgentPer": cost(&test.other, |run| run.usage.agents, 2),
        "MachinePer": cost(&test.weft, |run| run.usage.machine, 2),
        "OtherMachinePer": cost(&test.other, |run| run.usage.machine, 2),
        "GeneratorPer": cost(&test.weft, |run| run.usage.generator(), 2),
        "OtherGeneratorPer": cost(&test.other, |run| run.usage.generator(), 2),
        "SwitchesPer": cost(&test.weft, |run| run.usage.switches, 0),
        "AgentMB": format!("{:.1}", median_of(&test.weft, |run| run.resident) / 1e6),
    });
    put_conditions(&mut row, test);
    if test.meaning.carrier == Carrier::Balancer {
        let mb = |runs: &[Run]| format!("{:.1}", median_of(runs, |run| run.resident) / 1e6);
        row["Balancer"] = json!(cost(&test.weft, |run| run.usage.agents, 2));
        row["OtherBalancer"] = json!(cost(&test.other, |run| run.usage.agents, 2));
        row["OtherOverlay"] = json!(cost(&test.other, |run| run.overlay, 2));
        row["BalancerMB"] = json!(mb(&test.weft));
        row["OtherMB"] = json!(mb(&test.other));
    }
    row
}

#[cfg(test)]
mod tests;
