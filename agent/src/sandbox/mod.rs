//! Sandboxes: the network namespaces of tasks, and foreign ones that `network connect` joins.
//!
//! ```text
//!   sandbox namespace                                host namespace
//!   eth0, eth2, … TAP, one for each overlay network ── read by the data plane's workers
//!   eth1          veth into the gateway bridge ─────── weft_gwbridge ── masquerade ── outside
//!   127.0.0.11    DNS sockets ──────────────────────── read by the agent
//! ```
//!
//! Packets *from* an overlay address leave through that network's own routing table, so answers
//! return the way the question came; everything else follows the main table, whose default route is
//! the gateway bridge.
//!
//! Everything here blocks for milliseconds on the kernel: async callers use `spawn_blocking`. All
//! set-up is idempotent, so a restarted agent calls the same functions again and takes up what is
//! there.

mod error;
pub(crate) mod gwbridge;
mod mesh_tap;
mod port;
mod resolver;
pub(crate) mod runner;
pub(crate) mod sysctl;

use std::path::Path;

use weft_sys::netlink::Netlink;
use weft_sys::netns::{Netns, NetnsError};

use crate::names::GATEWAY_IFNAME;

pub use error::SandboxError;
pub(crate) use mesh_tap::{
    add_mesh_ipv6, keep_mesh_tap, open_mesh_tap, remove_mesh_ipv6, remove_mesh_tap,
};
pub(crate) use port::{PortConfig, keep_port, set_port_mtu};
pub(crate) use resolver::{DnsSockets, WayToResolver};

/// A network namespace with its interfaces.
#[derive(Debug)]
pub struct Sandbox {
    netns: Netns,
}

impl Sandbox {
    /// Makes the namespace of a task, bound at `path`, with `lo` up.
    ///
    /// # Errors
    /// [`SandboxError::Netns`] when it exists or may not be made; nothing is left behind.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, SandboxError> {
        let path = path.as_ref();
        let netns = Netns::create_at(path)?;
        let sandbox = Self { netns };
        if let Err(error) = sandbox
            .netlink()
            .and_then(|mut nl| Ok(nl.set_up("lo", true)?))
        {
            Netns::remove(path)?;
            return Err(error);
        }
        Ok(sandbox)
    }

    /// The namespace of a task that ran before a restart of the agent, or a new one when it is gone.
    ///
    /// # Errors
    /// As [`Sandbox::create`].
    pub(crate) fn open_or_create(path: impl AsRef<Path>) -> Result<Self, SandboxError> {
        let path = path.as_ref();
        match Netns::open(path) {
            Ok(netns) => Ok(Self { netns }),
            Err(NetnsError::NotFound { .. }) => Self::create(path),
            // The file outlived its mount: a reboot without cleaning, or an unmount by hand.
            Err(NetnsError::NotANamespace { .. }) => {
                Netns::remove(path)?;
                Self::create(path)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a namespace that someone else made, by path or by the id of a process in it.
    ///
    /// # Errors
    /// [`SandboxError::Netns`], naming the path or id.
    pub(crate) fn open(path_or_pid: &str) -> Result<Self, SandboxError> {
        let netns = match path_or_pid.parse::<u32>() {
            Ok(pid) => Netns::of_pid(pid)?,
            Err(_) => Netns::open(path_or_pid)?,
        };
        Ok(Self { netns })
    }

    /// A namespace that is open already.
    #[must_use]
    pub(crate) fn from_netns(netns: Netns) -> Self {
        Self { netns }
    }

    /// Removes the namespace made at `path`; its interfaces go with the last process in it. A path
    /// that does not exist is success.
    ///
    /// # Errors
    /// [`SandboxError::Netns`].
    pub fn remove(path: impl AsRef<Path>) -> Result<(), SandboxError> {
        Ok(Netns::remove(path)?)
    }

    /// The namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The first of `eth0`, `eth2`, `eth3`, … that is not taken; `eth1` belongs to the gateway
    /// bridge.
    ///
    /// # Errors
    /// [`SandboxError::Netlink`].
    pub(crate) fn first_free_ifname(&self) -> Result<String, SandboxError> {
        let taken: Vec<String> = self
            .netlink()?
            .links()?
            .into_iter()
            .map(|link| link.name)
            .collect();
        let mut names = (0u32..)
            .map(|n| format!("eth{n}"))
            .filter(|n| n != GATEWAY_IFNAME);
        Ok(names
            .find(|name| !taken.contains(name))
            .expect("a namespace has finitely many links"))
    }

    /// Whether an overlay interface may get this name: nobody has it, nor is it the gateway
    /// bridge's.
    ///
    /// # Errors
    /// [`SandboxError::Ifname`], [`SandboxError::Netlink`].
    pub(crate) fn check_free(&self, ifname: &str) -> Result<(), SandboxError> {
        let refused = |why| SandboxError::Ifname {
            ifname: ifname.to_owned(),
            why,
        };
        if ifname == GATEWAY_IFNAME {
            return Err(refused("is kept for the gateway bridge"));
        }
        match self.netlink()?.link(ifname)? {
            Some(_) => Err(refused("exists in the namespace already")),
            None => Ok(()),
        }
    }

    /// True when the main table has an IPv4 default route that does not lead to the gateway bridge:
    /// a foreign sandbox that has its own way out.
    ///
    /// # Errors
    /// [`SandboxError::Netlink`].
    pub(crate) fn has_own_way_out(&self) -> Result<bool, SandboxError> {
        let mut netlink = self.netlink()?;
        let routes = netlink.routes()?;
        let made = gwbridge::made_interface(&mut netlink)?;
        let mut ways = routes.iter().filter(|route| gwbridge::is_way_out(route));
        Ok(ways.any(|way| !made || way.dev.as_deref() != Some(GATEWAY_IFNAME)))
    }

    fn netlink(&self) -> Result<Netlink, SandboxError> {
        Ok(Netlink::open_in(&self.netns)?)
    }
}

#[cfg(test)]
mod tests;
