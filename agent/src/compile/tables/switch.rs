//! The switch: endpoints that came and went are taken into a builder that is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use weft_dataplane::MeshPort;
use weft_model::id::{NetworkId, NodeId};
use weft_vxlan::{Destination, NetworkEntry, Switch, SwitchBuilder};
use weft_wire::{Mac, PortId, Vni, mac_for_ip};

use super::{Look, Work};
use crate::compile::known::PlacedEndpoint;

/// The builder, and what it was begun with.
#[derive(Debug, Default)]
pub(super) struct SwitchTables {
    base: Option<Base>,
    builder: SwitchBuilder,
}

/// What a switch has besides endpoints, and what the places of these follow from.
#[derive(Debug, PartialEq, Eq)]
struct Base {
    networks: Vec<NetworkEntry>,
    receives: u16,
    paths: BTreeMap<IpAddr, u16>,
    /// Of nodes that speak.
    vteps: Vec<IpAddr>,
    /// Static peers, and the addresses of nodes on the ingress network.
    remote: Vec<(Vni, Mac, Vec<IpAddr>, SocketAddr)>,
    /// This node's own address there.
    mesh: Option<(Vni, Mac, Vec<IpAddr>, PortId)>,
    virtual_ips: Vec<(Vni, IpAddr)>,
    vnis: BTreeMap<NetworkId, Vni>,
    nodes: BTreeMap<NodeId, SocketAddr>,
}

/// Networks of which something is elsewhere than before.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// Perhaps all.
    All,
    /// These.
    Networks(BTreeSet<Vni>),
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry<'a> {
    vni: Vni,
    mac: Mac,
    ips: &'a [IpAddr],
    at: Destination,
}

impl SwitchTables {
    /// The switch of this moment. `framed` says that nothing but endpoints has changed.
    pub(super) fn make(
        &mut self,
        look: &Look<'_>,
        mesh: Option<&MeshPort>,
        framed: bool,
        work: &mut Work,
    ) -> (Switch, Touched) {
        let before = self.base.take();
        let (base, anew) = match before {
            Some(base) if framed => (base, false),
            before => {
                let base = Base::of(look, mesh);
                let anew = before.as_ref() != Some(&base);
                (base, anew)
            }
        };
        let touched = if anew {
            work.networks = base.networks.len();
            self.builder = base.begin();
            let all = look.endpoints.all();
            for entry in all.filter_map(|placed| base.entry(placed)) {
                entry.add(&mut self.builder);
            }
            Touched::All
        } else {
            let touched = self.follow(look, &base);
            work.networks = touched.len();
            Touched::Networks(touched)
        };
        self.base = Some(base);
        (self.builder.build(), touched)
    }

    /// Takes in what came and went; on which networks that is.
    fn follow(&mut self, look: &Look<'_>, base: &Base) -> BTreeSet<Vni> {
        let mut touched = BTreeSet::new();
        for change in look.changes {
            let (before, after) = (change.before.as_ref(), change.after.as_ref());
            let was = before.and_then(|placed| base.entry(placed));
            let is = after.and_then(|placed| base.entry(placed));
            if was == is {
                continue;
            }
            if let Some(was) = was {
                was.remove(&mut self.builder);
                touched.insert(was.vni);
            }
            if let Some(is) = is {
                is.add(&mut self.builder);
                touched.insert(is.vni);
            }
        }
        touched
    }
}

