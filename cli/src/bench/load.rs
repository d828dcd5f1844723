//! The load: sockets that are opened inside the namespaces, and threads of this process.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use socket2::{Domain, Protocol, Socket, Type};

use super::side::Side;

/// Bytes of one write of the stream.
const CHUNK: usize = 128 * 1024;

/// Bytes of data in a datagram.
const DATAGRAM: usize = 64;

/// A stream that stands still for so long has failed.
const STALL: Duration = Duration::from_secs(5);

/// A datagram without an answer for so long is lost.
const LOST: Duration = Duration::from_millis(200);

/// What a stream brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streamed {
    /// Bytes that the receiver read.
    pub(super) bytes: u64,
    /// From the accepted connection to its end.
    pub(super) took: Duration,
}

/// What round trips took.
#[derive(Debug, Clone)]
pub(super) struct Exchanged {
    /// Nanoseconds of each round trip, in order.
    pub(super) times: Vec<u64>,
    /// Time of all of them, lost ones included.
    pub(super) took: Duration,
}

/// Sends one TCP stream from the client to the server for that long.
pub(super) fn stream(side: &Side, control: &str, length: Duration) -> anyhow::Result<Streamed> {
    let listener = side
        .server
        .run_in(|| TcpListener::bind((side.addr, 0)))?
        .context("cannot listen in the namespace")?;
    let target = listener.local_addr()?;
    let socket = side.client.run_in(|| {
        Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )
    })??;
    socket
        .set_tcp_congestion(control.as_bytes())
        .with_context(|| format!("cannot use congestion control {control}"))?;
    socket.set_write_timeout(Some(STALL))?;
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || receive(&listener));
        let sent = send(&socket, target, length);
        // Closed in any case, so that the receiver comes to an end.
        drop(socket);
        if sent.is_err() {
            // It may still be waiting for a connection that never came.
            wake(side, target);
        }
        let received = receiver
            .join()
            .map_err(|_| anyhow!("the receiver panicked"))?;
        let sent = sent?;
        let received = received?;
        if received.bytes != sent {
            bail!("{sent} bytes were sent, but {} arrived", received.bytes);
        }
        Ok(received)
    })
}

fn send(mut socket: &Socket, target: SocketAddr, length: Duration) -> anyhow::Result<u64> {
    let chunk = vec![0x5a; CHUNK];
    socket
        .connect_timeout(&target.into(), STALL)
        .with_context(|| format!("cannot connect to {target}"))?;
    let deadline = Instant::now() + length;
    let mut sent = 0;
    while Instant::now() < deadline {
        sent += socket.write(&chunk).context("the stream stands still")? as u64;
    }
    socket.shutdown(std::net::Shutdown::Write)?;
    Ok(sent)
}

fn receive(listener: &TcpListener) -> anyhow::Result<Streamed> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(STALL))?;
    let begun = Instant::now();
    let mut buffer = vec![0; 2 * CHUNK];
    let mut bytes = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes += count as u64,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("the stream broke"),
        }
    }
    Ok(Streamed {
        bytes,
        took: begun.elapsed(),
    })
}

/// Connects once from the server's own namespace, which needs no network.
fn wake(side: &Side, target: SocketAddr) {
    drop(
        side.server
            .run_in(|| std::net::TcpStream::connect_timeout(&target, STALL)),
    );
}

/// Sends 64 bytes and waits for them to come back, again and again, for that long.
pub(super) fn exchange(side: &Side, length: Duration) -> anyhow::Result<Exchanged> {
    let server = side
        .server
        .run_in(|| UdpSocket::bind((side.addr, 0)))?
        .context("cannot listen in the namespace")?;
    server.set_read_timeout(Some(LOST))?;
    let target = server.local_addr()?;
    let client = side.client.run_in(|| {
        let any = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0);
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        std::io::Result::Ok(socket)
    })??;
    client.set_read_timeout(Some(LOST))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| echo_until(&server, &stop));
        let exchanged = ask(&client, length);
        stop.store(true, Ordering::Relaxed);
        echo.join().map_err(|_| anyhow!("the server panicked"))??;
        exchanged
    })
}

fn ask(client: &UdpSocket, length: Duration) -> anyhow::Result<Exchanged> {
    let mut times = Vec::with_capacity(1 << 20);
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
                    let nanos = sent.elapsed().as_nanos();
                    times.push(u64::try_from(nanos).unwrap_or(u64::MAX));
                    break;
                }
                // The late answer to an earlier one.
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("no answer to a datagram"),
            }
        }
    }
    Ok(Exchanged {
        times,
        took: begun.elapsed(),
    })
}

fn echo_until(server: &UdpSocket, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut buffer = [0u8; 2 * DATAGRAM];
    while !stop.load(Ordering::Relaxed) {
        match server.recv_from(&mut buffer) {
            Ok((count, from)) => {
                server.send_to(&buffer[..count], from)?;
            }
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
