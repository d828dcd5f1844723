//! Sending many datagrams with one call, each gathered from pieces, each possibly a train of
//! segments.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use super::VxlanSocket;

/// A piece of a message: `range` of arena number `arena` in the list given to
/// [`SendBatch::flush`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Index into the arenas.
    pub arena: usize,
    /// Bytes of that arena.
    pub range: Range<usize>,
}

/// Why a message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFailureKind {
    /// The kernel has no room (`EAGAIN`, `ENOBUFS`); the message is dropped.
    Full,
    /// A datagram or segment is larger than the path MTU (`EMSGSIZE`; with segments also `EINVAL`).
    TooBig,
    /// The device cannot segment (`EIO`): send single datagrams to this destination.
    SegmentationUnsupported,
    /// No route, or a firewall (`ENETUNREACH`, `EHOSTUNREACH`, `EPERM`).
    Unreachable,
    /// A slice that is not inside its arena: a bug of the caller, nothing was sent.
    BadSlice,
    /// Anything else: the raw `errno`.
    Other(i32),
}

/// A message that was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendFailure {
    /// Position of the message in the batch, in order of [`SendBatch::push`].
    pub message: usize,
    /// Why.
    pub kind: SendFailureKind,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Messages (not segments) that the kernel took.
    pub sent: usize,
    /// Messages that it did not; see [`SendBatch::failures`].
    pub failed: usize,
}

struct Message {
    pieces: Range<usize>,
    dest: SocketAddr,
    gso_size: Option<u16>,
    class: u8,
}

/// One control message: a number of 2 or 4 bytes, and what aligns the next one.
#[repr(C)]
#[derive(Clone, Copy)]
struct Control {
    header: libc::cmsghdr,
    value: [u8; 8],
}

impl Control {
    fn set<const N: usize>(&mut self, level: libc::c_int, kind: libc::c_int, value: [u8; N]) {
        self.header.cmsg_level = level;
        self.header.cmsg_type = kind;
        self.header.cmsg_len = (size_of::<libc::cmsghdr>() + N) as _;
        self.value[..N].copy_from_slice(&value);
    }
}

/// Collects the messages of one round and sends them with as few `sendmmsg(2)` as possible.
/// No allocation once it has seen its largest batch, or from the start within the capacity.
///
/// Use: for each message [`SendBatch::piece`] as often as needed, then [`SendBatch::push`]; at the
/// end of the round [`SendBatch::flush`]. Failures can be looked at until the next message.
pub struct SendBatch {
    messages: Vec<Message>,
    pieces: Vec<Slice>,
    failures: Vec<SendFailure>,
    flushed: bool,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    /// Of each message: the segment size, the traffic class.
    controls: Vec<[Control; 2]>,
}

// SAFETY: the raw pointers inside `headers` and `iovecs` are rebuilt by each `flush` and never used
// after it returns.
unsafe impl Send for SendBatch {}

impl std::fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendBatch")
            .field("messages", &self.messages.len())
            .field("pieces", &self.pieces.len())
            .finish_non_exhaustive()
    }
}

impl SendBatch {
    /// Room for `messages` messages of `pieces` pieces together.
    #[must_use]
    pub fn with_capacity(messages: usize, pieces: usize) -> Self {
        Self {
            messages: Vec::with_capacity(messages),
            pieces: Vec::with_capacity(pieces),
            failures: Vec::with_capacity(messages),
            flushed: false,
            headers: Vec::with_capacity(messages),
            iovecs: Vec::with_capacity(pieces),
            names: Vec::with_capacity(messages),
            controls: Vec::with_capacity(messages),
        }
    }

    /// Messages waiting to be flushed.
    #[must_use]
    pub fn len(&self) -> usize {
        if self.flushed { 0 } else { self.messages.len() }
    }

    /// True when nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pieces waiting to be flushed, of all messages.
    #[must_use]
    pub fn pieces(&self) -> usize {
        if self.flushed { 0 } else { self.pieces.len() }
    }

