//! Long transfers whose every byte is known.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use weft_sys::netns::Netns;

const CHUNK: usize = 256 * 1024;

/// No byte for so long means that the connection is stuck.
const STALL: Duration = Duration::from_secs(20);

/// Pseudo-random words (xorshift64): no piece of the stream looks like another one, so that what
/// is lost, doubled or put in another order shows.
struct Pattern(u64);

impl Pattern {
    const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}

/// Sends the first `total` bytes of the pattern, a multiple of 256 KiB.
///
/// # Panics
/// The connection broke.
pub fn send_pattern(mut stream: &TcpStream, total: usize) {
    let mut pattern = Pattern::new();
    let mut chunk = vec![0; CHUNK];
    for sent in (0..total).step_by(CHUNK) {
        pattern.fill(&mut chunk);
        if let Err(error) = stream.write_all(&chunk) {
            panic!("cannot send after {sent} bytes: {error}");
        }
    }
}

/// Receives and compares what [`send_pattern`] sends.
///
/// # Panics
/// A byte differs, or the connection broke.
pub fn receive_pattern(mut stream: &TcpStream, total: usize) {
    let mut pattern = Pattern::new();
    let (mut chunk, mut expected) = (vec![0; CHUNK], vec![0; CHUNK]);
    for received in (0..total).step_by(CHUNK) {
        if let Err(error) = stream.read_exact(&mut chunk) {
            panic!("cannot receive after {received} bytes: {error}");
        }
        pattern.fill(&mut expected);
        if let Some(at) = (0..CHUNK).find(|i| chunk[*i] != expected[*i]) {
            panic!("byte {} arrived damaged", received + at);
        }
    }
}

/// Sends `total` bytes over one TCP connection to `to`, which is an address inside `server`;
/// returns the time from the first byte to the last one.
///
/// # Panics
/// They did not all arrive as they were sent.
#[must_use]
pub fn transfer(client: &Netns, server: &Netns, to: SocketAddr, total: usize) -> Duration {
    let listener = server
        .run_in(|| TcpListener::bind(to))
        .expect("a thread in the server's namespace")
        .expect("the port is free");
    let sender = client
        .run_in(|| TcpStream::connect_timeout(&to, STALL))
        .expect("a thread in the client's namespace")
        .expect("the server answers");
    let (receiver, _) = listener.accept().expect("the connection is there");
    for stream in [&sender, &receiver] {
        stream.set_read_timeout(Some(STALL)).expect("a limit");
        stream.set_write_timeout(Some(STALL)).expect("a limit");
    }
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| send_pattern(&sender, total));
        receive_pattern(&receiver, total);
    });
    started.elapsed()
}
