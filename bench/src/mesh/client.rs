//! Where the client's connections come from and go to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use socket2::{Domain, Protocol, Socket, Type};
use weft_sys::netns::Netns;

/// Ports that the client uses, of each of its addresses.
const PORTS: std::ops::Range<u16> = 1024..65_000;

/// Tries to find a source that nobody holds.
const TRIES: usize = 1000;

/// Addresses and ports for the client's end of connections, each used again as late as possible:
/// the client closes first, so it remembers each for a minute (TIME_WAIT), and with one address the
/// generator would be the wall.
#[derive(Debug)]
pub(super) struct Sources {
    addrs: Vec<IpAddr>,
    next: AtomicU64,
}

impl Sources {
    pub(super) fn new(addrs: Vec<IpAddr>) -> Self {
        Self {
            addrs,
            next: AtomicU64::new(0),
        }
    }

    /// The next one in turn.
    fn next(&self) -> SocketAddr {
        let number = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        let addr = self.addrs[number % self.addrs.len()];
        let port = number / self.addrs.len() % PORTS.len();
        SocketAddr::new(addr, PORTS.start + port as u16)
    }
}

/// A way from the client to the replicas, through one balancer.
#[derive(Debug)]
pub(crate) struct Front<'a> {
    /// Where the client's sockets are opened.
    pub(super) client: &'a Netns,
    pub(super) sources: &'a Sources,
    /// The published port.
    pub(super) target: SocketAddr,
    /// Processes of the balancer, whose CPU time and memory count as its own.
    pub(super) balancers: Vec<u32>,
    /// Agents that carry its packets, where they are not the balancer.
    pub(super) overlay: Vec<u32>,
    /// Memory of the balancer before any load, in bytes.
    pub(super) at_rest: u64,
}

impl Front<'_> {
    /// A connection that has begun; must be called in the client's namespace. None when the
    /// balancer refuses at once.
    pub(super) fn connect(&self) -> anyhow::Result<Option<Socket>> {
        for _ in 0..TRIES {
            let domain = Domain::for_address(self.target);
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
                .context("the load needs more open files (`ulimit -n`)")?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            match socket.bind(&self.sources.next().into()) {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => continue,
                bound => bound.context("cannot use an address of the client")?,
            }
            match socket.connect(&self.target.into()) {
                Ok(()) => return Ok(Some(socket)),
                Err(e) if e.raw_os_error() == Some(IN_PROGRESS) => return Ok(Some(socket)),
                // Still remembered by the kernel.
                Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(_) => return Ok(None),
            }
        }
        bail!("the client ran out of source ports: its figures would be about itself")
    }
}

const IN_PROGRESS: i32 = rustix::io::Errno::INPROGRESS.raw_os_error();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_take_turns_and_come_back_late() {
        let addrs: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap()).into();
        let sources = Sources::new(addrs);
        let first: Vec<String> = (0..3).map(|_| sources.next().to_string()).collect();
        assert_eq!(first, ["10.0.0.1:1024", "10.0.0.2:1024", "10.0.0.1:1025"]);
        let all = 2 * PORTS.len() as u64;
        sources.next.store(all - 1, Ordering::Relaxed);
        assert_eq!(sources.next().to_string(), "10.0.0.2:64999");
        assert_eq!(sources.next().to_string(), "10.0.0.1:1024");
    }
}
