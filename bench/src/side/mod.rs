//! The ways between two nodes: weft, the kernel's veth, bridge and vxlan, and Open vSwitch.

mod kernel;
mod ovs;
mod weft;

pub(crate) use kernel::KernelSide;
pub(crate) use ovs::OvsSide;
pub(crate) use weft::{Dropped, NETWORK, WeftSide, program_once, two_nodes};

use std::net::IpAddr;
use std::time::Duration;

use anyhow::ensure;
use weft_lab::{Attached, Patience, Stop};
use weft_sys::netns::Netns;

use crate::load::{Way, exchange};

/// How long it may take until something that was asked for is there.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Pause between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

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
            agents,
        }
    }
}

/// Waits until the ends hear each other.
pub(crate) fn wait_for(way: &Way<'_>, stop: &Stop) -> anyhow::Result<()> {
    Patience::new(LIMIT, stop).until(|| {
        let heard = exchange(way, Duration::from_millis(10))?;
        ensure!(
            !heard.times.is_empty(),
            "{} does not answer: `weft drops` on the nodes of the lab says where packets end",
            way.target
        );
        Ok(())
    })
}
