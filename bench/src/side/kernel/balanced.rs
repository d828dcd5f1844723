//! The kernel's overlay behind something that spreads connections: through a virtual address, and
//! through a published port.
//!
//! The kernel has fewer steps to do here than Swarm has it do. A virtual address is led on in the
//! client's own namespace, where Swarm has one beside; a published port in a namespace that has an
//! address on the underlay, where Swarm has the host lead it there first.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use ipnet::IpNet;
use weft_lab::{OUTSIDE, Stop};
use weft_sys::netns::Netns;

use super::{KernelSide, NEAR, inner};
use crate::load::{Ports, Way};
use crate::proxies::{Kind, Proxy, Settings};
use crate::side::{End, Nat, PORTS, beside, set_in, wait_for_tcp};

/// Last byte of the virtual address.
const VIP: u8 = 200;

/// Added to the number of a sandbox, the last byte of its address on the underlay.
const FIRST_GATE: u8 = 200;

/// At once, through HAProxy.
const CONNECTIONS: u64 = 1000;

/// What new sockets of a namespace have for their congestion control.
const CONTROL: &str = "ipv4/tcp_congestion_control";

/// What spreads connections before the server, and who connects to it.
#[derive(Debug)]
pub(crate) struct Balanced {
    /// What it is called beside weft.
    name: &'static str,
    /// One that ends connections and makes others, and its namespace. It ends with this value.
    proxy: Option<(Proxy, Netns)>,
    /// Its processes.
    processes: Vec<u32>,
    client: End,
    target: IpAddr,
    ports: Ports,
}

impl Balanced {
    /// What it is called beside weft.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Has it use a congestion control, where it makes connections of its own.
    pub(crate) fn use_control(&self, control: &str) -> anyhow::Result<()> {
        match &self.proxy {
            Some((_, netns)) => set_in(netns, CONTROL, control),
            None => Ok(()),
        }
    }
}

/// A sandbox with an address on the underlay.
struct Gate {
    path: PathBuf,
    netns: Netns,
    addr: IpAddr,
}

impl KernelSide {
    /// A further client, whose namespace leads a virtual address to the server.
    pub(crate) fn virtual_address(&self, nat: Nat, stop: &Stop) -> anyhow::Result<Balanced> {
        let (_, _, client) = self.other()?;
        let target = inner(VIP);
        let vip = SocketAddr::new(target, PORTS.listen);
        nat.lead(&client.netns, vip, self.server.ip, stop)?;
        let balanced = Balanced {
            name: nat.name(),
            proxy: None,
            processes: Vec::new(),
            client,
            target,
            ports: Ports {
                target: PORTS.listen,
                ..PORTS
            },
        };
        self.answering(balanced, stop)
    }

    /// A port beside the client's node that leads to the server, and the machine that is none.
    pub(crate) fn published(&self, nat: Nat, stop: &Stop) -> anyhow::Result<Balanced> {
        let gate = self.gate()?;
        let published = SocketAddr::new(gate.addr, PORTS.target);
        nat.publish(&gate.netns, published, self.replica(), stop)?;
        let balanced = self.way_from_outside(nat.name(), gate.addr, None)?;
        self.answering(balanced, stop)
    }

    /// The same through HAProxy.
    pub(crate) fn haproxy(&self, stop: &Stop) -> anyhow::Result<Balanced> {
        let kind = Kind::Haproxy;
        let program = kind.program().context("it was there a moment ago")?;
        let gate = self.gate()?;
        let settings = Settings {
            listen: SocketAddr::new(gate.addr, PORTS.target),
            replicas: &[self.replica()],
            connections: CONNECTIONS,
        };
        let place = (&self.lab, NEAR, gate.path.as_path());
        let proxy = Proxy::start(kind, &program, place, settings)?;
        let proxy = Some((proxy, gate.netns));
        let balanced = self.way_from_outside(kind.name(), gate.addr, proxy)?;
        self.answering(balanced, stop)
    }

    /// From its client to the server.
    pub(crate) fn way_through<'a>(&'a self, balanced: &'a Balanced) -> Way<'a> {
        Way {
            target: balanced.target,
            ports: Some(balanced.ports),
            ..balanced.client.to(&self.server, &balanced.processes)
        }
    }

    /// Where the server listens.
    fn replica(&self) -> SocketAddr {
        SocketAddr::new(self.server.ip, PORTS.listen)
    }

    fn gate(&self) -> anyhow::Result<Gate> {
        let (number, path, end) = self.other()?;
        let addr = beside(self.lab.node_addr(NEAR)?, FIRST_GATE + number)?;
        self.lab.plug_in(NEAR, &path, IpNet::new(addr, 24)?)?;
        Ok(Gate {
            path,
            netns: end.netns,
            addr,
        })
    }

    fn way_from_outside(
        &self,
        name: &'static str,
        target: IpAddr,
        proxy: Option<(Proxy, Netns)>,
    ) -> anyhow::Result<Balanced> {
        Ok(Balanced {
            name,
            proxy,
            processes: Vec::new(),
            client: End {
                netns: self.lab.netns(OUTSIDE, None)?,
                ip: self.lab.node_addr(OUTSIDE)?,
            },
            target,
            ports: PORTS,
        })
    }

    /// The same once the server answers.
    fn answering(&self, mut balanced: Balanced, stop: &Stop) -> anyhow::Result<Balanced> {
        let heard = wait_for_tcp(&self.way_through(&balanced), stop);
        if let Some((proxy, _)) = &mut balanced.proxy {
            // One that ended says why.
            proxy.check(&self.lab)?;
            balanced.processes = proxy.processes();
        }
        heard.with_context(|| format!("{} does not lead to the server", balanced.name))?;
        Ok(balanced)
    }
}