impl Base {
    fn of(look: &Look<'_>, mesh: Option<&MeshPort>) -> Self {
        let (inputs, shared, vnis) = (look.inputs, look.shared(), &look.vnis);
        let port = shared.data_path_port;
        let networks = vnis.values().map(|(vni, network)| NetworkEntry {
            vni: *vni,
            mtu: inputs.mtus.port,
            gateways: network.subnets().iter().map(|s| s.gateway).collect(),
        });
        let peers = shared.peers.iter().filter_map(|peer| {
            let (vni, _) = vnis.get(&peer.network)?;
            let vtep = SocketAddr::new(peer.vtep, port);
            Some((*vni, Mac(peer.mac.0), vec![peer.ip], vtep))
        });
        let speakers: BTreeSet<&NodeId> = look.endpoints.speakers().collect();
        let own = &inputs.assignment.own.node.id;
        let others = shared.nodes.iter();
        let others = others.filter(|node| node.id != *own && speakers.contains(&node.id));
        let on_ingress = others.clone().filter_map(|node| {
            let (vni, network) = look.ingress()?;
            let ips: Vec<IpAddr> = node.ips_on(network).collect();
            let mac = mac_for_ip(*ips.first()?);
            Some((vni, mac, ips, SocketAddr::new(node.data_path_addr, port)))
        });
        let services = shared.services.iter().map(|s| &s.vips);
        // Open connections to what was removed still go there.
        let ending = shared.ending.iter().map(|s| &s.vips);
        let vips = services.chain(ending).flatten();
        Self {
            networks: networks.collect(),
            receives: inputs.mtus.receives,
            paths: inputs.mtus.paths.clone(),
            vteps: others.clone().map(|node| node.data_path_addr).collect(),
            remote: peers.chain(on_ingress).collect(),
            mesh: mesh.map(|mesh| {
                let ips = std::iter::once(&mesh.v4).chain(&mesh.v6);
                let ips = ips.map(|a| a.node_ip).collect();
                (mesh.vni, mesh.node_mac, ips, mesh.port)
            }),
            virtual_ips: vips
                .filter_map(|vip| Some((vnis.get(&vip.network)?.0, vip.addr.addr())))
                .collect(),
            vnis: vnis
                .iter()
                .map(|(id, (vni, _))| ((*id).clone(), *vni))
                .collect(),
            nodes: shared
                .nodes
                .iter()
                .map(|n| (n.id.clone(), SocketAddr::new(n.data_path_addr, port)))
                .collect(),
        }
    }

    /// A builder with everything but endpoints.
    fn begin(&self) -> SwitchBuilder {
        let mut switch = SwitchBuilder::new();
        for network in &self.networks {
            switch.network(network.clone());
        }
        switch.receives(self.receives);
        for (vtep, mtu) in &self.paths {
            switch.path_mtu(*vtep, *mtu);
        }
        for vtep in &self.vteps {
            switch.vtep(*vtep);
        }
        for (vni, mac, ips, vtep) in &self.remote {
            switch.remote(*vni, *mac, ips, *vtep);
        }
        if let Some((vni, mac, ips, port)) = &self.mesh {
            switch.local(*vni, *mac, ips, *port);
        }
        for (vni, ip) in &self.virtual_ips {
            switch.virtual_ip(*vni, *ip);
        }
        switch
    }

    /// None where network or node are not in the orders.
    fn entry<'a>(&self, placed: &'a PlacedEndpoint) -> Option<Entry<'a>> {
        if let Some(port) = &placed.port {
            return Some(Entry {
                vni: port.vni,
                mac: port.mac,
                ips: &port.ips,
                at: Destination::Local(port.id),
            });
        }
        let record = &*placed.record;
        Some(Entry {
            vni: *self.vnis.get(&record.network)?,
            mac: Mac(record.mac.0),
            ips: &record.ips,
            at: Destination::Remote(*self.nodes.get(&record.node)?),
        })
    }
}

impl Entry<'_> {
    fn add(&self, to: &mut SwitchBuilder) {
        match self.at {
            Destination::Local(port) => to.local(self.vni, self.mac, self.ips, port),
            Destination::Remote(vtep) => to.remote(self.vni, self.mac, self.ips, vtep),
        };
    }

    fn remove(&self, from: &mut SwitchBuilder) {
        match self.at {
            Destination::Local(port) => from.remove_local(self.vni, self.mac, self.ips, port),
            Destination::Remote(vtep) => from.remove_remote(self.vni, self.mac, self.ips, vtep),
        };
    }
}
