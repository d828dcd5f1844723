//! What Docker Swarm builds on each node, made through netlink: veth, bridge and vxlan.

use std::net::{IpAddr, Ipv4Addr};

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

/// Two machines without agents, a sandbox on each.
#[derive(Debug)]
pub(crate) struct KernelSide {
    lab: Lab,
    client: End,
    server: End,
}

impl KernelSide {
    /// Builds it as such a lab of two nodes.
    pub(crate) fn create(config: LabConfig, stop: &Stop) -> anyhow::Result<Self> {
        let lab = Lab::create(&LabConfig {
            nodes: 2,
            agents: false,
            ..config
        })?;
        for (node, peer_node, peer) in [("node1", "node2", 2), ("node2", "node1", 1)] {
            let (local, remote) = (lab.node_addr(node)?, lab.node_addr(peer_node)?);
            bridge_with_vxlan(&lab.netns(node, None)?, local, remote, inner(peer))
                .with_context(|| format!("cannot build the kernel's overlay on {node}"))?;
        }
        let side = Self {
            client: sandbox(&lab, "node1", 1, 2)?,
            server: sandbox(&lab, "node2", 2, 1)?,
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
        let neighbour = sandbox(&self.lab, "node1", 3, 1)?;
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
        name: "vxlan0",
        vni: VNI,
        local,
        port: 4789,
        learning: false,
        udp_checksum: false,
    })?;
    links.set_mtu("vxlan0", INNER_MTU)?;
    links.append_fdb("vxlan0", Mac::for_ip(peer).0, remote)?;
    links.set_master("vxlan0", Some(BRIDGE))?;
    links.set_up("vxlan0", true)?;
    links.set_up(BRIDGE, true)?;
    Ok(())
}

/// A namespace with a cable to the bridge of its node, which knows its peer.
fn sandbox(lab: &Lab, node: &str, own: u8, peer: u8) -> anyhow::Result<End> {
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
    Ok(End { netns, ip: own })
}
