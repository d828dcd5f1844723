//! Links, addresses, routes, rules and neighbours through route netlink, synchronously.
//!
//! Every change is idempotent: what is there already in the wanted form, or gone already, is
//! success. Interfaces are named, not numbered, in the API.

mod address;
mod filter;
mod link;
mod neighbour;
mod route;
mod rule;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

pub use filter::Hook;
pub use link::{Link, Veth, Vxlan};
pub use route::{MAIN_TABLE, PathToHost, Route};
pub use rule::{Mark, Rule};

use crate::netns::Netns;

/// Why a request failed. Requests that fail change nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// Config: no such interface in this namespace.
    #[error("no interface named {name} in this network namespace: see `ip link`")]
    NoLink {
        /// As given.
        name: String,
    },
    /// Config: the name is taken by something else.
    #[error(
        "interface {name} exists and is not a {wanted} but a {found}: remove it with `ip link del {name}` or choose another name"
    )]
    OtherKind {
        /// As given.
        name: String,
        /// Kind that was to be made.
        wanted: &'static str,
        /// Kind that is there; `device` for hardware.
        found: String,
    },
    /// Local: the kernel refused.
    #[error("cannot {op} {object}: {source}{}", hint(.source))]
    Kernel {
        /// What was tried, as a verb.
        op: &'static str,
        /// What it was tried on.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Local: no netlink socket, or an answer that makes no sense.
    #[error("route netlink: {0}")]
    Socket(#[from] io::Error),
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; CAP_NET_ADMIN is needed: run as root, or inside a user namespace (`unshare -Urmn`)"
        }
        Some(libc::EOPNOTSUPP) => "; this kernel was built without that kind of device",
        _ => "",
    }
}

impl From<NetlinkError> for io::Error {
    /// Keeps the kernel's error number where there is one.
    fn from(error: NetlinkError) -> Self {
        match error {
            NetlinkError::Kernel { source, .. } | NetlinkError::Socket(source) => source,
            other => Self::other(other),
        }
    }
}

impl NetlinkError {
    /// Turns an I/O error into [`NetlinkError::Kernel`].
    fn kernel(op: &'static str, object: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let object = object.into();
        move |source| Self::Kernel { op, object, source }
    }
}

/// A route netlink socket of one network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Netlink {
    /// A socket in the calling thread's namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] when the process is out of file descriptors.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Dumps are filtered by the request's header and attributes (Linux 4.20); older kernels
        // answer with more, which is filtered again here.
        if let Err(error) = socket.set_netlink_get_strict_chk(true) {
            tracing::debug!(%error, "no strict checking of netlink dumps");
        }
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// A socket in another namespace; usable from any thread.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] when the namespace may not be entered.
    pub fn open_in(netns: &Netns) -> Result<Self, NetlinkError> {
        netns.run_in(Self::open)?
    }

    /// Sends one request that changes something and waits for the kernel's answer.
    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_REQUEST | NLM_F_ACK | flags)
            .map(drop)
    }

    /// Asks for one object.
    fn get(&mut self, message: RouteNetlinkMessage) -> io::Result<Option<RouteNetlinkMessage>> {
        Ok(self
            .request(message, NLM_F_REQUEST | NLM_F_ACK)?
            .into_iter()
            .next())
    }

    /// Asks for all objects. A dump that the kernel's tables changed under is asked for again.
    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut result = Err(io::Error::from(io::ErrorKind::Interrupted));
        for _ in 0..5 {
            result = self.request(message.clone(), NLM_F_REQUEST | NLM_F_DUMP);
            match &result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        result
    }

    fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let len = match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let mut rest = &self.buffer[..len];
            while let Some((one, next)) = split_message(rest) {
                rest = next;
                let answer = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(one) {
                    Ok(answer) => answer,
                    Err(error) => {
                        // A construct that the parser does not know, among others that it does.
                        tracing::debug!(%error, "skipping a netlink message");
                        continue;
                    }
                };
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= answer.header.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Done(_) if interrupted => {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }
}

/// Cuts the first message (its length is in its first four bytes) off a datagram.
fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = u32::from_ne_bytes(*bytes.first_chunk::<4>()?) as usize;
    if len < 16 {
        return None;
    }
    let one = bytes.get(..len)?;
    let aligned = len.next_multiple_of(4).min(bytes.len());
    Some((one, &bytes[aligned..]))
}

/// Success also when the kernel says this errno.
fn accept(errno: i32, result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
