//! The load: sockets that are opened inside the namespaces, and threads of this process.

mod echo;
mod flood;
mod flows;
mod garbage;
mod iperf3;
mod kept;
mod stream;
mod tasks;

pub(crate) use echo::{Exchanged, exchange, exchange_every, exchange_many};
pub(crate) use flood::flood;
pub(crate) use flows::Crowd;
pub(crate) use garbage::Garbage;
pub(crate) use iperf3::{iperf3, is_installed as has_iperf3};
pub(crate) use kept::exchange_kept;
pub(crate) use stream::{Streamed, paced, streams};
pub(crate) use tasks::ask_tasks;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use weft_sys::netns::Netns;

/// Something that stands still for so long has failed.
const STALL: Duration = Duration::from_secs(5);

/// A datagram without an answer for so long is lost.
const LOST: Duration = Duration::from_millis(200);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// From a client to a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    /// Where the client's sockets are opened.
    pub(crate) client: &'a Netns,
    /// Where the server's sockets are opened.
    pub(crate) server: &'a Netns,
    /// Address that the server listens on.
    pub(crate) listen: IpAddr,
    /// Address that the client sends to: the server's, or a virtual one that leads there.
    pub(crate) target: IpAddr,
    /// TCP ports, where what is between the two knows no others; any port that is free otherwise.
    pub(crate) ports: Option<Ports>,
    /// Agents on the way, whose CPU time counts; none where the kernel does it all.
    pub(crate) agents: &'a [u32],
}

/// TCP ports at the ends of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    /// The one that the server listens on.
    pub(crate) listen: u16,
    /// The one that the client connects to.
    pub(crate) target: u16,
}

impl Way<'_> {
    /// A socket of the server that takes datagrams, and the address to send them to.
    fn datagrams(&self) -> anyhow::Result<(UdpSocket, SocketAddr)> {
        let socket = self
            .server
            .run_in(|| UdpSocket::bind((self.listen, 0)))?
            .context("cannot listen in the namespace")?;
        let target = SocketAddr::new(self.target, socket.local_addr()?.port());
        Ok((socket, target))
    }

    /// Sockets of the client that are connected to `target`.
    fn clients(&self, target: SocketAddr, count: usize) -> anyhow::Result<Vec<UdpSocket>> {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let sockets = self.client.run_in(|| {
            let one = |_| {
                let socket = UdpSocket::bind(any)?;
                socket.connect(target)?;
                Ok(socket)
            };
            (0..count).map(one).collect::<io::Result<Vec<_>>>()
        })?;
        sockets.context("cannot open sockets in the namespace")
    }

    /// TCP connections, as the client and the server hold them.
    fn connections(
        &self,
        count: usize,
        control: Option<&str>,
    ) -> anyhow::Result<Vec<(Socket, Socket)>> {
        let open = |netns: &Netns, ip| {
            netns.run_in(move || {
                Socket::new(Domain::for_address(ip), Type::STREAM, Some(Protocol::TCP))
            })
        };
        let bind = SocketAddr::new(self.listen, self.ports.map_or(0, |ports| ports.listen));
        let listener = open(self.server, bind)??;
        // Connections of the run before may still end at a port that is given.
        listener.set_reuse_address(self.ports.is_some())?;
        listener.bind(&bind.into())?;
        listener.listen(BACKLOG)?;
        // Also the limit of accept().
        listener.set_read_timeout(Some(STALL))?;
        let bound = listener.local_addr()?.as_socket();
        let bound = bound.context("no port to listen on")?.port();
        let port = self.ports.map_or(bound, |ports| ports.target);
        let target = SocketAddr::new(self.target, port);
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            let client = open(self.client, target)??;
            if let Some(control) = control {
                client
                    .set_tcp_congestion(control.as_bytes())
                    .with_context(|| format!("cannot use congestion control {control}"))?;
            }
            client
                .connect_timeout(&target.into(), STALL)
                .with_context(|| format!("cannot connect to {target}"))?;
            let (server, _) = listener
                .accept()
                .with_context(|| format!("a connection to {target} does not arrive"))?;
            for socket in [&client, &server] {
                socket.set_read_timeout(Some(STALL))?;
                socket.set_write_timeout(Some(STALL))?;
            }
            connections.push((client, server));
        }
        Ok(connections)
    }
}

/// True for the end of a wait, not of a socket.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// As many as fit.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
