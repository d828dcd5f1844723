//! Compiles desired state, gossip and local ports into what the data plane, DNS and the mesh
//! sockets use: a function of its inputs, but for the shared load counters. It costs what has
//! changed since the last call; the rest is shared with the tables of that.

mod names;
mod services;
mod switch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use weft_dataplane::{FlowEpochs, MeshAddresses, MeshPort, Port, Snapshot};
use weft_dns::Zone;
use weft_mesh::Services;
use weft_model::assignment::{Assignment, Shared};
use weft_model::id::{NetworkId, ServiceId};
use weft_model::objects::{Network, Node};
use weft_wire::{PortId, Vni, mac_for_ip};

use self::names::NameTables;
use self::services::ServiceTables;
use self::switch::{SwitchTables, Touched};
use super::families;
use super::heard::Heard;
use super::known::LocalPort;
use super::loads::Loads;
use super::mtus::Mtus;
use super::there::{Change, Endpoints, There};
use crate::names::{MESH_HOST_IP, MESH_HOST_IP6};
use crate::published::Published;

/// What a node knows at one moment.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    /// Orders of the manager.
    pub(crate) assignment: &'a Assignment,
    /// What the other nodes say; who speaks of himself is there.
    pub(crate) heard: &'a Heard,
    /// Own attachments, by id.
    pub(crate) local: &'a [LocalPort],
    /// The port of `weft0`.
    pub(crate) mesh_port: Option<&'a Arc<Port>>,
    /// Address behind `weft0`.
    pub(crate) mesh_ip: IpAddr,
    /// The same of IPv6, where published ports go to replicas over it.
    pub(crate) mesh_ip6: Option<Ipv6Addr>,
    /// What the underlay carries.
    pub(crate) mtus: &'a Arc<Mtus>,
    /// Number of the snapshot.
    pub(crate) epoch: u64,
    /// Services of the snapshot before; the new ones share with it what has stayed.
    pub(crate) before: &'a Services,
}

/// What follows from it.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// For the workers.
    pub(crate) snapshot: Snapshot,
    /// For DNS.
    pub(crate) zone: Zone,
    /// For the listeners.
    pub(crate) published: BTreeSet<Published>,
    /// For those who look.
    pub(crate) there: There,
    /// Objects that could not be used, for people.
    pub(crate) problems: Vec<String>,
    /// Endpoints that are others than in the tables before.
    pub(crate) changes: Vec<Change>,
    /// What was made, and not shared.
    pub(crate) work: Work,
}

/// Parts of tables that were made, while all others are those of the tables before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Endpoints that came, went or changed.
    pub(crate) endpoints: usize,
    /// Networks in whose FDB something has changed.
    pub(crate) networks: usize,
    /// Services whose replicas were gone through.
    pub(crate) services: usize,
    /// Services and endpoints whose names were written into the zone.
    pub(crate) names: usize,
}

/// Everything but endpoints that tables are made from.
#[derive(Debug)]
struct Frame {
    shared: Arc<Shared>,
    node: Node,
    mtus: Arc<Mtus>,
    mesh: (Option<PortId>, IpAddr, Option<Ipv6Addr>),
}

impl Frame {
    fn of(inputs: &Inputs<'_>) -> Self {
        let port = inputs.mesh_port.map(|port| port.id);
        Self {
            shared: Arc::clone(&inputs.assignment.shared),
            node: inputs.assignment.own.node.clone(),
            mtus: Arc::clone(inputs.mtus),
            mesh: (port, inputs.mesh_ip, inputs.mesh_ip6),
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.node == other.node
            && self.mtus == other.mtus
            && self.mesh == other.mesh
            && says_the_same(&self.shared, &other.shared)
    }
}

/// True when at most endpoints differ, of what tables are made from.
fn says_the_same(a: &Arc<Shared>, b: &Arc<Shared>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.data_path_port == b.data_path_port
            && a.nodes == b.nodes
            && a.networks == b.networks
            && a.services == b.services
            && a.ending == b.ending
            && a.peers == b.peers)
}

/// Networks that can be used, by id.
type Vnis<'a> = BTreeMap<&'a NetworkId, (Vni, &'a Network)>;

/// What one look has found, for the makers of tables.
struct Look<'a> {
    inputs: &'a Inputs<'a>,
    vnis: Vnis<'a>,
    endpoints: &'a Endpoints,
    changes: &'a [Change],
    /// Services that are to be made again.
    services: BTreeSet<ServiceId>,
    /// There are other networks: nothing of before is of use.
    anew: bool,
    /// Published ports go to replicas over IPv6, too.
    ipv6: bool,
}

impl Look<'_> {
    fn shared(&self) -> &Shared {
        &self.inputs.assignment.shared
    }

    fn ingress(&self) -> Option<(Vni, &Network)> {
        ingress(&self.vnis)
    }
}

/// Makes tables, and keeps what it made them of.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    endpoints: Endpoints,
    frame: Option<Frame>,
    switch: SwitchTables,
    services: ServiceTables,
    names: NameTables,
    flow_epochs: FlowEpochs,
}

