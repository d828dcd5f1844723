//! One measurement through a balancer.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use socket2::Socket;
use weft_lab::Stop;
use weft_lab::tools::replica::{STREAM, request};

use super::client::Front;
use super::crowd::{self, Answers, Order};
use crate::figures::microseconds;
use crate::load::is_timeout;
use crate::run::{Carrier, Figure, Meaning, Run};
use crate::usage::{Usage, resident_sum};

/// Connections that are made at once.
const AT_ONCE: usize = 32;

/// Kept connections.
const KEPT: usize = 64;

/// Connections in a row.
const LONG: u64 = 200_000;

/// The row ends then, however many were made.
const LONG_LIMIT: Duration = Duration::from_secs(180);

/// Connections for requests of a schedule: many more than are needed when all goes well.
const SCHEDULED: usize = 1024;

/// What settles after connections were opened has settled by then.
const SETTLED: Duration = Duration::from_millis(500);

/// A stream that stands still for so long has failed.
const STALL: Duration = Duration::from_secs(5);

/// Load on a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// A new connection for each request.
    Connections,
    /// Requests over kept connections.
    Kept,
    /// So many streams from replicas to the client.
    Streams(usize),
    /// So many requests per second.
    Paced { kept: bool, rate: u64 },
    /// Nothing, over that many connections.
    Idle(usize),
    /// Many connections in a row.
    Long,
}

impl Load {
    /// What its figures mean.
    pub(crate) fn meaning(self) -> Meaning {
        let unit = match self {
            Self::Streams(_) => "Gbit/s",
            Self::Idle(_) => "MB",
            _ => "1/s",
        };
        let (per, amount): (_, fn(&Run) -> f64) = match self {
            Self::Streams(_) => ("GB", |run| run.bytes / 1e9),
            Self::Kept | Self::Paced { kept: true, .. } => ("1M requests", |run| run.count / 1e6),
            _ => ("1M connections", |run| run.count / 1e6),
        };
        Meaning {
            unit,
            per,
            amount,
            carrier: Carrier::Balancer,
        }
    }

    /// Puts it on that way for that long.
    pub(crate) fn measure(
        self,
        front: &Front<'_>,
        length: Duration,
        stop: &Stop,
    ) -> anyhow::Result<Run> {
        let (before, carried) = (Usage::now(&front.balancers)?, Usage::now(&front.overlay)?);
        let mut run = match self {
            Self::Connections | Self::Kept | Self::Paced { .. } | Self::Long => {
                let order = self.order(length);
                answered(self, order, crowd::ask(front, order, stop)?)
            }
            Self::Streams(count) => {
                let (bytes, took) = stream(front, count, length)?;
                Run {
                    rate: bytes as f64 * 8.0 / took.as_secs_f64(),
                    bytes: bytes as f64,
                    seconds: took.as_secs_f64(),
                    ..Run::default()
                }
            }
            Self::Idle(count) => idle(front, count, stop)?,
        };
        run.usage = Usage::now(&front.balancers)?.since(&before);
        run.overlay = Usage::now(&front.overlay)?.since(&carried).agents;
        if !matches!(self, Self::Idle(_)) {
            run.resident = resident_sum(&front.balancers)? as f64;
        }
        Ok(run)
    }

    fn order(self, length: Duration) -> Order {
        let usual = Order {
            at_once: AT_ONCE,
            kept: false,
            rate: None,
            most: u64::MAX,
            length,
        };
        match self {
            Self::Kept => Order {
                at_once: KEPT,
                kept: true,
                ..usual
            },
            Self::Paced { kept, rate } => Order {
                at_once: if kept { KEPT } else { SCHEDULED },
                kept,
                rate: Some(rate as f64),
                ..usual
            },
            Self::Long => Order {
                most: LONG,
                length: LONG_LIMIT,
                ..usual
            },
            Self::Connections | Self::Streams(_) | Self::Idle(_) => usual,
        }
    }
}

fn answered(load: Load, order: Order, answers: Answers) -> Run {
    let (count, failed) = (answers.times.len() as f64, answers.failed as f64);
    let took = match load {
        // The time in which late answers were waited for is none in which more were asked for.
        Load::Paced { .. } => order.length,
        _ => answers.took,
    };
    let mut more = Vec::new();
    if load == Load::Long {
        let [first, last] = tenths(&answers.ends);
        for (name, unit, value) in [
            ("  first tenth", "1/s", first),
            ("  last tenth", "1/s", last),
            ("  answered", "", count),
            ("  failed", "", failed),
        ] {
            more.push(Figure { name, unit, value });
        }
    }
    Run {
        rate: count / took.as_secs_f64(),
        count,
        lost: failed / (count + failed).max(1.0),
        latency: Some(microseconds(answers.times)),
        seconds: took.as_secs_f64(),
        more,
        ..Run::default()
    }
}

