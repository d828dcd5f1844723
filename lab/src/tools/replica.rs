//! `bench-replica`: a server that costs little, so that what is before it is measured.
//!
//! A request is one line. `stream` is answered with bytes until the client closes; every other
//! line, of [`REQUEST`] bytes, with [`ANSWER`] bytes. Connections stay open until the client
//! closes them.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// What `bench-replica` takes.
#[derive(Debug, Args)]
pub(crate) struct ReplicaArgs {
    /// Port to listen on
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// TCP congestion control of its connections
    #[arg(long = "cc", value_name = "NAME")]
    congestion: Option<String>,
}

/// Bytes of a request with its end of line.
pub const REQUEST: usize = 64;

/// Bytes of a small answer.
pub const ANSWER: usize = 128;

/// The request for bytes without end, padded to [`REQUEST`].
pub const STREAM: &[u8] = b"stream";

/// Bytes of one piece of a stream.
const CHUNK: usize = 256 * 1024;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// A request of that kind: its word, spaces, an end of line.
#[must_use]
pub fn request(word: &[u8]) -> [u8; REQUEST] {
    let mut line = [b' '; REQUEST];
    let length = word.len().min(REQUEST - 1);
    line[..length].copy_from_slice(&word[..length]);
    line[REQUEST - 1] = b'\n';
    line
}

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn serve(args: ReplicaArgs) -> anyhow::Result<ExitCode> {
    let listener = listen(args.port).with_context(|| format!("cannot listen on {}", args.port))?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let control = args.congestion.map(String::into_bytes);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(control) = &control {
                        SockRef::from(&stream).set_tcp_congestion(control)?;
                    }
                    tokio::spawn(answer(stream));
                }
                // The client gave up, or descriptors are short for a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            _ = stop.recv() => return Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    socket.listen(BACKLOG)
}

/// The end of a connection, in whatever way, is the client's business.
async fn answer(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut line = [0; REQUEST];
    loop {
        stream.read_exact(&mut line).await.ok()?;
        if line.starts_with(STREAM) {
            let chunk = vec![0x5a; CHUNK];
            loop {
                stream.write_all(&chunk).await.ok()?;
            }
        }
        stream.write_all(&[b'.'; ANSWER]).await.ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_of_one_length() {
        let line = request(STREAM);
        assert!(line.starts_with(b"stream ") && line.ends_with(b" \n"));
        assert_eq!(request(&[b'x'; 100])[REQUEST - 1], b'\n');
    }

    #[tokio::test]
    async fn lines_are_answered_and_streams_have_no_end() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move { answer(listener.accept().await.unwrap().0).await });
        let mut client = TcpStream::connect(addr).await.unwrap();
        let mut got = [0; ANSWER];
        for _ in 0..2 {
            client.write_all(&request(b"ping")).await.unwrap();
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [b'.'; ANSWER]);
        }
        client.write_all(&request(STREAM)).await.unwrap();
        let mut much = vec![0; 3 * CHUNK];
        client.read_exact(&mut much).await.unwrap();
        assert!(much.iter().all(|byte| *byte == 0x5a));
    }
}
