//! One measurement: what was brought, how fast, and at what cost.

use std::time::Duration;

use serde_json::{Value, json};

use crate::figures::{P50, P90, P99, P99_9, QUANTILES, microseconds};
use crate::load::{self, Way};
use crate::mesh::Load;
use crate::usage::{Usage, resident_bytes};

/// Connections over which the tasks are asked.
pub(crate) const TASKS: usize = 16;

/// Microseconds at each of [`QUANTILES`].
pub(crate) type Latency = [f64; QUANTILES.len()];

/// What one run cost and brought.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Run {
    /// Bits, datagrams or round trips per second, as the test has it.
    pub(crate) rate: f64,
    /// Bytes of data delivered.
    pub(crate) bytes: f64,
    /// Datagrams delivered, or round trips; zero for streams.
    pub(crate) count: f64,
    /// Share of datagrams or requests that were lost.
    pub(crate) lost: f64,
    /// Times of round trips.
    pub(crate) latency: Option<Latency>,
    /// Wall time in seconds.
    pub(crate) seconds: f64,
    pub(crate) usage: Usage,
    /// Memory in RAM of the biggest agent afterwards, in bytes; zero where there is none. Of a
    /// balancer: of all its processes.
    pub(crate) resident: f64,
    /// CPU seconds of agents that carry packets for a balancer that is not theirs.
    pub(crate) overlay: f64,
    /// What only tests of its kind tell.
    pub(crate) more: Vec<Figure>,
}

/// One more figure of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
}

impl Run {
    /// Everything, for `--format json`.
    pub(crate) fn json(&self) -> Value {
        let mut value = json!({
            "Rate": self.rate,
            "Bytes": self.bytes,
            "Count": self.count,
            "LossPercent": self.lost * 100.0,
            "Seconds": self.seconds,
            "AgentCPUSeconds": self.usage.agents,
            "MachineCPUSeconds": self.usage.machine,
            "GeneratorUserCPUSeconds": self.usage.generator_user,
            "GeneratorSystemCPUSeconds": self.usage.generator_system,
            "AgentContextSwitches": self.usage.switches,
            "AgentResidentBytes": self.resident,
        });
        for figure in &self.more {
            value["More"][figure.name] = json!(figure.value);
        }
        if self.overlay > 0.0 {
            value["OverlayCPUSeconds"] = json!(self.overlay);
        }
        if let Some(times) = &self.latency {
            value["Latency"] = json!({
                "P50": times[P50],
                "P90": times[P90],
                "P99": times[P99],
                "P99.9": times[P99_9],
            });
            value["Quantiles"] = QUANTILES
                .iter()
                .zip(times)
                .map(|(share, time)| json!([share, time]))
                .collect();
        }
        value
    }
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// So many TCP streams at once, with that congestion control.
    Streams { count: usize, control: String },
    /// Datagrams with so many bytes of data, as fast as one thread sends them.
    Datagrams { payload: usize },
    /// 64 bytes there and back, so many on their way at any time.
    RoundTrips { concurrent: usize },
    /// Requests to tasks that take 1 ms, over kept TCP connections.
    Tasks,
    /// So many TCP streams, made by iperf3.
    Iperf3 { count: usize, control: String },
    /// Nothing: what the agents use all the same.
    Rest,
    /// Load on a published port.
    Mesh(Load),
}

impl Work {
    /// Does it for that long.
    pub(crate) fn measure(&self, way: &Way<'_>, length: Duration) -> anyhow::Result<Run> {
        let before = Usage::now(way.agents)?;
        let mut run = match self {
            Self::Streams { count, control } => {
                streamed(load::streams(way, control, *count, length)?)
            }
            Self::Iperf3 { count, control } => {
                streamed(load::iperf3(way, control, *count, length)?)
            }
            Self::Datagrams { payload } => {
                let flooded = load::flood(way, *payload, length)?;
                let seconds = flooded.took.as_secs_f64();
                let count = flooded.received as f64;
                Run {
                    rate: count / seconds,
                    bytes: count * *payload as f64,
                    count,
                    lost: 1.0 - count / (flooded.sent.max(1) as f64),
                    seconds,
                    ..Run::default()
                }
            }
            Self::RoundTrips { concurrent: 1 } => round_trips(load::exchange(way, length)?),
            Self::RoundTrips { concurrent } => {
                round_trips(load::exchange_many(way, *concurrent, length)?)
            }
            Self::Tasks => round_trips(load::ask_tasks(way, TASKS, length)?),
            Self::Mesh(_) => anyhow::bail!("a published port is no way between two sandboxes"),
            Self::Rest => {
                // The one thing here that is about time passing.
                std::thread::sleep(length);
                Run {
                    seconds: length.as_secs_f64(),
                    ..Run::default()
                }
            }
        };
        run.usage = Usage::now(way.agents)?.since(&before);
        if *self == Self::Rest {
            run.rate = run.usage.agents / run.seconds * 100.0;
        }
        run.resident = resident_bytes(way.agents)? as f64;
        Ok(run)
    }

    /// Unit of the rate.
    pub(crate) const fn unit(&self) -> &'static str {
        match self {
            Self::Streams { .. } | Self::Iperf3 { .. } => "Gbit/s",
            Self::Rest => "% of a CPU",
            Self::Mesh(load) => load.unit(),
            Self::Datagrams { .. } | Self::RoundTrips { .. } | Self::Tasks => "1/s",
        }
    }

    /// What costs are shown for: a name, and how much of it a run did.
    pub(crate) fn per(&self) -> (&'static str, fn(&Run) -> f64) {
        match self {
            Self::Streams { .. } | Self::Iperf3 { .. } => ("GB", |run| run.bytes / 1e9),
            Self::Rest => ("second", |run| run.seconds),
            Self::Mesh(load) => load.per(),
            Self::Datagrams { .. } => ("1M datagrams", |run| run.count / 1e6),
            Self::RoundTrips { .. } | Self::Tasks => ("1M requests", |run| run.count / 1e6),
        }
    }
}

fn streamed(streamed: load::Streamed) -> Run {
    let (bytes, seconds) = (streamed.bytes as f64, streamed.took.as_secs_f64());
    Run {
        rate: bytes * 8.0 / seconds,
        bytes,
        seconds,
        ..Run::default()
    }
}

fn round_trips(exchanged: load::Exchanged) -> Run {
    let seconds = exchanged.took.as_secs_f64();
    let (count, lost) = (exchanged.times.len() as f64, exchanged.lost as f64);
    Run {
        rate: count / seconds,
        count,
        lost: lost / (count + lost).max(1.0),
        latency: Some(microseconds(exchanged.times)),
        seconds,
        ..Run::default()
    }
}
