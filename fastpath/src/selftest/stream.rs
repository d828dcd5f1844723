//! TCP streams of which every byte is compared, and for which nobody waits for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use weft_sys::netns::Netns;

/// One attempt to connect: a link that has just come up loses the first packets, and TCP itself
/// would try again after a second.
const ATTEMPT: Duration = Duration::from_millis(50);
/// Between attempts that are refused at once.
const PAUSE: Duration = Duration::from_millis(1);
/// How often somebody who waits looks whether that is in vain.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

/// Why a stream did not arrive as it was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Nothing came, or nothing was taken, in time.
    #[error("it stood still")]
    TimedOut,
    /// It ended before all bytes had arrived.
    #[error("it ended early")]
    Ended,
    /// The kernel's checksums did not see it.
    #[error("other bytes arrived than were sent")]
    Differs,
    /// What the kernel said.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

/// How long is waited for one call of a socket, and for all of them.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    each: Duration,
    end: Instant,
}

impl Patience {
    /// At most `each` for one call, and `whole` from now on for all.
    #[must_use]
    pub fn new(each: Duration, whole: Duration) -> Self {
        Self {
            each,
            end: Instant::now() + whole,
        }
    }

    /// For the next call.
    fn call(self) -> Result<Duration, StreamError> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StreamError::TimedOut);
        }
        Ok(left.min(self.each))
    }
}

/// A new connection from one namespace to the address `at` of another; both ends, the caller's first.
pub(super) fn connect(
    from: &Netns,
    (to, at): (&Netns, IpAddr),
    patience: Patience,
) -> Result<[TcpStream; 2], StreamError> {
    let listener = to.run_in(|| TcpListener::bind((at, 0)))??;
    let address = listener.local_addr()?;
    let near = from.run_in(|| reach(address, patience))??;
    let far = accept(listener, near.local_addr()?, patience)?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    Ok([near, far])
}

fn reach(address: SocketAddr, patience: Patience) -> Result<TcpStream, StreamError> {
    let end = Instant::now() + patience.call()?;
    loop {
        match TcpStream::connect_timeout(&address, ATTEMPT) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() >= end => return Err(error.into()),
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            // Addresses and routes of IPv6 are there a moment after they were set.
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Takes the connection of `peer`: attempts that were given up may have left others.
fn accept(
    listener: TcpListener,
    peer: SocketAddr,
    patience: Patience,
) -> Result<TcpStream, StreamError> {
    // A listener waits as long as a stream that reads (socket(7)); only std has no word for it.
    let socket = TcpStream::from(OwnedFd::from(listener));
    socket.set_read_timeout(Some(patience.call()?))?;
    let listener = TcpListener::from(OwnedFd::from(socket));
    loop {
        let (stream, from) = listener.accept()?;
        if (from.ip(), from.port()) == (peer.ip(), peer.port()) {
            return Ok(stream);
        }
        patience.call()?;
    }
}

/// Sends all bytes.
///
/// # Errors
/// [`StreamError`].
pub fn send(mut stream: &TcpStream, bytes: &[u8], patience: Patience) -> Result<(), StreamError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.set_write_timeout(Some(patience.call()?))?;
        match stream.write(rest) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Receives as many bytes as are `wanted`, which have to be these.
///
/// # Errors
/// [`StreamError`].
pub fn receive(
    mut stream: &TcpStream,
    wanted: &[u8],
    patience: Patience,
) -> Result<(), StreamError> {
    let mut buffer = vec![0; PIECE.min(wanted.len())];
    let mut rest = wanted;
    while !rest.is_empty() {
        stream.set_read_timeout(Some(patience.call()?))?;
        let room = buffer.len().min(rest.len());
        let got = match stream.read(&mut buffer[..room]) {
            Ok(0) => return Err(StreamError::Ended),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let (expected, later) = rest.split_at(got);
        if buffer[..got] != *expected {
            return Err(StreamError::Differs);
        }
        rest = later;
    }
    Ok(())
}

/// Waits until there is something to receive; false when that `is_in_vain`.
pub(super) fn arrives(
    stream: &TcpStream,
    patience: Patience,
    is_in_vain: impl Fn() -> bool,
) -> Result<bool, StreamError> {
    let end = Instant::now() + patience.call()?;
    stream.set_read_timeout(Some(LOOK))?;
    loop {
        match stream.peek(&mut [0]) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => match StreamError::from(error) {
                StreamError::TimedOut => {}
                other => return Err(other),
            },
        }
        if is_in_vain() {
            return Ok(false);
        }
        if Instant::now() >= end {
            return Err(StreamError::TimedOut);
        }
    }
}

/// Sends `len` bytes in each direction at once; they arrive as they were sent.
///
/// # Errors
/// [`StreamError`].
pub fn exchange(
    streams: &[TcpStream; 2],
    len: usize,
    patience: Patience,
) -> Result<(), StreamError> {
    let sent = [pattern(len, 1), pattern(len, 2)];
    thread::scope(|scope| {
        let mut running = Vec::new();
        // Those who receive first: their errors say more.
        for (stream, bytes) in streams.iter().zip(sent.iter().rev()) {
            let work = move || receive(stream, bytes, patience);
            running.push(thread::Builder::new().spawn_scoped(scope, work)?);
        }
        for (stream, bytes) in streams.iter().zip(&sent) {
            let work = move || send(stream, bytes, patience);
            running.push(thread::Builder::new().spawn_scoped(scope, work)?);
        }
        let mut whole = Ok(());
        for work in running {
            whole = whole.and(work.join().unwrap_or(Err(StreamError::Ended)));
        }
        whole
    })
}

/// Bytes that do not repeat themselves where a packet ends.
#[must_use]
pub fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut word = seed | 1;
    (0..len)
        .map(|_| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            (word >> 32) as u8
        })
        .collect()
}
