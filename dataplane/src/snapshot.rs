//! Everything a worker looks at, as one immutable value.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use ipnet::IpNet;
use weft_mesh::{Origin, Services};
use weft_vxlan::Switch;
use weft_wire::{Mac, PortId, Vni};

use crate::port::Port;

/// Where published ports enter the data plane: the TAP `weft0` in the host's namespace.
#[derive(Debug, Clone)]
pub struct MeshPort {
    /// The port of `weft0`.
    pub port: PortId,
    /// Address behind `weft0` that published ports are sent to.
    pub mesh_ip: IpAddr,
    /// Ethernet address that answers for `mesh_ip`.
    pub mesh_mac: Mac,
    /// The ingress network.
    pub vni: Vni,
    /// The node's own address on the ingress network: source of connections to replicas.
    pub node_ip: IpAddr,
    /// Ethernet address of `node_ip`.
    pub node_mac: Mac,
    /// The host's own address on `weft0`, which the socket front end connects from: only the node
    /// can take the answers for it.
    pub host_ip: IpAddr,
    /// Ranges of the ingress network. A client from one of them would be looked for there.
    pub subnets: Vec<IpNet>,
}

impl MeshPort {
    /// Whether replicas see a client at `ip` under that address: the frame front end's do.
    pub(crate) fn keeps(&self, ip: IpAddr) -> bool {
        ip != self.host_ip && !self.contains(ip)
    }

    /// What the flow table has to know of frames from `weft0`.
    pub(crate) const fn origin(&self, keeps_client: bool) -> Origin {
        Origin::Mesh {
            vni: self.vni,
            node_ip: self.node_ip,
            node_mac: self.node_mac,
            keeps_client,
        }
    }

    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        self.subnets.iter().any(|net| net.contains(&ip))
    }
}

/// Ports by number.
pub type PortMap = HashMap<PortId, Arc<Port>, RandomState>;

/// Tables of the data plane at one epoch. Compiled by the agent, never changed afterwards.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows by one with every snapshot; flow entries of another epoch revalidate themselves.
    pub epoch: u64,
    /// Networks, FDB, neighbours, VTEPs.
    pub switch: Switch,
    /// Services by VIP and by published port.
    pub services: Services,
    /// Every port of the node.
    pub ports: PortMap,
    /// Absent until the node has an address on the ingress network.
    pub mesh: Option<MeshPort>,
}

impl Snapshot {
    /// The worker that reads `weft0`, and the answers to the node's own address.
    pub(crate) fn mesh_worker(&self) -> Option<usize> {
        let mesh = self.mesh.as_ref()?;
        Some(self.ports.get(&mesh.port)?.worker)
    }
}
