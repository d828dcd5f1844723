//! Small requests, one after the other, over a TCP connection that is kept.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use socket2::Socket;

use super::echo::Exchanged;
use super::{Way, nanos};

/// Bytes of a request, and of its answer.
const REQUEST: usize = 64;

/// Sends 64 bytes and waits for them to come back, again and again, for that long.
pub(crate) fn exchange_kept(way: &Way<'_>, length: Duration) -> anyhow::Result<Exchanged> {
    let (client, server) = way.connections(1, None)?.pop().context("no connection")?;
    for socket in [&client, &server] {
        socket.set_tcp_nodelay(true)?;
    }
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || echo(&server));
        let times = ask(&client, begun + length);
        // The echo ends with the connection.
        drop(client);
        echo.join().map_err(|_| anyhow!("the server panicked"))??;
        Ok(Exchanged {
            times: times?,
            lost: 0,
            took: begun.elapsed(),
        })
    })
}

fn ask(mut socket: &Socket, deadline: Instant) -> anyhow::Result<Vec<u64>> {
    let mut times = Vec::with_capacity(1 << 20);
    let request = [0x5a; REQUEST];
    let mut answer = [0; REQUEST];
    while Instant::now() < deadline {
        let sent = Instant::now();
        socket.write_all(&request).context("cannot ask")?;
        socket.read_exact(&mut answer).context("no answer")?;
        times.push(nanos(sent.elapsed()));
    }
    Ok(times)
}

fn echo(mut socket: &Socket) -> anyhow::Result<()> {
    let mut request = [0; REQUEST];
    loop {
        match socket.read_exact(&mut request) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e).context("the server hears nothing"),
        }
        socket.write_all(&request).context("cannot answer")?;
    }
}
