//! UDP sockets of the VXLAN data path: large buffers, segmentation offload both ways, and steering
//! of received datagrams to the worker that owns their destination.
//!
//! One [`VxlanSocket`] per worker, all bound to the same address, in the order of the workers.

mod addressed;
mod fixed;
mod origin;
mod recv;
mod send;
mod steering;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

pub use addressed::{Addressed, receive_addressed, send_addressed, tell_addresses};
pub use recv::{RECV_SLOT_LEN, Received, RecvBatch};
pub use send::{SendBatch, SendFailure, SendFailureKind, SendReport, Slice};
pub use steering::worker_for;

/// Kernel buffer of each direction, in bytes. A 64 KiB datagram occupies far more than its length;
/// the default of 208 KiB holds two or three.
pub const SOCKET_BUFFER_LEN: usize = 8 << 20;

/// Most segments of one UDP_SEGMENT send (`UDP_MAX_SEGMENTS`; 64 before Linux 6.9).
pub const MAX_SEGMENTS: usize = 128;

/// Largest UDP payload over IPv4, in bytes; also the limit of one segmented send.
pub const MAX_DATAGRAM_LEN: usize = 65_507;

/// Why a data-path socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Config: someone else has the port.
    #[error(
        "UDP {addr} is in use by another process (see `ss -lunp`): stop it or choose another --data-path-port"
    )]
    InUse {
        /// As given.
        addr: SocketAddr,
    },
    /// Config: the address is not on this host.
    #[error("{} is not an address of this host: choose one of `ip addr` with --data-path-addr", .addr.ip())]
    NoSuchAddress {
        /// As given.
        addr: SocketAddr,
    },
    /// Local: the kernel refused.
    #[error("cannot {action} UDP socket {addr}: {source}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// As given.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A non-blocking UDP socket of the data path.
///
/// Path MTU: `IP_MTU_DISCOVER` is `DO`. Outer packets carry DF and are never fragmented, neither
/// here nor on the way; a datagram (or segment) larger than the route's MTU is refused with
/// `EMSGSIZE`, and "fragmentation needed" from routers lowers the MTU that
/// `Netlink::route_to` reports. Unconnected sockets do not get other ICMP errors.
#[derive(Debug)]
pub struct VxlanSocket {
    socket: Socket,
    local: SocketAddr,
}

impl VxlanSocket {
    /// Binds in the calling thread's namespace, with `SO_REUSEPORT` so that all workers can share
    /// the address. Port 0 takes a free one.
    ///
    /// # Errors
    /// See [`BindError`].
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let failed = |action| {
            move |source| BindError::Kernel {
                action,
                addr,
                source,
            }
        };
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))
            .map_err(failed("create"))?;
        socket.set_nonblocking(true).map_err(failed("configure"))?;
        socket.set_reuse_port(true).map_err(failed("configure"))?;
        force_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)
            .and_then(|()| force_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF))
            .map_err(failed("size the buffers of"))?;
        set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).map_err(failed("enable UDP_GRO on"))?;
        let (level, discover, always, class) = if addr.is_ipv4() {
            (
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_DO,
                libc::IP_RECVTOS,
            )
        } else {
            (
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_DO,
                libc::IPV6_RECVTCLASS,
            )
        };
        set_int(&socket, level, discover, always).map_err(failed("set path MTU discovery of"))?;
        set_int(&socket, level, class, 1).map_err(failed("ask for the traffic class on"))?;
        if addr.is_ipv6() {
            // RFC 7348 section 5: an outer checksum of zero has to be accepted; over IPv6 the kernel
            // does so on request only (RFC 6935 section 5).
            set_int(&socket, libc::SOL_UDP, libc::UDP_NO_CHECK6_RX, 1)
                .map_err(failed("accept datagrams without checksum on"))?;
        }
        bind_to(&socket, addr)?;
        let local = socket
            .local_addr()
            .map_err(failed("inspect"))?
            .as_socket()
            .unwrap_or(addr);
        Ok(Self { socket, local })
    }

    /// One socket for each worker on one address, with steering in place: see
    /// [`VxlanSocket::attach_steering`]. Port 0 takes a free one for all of them.
    ///
    /// `SO_REUSEPORT` alone would let a second agent of the same user join the group unnoticed and
    /// take a part of the datagrams. So the address is first bound without it, which fails while
    /// anyone has it, and given back at once.
    ///
    /// # Errors
    /// See [`BindError`]; nothing stays bound.
    pub fn bind_group(addr: SocketAddr, workers: usize) -> Result<Vec<Self>, BindError> {
        let workers = workers.max(1);
        let exclusive = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))
            .map_err(|source| BindError::Kernel {
                action: "create",
                addr,
                source,
            })?;
        bind_to(&exclusive, addr)?;
        drop(exclusive);
        let first = Self::bind(addr)?;
        let local = first.local;
        let mut group = vec![first];
        for _ in 1..workers {
            group.push(Self::bind(local)?);
        }
        group[0]
            .attach_steering(workers)
            .map_err(|source| BindError::Kernel {
                action: "attach the steering program to",
                addr,
                source,
            })?;
        Ok(group)
    }

    /// Where it is bound, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Steers VXLAN datagrams among the first `workers` sockets bound to this address, in the order
    /// in which they were bound, by [`worker_for`] of the inner frame's destination (of an ARP
    /// frame, its target). Anything else goes to the first. Call it once, on any socket of the
    /// group, after all of them are bound. When a socket of the group closes, the last one takes
    /// its place: rebind all.
    ///
    /// A super-datagram is steered whole, by its first frame: senders put frames to one destination
    /// only into one segmented send.
    ///
    /// # Errors
    /// When the kernel refuses the program; not seen in practice.
    pub fn attach_steering(&self, workers: usize) -> io::Result<()> {
        steering::attach(&self.socket, workers)
    }

    /// Refuses what comes by these interfaces, and what is not addressed to this host below IP: the
    /// data path is for the underlay, whatever its firewall lets through. At most 64 interfaces.
    ///
    /// # Errors
    /// When the kernel refuses the program; not seen in practice.
    pub fn refuse_from(&self, interfaces: &[u32]) -> io::Result<()> {
        origin::attach(&self.socket, interfaces)
    }

    /// Bytes of receive buffer that the kernel granted (it doubles what was asked).
    ///
    /// # Errors
    /// As `getsockopt(2)`; not seen in practice.
    pub fn recv_buffer_len(&self) -> io::Result<usize> {
        self.socket.recv_buffer_size()
    }
}

impl AsFd for VxlanSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind_to(socket: &Socket, addr: SocketAddr) -> Result<(), BindError> {
    if addr.is_ipv6() {
        socket
            .set_only_v6(true)
            .map_err(|source| BindError::Kernel {
                action: "configure",
                addr,
                source,
            })?;
    }
    socket
        .bind(&SockAddr::from(addr))
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { addr },
            io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { addr },
            _ => BindError::Kernel {
                action: "bind",
                addr,
                source,
            },
        })
}

/// Sets the size beyond `net.core.[rw]mem_max` where privilege allows, else up to it.
fn force_buffer(socket: &Socket, force: libc::c_int, plain: libc::c_int) -> io::Result<()> {
    let len = SOCKET_BUFFER_LEN as libc::c_int;
    set_int(socket, libc::SOL_SOCKET, force, len)
        .or_else(|_| set_int(socket, libc::SOL_SOCKET, plain, len))
}

fn set_int(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe one live int; the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
