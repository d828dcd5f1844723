//! Datagrams of a socket that hears on every address of the host: to which one each was sent, and
//! answers from that one. A client that asked one address takes no answer from another.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use socket2::{SockAddr, SockRef};

/// Room for one control message of either kind.
#[repr(align(8))]
struct Control([u8; 64]);

/// A datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addressed {
    /// Its length, in bytes.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// The address of this host that it was sent to; of the family of `from`. None for a group.
    pub to: Option<IpAddr>,
}

/// Makes a socket tell to which address each datagram was sent.
///
/// # Errors
/// The kernel's.
pub fn tell_addresses(socket: &impl AsFd) -> io::Result<()> {
    let (level, option) = if is_ipv6(socket)? {
        // For datagrams of IPv4 too, whose addresses are mapped.
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed and open; the value lives over the call and its length is
    // given.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Receives one datagram; what does not fit into `buffer` is cut off.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::WouldBlock`] when there is none.
pub fn receive_addressed(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Addressed> {
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut to = None;
    // SAFETY: every pointer of the message leads to a buffer that lives over the call and has the
    // length that is given with it; the kernel writes at most that much. Control messages are read by
    // the macros of the C library, which stay within the length that the kernel left, and each of the
    // two kinds has the type that the kernel documents, read unaligned.
    let (len, from) = unsafe {
        SockAddr::try_init(|storage, storage_len| {
            let mut message: libc::msghdr = zeroed();
            message.msg_name = storage.cast();
            message.msg_namelen = *storage_len;
            message.msg_iov = &raw mut iov;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = control.0.len();
            let len = libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, 0);
            if len < 0 {
                return Err(io::Error::last_os_error());
            }
            *storage_len = message.msg_namelen;
            let mut head = libc::CMSG_FIRSTHDR(&raw const message);
            while !head.is_null() {
                match ((*head).cmsg_level, (*head).cmsg_type) {
                    (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                        let info: libc::in6_pktinfo = libc::CMSG_DATA(head)
                            .cast::<libc::in6_pktinfo>()
                            .read_unaligned();
                        to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    }
                    (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                        let info: libc::in_pktinfo = libc::CMSG_DATA(head)
                            .cast::<libc::in_pktinfo>()
                            .read_unaligned();
                        to = Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                    }
                    _ => {}
                }
                head = libc::CMSG_NXTHDR(&raw const message, head);
            }
            Ok(usize::try_from(len).unwrap_or(0))
        })?
    };
    let from = from
        .as_socket()
        .ok_or_else(|| io::Error::other("a datagram came without an address"))?;
    let one = |ip: &IpAddr| match ip.to_canonical() {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_multicast(),
    };
    Ok(Addressed {
        len,
        from,
        to: to.filter(one),
    })
}

/// Sends one datagram, from an address of this host of the family of `to`, or from the one that the
/// kernel chooses.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::InvalidInput`] also when the host has the address no longer.
pub fn send_addressed(
    socket: &impl AsFd,
    datagram: &[u8],
    to: SocketAddr,
    from: Option<IpAddr>,
) -> io::Result<usize> {
    let Some(from) = from else {
        return SockRef::from(socket).send_to(datagram, &to.into());
    };
    let mut control = Control([0; 64]);
    let mut iov = libc::iovec {
        iov_base: datagram.as_ptr().cast_mut().cast(),
        iov_len: datagram.len(),
    };
    let name = SockAddr::from(to);
    // SAFETY: every pointer of the message leads to a buffer that lives over the call and has the
    // length that is given with it; the kernel only reads them. The one control message, of the type
    // that its kind has, fits into its buffer, which is aligned for its head.
    let sent = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_name = name.as_ptr().cast_mut().cast();
        message.msg_namelen = name.len();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        match from {
            IpAddr::V6(from) => {
                let mut info: libc::in6_pktinfo = zeroed();
                info.ipi6_addr.s6_addr = from.octets();
                fill(head, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
                message.msg_controllen = space::<libc::in6_pktinfo>();
            }
            IpAddr::V4(from) => {
                let mut info: libc::in_pktinfo = zeroed();
                info.ipi_spec_dst.s_addr = u32::from_ne_bytes(from.octets());
                fill(head, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
                message.msg_controllen = space::<libc::in_pktinfo>();
            }
        }
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, 0)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes a control message.
///
/// # Safety
/// `head` has room for a head and a `T` behind it, and is aligned for the head.
unsafe fn fill<T>(head: *mut libc::cmsghdr, level: i32, kind: i32, value: T) {
    // SAFETY: as the caller promises; the value is written unaligned.
    unsafe {
        (*head).cmsg_level = level;
        (*head).cmsg_type = kind;
        (*head).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as usize;
        libc::CMSG_DATA(head).cast::<T>().write_unaligned(value);
    }
}

const fn space<T>() -> usize {
    // SAFETY: it computes a length.
    unsafe { libc::CMSG_SPACE(size_of::<T>() as u32) as usize }
}

fn is_ipv6(socket: &impl AsFd) -> io::Result<bool> {
    Ok(SockRef::from(socket).local_addr()?.is_ipv6())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// Asks one address of the host from another, and looks where the answer comes from.
    fn ask(bound: &str, client: &str, asked: &str) {
        let server = UdpSocket::bind((bound, 0)).expect("a server");
        tell_addresses(&server).expect("told");
        let port = server.local_addr().expect("an address").port();
        let client = UdpSocket::bind((client, 0)).expect("a client");
        // What comes from elsewhere it does not take.
        client.connect((asked, port)).expect("a way");
        client
            .set_read_timeout(Some(std::time::Duration::from_secs(2)))
            .expect("a limit");
        client.send(b"question").expect("sent");
        let mut buffer = [0; 100];
        let got = receive_addressed(&server, &mut buffer).expect("a datagram");
        assert_eq!(&buffer[..got.len], b"question");
        assert_eq!(
            got.from.ip().to_canonical(),
            client.local_addr().expect("own").ip()
        );
        let to = got.to.expect("an address");
        assert_eq!(to.is_ipv6(), got.from.is_ipv6());
        assert_eq!(to.to_canonical().to_string(), asked);
        send_addressed(&server, b"answer", got.from, got.to).expect("sent");
        let len = client.recv(&mut buffer).expect("an answer");
        assert_eq!(&buffer[..len], b"answer", "{bound} {asked}");
        send_addressed(&server, b"unasked", got.from, None).expect("sent");
    }

    #[test]
    fn the_answer_comes_from_the_address_that_was_asked() {
        ask("0.0.0.0", "127.0.0.1", "127.0.0.7");
        ask("::", "127.0.0.1", "127.0.0.7");
        ask("::", "::1", "::1");
        ask("127.0.0.9", "127.0.0.1", "127.0.0.9");
        let server = UdpSocket::bind("127.0.0.1:0").expect("a server");
        let to = server.local_addr().expect("an address");
        let nobodys = "192.0.2.77".parse().ok();
        let error = send_addressed(&server, b"x", to, nobodys).expect_err("not ours");
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
