//! Opening the sockets of a published port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use weft_sys::udp::tell_addresses;

/// Connections that the kernel may hold for the accept loop; the kernel lowers it to its limit.
pub(super) const BACKLOG: i32 = 4096;

/// A TCP socket on one address, or on every address of both families, which does not block; it
/// takes connections at once, or reserves the port until it is told to listen.
pub(crate) fn tcp(
    host_ip: Option<IpAddr>,
    port: u16,
    listens: bool,
) -> io::Result<std::net::TcpListener> {
    let socket = bound(host_ip, port, Type::STREAM, Protocol::TCP)?;
    if listens {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

/// A UDP socket on one address, or on every address of both families, that tells which one was
/// asked.
pub(crate) fn udp(host_ip: Option<IpAddr>, port: u16) -> io::Result<tokio::net::UdpSocket> {
    let socket = bound(host_ip, port, Type::DGRAM, Protocol::UDP)?;
    tell_addresses(&socket)?;
    tokio::net::UdpSocket::from_std(socket.into())
}

fn bound(host_ip: Option<IpAddr>, port: u16, kind: Type, proto: Protocol) -> io::Result<Socket> {
    let Some(ip) = host_ip else {
        let every = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        return match bound_to(every, kind, proto) {
            // No IPv6 in this kernel: every address is an IPv4 one.
            Err(error) if no_ipv6(&error) => bound_to(
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
                kind,
                proto,
            ),
            result => result,
        };
    };
    bound_to(SocketAddr::new(ip, port), kind, proto)
}

fn bound_to(addr: SocketAddr, kind: Type, proto: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(proto))?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        // Connections of an earlier listener may linger; a second listener is refused all the
        // same. On UDP it would let two processes share the port.
        socket.set_reuse_address(true)?;
        // What it accepts inherits this, so that no urgent byte comes before it: else the kernel
        // takes such a byte out of the stream, and nobody asks for it.
        socket.set_out_of_band_inline(true)?;
    }
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn no_ipv6(error: &io::Error) -> bool {
    [
        rustix::io::Errno::AFNOSUPPORT.raw_os_error(),
        rustix::io::Errno::ADDRNOTAVAIL.raw_os_error(),
    ]
    .map(Some)
    .contains(&error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_address_means_both_families() {
        let listener = tokio::net::TcpListener::from_std(tcp(None, 0, true).unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ips: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
        if listener.local_addr().unwrap().is_ipv6() {
            ips.push(Ipv6Addr::LOCALHOST.into());
        }
        for ip in ips {
            let client = tokio::net::TcpStream::connect((ip, port)).await.unwrap();
            let (_, from) = listener.accept().await.unwrap();
            assert_eq!(from.port(), client.local_addr().unwrap().port());
        }
    }

    #[tokio::test]
    async fn a_port_is_given_once() {
        let first = tcp(Some(Ipv4Addr::LOCALHOST.into()), 0, true).unwrap();
        let port = first.local_addr().unwrap().port();
        for host_ip in [None, Some(Ipv4Addr::LOCALHOST.into())] {
            for listens in [true, false] {
                let error = tcp(host_ip, port, listens).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            }
        }
        let first = udp(None, 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = udp(None, port).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
