//! Small requests over kept TCP connections to tasks that take a while to answer.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use socket2::Socket;

use super::echo::Exchanged;
use super::{Way, nanos};

/// Bytes of a request.
const REQUEST: usize = 128;

/// Bytes of an answer.
const ANSWER: usize = 512;

/// How long a task sleeps before it answers, as one that waits for a disk or another service.
const WORK: Duration = Duration::from_millis(1);

/// Over each of `count` connections requests go one after the other; a thread of its own for each
/// end of each connection.
pub(crate) fn ask_tasks(
    way: &Way<'_>,
    count: usize,
    length: Duration,
) -> anyhow::Result<Exchanged> {
    let connections = way.connections(count, None)?;
    for (client, server) in &connections {
        client.set_tcp_nodelay(true)?;
        server.set_tcp_nodelay(true)?;
    }
    let begun = Instant::now();
    let deadline = begun + length;
    std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .into_iter()
            .map(|(client, server)| {
                let task = scope.spawn(move || answer(&server));
                // The connection ends with the client, and the task with the connection.
                let client = scope.spawn(move || ask(&client, deadline));
                (client, task)
            })
            .collect();
        let mut times = Vec::new();
        for (client, task) in threads {
            let asked = client.join().map_err(|_| anyhow!("a client panicked"))?;
            let answered = task.join().map_err(|_| anyhow!("a task panicked"))?;
            times.extend(asked?);
            answered?;
        }
        Ok(Exchanged {
            times,
            lost: 0,
            took: begun.elapsed(),
        })
    })
}

fn ask(mut socket: &Socket, deadline: Instant) -> anyhow::Result<Vec<u64>> {
    let mut times = Vec::new();
    let request = [0x5a; REQUEST];
    let mut answer = [0; ANSWER];
    while Instant::now() < deadline {
        let sent = Instant::now();
        socket.write_all(&request).context("cannot ask a task")?;
        socket
            .read_exact(&mut answer)
            .context("a task does not answer")?;
        times.push(nanos(sent.elapsed()));
    }
    Ok(times)
}

fn answer(mut socket: &Socket) -> anyhow::Result<()> {
    let mut request = [0; REQUEST];
    let answer = [0xa5; ANSWER];
    loop {
        match socket.read_exact(&mut request) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e).context("a task hears nothing"),
        }
        std::thread::sleep(WORK);
        socket.write_all(&answer).context("a task cannot answer")?;
    }
}
