//! Datagrams for a node's VXLAN port that no node sends.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use weft_sys::netns::Netns;

/// Bytes of the datagrams: less than a header, small, and what fits an underlay of 1500.
const SIZES: [usize; 3] = [5, 100, 1400];

/// Different datagrams; the two senders take turns.
const POOL: usize = 96;

/// A VXLAN header with the I flag and a VNI that no network has.
const WRONG_VNI: [u8; 8] = [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0];

/// Where garbage comes from, and how much of it was sent.
#[derive(Debug)]
pub(crate) struct Garbage {
    stranger: UdpSocket,
    impostor: UdpSocket,
    pool: Vec<Vec<u8>>,
    sent: AtomicU64,
    nanos: AtomicU64,
}

impl Garbage {
    /// Sockets in `netns`: one with its own address, which is no node's, and one with the address
    /// of `node`, which is.
    pub(crate) fn new(
        netns: &Netns,
        node: SocketAddr,
        target: SocketAddr,
    ) -> anyhow::Result<Arc<Self>> {
        let open = |bind: Option<SocketAddr>| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            if let Some(bind) = bind {
                // Only root may speak in the name of another.
                socket.set_ip_transparent_v4(true)?;
                socket.bind(&bind.into())?;
            }
            socket.connect(&target.into())?;
            std::io::Result::Ok(UdpSocket::from(socket))
        };
        let sockets = netns.run_in(|| std::io::Result::Ok((open(None)?, open(Some(node))?)))?;
        let (stranger, impostor) = sockets.context("cannot open the sockets of the flood")?;
        Ok(Arc::new(Self {
            stranger,
            impostor,
            pool: pool(),
            sent: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
        }))
    }

    /// Sends as fast as one thread can, until the value is dropped.
    pub(crate) fn start(self: &Arc<Self>) -> anyhow::Result<Flooding> {
        let over = Arc::new(AtomicBool::new(false));
        let (garbage, seen) = (Arc::clone(self), Arc::clone(&over));
        let thread = std::thread::Builder::new()
            .name("garbage".to_owned())
            .spawn(move || garbage.send_until(&seen))?;
        Ok(Flooding {
            over,
            thread: Some(thread),
        })
    }

    fn send_until(&self, over: &AtomicBool) {
        let (begun, mut sent) = (Instant::now(), 0);
        while !over.load(Ordering::Relaxed) {
            for pair in self.pool.chunks(2) {
                for (socket, datagram) in [&self.stranger, &self.impostor].into_iter().zip(pair) {
                    // What the kernel refuses was not sent, and the next one comes at once.
                    sent += u64::from(socket.send(datagram).is_ok());
                }
            }
        }
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.nanos
            .fetch_add(super::nanos(begun.elapsed()), Ordering::Relaxed);
    }

    /// Datagrams sent until now, and the time that it took.
    pub(crate) fn sent(&self) -> (u64, Duration) {
        (
            self.sent.load(Ordering::Relaxed),
            Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        )
    }
}

/// A flood that goes on.
#[derive(Debug)]
pub(crate) struct Flooding {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flooding {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            weft_cli::complain("the flood panicked");
        }
    }
}

/// Half noise, half noise behind a header of a network that nobody knows.
fn pool() -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        // xorshift64: the same garbage every time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    let mut pool = Vec::with_capacity(POOL);
    for i in 0..POOL {
        let size = SIZES[i / 4 % SIZES.len()];
        let mut datagram: Vec<u8> = (0..size).map(|_| noise()).collect();
        // Every second pair, so that both senders have both.
        if i / 2 % 2 == 1 {
            let len = size.min(WRONG_VNI.len());
            datagram[..len].copy_from_slice(&WRONG_VNI[..len]);
        }
        pool.push(datagram);
    }
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_senders_have_every_kind() {
        let pool = pool();
        for sender in [0, 1] {
            let own: Vec<_> = pool.iter().skip(sender).step_by(2).collect();
            for size in SIZES {
                let of_size = own.iter().filter(|d| d.len() == size).count();
                assert_eq!(of_size, POOL / 2 / SIZES.len());
            }
            let headers = own.iter().filter(|d| d.starts_with(&WRONG_VNI[..5]));
            assert_eq!(headers.count(), POOL / 4);
        }
    }
}
