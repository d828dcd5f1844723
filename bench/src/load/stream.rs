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
    let connections = way.connections(count, Some(control))?;
    let begun = Instant::now();
    let deadline = begun + length;
    std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .into_iter()
            .map(|(client, server)| {
                let receiver = scope.spawn(move || receive(&server));
                let sender = scope.spawn(move || send(&client, deadline));
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

fn send(mut socket: &Socket, deadline: Instant) -> anyhow::Result<u64> {
    let chunk = vec![0x5a; CHUNK];
    let mut sent = 0;
    while Instant::now() < deadline {
        sent += socket.write(&chunk).context("the stream stands still")? as u64;
    }
    socket.shutdown(Shutdown::Write)?;
    Ok(sent)
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
