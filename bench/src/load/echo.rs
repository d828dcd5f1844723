//! Datagrams there and back.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::{LOST, Way, is_timeout, nanos};

/// Bytes of data in a datagram.
const DATAGRAM: usize = 64;

/// What round trips took.
#[derive(Debug, Clone)]
pub(crate) struct Exchanged {
    /// Nanoseconds of each round trip.
    pub(crate) times: Vec<u64>,
    /// Requests without an answer in time.
    pub(crate) lost: u64,
    /// Time of all of them, lost ones included.
    pub(crate) took: Duration,
}

/// Sends 64 bytes and waits for them to come back, again and again, for that long.
pub(crate) fn exchange(way: &Way<'_>, length: Duration) -> anyhow::Result<Exchanged> {
    exchange_every(way, Duration::ZERO, length)
}

/// The same with a request no sooner than that long after the one before.
pub(crate) fn exchange_every(
    way: &Way<'_>,
    period: Duration,
    length: Duration,
) -> anyhow::Result<Exchanged> {
    with_echo(way, 1, |clients| match clients {
        [client] => ask(client, period, length),
        _ => anyhow::bail!("one socket was asked for"),
    })
}

/// The same with `count` requests on their way at any time, each from a socket of its own; one
/// thread serves them all.
pub(crate) fn exchange_many(
    way: &Way<'_>,
    count: usize,
    length: Duration,
) -> anyhow::Result<Exchanged> {
    with_echo(way, count, |clients| ask_many(clients, length))
}

fn with_echo(
    way: &Way<'_>,
    count: usize,
    work: impl FnOnce(&[UdpSocket]) -> anyhow::Result<Exchanged>,
) -> anyhow::Result<Exchanged> {
    let (server, target) = way.datagrams()?;
    server.set_read_timeout(Some(LOST))?;
    let clients = way.clients(target, count)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| echo_until(&server, &stop));
        let exchanged = work(&clients);
        stop.store(true, Ordering::Relaxed);
        echo.join().map_err(|_| anyhow!("the server panicked"))??;
        exchanged
    })
}

fn ask(client: &UdpSocket, period: Duration, length: Duration) -> anyhow::Result<Exchanged> {
    client.set_read_timeout(Some(LOST))?;
    let mut exchanged = Exchanged {
        times: Vec::with_capacity(1 << 20),
        lost: 0,
        took: Duration::ZERO,
    };
    let mut datagram = [0u8; DATAGRAM];
    let mut answer = [0u8; 2 * DATAGRAM];
    let begun = Instant::now();
    let mut number = 0u64;
    while begun.elapsed() < length {
        number += 1;
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        let sent = Instant::now();
        client.send(&datagram)?;
        loop {
            match client.recv(&mut answer) {
                Ok(count) if answer[..count] == datagram => {
                    exchanged.times.push(nanos(sent.elapsed()));
                    break;
                }
                // The late answer to an earlier one.
                Ok(_) => {}
                Err(e) if is_timeout(&e) => {
                    exchanged.lost += 1;
                    break;
                }
                Err(e) => return Err(e).context("no answer to a datagram"),
            }
        }
        if let Some(early) = period.checked_sub(sent.elapsed()) {
            std::thread::sleep(early);
        }
    }
    exchanged.took = begun.elapsed();
    Ok(exchanged)
}

/// A request that is on its way.
#[derive(Debug, Clone, Copy)]
struct Request {
    number: u64,
    sent: Instant,
}

impl Request {
    fn send(socket: &UdpSocket, number: u64) -> anyhow::Result<Self> {
        let mut datagram = [0u8; DATAGRAM];
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        let sent = Instant::now();
        match socket.send(&datagram) {
            Ok(_) => {}
            // No room in the socket: as good as lost.
            Err(e) if is_timeout(&e) => {}
            Err(e) => return Err(e).context("cannot send a datagram"),
        }
        Ok(Self { number, sent })
    }
}

fn ask_many(clients: &[UdpSocket], length: Duration) -> anyhow::Result<Exchanged> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut open = Vec::with_capacity(clients.len());
    let begun = Instant::now();
    for (index, client) in clients.iter().enumerate() {
        client.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&poll, client, data, epoll::EventFlags::IN)?;
        open.push(Request::send(client, 0)?);
    }
    let mut exchanged = Exchanged {
        times: Vec::with_capacity(1 << 20),
        lost: 0,
        took: Duration::ZERO,
    };
    let wait = Timespec::try_from(LOST / 4)?;
    let mut events = Vec::with_capacity(clients.len());
    let mut answer = [0u8; 2 * DATAGRAM];
    let mut looked = begun;
    loop {
        match epoll::wait(&poll, spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("cannot wait for answers"),
        }
        let now = Instant::now();
        if now - begun >= length {
            exchanged.took = now - begun;
            return Ok(exchanged);
        }
        for event in events.drain(..) {
            let index = usize::try_from(event.data.u64())?;
            let number = match clients[index].recv(&mut answer) {
                Ok(DATAGRAM) => answer.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)),
                Ok(_) => None,
                Err(e) if is_timeout(&e) => None,
                Err(e) => return Err(e).context("no answer to a datagram"),
            };
            if number == Some(open[index].number) {
                exchanged.times.push(nanos(open[index].sent.elapsed()));
                open[index] = Request::send(&clients[index], open[index].number + 1)?;
            }
        }
        if now - looked > LOST / 4 {
            looked = now;
            for (client, request) in clients.iter().zip(&mut open) {
                if now.saturating_duration_since(request.sent) > LOST {
                    exchanged.lost += 1;
                    *request = Request::send(client, request.number + 1)?;
                }
            }
        }
    }
}

fn echo_until(server: &UdpSocket, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut buffer = [0u8; 2 * DATAGRAM];
    while !stop.load(Ordering::Relaxed) {
        match server.recv_from(&mut buffer) {
            Ok((count, from)) => {
                server.send_to(&buffer[..count], from)?;
            }
            Err(e) if is_timeout(&e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
