//! Everything a worker looks at, as one immutable value.

use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use ipnet::IpNet;
use weft_mesh::{Origin, Services, ServicesBuilder};
use weft_vxlan::{Switch, SwitchBuilder};
use weft_wire::{IpInfo, Mac, PortId, Vni, quoted};

use crate::port::Port;
use crate::shortcut::FlowEpochs;

/// Where published ports enter the data plane: the TAP `weft0` in the host's namespace.
#[derive(Debug, Clone)]
pub struct MeshPort {
    /// The port of `weft0`.
    pub port: PortId,
    /// Ethernet address that answers for the mesh addresses.
    pub mesh_mac: Mac,
    /// The ingress network.
    pub vni: Vni,
    /// Ethernet address of the node on the ingress network.
    pub node_mac: Mac,
    /// Addresses of IPv4.
    pub v4: MeshAddresses,
    /// Addresses of IPv6; none where the ingress network or the host has none.
    pub v6: Option<MeshAddresses>,
    /// Ranges of the ingress network. A client from one of them would be looked for there.
    pub subnets: Vec<IpNet>,
}

/// What a node is called on both sides of `weft0`, in one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeshAddresses {
    /// Address behind `weft0` that published ports are sent to.
    pub mesh_ip: IpAddr,
    /// The node's own address on the ingress network: source of connections to replicas.
    pub node_ip: IpAddr,
    /// The host's own address on `weft0`, which the socket front end connects from: only the node
    /// can take the answers for it.
    pub host_ip: IpAddr,
}

impl MeshPort {
    /// The addresses of one family.
    pub(crate) fn family(&self, ipv4: bool) -> Option<&MeshAddresses> {
        if ipv4 {
            Some(&self.v4)
        } else {
            self.v6.as_ref()
        }
    }

    /// The mesh address of either family, if `ip` is one.
    pub(crate) fn at(&self, ip: IpAddr) -> Option<&MeshAddresses> {
        self.family(ip.is_ipv4()).filter(|a| a.mesh_ip == ip)
    }

    /// Whether replicas see a client at `ip` under that address: the frame front end's do.
    pub(crate) fn keeps(&self, ip: IpAddr) -> bool {
        let own = self.family(ip.is_ipv4());
        own.is_none_or(|own| ip != own.host_ip) && !self.contains(ip)
    }

    /// What the flow table has to know of frames from `weft0`.
    pub(crate) const fn origin(&self, of: &MeshAddresses, keeps_client: bool) -> Origin {
        Origin::Mesh {
            vni: self.vni,
            node_ip: of.node_ip,
            node_mac: self.node_mac,
            keeps_client,
        }
    }

    /// Whether a packet on the ingress network may be a client's by another node, or an error about
    /// an answer to one, which that node itself may send too.
    pub(crate) fn is_from_outside(&self, info: &IpInfo) -> bool {
        !self.contains(info.src) || quoted::is_error(info)
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
    /// Which of what the kernel knows of flows still holds.
    pub flow_epochs: FlowEpochs,
}

impl Snapshot {
    /// No networks, no ports: what workers start with.
    pub(crate) fn empty() -> Self {
        Self {
            epoch: 0,
            switch: SwitchBuilder::new().build(),
            services: ServicesBuilder::new().build(),
            ports: PortMap::default(),
            mesh: None,
            flow_epochs: FlowEpochs::default(),
        }
    }

    /// The worker that reads `weft0`, and the answers to the node's own address.
    pub(crate) fn mesh_worker(&self) -> Option<usize> {
        let mesh = self.mesh.as_ref()?;
        Some(self.ports.get(&mesh.port)?.worker)
    }
}
