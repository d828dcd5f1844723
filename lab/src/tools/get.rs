//! `demo-get`: one HTTP/1.1 request per connection, with limits.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use socket2::{Domain, Socket, Type};

/// Longest time without progress.
const LIMIT: Duration = Duration::from_secs(3);

/// Longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Longest body that is kept, in bytes; more is only counted.
const MAX_KEPT: usize = 64 * 1024;

/// What `demo-get` takes.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Print how many bytes came and how long it took, instead of the bytes
    #[arg(long)]
    count: bool,
    /// How many requests, one after the other
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// What to request
    #[arg(value_name = "ADDRESS:PORT/PATH")]
    target: String,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Start of the body.
    pub body: Vec<u8>,
    /// Length of the whole body in bytes.
    pub length: u64,
    /// From the start of the connection to the last byte.
    pub took: Duration,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// The connection.
    #[default]
    Connect,
    /// The head of the answer.
    Head,
    /// More of its body.
    Body,
    /// The end of the connection, after all bytes that were announced.
    End,
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The client's end of the connection, also of one that nobody took.
    pub local: Option<SocketAddr>,
    /// What it waits for.
    pub phase: Phase,
    /// Bytes of the answer so far, its head among them.
    pub bytes: u64,
}

/// Requests `path` from the namespace of this thread; `limit` is for connecting and for each wait for
/// more.
///
/// # Errors
/// No connection, no whole answer, or another status than 200.
pub fn fetch(addr: SocketAddr, path: &str, limit: Duration) -> io::Result<Answer> {
    fetch_noting(addr, path, limit, &mut Progress::default())
}

/// As [`fetch`]; how far it came is in `progress`, whatever becomes of it.
pub(crate) fn fetch_noting(
    addr: SocketAddr,
    path: &str,
    limit: Duration,
    progress: &mut Progress,
) -> io::Result<Answer> {
    let started = Instant::now();
    let mut stream = connect(addr, limit, progress)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    progress.phase = Phase::Head;
    stream.write_all(request.as_bytes())?;

    let mut buffer = vec![0; 256 * 1024];
    let mut head = Vec::new();
    let rest = loop {
        let count = stream.read(&mut buffer)?;
        progress.bytes += count as u64;
        head.extend_from_slice(&buffer[..count]);
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            break head.split_off(end + 4);
        }
        if count == 0 || head.len() > MAX_HEAD {
            return Err(malformed("the head of the answer has no end"));
        }
    };
    let announced = announced_length(&head)?;
    let mut body = rest;
    let mut length = body.len() as u64;
    loop {
        progress.phase = if announced.is_some_and(|announced| length >= announced) {
            Phase::End
        } else {
            Phase::Body
        };
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        progress.bytes += count as u64;
        length += count as u64;
        let room = MAX_KEPT.saturating_sub(body.len()).min(count);
        body.extend_from_slice(&buffer[..room]);
    }
    if announced.is_some_and(|announced| announced != length) {
        return Err(malformed("the answer was cut off"));
    }
    Ok(Answer {
        body,
        length,
        took: started.elapsed(),
    })
}

/// As the standard library does; but a connection that fails has told its port.
fn connect(addr: SocketAddr, limit: Duration, progress: &mut Progress) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    let connected = socket.connect_timeout(&addr.into(), limit);
    let local = socket.local_addr().ok();
    progress.local = local.and_then(|local| local.as_socket());
    connected?;
    Ok(socket.into())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Checks the status line and returns what `content-length` says.
fn announced_length(head: &[u8]) -> io::Result<Option<u64>> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(malformed(status));
    }
    for line in lines {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            let value = value.trim().parse();
            return Ok(Some(value.map_err(|_| malformed(line))?));
        }
    }
    Ok(None)
}

/// Prints what comes, or how much of it.
pub(crate) fn run(args: &GetArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (host, path) = match args.target.split_once('/') {
        Some((host, path)) => (host, format!("/{path}")),
        None => (args.target.as_str(), "/".to_owned()),
    };
    let addr = host
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    for _ in 0..args.times {
        let answer = match fetch(addr, &path, LIMIT) {
            Ok(answer) => answer,
            Err(e) => bail!("no answer from {addr}: {e}"),
        };
        if args.count {
            let seconds = answer.took.as_secs_f64();
            writeln!(
                out,
                "{} bytes in {seconds:.3} s, {:.2} Gbit/s",
                answer.length,
                answer.length as f64 * 8.0 / seconds / 1e9
            )?;
        } else {
            out.write_all(&answer.body)?;
            out.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn served(answer: &'static [u8]) -> io::Result<Answer> {
        served_noting(answer, &mut Progress::default())
    }

    fn served_noting(answer: &'static [u8], progress: &mut Progress) -> io::Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            // Everything has to be read, or the end would be a reset.
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            io::copy(&mut stream, &mut io::sink()).unwrap();
        });
        let result = fetch_noting(addr, "/", Duration::from_secs(5), progress);
        server.join().unwrap();
        result
    }

    #[test]
    fn answers() {
        let answer = served(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        assert_eq!(
            (answer.body.as_slice(), answer.length),
            (b"hello".as_slice(), 5)
        );
        for (bad, says) in [
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello".as_slice(),
                "cut off",
            ),
            (b"HTTP/1.1 503 Busy\r\n\r\n", "503 Busy"),
            (b"HTTP/1.1 200 OK\r\n", "no end"),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
                "content-length: x",
            ),
        ] {
            let said = served(bad).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn a_failure_says_how_far_it_came() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
        for (sent, phase) in [
            (10, Phase::Head),
            (40, Phase::Body),
            (whole.len(), Phase::End),
        ] {
            let mut progress = Progress::default();
            let got = served_noting(&whole[..sent], &mut progress);
            assert_eq!(got.is_ok(), sent == whole.len());
            assert_eq!((progress.phase, progress.bytes), (phase, sent as u64));
            assert!(progress.local.is_some_and(|local| local.port() != 0));
        }
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut progress = Progress::default();
        fetch_noting(nobody, "/", Duration::from_secs(5), &mut progress).unwrap_err();
        assert_eq!((progress.phase, progress.bytes), (Phase::Connect, 0));
    }
}
