//! The resolver's place in a sandbox.
//!
//! Programs ask 127.0.0.11:53, and the agent listens at another port of that address, so that port 53
//! is theirs: a name server in a sandbox binds all addresses. Two stateless rewrites lead from one to
//! the other. An address translation, which Docker uses, would have the kernel track every connection
//! of the sandbox.

use std::net::{SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use weft_sys::netlink::Netlink;
use weft_sys::netns::Netns;
use weft_sys::nft;

use super::Sandbox;
use super::error::SandboxError;
use crate::names::DNS_ADDR;

/// The table of a sandbox that has the rewrites.
const TABLE: &str = "weft_dns";

/// How often a number that is free for datagrams, and not for connections, is given back.
const ATTEMPTS: usize = 16;

/// The resolver's sockets in a sandbox, non-blocking.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    /// For datagrams.
    pub(crate) udp: UdpSocket,
    /// For connections, of the same port.
    pub(crate) tcp: TcpListener,
    /// How they are reached; none where they are bound to [`DNS_ADDR`] itself.
    pub(crate) way: Option<Arc<WayToResolver>>,
}

/// The rewrites between [`DNS_ADDR`] and the port where the resolver listens.
#[derive(Debug)]
pub(crate) struct WayToResolver {
    netns: Netns,
    port: u16,
    /// Number of the namespace's rules when they were seen last.
    generation: AtomicU32,
}

impl WayToResolver {
    /// Sets the rewrites again when somebody took them away; returns what was missing, in words.
    /// Costs microseconds while nobody changes rules there. Blocks.
    ///
    /// # Errors
    /// [`SandboxError::Enter`], [`SandboxError::Rules`].
    pub(crate) fn keep(&self) -> Result<Option<String>, SandboxError> {
        let look = || {
            if nft::generation().ok() == Some(self.generation.load(Ordering::Relaxed)) {
                return Ok(None);
            }
            let there = nft::list_table("ip", TABLE).map_err(SandboxError::Rules)?;
            let whole = there.is_some_and(|table| {
                // Each of the four rules names the port.
                let (text, port) = (table.to_string(), self.port.to_string());
                text.matches(&port).count() >= 4
            });
            if whole {
                self.note();
                return Ok(None);
            }
            self.set()?;
            Ok(Some("the rules for the resolver of a sandbox".to_owned()))
        };
        self.netns.run_in(look).map_err(SandboxError::Enter)?
    }

    /// In the namespace.
    fn set(&self) -> Result<(), SandboxError> {
        nft::apply(&rules(self.port)).map_err(SandboxError::Rules)?;
        self.note();
        Ok(())
    }

    fn note(&self) {
        if let Ok(generation) = nft::generation() {
            self.generation.store(generation, Ordering::Relaxed);
        }
    }
}

impl Sandbox {
    /// The resolver's sockets, bound inside the namespace, and the way to them from [`DNS_ADDR`].
    /// Without nftables they are bound there, and no program of the sandbox can have port 53.
    ///
    /// # Errors
    /// [`SandboxError::Dns`], [`SandboxError::Enter`].
    pub(crate) fn dns_sockets(&self) -> Result<DnsSockets, SandboxError> {
        let open = || {
            Netlink::open()?.set_up("lo", true)?;
            let (udp, tcp) = bind_beside()?;
            let port = udp.local_addr().map_err(dns("udp"))?.port();
            let way = WayToResolver {
                netns: self.netns.try_clone().map_err(SandboxError::Enter)?,
                port,
                generation: AtomicU32::new(0),
            };
            if let Err(error) = way.set() {
                tracing::warn!(%error, "no program of the sandbox can have port 53");
                drop((udp, tcp));
                let udp = UdpSocket::bind(DNS_ADDR).map_err(dns("udp"))?;
                let tcp = TcpListener::bind(DNS_ADDR).map_err(dns("tcp"))?;
                return prepared(udp, tcp, None);
            }
            prepared(udp, tcp, Some(Arc::new(way)))
        };
        self.netns.run_in(open).map_err(SandboxError::Enter)?
    }

    /// Takes the way to the resolver away; one that is not there is success.
    ///
    /// # Errors
    /// [`SandboxError::Rules`], [`SandboxError::Enter`].
    pub(crate) fn remove_way_to_resolver(&self) -> Result<(), SandboxError> {
        let removal = format!("table ip {TABLE}\ndelete table ip {TABLE}\n");
        let removed = self.netns.run_in(|| nft::apply(&removal));
        match removed.map_err(SandboxError::Enter)? {
            // Then nothing was made.
            Ok(()) | Err(nft::NftError::Missing) => Ok(()),
            Err(error) => Err(SandboxError::Rules(error)),
        }
    }
}

fn dns(protocol: &'static str) -> impl FnOnce(std::io::Error) -> SandboxError {
    move |source| SandboxError::Dns { protocol, source }
}

fn prepared(
    udp: UdpSocket,
    tcp: TcpListener,
    way: Option<Arc<WayToResolver>>,
) -> Result<DnsSockets, SandboxError> {
    udp.set_nonblocking(true).map_err(dns("udp"))?;
    tcp.set_nonblocking(true).map_err(dns("tcp"))?;
    Ok(DnsSockets { udp, tcp, way })
}

/// Sockets of one port that the kernel chooses.
fn bind_beside() -> Result<(UdpSocket, TcpListener), SandboxError> {
    let mut attempts = ATTEMPTS;
    loop {
        let udp = UdpSocket::bind((*DNS_ADDR.ip(), 0)).map_err(dns("udp"))?;
        let port = udp.local_addr().map_err(dns("udp"))?.port();
        match TcpListener::bind(SocketAddrV4::new(*DNS_ADDR.ip(), port)) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(source) => {
                attempts -= 1;
                if attempts == 0 {
                    return Err(dns("tcp")(source));
                }
            }
        }
    }
}

/// One transaction, whatever was there.
fn rules(port: u16) -> String {
    let (ip, dns) = (DNS_ADDR.ip(), DNS_ADDR.port());
    format!(
        "\
table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
    chain output {{
        type filter hook output priority mangle; policy accept;
        oif \"lo\" ip daddr {ip} udp dport {dns} udp dport set {port}
        oif \"lo\" ip daddr {ip} tcp dport {dns} tcp dport set {port}
        oif \"lo\" ip saddr {ip} udp sport {port} udp sport set {dns}
        oif \"lo\" ip saddr {ip} tcp sport {port} tcp sport set {dns}
    }}
}}
"
    )
}
