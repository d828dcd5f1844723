//! The ways between two nodes: weft, the kernel's veth, bridge and vxlan, and Open vSwitch.

mod kernel;
mod nat;
mod ovs;
mod weft;

pub(crate) use kernel::{Balanced, KernelSide};
pub(crate) use nat::Nat;
pub(crate) use ovs::OvsSide;
pub(crate) use weft::{Dropped, NETWORK, WeftSide, program_once, two_nodes};

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use weft_lab::{Attached, Patience, Stop};
use weft_sys::netns::Netns;

use crate::load::{Ports, Way, exchange, exchange_kept};

/// How long it may take until something that was asked for is there.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Pause between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// Of a service with a published port: the one of its replica, and the published one.
const PORTS: Ports = Ports {
    listen: 8080,
    target: 8000,
};

/// How long a way is tried at a time.
const TRY: Duration = Duration::from_millis(10);

/// A sandbox with its address.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) netns: Netns,
    pub(crate) ip: IpAddr,
}

impl From<Attached> for End {
    fn from(attached: Attached) -> Self {
        Self {
            netns: attached.netns,
            ip: attached.endpoint.ip,
        }
    }
}

impl End {
    /// The way from here to another one.
    pub(crate) fn to<'a>(&'a self, server: &'a Self, agents: &'a [u32]) -> Way<'a> {
        Way {
            client: &self.netns,
            server: &server.netns,
            listen: server.ip,
            target: server.ip,
            ports: None,
            agents,
        }
    }
}

/// Waits until the ends hear each other.
pub(crate) fn wait_for(way: &Way<'_>, stop: &Stop) -> anyhow::Result<()> {
    Patience::new(LIMIT, stop).until(|| {
        let heard = exchange(way, TRY)?;
        ensure!(
            !heard.times.is_empty(),
            "{} does not answer: `weft drops` on the nodes of the lab says where packets end",
            way.target
        );
        Ok(())
    })
}

/// The same by a TCP connection, on a way for which datagrams are nothing.
pub(crate) fn wait_for_tcp(way: &Way<'_>, stop: &Stop) -> anyhow::Result<()> {
    Patience::new(LIMIT, stop).until(|| {
        let heard = exchange_kept(way, TRY)
            .with_context(|| format!("no connection through {}", way.target))?;
        ensure!(!heard.times.is_empty(), "{} says nothing", way.target);
        Ok(())
    })
}

/// An address on the same link of 256.
pub(crate) fn beside(addr: IpAddr, last_byte: u8) -> anyhow::Result<IpAddr> {
    let IpAddr::V4(addr) = addr else {
        bail!("the bench's underlay is IPv4");
    };
    let [a, b, c, _] = addr.octets();
    Ok(Ipv4Addr::new(a, b, c, last_byte).into())
}

/// Sets what the kernel keeps for each network namespace.
pub(crate) fn set_in(netns: &Netns, key: &str, value: &str) -> anyhow::Result<()> {
    let path = format!("/proc/sys/net/{key}");
    netns
        .run_in(|| std::fs::write(&path, value))?
        .with_context(|| format!("cannot write {value:?} to {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_link() {
        let node: IpAddr = "10.77.0.1".parse().unwrap();
        assert_eq!(beside(node, 200).unwrap().to_string(), "10.77.0.200");
        assert!(beside("fd77::1".parse().unwrap(), 1).is_err());
    }
}
