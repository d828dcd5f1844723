//! The two sockets, on one port.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use weft_model::objects::Protocol as Port;
use weft_swarm::door::BACKLOG;

use crate::published::owner;

/// A burst of news from many nodes fits.
const RECEIVE_BUFFER: usize = 1 << 20;
/// With port 0 the port that UDP got may be taken on TCP.
const ATTEMPTS: usize = 16;

pub(super) fn bind(addr: SocketAddr) -> anyhow::Result<(UdpSocket, TcpListener)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let udp = udp(addr).map_err(|e| explain(e, addr, Port::Udp))?;
        let same = udp.local_addr().context("gossip socket")?;
        match tcp(same) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(e)
                if addr.port() == 0 && e.kind() == ErrorKind::AddrInUse && attempt < ATTEMPTS => {}
            Err(e) => return Err(explain(e, same, Port::Tcp)),
        }
    }
}

fn explain(error: std::io::Error, addr: SocketAddr, protocol: Port) -> anyhow::Error {
    let port = addr.port();
    let text = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "gossip port {port} is in use: {protocol} {addr} is held by {}; stop that, or give \
             weftd another --gossip-port",
            owner::named(protocol, port)
        ),
        ErrorKind::AddrNotAvailable => format!(
            "gossip address {} is not one of this host's: give one that `ip addr` shows",
            addr.ip()
        ),
        ErrorKind::PermissionDenied => {
            format!("no permission to bind gossip to {protocol} {addr}: run as root")
        }
        _ => format!("gossip cannot bind {protocol} {addr}"),
    };
    anyhow::Error::new(error).context(text)
}

fn udp(addr: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel caps it at net.core.rmem_max and loses only bursts.
    drop(socket.set_recv_buffer_size(RECEIVE_BUFFER));
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

fn tcp(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the connections of the life before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}
