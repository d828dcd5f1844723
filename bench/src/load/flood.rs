//! Datagrams in one direction, as fast as one thread can send them.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use socket2::SockRef;

use super::{LOST, Way, is_timeout};

/// Datagrams between two looks at the clock.
const BURST: usize = 64;

/// Wanted receive buffer in bytes; the kernel grants what `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What became of the datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flooded {
    /// Datagrams that the kernel took from the sender.
    pub(crate) sent: u64,
    /// Datagrams that the receiver read.
    pub(crate) received: u64,
    /// How long the sender sent.
    pub(crate) took: Duration,
}

/// One thread calls `send()` for one datagram after the other, as fast as it can; another one calls
/// `recv()` and counts, until nothing more comes.
pub(crate) fn flood(way: &Way<'_>, payload: usize, length: Duration) -> anyhow::Result<Flooded> {
    let (server, target) = way.datagrams()?;
    SockRef::from(&server).set_recv_buffer_size(RECEIVE_BUFFER)?;
    server.set_read_timeout(Some(LOST))?;
    let client = way.clients(target, 1)?.pop().context("no socket")?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| count(&server, payload, &over));
        let begun = Instant::now();
        let sent = send(&client, payload, begun + length);
        let took = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        let received = receiver.join();
        let received = received.map_err(|_| anyhow!("the receiver panicked"))??;
        Ok(Flooded {
            sent: sent?,
            received,
            took,
        })
    })
}

fn send(socket: &UdpSocket, payload: usize, deadline: Instant) -> anyhow::Result<u64> {
    let datagram = vec![0x5a; payload];
    let mut sent = 0;
    while Instant::now() < deadline {
        for _ in 0..BURST {
            match socket.send(&datagram) {
                Ok(_) => sent += 1,
                // No room at the device (ENOBUFS): not sent, so not lost either.
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
                Err(e) => return Err(e).context("cannot send a datagram"),
            }
        }
    }
    Ok(sent)
}

fn count(socket: &UdpSocket, payload: usize, over: &AtomicBool) -> anyhow::Result<u64> {
    let mut buffer = vec![0; payload + 1];
    let mut received = 0;
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => received += u64::from(len == payload),
            Err(e) if is_timeout(&e) => {
                if over.load(Ordering::Relaxed) {
                    return Ok(received);
                }
            }
            Err(e) => return Err(e).context("cannot receive"),
        }
    }
}
