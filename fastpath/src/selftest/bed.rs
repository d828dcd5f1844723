//! Two nodes with a sandbox each, and the programs in front of their devices. All of it is in
//! namespaces without a name, which end with the bed.
//!
//! ```text
//!   sandbox A   eth0 ─────────────── slow link ─────────────── eth0   sandbox B
//!               eth1 ── host1                      host1 ── eth1
//!                         node A  under0 ── under0  node B
//!                       host2 ───────────────────────────── eth2
//! ```
//!
//! The slow link has the place of the workers: it carries what the programs leave alone. By `eth1`,
//! sandbox B is on another node than A; by `eth2`, on the same one.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use ipnet::IpNet;
use weft_sys::netlink::{Netlink, Veth};
use weft_sys::netns::Netns;

use super::connection::{Connection, LARGEST, Partner, Place};
use super::stream::{self, Patience, StreamError};
use super::{NUMBERS, SelfTestError};
use crate::cache::FlowCache;

const UNDERLAY: &str = "under0";
const FIRST: &str = "eth0";
const MTU: u32 = 1500;

const VTEPS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const NODES: [IpNet; 2] = [v4(VTEPS[0], 24), v4(VTEPS[1], 24)];
const TASKS: [IpNet; 2] = [
    v4(Ipv4Addr::new(10, 0, 0, 1), 24),
    v4(Ipv4Addr::new(10, 0, 0, 2), 24),
];
const TASKS_IPV6: [IpNet; 2] = [
    v6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    v6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
];

/// What the second sandbox is called on the way, where that is not its name.
const SEEN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 77));
const SEEN_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x77));
const SEEN_PORT: u16 = 8080;

const fn v4(ip: Ipv4Addr, prefix_len: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(ip), prefix_len)
}

const fn v6(ip: Ipv6Addr) -> IpNet {
    IpNet::new_assert(IpAddr::V6(ip), 64)
}

/// A sandbox's second device.
struct Second {
    number: u16,
    name: &'static str,
    address: IpNet,
    /// Its other end.
    host_end: &'static str,
    /// The node of that.
    vtep: Ipv4Addr,
}

const NEAR: Second = Second {
    number: NUMBERS[0],
    name: "eth1",
    address: v4(Ipv4Addr::new(172, 18, 0, 1), 16),
    host_end: "host1",
    vtep: VTEPS[0],
};
const FAR: Second = Second {
    number: NUMBERS[1],
    name: "eth1",
    address: v4(Ipv4Addr::new(172, 18, 0, 2), 16),
    host_end: "host1",
    vtep: VTEPS[1],
};
const BESIDE: Second = Second {
    number: NUMBERS[1],
    name: "eth2",
    address: v4(Ipv4Addr::new(172, 19, 0, 2), 16),
    host_end: "host2",
    vtep: VTEPS[0],
};

/// Version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Version 4.
    V4,
    /// Version 6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Two nodes with a sandbox each; see the text above.
#[derive(Debug)]
pub struct Bed<'a> {
    cache: &'a FlowCache,
    /// Live as long as somebody holds them.
    nodes: [Space; 2],
    sandboxes: [Space; 2],
    near: Place,
    far: Place,
    beside: Place,
}

impl<'a> Bed<'a> {
    /// The bed, with the programs of `cache` at work and IPv4 addresses. Nothing is entered.
    ///
    /// # Errors
    /// [`SelfTestError`]; nothing stays.
    pub fn new(cache: &'a FlowCache) -> Result<Self, SelfTestError> {
        let mut nodes = [Space::new()?, Space::new()?];
        let mut sandboxes = [Space::new()?, Space::new()?];
        let [node_a, node_b] = &mut nodes;
        let [a, b] = &mut sandboxes;
        join(node_a, UNDERLAY, node_b, UNDERLAY, MTU)?;
        introduce(node_a, node_b, UNDERLAY, NODES)?;
        join(a, FIRST, b, FIRST, LARGEST.into())?;
        introduce(a, b, FIRST, TASKS)?;
        cache.attach_underlay(&mut node_a.links, UNDERLAY)?;
        cache.attach_underlay(&mut node_b.links, UNDERLAY)?;
        let near = add_second(cache, a, node_a, &NEAR)?;
        let far = add_second(cache, b, node_b, &FAR)?;
        let beside = add_second(cache, b, node_a, &BESIDE)?;
        Ok(Self {
            cache,
            nodes,
            sandboxes,
            near,
            far,
            beside,
        })
    }

    /// Gives the sandboxes IPv6 addresses.
    ///
    /// # Errors
    /// [`SelfTestError`], where the kernel has no IPv6 or it is switched off.
    pub fn add_ipv6(&mut self) -> Result<(), SelfTestError> {
        let [a, b] = &mut self.sandboxes;
        for sandbox in [&*a, &*b] {
            // Nobody else has these addresses, and to ask takes a second.
            sandbox.set(&format!("ipv6/conf/{FIRST}/accept_dad"), "0")?;
        }
        introduce(a, b, FIRST, TASKS_IPV6)
    }

    /// The namespace of one of the two nodes.
    #[must_use]
    pub fn node(&self, index: usize) -> &Netns {
        &self.nodes[index].netns
    }

    /// The namespace of one of the two sandboxes.
    #[must_use]
    pub fn sandbox(&self, index: usize) -> &Netns {
        &self.sandboxes[index].netns
    }

