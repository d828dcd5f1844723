//! Receiving many datagrams with one call.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use super::VxlanSocket;
use super::fixed::Fixed;

/// Bytes of arena for each message: any datagram fits, also the super-datagrams that a kernel
/// vxlan peer sends over veth.
pub const RECV_SLOT_LEN: usize = 65_536;

/// From one slot to the next. Slots at multiples of 64 KiB would compete for the same few sets of
/// the caches with their first lines, which are all that small datagrams have.
const STRIDE: usize = RECV_SLOT_LEN + 33 * 64;

/// Bytes that a batch should bring at most: what was received is read again when it is delivered,
/// and should still be in a core's own cache then.
const HOT_LEN: usize = 256 * 1024;

/// Room for a control message of one byte or one int, aligned as a `cmsghdr` must be.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    data: [u8; 8],
}

/// The segment size and the traffic class: what these sockets ask for.
type Controls = [Control; 2];

/// One received datagram, or several of one sender that the kernel merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Where its bytes are in [`RecvBatch::arena`].
    pub range: Range<usize>,
    /// Outer source.
    pub from: SocketAddr,
    /// Length in bytes of each merged datagram but the last, which may be shorter; `None` when it is
    /// one datagram.
    pub gso_size: Option<u16>,
    /// Traffic class (TOS) that it arrived with, of all datagrams alike.
    pub class: u8,
    /// Bytes were lost. Cannot happen with whole slots; such a message should be dropped.
    pub truncated: bool,
}

/// An arena of receive slots and the structures of `recvmmsg(2)`. No allocation after
/// [`RecvBatch::new`]; pages of the arena are touched on first use only.
pub struct RecvBatch {
    arena: Fixed<u8>,
    headers: Fixed<libc::mmsghdr>,
    iovecs: Fixed<libc::iovec>,
    names: Fixed<libc::sockaddr_storage>,
    controls: Fixed<Controls>,
    received: usize,
    /// Messages that the next call asks for.
    limit: usize,
    more: bool,
    /// Headers that were never prepared: all of them before the first call.
    unprepared: usize,
}

// SAFETY: the raw pointers inside `headers` and `iovecs` point into this value's own memory, which
// does not move with it, and are used by `recv` only, which borrows the whole value.
unsafe impl Send for RecvBatch {}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch")
            .field("capacity", &self.headers.len())
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl RecvBatch {
    /// Slots for up to `messages` messages per call (at least one).
    #[must_use]
    pub fn new(messages: usize) -> Self {
        let n = messages.max(1);
        // SAFETY: all four are plain C structures for which zero bytes are a valid value.
        let (header, iovec, name, control) =
            unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            arena: Fixed::new(0, n * STRIDE),
            headers: Fixed::new(header, n),
            iovecs: Fixed::new(iovec, n),
            names: Fixed::new(name, n),
            controls: Fixed::new(control, n),
            received: 0,
            limit: n,
            more: false,
            unprepared: n,
        }
    }

    /// Receives what waits, up to the capacity, replacing the messages of the call before. Returns
    /// their number: 0 when nothing waited.
    ///
    /// # Errors
    /// Only for a broken socket; `EAGAIN` and `EINTR` count as nothing waiting.
    pub fn recv(&mut self, socket: &VxlanSocket) -> io::Result<usize> {
        // The kernel changed those of the last call only; the others still stand as prepared, and
        // the memory that they point to never moves.
        self.more = false;
        let stale = mem::replace(&mut self.received, 0).max(self.unprepared);
        self.unprepared = 0;
        for i in 0..stale {
            self.iovecs[i] = libc::iovec {
                iov_base: self.arena.at(i * STRIDE).cast(),
                iov_len: RECV_SLOT_LEN,
            };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = self.names.at(i).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = self.iovecs.at(i);
            header.msg_iovlen = 1;
            header.msg_control = self.controls.at(i).cast();
            header.msg_controllen = size_of::<Controls>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: every header points to one slot of the arena, one name and one control buffer of
        // the stated lengths, all owned by `self`, which is borrowed for the call; none is shared.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.at(0),
                self.limit as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        }
        self.received = n as usize;
        self.more = self.received == self.limit;
        let bytes: usize = (0..self.received).map(|i| self.len_of(i)).sum();
        self.limit = bytes
            .checked_div(self.received)
            .and_then(|mean| HOT_LEN.checked_div(mean))
            .map_or(self.limit, |fit| {
                fit.clamp(2.min(self.headers.len()), self.headers.len())
            });
        Ok(self.received)
    }

    fn len_of(&self, index: usize) -> usize {
        (self.headers[index].msg_len as usize).min(RECV_SLOT_LEN)
    }

    /// Number of messages of the last call.
    #[must_use]
    pub fn len(&self) -> usize {
        self.received
    }

    /// True when the last call received nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// Whether the last call brought all that it asked for, so that more may wait. It asks for as
    /// many messages as stay in the cache, judged by the batch before; at most the number that
    /// [`RecvBatch::new`] was given.
    #[must_use]
    pub fn more(&self) -> bool {
        self.more
    }

    /// Message `index` of the last call; `None` beyond [`RecvBatch::len`], or when its sender has
    /// no IP address.
    #[must_use]
    pub fn message(&self, index: usize) -> Option<Received> {
        if index >= self.received {
            return None;
        }
        let header = &self.headers[index];
        let start = index * STRIDE;
        let len = self.len_of(index);
        let (gso_size, class) = self.controls_of(index);
        Some(Received {
            range: start..start + len,
            from: socket_addr(&self.names[index])?,
            gso_size: gso_size.filter(|&size| usize::from(size) < len),
            class,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// All slots; messages are ranges of it.
    #[must_use]
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// All slots, for rewriting frames in place.
    pub fn arena_mut(&mut self) -> &mut [u8] {
        &mut self.arena
    }

    /// Segment size and traffic class, as the control messages say.
    fn controls_of(&self, index: usize) -> (Option<u16>, u8) {
        let (mut gso_size, mut class) = (None, 0);
        let filled = self.headers[index].msg_hdr.msg_controllen;
        let count = filled / size_of::<Control>();
        for control in self.controls[index].iter().take(count) {
            let [low, _, _, _, ..] = control.data;
            let int = control.data.first_chunk::<4>().copied();
            let int = i32::from_ne_bytes(int.unwrap_or_default());
            match (control.header.cmsg_level, control.header.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    gso_size = u16::try_from(int).ok().filter(|&size| size > 0);
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => class = low,
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => class = (int & 0xff) as u8,
                _ => {}
            }
        }
        (gso_size, class)
    }
}

fn socket_addr(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in, and sockaddr_storage is
            // larger and aligned for it.
            let v4 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