impl Compiler {
    /// The tables of this moment; nothing when those of the last call are these.
    pub(crate) fn compile(&mut self, inputs: &Inputs<'_>, loads: &mut Loads) -> Option<Compiled> {
        let shared = &inputs.assignment.shared;
        let own = inputs.assignment.node_id();
        let found = self
            .endpoints
            .update(shared, own, inputs.heard, inputs.local);
        let before = self.frame.replace(Frame::of(inputs));
        let frame = self.frame.as_ref()?;
        let same_frame = before.as_ref().is_some_and(|before| before.is(frame));
        let same = found.changes.is_empty() && !found.speakers && !found.lies;
        let long_without = loads.gaps.take_news();
        if same && same_frame && long_without.is_empty() {
            return None;
        }
        let vnis = vnis(shared);
        let mesh = mesh_port(inputs, &vnis);
        let before = before.map(|before| before.shared);
        let before = before.filter(|before| before.networks == shared.networks);
        let mut services = other_services(before.as_deref(), shared, &found.changes);
        services.extend(long_without);
        let look = Look {
            endpoints: &self.endpoints,
            changes: &found.changes,
            services,
            anew: before.is_none(),
            ipv6: mesh.as_ref().is_some_and(|mesh| mesh.v6.is_some()),
            inputs,
            vnis,
        };
        let mut work = Work {
            endpoints: found.changes.len(),
            ..Work::default()
        };
        let framed = same_frame && !found.speakers;
        let (switch, touched) = self.switch.make(&look, mesh.as_ref(), framed, &mut work);
        let (services, published) = self.services.make(&look, loads, &mut work);
        let zone = self.names.make(&look, &mut work);
        drop(look);
        // Where it begins anew after 2^32 tables, an entry of that age is long gone.
        let epoch = inputs.epoch as u32;
        match touched {
            Touched::All => self.flow_epochs.change_all(epoch),
            Touched::Networks(networks) => {
                for vni in networks {
                    self.flow_epochs.change(vni, epoch);
                }
            }
        }
        let mut problems: Vec<String> = self.endpoints.problems().collect();
        let paths = shared.nodes.iter();
        problems.extend(families::out_of_reach(
            inputs.assignment.own.node.data_path_addr,
            paths.map(|n| (n.hostname.as_str(), n.data_path_addr)),
        ));
        problems.extend(self.names.problems());
        Some(Compiled {
            snapshot: Snapshot {
                epoch: inputs.epoch,
                switch,
                services,
                ports: ports(inputs),
                mesh,
                flow_epochs: self.flow_epochs.clone(),
            },
            zone,
            published,
            there: self.endpoints.shown(),
            problems,
            changes: found.changes,
            work,
        })
    }
}

fn vnis(shared: &Shared) -> Vnis<'_> {
    let networks = shared.networks.iter();
    networks
        .filter_map(|n| Vni::new(n.vni).map(|vni| (&n.id, (vni, n))))
        .collect()
}

fn ingress<'a>(vnis: &Vnis<'a>) -> Option<(Vni, &'a Network)> {
    vnis.values().find(|(_, n)| n.spec.ingress).copied()
}

fn ports(inputs: &Inputs<'_>) -> weft_dataplane::PortMap {
    let local = inputs.local.iter().map(|p| &p.port);
    let ports = local.chain(inputs.mesh_port);
    ports.map(|port| (port.id, Arc::clone(port))).collect()
}

/// Services of which something is another than `before`, or of whose endpoints something is.
fn other_services(
    before: Option<&Shared>,
    now: &Shared,
    changes: &[Change],
) -> BTreeSet<ServiceId> {
    let mut others = BTreeSet::new();
    for change in changes {
        let placed = change.before.iter().chain(&change.after);
        let services = placed.filter_map(|placed| placed.record.service.as_ref());
        for service in services {
            if !others.contains(service) {
                others.insert(service.clone());
            }
        }
    }
    if let Some(before) = before.filter(|before| !std::ptr::eq(*before, now)) {
        let (were, are) = (&before.services, &now.services);
        others.extend(differing(were, are, |s| &s.id));
        let (were, are) = (&before.ending, &now.ending);
        others.extend(differing(were, are, |s| &s.id));
    }
    others
}

/// Ids of what came, went or is another one.
fn differing<T: PartialEq>(
    were: &[T],
    are: &[T],
    id: impl Fn(&T) -> &ServiceId,
) -> BTreeSet<ServiceId> {
    let mut known: BTreeMap<&ServiceId, &T> = were.iter().map(|was| (id(was), was)).collect();
    let mut others = BTreeSet::new();
    for is in are {
        if known.remove(id(is)) != Some(is) {
            others.insert(id(is).clone());
        }
    }
    others.extend(known.into_keys().cloned());
    others
}

fn mesh_port(inputs: &Inputs<'_>, vnis: &Vnis<'_>) -> Option<MeshPort> {
    let port = inputs.mesh_port?;
    let (vni, network) = ingress(vnis)?;
    let mut ips = inputs.assignment.own.node.ips_on(network);
    let node_ip = ips.next()?;
    let v6 = inputs.mesh_ip6.zip(ips.next());
    Some(MeshPort {
        port: port.id,
        mesh_mac: mac_for_ip(inputs.mesh_ip),
        vni,
        node_mac: mac_for_ip(node_ip),
        v4: MeshAddresses {
            mesh_ip: inputs.mesh_ip,
            node_ip,
            host_ip: MESH_HOST_IP.into(),
        },
        v6: v6.map(|(mesh_ip, node_ip)| MeshAddresses {
            mesh_ip: mesh_ip.into(),
            node_ip,
            host_ip: MESH_HOST_IP6.into(),
        }),
        subnets: network.subnets().iter().map(|s| s.cidr).collect(),
    })
}

#[cfg(test)]
mod steps;
#[cfg(test)]
mod tests;