    /// Forgets everything that waits.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.pieces.clear();
        self.failures.clear();
        self.flushed = false;
    }

    /// Adds a piece to the message under construction. A message may have 1024 pieces at most.
    pub fn piece(&mut self, arena: usize, range: Range<usize>) {
        if self.flushed {
            self.clear();
        }
        self.pieces.push(Slice { arena, range });
    }

    /// Completes the message of the pieces added since the last one. With `gso_size` the kernel cuts
    /// it into datagrams of that many bytes, the last one possibly shorter: at most
    /// [`super::MAX_SEGMENTS`] of them and [`super::MAX_DATAGRAM_LEN`] bytes together.
    pub fn push(&mut self, dest: SocketAddr, gso_size: Option<u16>) {
        self.push_in_class(dest, gso_size, 0);
    }

    /// As [`SendBatch::push`], with a traffic class: the TOS byte of every datagram.
    pub fn push_in_class(&mut self, dest: SocketAddr, gso_size: Option<u16>, class: u8) {
        if self.flushed {
            self.clear();
        }
        let start = self.messages.last().map_or(0, |m| m.pieces.end);
        let pieces = start..self.pieces.len();
        self.messages.push(Message {
            pieces,
            dest,
            gso_size,
            class,
        });
    }

    /// Sends all complete messages. `arenas` is what the pieces refer to. What the kernel does not
    /// take is dropped and counted; nothing waits for room.
    pub fn flush(&mut self, socket: &VxlanSocket, arenas: &[&[u8]]) -> SendReport {
        if self.flushed || self.messages.is_empty() {
            return SendReport::default();
        }
        self.flushed = true;
        self.prepare(arenas);
        let total = self.messages.len();
        // Messages with a bad slice, a bug of the caller: normally none.
        let bad = self.failures.len();
        let mut next = 0;
        while next < total {
            let bad = &self.failures[..bad];
            let first_bad = bad.iter().map(|f| f.message).filter(|&i| i >= next);
            let run_end = first_bad.min().unwrap_or(total);
            if run_end == next {
                next += 1;
                continue;
            }
            // SAFETY: headers[next..run_end] were filled by `prepare`: they point to this value's
            // own names, controls and iovecs, which are not changed until the next flush, and the
            // iovecs to bytes inside `arenas`, borrowed for this call. The kernel only reads them.
            let n = unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers[next..].as_mut_ptr(),
                    (run_end - next) as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if n > 0 {
                next += n as usize;
                continue;
            }
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            if errno == libc::EINTR {
                continue;
            }
            let kind = classify(errno, self.messages[next].gso_size.is_some());
            if errno == libc::EAGAIN {
                // The socket's buffer is full: the rest of the batch would meet the same.
                self.failures
                    .extend((next..run_end).map(|message| SendFailure { message, kind }));
                next = run_end;
            } else {
                self.failures.push(SendFailure {
                    message: next,
                    kind,
                });
                next += 1;
            }
        }
        SendReport {
            sent: total - self.failures.len(),
            failed: self.failures.len(),
        }
    }

    /// What the last flush did not send, in no particular order.
    #[must_use]
    pub fn failures(&self) -> &[SendFailure] {
        &self.failures
    }

    /// Destination, segment size and traffic class of a message, also after its flush.
    #[must_use]
    pub fn message(&self, index: usize) -> Option<(SocketAddr, Option<u16>, u8)> {
        let message = self.messages.get(index)?;
        Some((message.dest, message.gso_size, message.class))
    }

    /// The pieces of a message, also after its flush.
    #[must_use]
    pub fn message_pieces(&self, index: usize) -> &[Slice] {
        self.messages
            .get(index)
            .map_or(&[], |m| &self.pieces[m.pieces.clone()])
    }

    /// Fills the kernel's structures. All vectors get their final length before any pointer into
    /// them is taken.
    fn prepare(&mut self, arenas: &[&[u8]]) {
        // SAFETY: plain C structures for which zero bytes are a valid value.
        let (header, name, control): (libc::mmsghdr, libc::sockaddr_storage, Control) =
            unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        let n = self.messages.len();
        self.headers.clear();
        self.headers.resize(n, header);
        self.names.resize(n, name);
        self.controls.resize(n, [control; 2]);
        self.iovecs.clear();
        for (i, message) in self.messages.iter().enumerate() {
            for piece in &self.pieces[message.pieces.clone()] {
                let bytes = arenas
                    .get(piece.arena)
                    .and_then(|a| a.get(piece.range.clone()));
                let bytes = bytes.unwrap_or_else(|| {
                    let failure = SendFailure {
                        message: i,
                        kind: SendFailureKind::BadSlice,
                    };
                    if self.failures.last() != Some(&failure) {
                        self.failures.push(failure);
                    }
                    &[]
                });
                self.iovecs.push(libc::iovec {
                    iov_base: bytes.as_ptr().cast_mut().cast(),
                    iov_len: bytes.len(),
                });
            }
        }
        for (i, message) in self.messages.iter().enumerate() {
            write_addr(&mut self.names[i], message.dest);
            let [segment, class] = &mut self.controls[i];
            if let Some(gso_size) = message.gso_size {
                segment.set(libc::SOL_UDP, libc::UDP_SEGMENT, gso_size.to_ne_bytes());
            }
            if message.class != 0 {
                let (level, kind) = if message.dest.is_ipv4() {
                    (libc::IPPROTO_IP, libc::IP_TOS)
                } else {
                    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
                };
                class.set(level, kind, libc::c_int::from(message.class).to_ne_bytes());
            }
        }
        // One base pointer into each vector, taken once: to borrow a vector again for the next
        // message would end the validity of the pointers taken before.
        let (names, iovecs, controls) = (
            self.names.as_mut_ptr(),
            self.iovecs.as_mut_ptr(),
            self.controls.as_mut_ptr(),
        );
        for (i, message) in self.messages.iter().enumerate() {
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = names.wrapping_add(i).cast();
            header.msg_namelen = addr_len(message.dest);
            header.msg_iov = iovecs.wrapping_add(message.pieces.start);
            header.msg_iovlen = message.pieces.len() as _;
            let (first, count) = match (message.gso_size, message.class) {
                (None, 0) => continue,
                (Some(_), 0) => (0, 1),
                (None, _) => (1, 1),
                (Some(_), _) => (0, 2),
            };
            let of_message = controls.wrapping_add(i).cast::<Control>();
            header.msg_control = of_message.wrapping_add(first).cast();
            header.msg_controllen = (count * size_of::<Control>()) as _;
        }
    }
}

