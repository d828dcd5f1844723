//! TCP streams in one direction.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use socket2::Socket;

use super::Way;

/// Bytes of one write of a stream.
const CHUNK: usize = 128 * 1024;

/// What streams brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streamed {
    /// Bytes that the receivers read.
    pub(crate) bytes: u64,
    /// From the first write to the end of the last stream.
    pub(crate) took: Duration,
}

/// Sends `count` TCP streams at once from the client to the server for that long; a thread of its
/// own for each end of each.
pub(crate) fn streams(
    way: &Way<'_>,
    control: &str,
    count: usize,
    length: Duration,
) -> anyhow::Result<Streamed> {
    all(way, (control, count), None, length)
}

/// Sends one TCP stream at no more than that rate.
pub(crate) fn paced(
    way: &Way<'_>,
    control: &str,
    bits_per_second: u64,
    length: Duration,
) -> anyhow::Result<Streamed> {
    all(way, (control, 1), Some(bits_per_second), length)
}

fn all(
    way: &Way<'_>,
    (control, count): (&str, usize),
    bits_per_second: Option<u64>,
    length: Duration,
) -> anyhow::Result<Streamed> {
    let connections = way.connections(count, Some(control))?;
    let begun = Instant::now();
    let deadline = begun + length;
    std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .into_iter()
            .map(|(client, server)| {
                let receiver = scope.spawn(move || receive(&server));
                let sender = scope.spawn(move || send(&client, bits_per_second, deadline));
                (sender, receiver)
            })
            .collect();
        let mut bytes = 0;
        for (sender, receiver) in threads {
            let sent = sender.join().map_err(|_| anyhow!("a sender panicked"))?;
            let received = receiver
                .join()
                .map_err(|_| anyhow!("a receiver panicked"))?;
            let (sent, received) = (sent?, received?);
            if received != sent {
                bail!("{sent} bytes were sent, but {received} arrived");
            }
            bytes += received;
        }
        Ok(Streamed {
            bytes,
            took: begun.elapsed(),
        })
    })
}

fn send(
    mut socket: &Socket,
    bits_per_second: Option<u64>,
    deadline: Instant,
) -> anyhow::Result<u64> {
    let chunk = vec![0x5a; CHUNK];
    let (begun, mut sent) = (Instant::now(), 0);
    while Instant::now() < deadline {
        sent += socket.write(&chunk).context("the stream stands still")? as u64;
        if let Some(rate) = bits_per_second {
            // Not beyond the end: the slowest rate is no longer than any other.
            let next = (begun + takes(sent, rate)).min(deadline);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    socket.shutdown(Shutdown::Write)?;
    Ok(sent)
}

/// How long so many bytes take at a rate.
fn takes(bytes: u64, bits_per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 * 8.0 / bits_per_second.max(1) as f64)
}

fn receive(mut socket: &Socket) -> anyhow::Result<u64> {
    let mut buffer = vec![0; 2 * CHUNK];
    let mut bytes = 0;
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes += count as u64,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("the stream broke"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_in_bits_of_data() {
        assert_eq!(takes(250_000_000, 2_000_000_000), Duration::from_secs(1));
        assert_eq!(takes(0, 2_000_000_000), Duration::ZERO);
        // No rate at all is the slowest one.
        assert_eq!(takes(1, 0), Duration::from_secs(8));
    }
}