/// Answers per second among the first and the last tenth of requests, which are in the order in
/// which they ended.
fn tenths(ends: &[(u64, bool)]) -> [f64; 2] {
    let tenth = ends.len() / 10;
    if tenth == 0 {
        return [f64::NAN; 2];
    }
    let rate = |from: u64, part: &[(u64, bool)]| {
        let answered = part.iter().filter(|(_, answered)| *answered).count();
        let to = part.last().map_or(from, |(at, _)| *at);
        answered as f64 / ((to - from) as f64 / 1e9)
    };
    let rest = ends.len() - tenth;
    [
        rate(0, &ends[..tenth]),
        rate(ends[rest - 1].0, &ends[rest..]),
    ]
}

/// Bytes that arrived over that many connections, and in what time.
fn stream(front: &Front<'_>, count: usize, length: Duration) -> anyhow::Result<(u64, Duration)> {
    let connections = front.client.run_in(|| {
        (0..count)
            .map(|_| {
                let socket = front.connect()?;
                let socket = socket.with_context(|| format!("{} refuses", front.target))?;
                ask_for_stream(&socket)
                    .with_context(|| format!("no stream of {}", front.target))?;
                Ok(socket)
            })
            .collect::<anyhow::Result<Vec<_>>>()
    })??;
    let begun = Instant::now();
    let deadline = begun + length;
    let bytes = std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter()
            .map(|socket| scope.spawn(move || receive(socket, deadline)))
            .collect();
        let received = threads.into_iter().map(|thread| {
            let bytes = thread.join();
            bytes.map_err(|_| anyhow!("a receiver panicked"))?
        });
        received.sum::<anyhow::Result<u64>>()
    })?;
    let took = begun.elapsed();
    for socket in connections {
        // The replica may have ended it just now; it ends in any case.
        drop(socket.shutdown(Shutdown::Both));
    }
    Ok((bytes, took))
}

fn ask_for_stream(mut socket: &Socket) -> anyhow::Result<()> {
    let line = request(STREAM);
    let deadline = Instant::now() + STALL;
    loop {
        match socket.write(&line) {
            Ok(count) if count == line.len() => break,
            Ok(_) => bail!("the request does not fit into a packet"),
            Err(e) if is_timeout(&e) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(e.into()),
        }
    }
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(STALL))?;
    Ok(())
}

fn receive(mut socket: &Socket, deadline: Instant) -> anyhow::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    while Instant::now() < deadline {
        match socket.read(&mut buffer).context("the stream broke")? {
            0 => bail!("the stream ended"),
            count => bytes += count as u64,
        }
    }
    Ok(bytes)
}

/// Memory while many connections are open.
fn idle(front: &Front<'_>, count: usize, stop: &Stop) -> anyhow::Result<Run> {
    let begun = Instant::now();
    let (open, resident) = crowd::hold(front, count, stop, || {
        std::thread::sleep(SETTLED);
        resident_sum(&front.balancers)
    })?;
    let (resident, open) = (resident as f64, open as f64);
    let growth = (resident - front.at_rest as f64) / 1e6;
    Ok(Run {
        rate: resident / 1e6,
        count: open,
        seconds: begun.elapsed().as_secs_f64(),
        resident,
        more: vec![
            Figure {
                name: "  growth",
                unit: "MB",
                value: growth,
            },
            Figure {
                name: "  open",
                unit: "",
                value: open,
            },
        ],
        ..Run::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_count_answers_only() {
        // One each millisecond, then half of them fail, ten times slower.
        let fast = (1..=90).map(|n| (n * 1_000_000, true));
        let slow = (1..=10).map(|n| (90_000_000 + n * 10_000_000, n % 2 == 0));
        let [first, last] = tenths(&fast.chain(slow).collect::<Vec<_>>());
        assert!((first - 1000.0).abs() < 1e-6, "{first}");
        assert!((last - 50.0).abs() < 1e-6, "{last}");
        assert!(tenths(&[(1, true)])[0].is_nan());
    }

    #[test]
    fn rates_of_schedules_leave_the_wait_out() {
        let load = Load::Paced {
            kept: false,
            rate: 2,
        };
        let order = load.order(Duration::from_secs(2));
        assert_eq!((order.at_once, order.rate), (SCHEDULED, Some(2.0)));
        let answers = Answers {
            times: vec![1000, 2000, 3000],
            failed: 1,
            took: Duration::from_secs(3),
            ..Answers::default()
        };
        let run = answered(load, order, answers);
        assert_eq!((run.rate, run.lost, run.seconds), (1.5, 0.25, 2.0));
        assert!(run.more.is_empty());
        let long = Load::Long.order(Duration::from_secs(2));
        assert_eq!((long.most, long.length), (LONG, LONG_LIMIT));
        assert!(!long.kept && Load::Kept.order(long.length).kept);
    }

    #[test]
    fn each_load_has_its_unit() {
        for (load, unit, per) in [
            (Load::Streams(8), "Gbit/s", "GB"),
            (Load::Long, "1/s", "1M connections"),
            (Load::Kept, "1/s", "1M requests"),
            (Load::Idle(1), "MB", "1M connections"),
        ] {
            let meaning = load.meaning();
            assert_eq!((meaning.unit, meaning.per), (unit, per), "{load:?}");
        }
    }
}