fn classify(errno: i32, segmented: bool) -> SendFailureKind {
    match errno {
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => SendFailureKind::Full,
        libc::EMSGSIZE => SendFailureKind::TooBig,
        libc::EINVAL if segmented => SendFailureKind::TooBig,
        libc::EIO if segmented => SendFailureKind::SegmentationUnsupported,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EPERM | libc::ENETDOWN => {
            SendFailureKind::Unreachable
        }
        other => SendFailureKind::Other(other),
    }
}

fn write_addr(storage: &mut libc::sockaddr_storage, addr: SocketAddr) {
    match addr {
        SocketAddr::V4(v4) => {
            // SAFETY: sockaddr_storage is larger than sockaddr_in, aligned for it, and any bytes
            // are a valid value of both.
            let out = unsafe { &mut *std::ptr::from_mut(storage).cast::<libc::sockaddr_in>() };
            out.sin_family = libc::AF_INET as libc::sa_family_t;
            out.sin_port = v4.port().to_be();
            out.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above, for sockaddr_in6.
            let out = unsafe { &mut *std::ptr::from_mut(storage).cast::<libc::sockaddr_in6>() };
            out.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            out.sin6_port = v6.port().to_be();
            out.sin6_flowinfo = 0;
            out.sin6_addr.s6_addr = v6.ip().octets();
            out.sin6_scope_id = v6.scope_id();
        }
    }
}

fn addr_len(addr: SocketAddr) -> libc::socklen_t {
    let len = match addr {
        SocketAddr::V4(_) => size_of::<libc::sockaddr_in>(),
        SocketAddr::V6(_) => size_of::<libc::sockaddr_in6>(),
    };
    len as libc::socklen_t
}
