//! One measurement between two sandboxes.

use std::time::Duration;

use anyhow::anyhow;

use crate::figures::microseconds;
use crate::load::{self, Way};
use crate::run::{Carrier, Meaning, Run};
use crate::usage::{Usage, resident_bytes};

/// Connections over which the tasks are asked.
pub(crate) const TASKS: usize = 16;

/// From one exchange beside a stream to the next: often enough for a p99 of a second, and too seldom
/// to cost much beside the stream.
const BESIDE: Duration = Duration::from_millis(1);

/// What is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// So many TCP streams at once, with that congestion control.
    Streams { count: usize, control: String },
    /// One TCP stream at no more than that rate, with that congestion control, and 64 bytes there and
    /// back beside it.
    Paced {
        control: String,
        bits_per_second: u64,
    },
    /// Datagrams with so many bytes of data, as fast as one thread sends them.
    Datagrams { payload: usize },
    /// 64 bytes there and back, so many on their way at any time.
    RoundTrips { concurrent: usize },
    /// 64 bytes there and back over a kept TCP connection, one at a time.
    Kept,
    /// Requests to tasks that take 1 ms, over kept TCP connections.
    Tasks,
    /// So many TCP streams, made by iperf3.
    Iperf3 { count: usize, control: String },
    /// Nothing: what the agents use all the same.
    Rest,
}

impl Work {
    /// So many streams.
    pub(crate) fn streams(count: usize, control: &str) -> Self {
        Self::Streams {
            count,
            control: control.to_owned(),
        }
    }

    /// Does it for that long.
    pub(crate) fn measure(&self, way: &Way<'_>, length: Duration) -> anyhow::Result<Run> {
        let before = Usage::now(way.agents)?;
        let mut run = match self {
            Self::Streams { count, control } => {
                streamed(load::streams(way, control, *count, length)?)
            }
            Self::Paced {
                control,
                bits_per_second,
            } => paced(way, control, *bits_per_second, length)?,
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
            Self::Kept => round_trips(load::exchange_kept(way, length)?),
            Self::Tasks => round_trips(load::ask_tasks(way, TASKS, length)?),
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

    /// What its figures mean.
    pub(crate) fn meaning(&self) -> Meaning {
        let (unit, per, amount): (_, _, fn(&Run) -> f64) = match self {
            Self::Streams { .. } | Self::Paced { .. } | Self::Iperf3 { .. } => {
                ("Gbit/s", "GB", |run| run.bytes / 1e9)
            }
            Self::Rest => ("% of a CPU", "second", |run| run.seconds),
            Self::Datagrams { .. } => ("1/s", "1M datagrams", |run| run.count / 1e6),
            Self::RoundTrips { .. } | Self::Kept | Self::Tasks => {
                ("1/s", "1M requests", |run| run.count / 1e6)
            }
        };
        Meaning {
            unit,
            per,
            amount,
            carrier: Carrier::Overlay,
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

/// The times are of the exchange beside the stream, all else is the stream's.
fn paced(
    way: &Way<'_>,
    control: &str,
    bits_per_second: u64,
    length: Duration,
) -> anyhow::Result<Run> {
    let (sent, exchanged) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| load::exchange_every(way, BESIDE, length));
        let sent = load::paced(way, control, bits_per_second, length);
        (sent, beside.join())
    });
    let beside = round_trips(exchanged.map_err(|_| anyhow!("the exchange panicked"))??);
    Ok(Run {
        latency: beside.latency,
        lost: beside.lost,
        ..streamed(sent?)
    })
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