    /// A new connection from sandbox A to B; both ends, in this order.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn connect(
        &self,
        family: Family,
        patience: Patience,
    ) -> Result<[TcpStream; 2], StreamError> {
        let [_, at] = match family {
            Family::V4 => TASKS,
            Family::V6 => TASKS_IPV6,
        };
        let [a, b] = &self.sandboxes;
        stream::connect(&a.netns, (&b.netns, at.addr()), patience)
    }

    /// Enters the flows of a connection. The entries are stale until
    /// [`Connection::turn_valid`]. One connection at a time.
    ///
    /// # Errors
    /// [`SelfTestError`].
    pub fn enter(
        &self,
        streams: &[TcpStream; 2],
        partner: Partner,
    ) -> Result<Connection<'a>, SelfTestError> {
        let [near, far] = streams;
        self.enter_flows([near.local_addr()?, far.local_addr()?], partner)
    }

    /// As [`Bed::enter`], between nodes, and as to a virtual address: on the way the second sandbox has
    /// another address and port.
    ///
    /// # Errors
    /// [`SelfTestError`].
    pub fn enter_rewritten(
        &self,
        streams: &[TcpStream; 2],
    ) -> Result<Connection<'a>, SelfTestError> {
        let [near, far] = streams;
        let ends = [near.local_addr()?, far.local_addr()?];
        let ip = match ends[1].ip() {
            IpAddr::V4(_) => SEEN,
            IpAddr::V6(_) => SEEN_IPV6,
        };
        let seen = (ends, SocketAddr::new(ip, SEEN_PORT));
        Connection::new(self.cache, [self.near, self.far], seen, Partner::OtherNode)
    }

    /// As [`Bed::enter`], for flows between these addresses, whether there is a connection or not.
    ///
    /// # Errors
    /// [`SelfTestError`].
    pub fn enter_flows(
        &self,
        ends: [SocketAddr; 2],
        partner: Partner,
    ) -> Result<Connection<'a>, SelfTestError> {
        let far = match partner {
            Partner::OtherNode => self.far,
            Partner::SameNode => self.beside,
        };
        Connection::new(self.cache, [self.near, far], (ends, ends[1]), partner)
    }
}

/// A namespace, and who changes it.
#[derive(Debug)]
struct Space {
    netns: Netns,
    links: Netlink,
}

impl Space {
    fn new() -> Result<Self, SelfTestError> {
        let netns = Netns::create_anonymous()?;
        let links = Netlink::open_in(&netns)?;
        Ok(Self { netns, links })
    }

    fn set(&self, name: &str, value: &str) -> Result<(), SelfTestError> {
        let path = format!("/proc/sys/net/{name}");
        let written = self.netns.run_in(|| std::fs::write(&path, value))?;
        written.map_err(|source| SelfTestError::Setting {
            name: name.to_owned(),
            source,
        })
    }

    fn mac(&mut self, device: &str) -> Result<[u8; 6], SelfTestError> {
        let mac = self.links.link(device)?.and_then(|link| link.mac);
        let none = || io::Error::other(format!("{device} has no hardware address"));
        Ok(mac.ok_or_else(none)?)
    }
}

/// Joins two namespaces by a pair of devices, and sets them up.
fn join(
    near: &mut Space,
    name: &str,
    far: &mut Space,
    peer: &str,
    mtu: u32,
) -> Result<(), SelfTestError> {
    near.links.add_veth(&Veth {
        name,
        peer,
        peer_netns: Some(&far.netns),
        peer_mac: None,
        mtu: Some(mtu),
    })?;
    // The near end last: a device that comes up with its carrier can send at once, one that gets it
    // later waits for work of the kernel, and the first packets are from the near end.
    far.links.set_up(peer, true)?;
    near.links.set_up(name, true)?;
    Ok(())
}

/// Gives both ends of a pair their addresses, and each the other's: nobody has to ask for it.
fn introduce(
    near: &mut Space,
    far: &mut Space,
    device: &str,
    [near_net, far_net]: [IpNet; 2],
) -> Result<(), SelfTestError> {
    near.links.add_address(device, near_net)?;
    far.links.add_address(device, far_net)?;
    let (near_mac, far_mac) = (near.mac(device)?, far.mac(device)?);
    near.links.set_neighbour(device, far_net.addr(), far_mac)?;
    far.links.set_neighbour(device, near_net.addr(), near_mac)?;
    Ok(())
}

/// Gives a sandbox a second device that ends on `node`, with the programs.
fn add_second(
    cache: &FlowCache,
    sandbox: &mut Space,
    node: &mut Space,
    second: &Second,
) -> Result<Place, SelfTestError> {
    let (name, host_end) = (second.name, second.host_end);
    join(node, host_end, sandbox, name, MTU)?;
    // The loose filter refuses what comes by a device without an address.
    sandbox.links.add_address(name, second.address)?;
    sandbox.set(&format!("ipv4/conf/{name}/rp_filter"), "2")?;
    let inside = (&mut sandbox.links, FIRST);
    cache.attach_sandbox(second.number, inside, (&mut node.links, host_end))?;
    Ok(Place {
        number: second.number,
        vtep: second.vtep,
        underlay: node.links.link_index(UNDERLAY)?,
        second: sandbox.links.link_index(name)?,
        host_end: node.links.link_index(host_end)?,
    })
}
