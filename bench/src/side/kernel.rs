//! What Docker Swarm builds on each node, made through netlink: veth, bridge and vxlan.

mod balanced;

pub(crate) use balanced::Balanced;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::Context;
use ipnet::IpNet;
use weft_lab::{Lab, LabConfig, Stop};
use weft_model::objects::Mac;
use weft_sys::netlink::{Netlink, Veth, Vxlan};
use weft_sys::netns::Netns;

use super::{End, wait_for};
use crate::load::Way;

/// VXLAN network identifier.
const VNI: u32 = 4242;

/// Inner MTU: 1500 without the 50 bytes of outer headers.
const INNER_MTU: u32 = 1450;

const BRIDGE: &str = "br0";

const TUNNEL: &str = "vxlan0";

/// Nodes of the client and of the server.
const NEAR: &str = "node1";
const FAR: &str = "node2";

/// Numbers of sandboxes, which are the last bytes of their addresses.
const CLIENT: u8 = 1;
const SERVER: u8 = 2;
const NEIGHBOUR: u8 = 3;
const FIRST_OTHER: u8 = 4;

/// Two machines without agents, a sandbox on each.
#[derive(Debug)]
pub(crate) struct KernelSide {
    lab: Lab,
    client: End,
    server: End,
    /// Number of the next sandbox of [`KernelSide::other`].
    next: Cell<u8>,
}

impl KernelSide {
    /// Builds it as such a lab of two nodes.
    pub(crate) fn create(config: LabConfig, stop: &Stop) -> anyhow::Result<Self> {
        let lab = Lab::create(&LabConfig {
            nodes: 2,
            agents: false,
            ..config
        })?;
        for (node, peer_node, peer) in [(NEAR, FAR, SERVER), (FAR, NEAR, CLIENT)] {
            let (local, remote) = (lab.node_addr(node)?, lab.node_addr(peer_node)?);
            bridge_with_vxlan(&lab.netns(node, None)?, local, remote, inner(peer))
                .with_context(|| format!("cannot build the kernel's overlay on {node}"))?;
        }
        let side = Self {
            client: sandbox(&lab, NEAR, CLIENT, SERVER)?.1,
            server: sandbox(&lab, FAR, SERVER, CLIENT)?.1,
            next: Cell::new(FIRST_OTHER),
            lab,
        };
        wait_for(&side.way(), stop)?;
        Ok(side)
    }

    /// From one node to the other.
    pub(crate) fn way(&self) -> Way<'_> {
        self.client.to(&self.server, &[])
    }

    /// One more sandbox beside the client's, on the same bridge.
    pub(crate) fn neighbour(&self, stop: &Stop) -> anyhow::Result<End> {
        let (_, neighbour) = sandbox(&self.lab, NEAR, NEIGHBOUR, CLIENT)?;
        Netlink::open_in(&self.client.netns)?.set_neighbour(
            "eth0",
            neighbour.ip,
            Mac::for_ip(neighbour.ip).0,
        )?;
        wait_for(&self.client.to(&neighbour, &[]), stop)?;
        Ok(neighbour)
    }

    /// From the client's sandbox to that one.
    pub(crate) fn way_to<'a>(&'a self, server: &'a End) -> Way<'a> {
        self.client.to(server, &[])
    }

    /// One more sandbox on the client's node, which the server knows: its number, its path and itself.
    fn other(&self) -> anyhow::Result<(u8, PathBuf, End)> {
        let own = self.next.get();
        self.next.set(own + 1);
        let (path, end) = sandbox(&self.lab, NEAR, own, SERVER)?;
        let mac = Mac::for_ip(end.ip).0;
        Netlink::open_in(&self.server.netns)?.set_neighbour("eth0", end.ip, mac)?;
        let mut host = Netlink::open_in(&self.lab.netns(FAR, None)?)?;
        host.append_fdb(TUNNEL, mac, self.lab.node_addr(NEAR)?)?;
        Ok((own, path, end))
    }

    pub(crate) fn down(self) -> anyhow::Result<()> {
        // The namespaces live as long as somebody holds them.
        drop((self.client, self.server));
        self.lab.down()
    }
}

fn inner(index: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 99, 0, index))
}

fn bridge_with_vxlan(
    host: &Netns,
    local: IpAddr,
    remote: IpAddr,
    peer: IpAddr,
) -> anyhow::Result<()> {
    let mut links = Netlink::open_in(host)?;
    links.add_bridge(BRIDGE)?;
    links.set_mtu(BRIDGE, INNER_MTU)?;
    links.add_vxlan(&Vxlan {
        name: TUNNEL,
        vni: VNI,
        local,
        port: 4789,
        learning: false,
        udp_checksum: false,
    })?;
    links.set_mtu(TUNNEL, INNER_MTU)?;
    links.append_fdb(TUNNEL, Mac::for_ip(peer).0, remote)?;
    links.set_master(TUNNEL, Some(BRIDGE))?;
    links.set_up(TUNNEL, true)?;
    links.set_up(BRIDGE, true)?;
    Ok(())
}

/// A namespace with a cable to the bridge of its node, which knows its peer; and its path.
fn sandbox(lab: &Lab, node: &str, own: u8, peer: u8) -> anyhow::Result<(PathBuf, End)> {
    let path = lab.add_netns(node, &format!("bench{own}"))?;
    let netns = lab.netns(node, Some(&path))?;
    let (own, peer) = (inner(own), inner(peer));
    let mut links = Netlink::open_in(&lab.netns(node, None)?)?;
    let veth = format!("veth-{}", path.file_name().unwrap_or_default().display());
    links.add_veth(&Veth {
        name: &veth,
        peer: "eth0",
        peer_netns: Some(&netns),
        peer_mac: Some(Mac::for_ip(own).0),
        mtu: Some(INNER_MTU),
    })?;
    links.set_master(&veth, Some(BRIDGE))?;
    links.set_up(&veth, true)?;

    let mut inside = Netlink::open_in(&netns)?;
    inside.set_up("lo", true)?;
    inside.add_address("eth0", IpNet::new(own, 24)?)?;
    inside.set_up("eth0", true)?;
    inside.set_neighbour("eth0", peer, Mac::for_ip(peer).0)?;
    Ok((path, End { netns, ip: own }))
}
