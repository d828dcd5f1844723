//! `weft ping`

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use weft_client::{Client, segment};
use weft_model::api::{Passage, Pong};

use crate::args::PingArgs;
use crate::output::{Printer, complain, is_reader_gone};

/// Bytes of the small packet: as much as an empty one of ping(8) has.
const SMALL: u16 = 64;

/// Exit status when nothing could be sent, as ping(8) has it.
const NOT_SENT: u8 = 2;

pub(super) async fn run(
    client: anyhow::Result<Client>,
    args: &PingArgs,
    out: &mut Printer,
) -> anyhow::Result<ExitCode> {
    let result = match client {
        Ok(client) => rounds(&client, args, out).await,
        Err(error) => Err(error),
    };
    match result {
        Err(error) if !is_reader_gone(&error) => {
            complain(&format!("weft: {error:#}"));
            Ok(NOT_SENT.into())
        }
        result => result,
    }
}

async fn rounds(client: &Client, args: &PingArgs, out: &mut Printer) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // The largest is asked for without a number: it may change meanwhile.
    let sizes = args
        .size
        .map_or_else(|| vec![Some(SMALL), None], |size| vec![Some(size)]);
    let mut tallies: Vec<Tally> = sizes.iter().map(|_| Tally::default()).collect();
    let (mut sequence, mut headed) = (0, false);
    let interval = Duration::from_millis(args.interval);
    'rounds: while args.count.is_none_or(|count| sequence < count) {
        let began = Instant::now();
        sequence += 1;
        for (size, tally) in sizes.iter().zip(&mut tallies) {
            let mut path = format!(
                "/v1/ping/{}?timeout_ms={}",
                segment(&args.node),
                args.timeout
            );
            if let Some(size) = size {
                path += &format!("&size={size}");
            }
            let pong: Pong = tokio::select! {
                pong = client.get(&path) => pong?,
                _ = interrupt.recv() => break 'rounds,
                _ = terminate.recv() => break 'rounds,
            };
            if !headed {
                headed = true;
                out.line(&heading(&pong))?;
            }
            tally.add(&pong);
            if !args.quiet {
                out.line(&line(&pong, sequence))?;
                out.flush()?;
            }
            if pong.there != Passage::Passes {
                // What is larger does not pass either.
                break;
            }
        }
        if args.count == Some(sequence) {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep_until(began + interval) => {}
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    out.text(&summary(&args.node, &tallies))?;
    Ok(if tallies.iter().all(|tally| tally.received > 0) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn heading(pong: &Pong) -> String {
    format!(
        "PING {} ({}) from {} by VXLAN on UDP port {}",
        pong.node, pong.to, pong.from, pong.port
    )
}

fn line(pong: &Pong, sequence: u64) -> String {
    let Pong { to, size, .. } = pong;
    match pong.rtt_us {
        Some(us) => format!(
            "{size} bytes from {to}: seq={sequence} time={} ms",
            milliseconds(us)
        ),
        None => format!(
            "no answer from {to}: seq={sequence} {size} bytes: {}",
            lost(pong)
        ),
    }
}

/// Where packets like a lost one are lost.
fn lost(pong: &Pong) -> String {
    let Pong { from, to, port, .. } = pong;
    match (pong.there, pong.back) {
        (Passage::Passes, Passage::Passes) => "this one was lost, others pass both ways".to_owned(),
        (Passage::Passes, _) => {
            format!(
                "they arrive there, the answers do not come back (UDP {port} from {to} to {from})"
            )
        }
        _ => format!("they do not arrive there (UDP {port} from {from} to {to})"),
    }
}

/// Packets of one size.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    size: u16,
    sent: u64,
    received: u64,
    least_us: u64,
    most_us: u64,
    sum_us: u64,
    /// Sum of squares, for the deviation.
    squares: f64,
    ways: Option<(Passage, Passage)>,
}

impl Tally {
    const fn begun(&self) -> bool {
        self.sent > 0
    }

    fn add(&mut self, pong: &Pong) {
        self.size = pong.size;
        self.sent += 1;
        self.ways = Some((pong.there, pong.back));
        if let Some(us) = pong.rtt_us {
            self.least_us = if self.received == 0 {
                us
            } else {
                self.least_us.min(us)
            };
            self.most_us = self.most_us.max(us);
            self.received += 1;
            self.sum_us += us;
            self.squares += (us as f64).powi(2);
        }
    }

    /// As ping(8) tells it.
    fn told(&self) -> String {
        let lost = (self.sent - self.received) as f64 * 100.0 / self.sent.max(1) as f64;
        let mut text = format!(
            "{} packets of {} bytes transmitted, {} received, {lost:.0}% packet loss\n",
            self.sent, self.size, self.received
        );
        if self.received > 0 {
            let mean = self.sum_us as f64 / self.received as f64;
            let variance = self.squares / self.received as f64 - mean * mean;
            text += &format!(
                "rtt min/avg/max/mdev = {}/{:.3}/{}/{:.3} ms\n",
                milliseconds(self.least_us),
                mean / 1e3,
                milliseconds(self.most_us),
                variance.max(0.0).sqrt() / 1e3
            );
        }
        text
    }
}

fn summary(node: &str, tallies: &[Tally]) -> String {
    let begun: Vec<&Tally> = tallies.iter().filter(|tally| tally.begun()).collect();
    if begun.is_empty() {
        return String::new();
    }
    let mut text = format!("\n--- {node} overlay ping statistics ---\n");
    for tally in &begun {
        text += &tally.told();
    }
    let said = |way: Passage| match way {
        Passage::Passes => "pass",
        Passage::Lost => "lost",
        Passage::Unknown => "unknown",
    };
    for tally in begun {
        if let Some((there, back)) = tally.ways {
            text += &format!(
                "{} bytes: there {}, back {}\n",
                tally.size,
                said(there),
                said(back)
            );
        }
    }
    text
}

fn milliseconds(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pong(size: u16, rtt_us: Option<u64>, there: Passage, back: Passage) -> Pong {
        Pong {
            node: "node2".to_owned(),
            from: [10, 77, 0, 1].into(),
            to: [10, 77, 0, 2].into(),
            port: 4789,
            size,
            rtt_us,
            there,
            back,
        }
    }

    #[test]
    fn it_reads_like_ping() {
        use Passage::{Lost, Passes, Unknown};
        let small = pong(64, Some(210), Passes, Passes);
        assert_eq!(
            heading(&small),
            "PING node2 (10.77.0.2) from 10.77.0.1 by VXLAN on UDP port 4789"
        );
        assert_eq!(
            line(&small, 3),
            "64 bytes from 10.77.0.2: seq=3 time=0.210 ms"
        );
        let large = pong(1450, None, Passes, Lost);
        assert_eq!(
            line(&large, 1),
            "no answer from 10.77.0.2: seq=1 1450 bytes: they arrive there, the answers do not come back (UDP 4789 from 10.77.0.2 to 10.77.0.1)"
        );
        let blocked = line(&pong(64, None, Lost, Unknown), 1);
        assert!(blocked.ends_with("do not arrive there (UDP 4789 from 10.77.0.1 to 10.77.0.2)"));
        let once = line(&pong(64, None, Passes, Passes), 1);
        assert!(once.ends_with("others pass both ways"));
        let mut tallies = [Tally::default(); 2];
        for us in [200, 400] {
            tallies[0].add(&pong(64, Some(us), Passes, Passes));
        }
        tallies[1].add(&large);
        assert_eq!(
            summary("node2", &tallies),
            "\n--- node2 overlay ping statistics ---\n\
             2 packets of 64 bytes transmitted, 2 received, 0% packet loss\n\
             rtt min/avg/max/mdev = 0.200/0.300/0.400/0.100 ms\n\
             1 packets of 1450 bytes transmitted, 0 received, 100% packet loss\n\
             64 bytes: there pass, back pass\n\
             1450 bytes: there pass, back lost\n"
        );
        assert_eq!(summary("node2", &[Tally::default()]), "");
    }
}
