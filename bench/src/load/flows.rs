//! Many flows at once.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;

use anyhow::Context;

use super::Way;

/// Source ports of the client: below those that the kernel gives out by itself.
const SOURCES: RangeInclusive<u16> = 2000..=31_999;

/// Data of a datagram that only opens a flow.
const HELLO: &[u8] = b"weft bench";

/// Datagrams after which the sender lets the others have the CPU, so that few are lost.
const BREATH: usize = 64;

/// Sockets of a server that hear datagrams of many flows and answer none.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// Held so that nobody is told that the port is closed.
    servers: Vec<UdpSocket>,
    targets: Vec<SocketAddr>,
    count: usize,
}

impl Crowd {
    /// Ready to hear `count` flows; nothing is sent yet.
    pub(crate) fn new(way: &Way<'_>, count: usize) -> anyhow::Result<Self> {
        let mut crowd = Self {
            servers: Vec::new(),
            targets: Vec::new(),
            count,
        };
        while crowd.servers.len() * SOURCES.len() < count {
            let (server, target) = way.datagrams()?;
            crowd.servers.push(server);
            crowd.targets.push(target);
        }
        Ok(crowd)
    }

    /// One datagram for each flow: opens those that are new, and keeps the others from being
    /// forgotten. The client's sockets are closed again at once.
    pub(crate) fn send(&self, way: &Way<'_>) -> anyhow::Result<()> {
        let sent = way.client.run_in(|| {
            let mut left = self.count;
            for port in SOURCES {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
                for target in &self.targets {
                    if left == 0 {
                        return Ok(());
                    }
                    socket.send_to(HELLO, target)?;
                    left -= 1;
                    if left.is_multiple_of(BREATH) {
                        std::thread::yield_now();
                    }
                }
            }
            std::io::Result::Ok(())
        })?;
        sent.context("cannot open flows")
    }
}
