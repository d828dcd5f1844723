//! What can go wrong with a sandbox.

use std::io;

use weft_sys::netlink::NetlinkError;
use weft_sys::netns::NetnsError;
use weft_sys::nft;
use weft_sys::tap::TapError;

use crate::names::DNS_ADDR;

/// Why a sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The namespace itself.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// An interface, address, route or rule.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The device of an overlay network.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The namespace cannot be entered any more.
    #[error("cannot enter the sandbox: {0}")]
    Enter(#[source] io::Error),
    /// A kernel setting.
    #[error("cannot set {name} in the sandbox: {source}")]
    Sysctl {
        /// Path below `/proc/sys`.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Config: the wanted name of an interface cannot be had.
    #[error("interface {ifname} {why}: leave --ifname out, or choose another one")]
    Ifname {
        /// As asked for.
        ifname: String,
        /// What is in the way.
        why: &'static str,
    },
    /// The resolver's sockets.
    #[error("cannot open the resolver's socket on {} ({protocol}) in the sandbox: {source}", DNS_ADDR.ip())]
    Dns {
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Rules inside the sandbox.
    #[error("the rules of the resolver in the sandbox: {0}")]
    Rules(#[source] nft::NftError),
}
