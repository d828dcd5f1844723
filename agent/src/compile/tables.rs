//! Compiles desired state, gossip and local ports into what the data plane, DNS and the mesh
//! sockets use. A pure function but for the shared load counters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use weft_dataplane::{MeshAddresses, MeshPort, Port, Snapshot};
use weft_dns::{EndpointNames, ResolutionMode, ServiceNames, ServicePort, Zone, ZoneBuilder};
use weft_mesh::{Balancer, Limits, Replica, ServicesBuilder};
use weft_model::assignment::{Assignment, ServiceView};
use weft_model::id::{EndpointId, NetworkId, NodeId, ServiceId};
use weft_model::objects::{Affinity, ConnectionPolicy, EndpointMode, Network, Protocol};
use weft_vxlan::{NetworkEntry, SwitchBuilder};
use weft_wire::{Mac, Vni, mac_for_ip};

use super::families;
use super::known::{KnownEndpoint, LocalPort, PlacedEndpoint};
use super::loads::Loads;
use super::mtus::Mtus;
use super::published_ports::{PublishedPort, published_ports};
use crate::names::{MESH_HOST_IP, MESH_HOST_IP6};
use crate::published::Published;

/// What a node knows at one moment.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    /// Orders of the manager.
    pub(crate) assignment: &'a Assignment,
    /// Endpoints of other nodes.
    pub(crate) remote: &'a [KnownEndpoint],
    /// Nodes that gossip shows.
    pub(crate) nodes: &'a BTreeSet<&'a NodeId>,
    /// Own attachments.
    pub(crate) local: &'a [LocalPort],
    /// The port of `weft0`.
    pub(crate) mesh_port: Option<&'a Arc<Port>>,
    /// Address behind `weft0`.
    pub(crate) mesh_ip: IpAddr,
    /// The same of IPv6, where published ports go to replicas over it.
    pub(crate) mesh_ip6: Option<Ipv6Addr>,
    /// What the underlay carries.
    pub(crate) mtus: &'a Mtus,
    /// Number of the snapshot.
    pub(crate) epoch: u64,
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
    /// Objects that could not be used, for people.
    pub(crate) problems: Vec<String>,
}

/// The tables of this moment.
#[must_use]
pub(crate) fn compile(inputs: &Inputs<'_>, loads: &mut Loads) -> Compiled {
    let assignment = inputs.assignment;
    let mut problems = Vec::new();
    let vnis: BTreeMap<&NetworkId, (Vni, &Network)> = assignment
        .shared
        .networks
        .iter()
        .filter_map(|n| Vni::new(n.vni).map(|vni| (&n.id, (vni, n))))
        .collect();
    // An endpoint that moved here is not also remote, whatever gossip still says.
    let own: BTreeSet<&EndpointId> = inputs.local.iter().map(|p| &p.record.id).collect();
    let elsewhere = inputs.remote.iter().filter(|r| !own.contains(&r.id));
    let remote: Vec<&KnownEndpoint> = elsewhere.collect();
    let endpoints: Vec<PlacedEndpoint<'_>> = inputs
        .local
        .iter()
        .map(|p| PlacedEndpoint {
            record: &p.record,
            local: true,
        })
        .chain(remote.iter().map(|record| PlacedEndpoint {
            record,
            local: false,
        }))
        .collect();

    let paths = assignment.shared.nodes.iter();
    problems.extend(families::out_of_reach(
        assignment.own.node.data_path_addr,
        paths.map(|n| (n.hostname.as_str(), n.data_path_addr)),
    ));
    let mesh = mesh_port(inputs, &vnis);
    let switch = switch(inputs, &vnis, &remote, mesh.as_ref());
    let ingress = ingress(&vnis).map(|(_, network)| &network.id);
    let ipv6 = mesh.as_ref().is_some_and(|mesh| mesh.v6.is_some());
    let ports = published_ports(&assignment.shared.services, &endpoints, ingress, ipv6);
    let services = services(inputs, &vnis, &endpoints, &ports, loads);
    let zone = zone(inputs, &vnis, &endpoints, &mut problems);
    let published = ports.iter().map(PublishedPort::wanted).collect();
    let mut ports: weft_dataplane::PortMap = inputs
        .local
        .iter()
        .map(|p| (p.port.id, Arc::clone(&p.port)))
        .collect();
    if let Some(port) = inputs.mesh_port {
        ports.insert(port.id, Arc::clone(port));
    }
    Compiled {
        snapshot: Snapshot {
            epoch: inputs.epoch,
            switch,
            services,
            ports,
            mesh,
        },
        zone,
        published,
        problems,
    }
}

type Vnis<'a> = BTreeMap<&'a NetworkId, (Vni, &'a Network)>;

fn ingress<'a>(vnis: &Vnis<'a>) -> Option<(Vni, &'a Network)> {
    vnis.values().find(|(_, n)| n.spec.ingress).copied()
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

fn switch(
    inputs: &Inputs<'_>,
    vnis: &Vnis<'_>,
    remote: &[&KnownEndpoint],
    mesh: Option<&MeshPort>,
) -> weft_vxlan::Switch {
    let assignment = inputs.assignment;
    let port = assignment.shared.data_path_port;
    let mut switch = SwitchBuilder::new();
    for (vni, network) in vnis.values() {
        switch.network(NetworkEntry {
            vni: *vni,
            mtu: inputs.mtus.port,
            gateways: network.subnets().iter().map(|s| s.gateway).collect(),
        });
    }
    switch.receives(inputs.mtus.receives);
    for (vtep, mtu) in &inputs.mtus.paths {
        switch.path_mtu(*vtep, *mtu);
    }
    for peer in &assignment.shared.peers {
        if let Some((vni, _)) = vnis.get(&peer.network) {
            let vtep = SocketAddr::new(peer.vtep, port);
            switch.remote(*vni, Mac(peer.mac.0), &[peer.ip], vtep);
        }
    }
    for node in &assignment.shared.nodes {
        if node.id == assignment.own.node.id || !inputs.nodes.contains(&node.id) {
            continue;
        }
        let vtep = node.data_path_addr;
        switch.vtep(vtep);
        if let Some((vni, network)) = ingress(vnis) {
            let ips: Vec<IpAddr> = node.ips_on(network).collect();
            if let Some(ip) = ips.first() {
                switch.remote(vni, mac_for_ip(*ip), &ips, SocketAddr::new(vtep, port));
            }
        }
    }
    let vteps: BTreeMap<&NodeId, IpAddr> = assignment
        .shared
        .nodes
        .iter()
        .map(|n| (&n.id, n.data_path_addr))
        .collect();
    for record in remote {
        let place = vnis.get(&record.network).zip(vteps.get(&record.node));
        if let Some(((vni, _), vtep)) = place {
            let vtep = SocketAddr::new(*vtep, port);
            switch.remote(*vni, Mac(record.mac.0), &record.ips, vtep);
        }
    }
    for local in inputs.local {
        switch.local(
            local.port.vni,
            local.port.mac,
            &local.port.ips,
            local.port.id,
        );
    }
    if let Some(mesh) = mesh {
        let ips = std::iter::once(&mesh.v4).chain(&mesh.v6);
        let ips: Vec<IpAddr> = ips.map(|a| a.node_ip).collect();
        switch.local(mesh.vni, mesh.node_mac, &ips, mesh.port);
    }
    let services = assignment.shared.services.iter().map(|s| &s.vips);
    // Open connections to what was removed still go there.
    let ending = assignment.shared.ending.iter().map(|s| &s.vips);
    for vip in services.chain(ending).flatten() {
        if let Some((vni, _)) = vnis.get(&vip.network) {
            switch.virtual_ip(*vni, vip.addr.addr());
        }
    }
    switch.build()
}

fn services(
    inputs: &Inputs<'_>,
    vnis: &Vnis<'_>,
    endpoints: &[PlacedEndpoint<'_>],
    published: &[PublishedPort<'_>],
    loads: &mut Loads,
) -> weft_mesh::Services {
    let mut by_service: BTreeMap<(&ServiceId, &NetworkId), Vec<&PlacedEndpoint<'_>>> =
        BTreeMap::new();
    for endpoint in endpoints {
        if let Some(service) = &endpoint.record.service {
            by_service
                .entry((service, &endpoint.record.network))
                .or_default()
                .push(endpoint);
        }
    }
    let mut builder = ServicesBuilder::new();
    for (vni, _) in vnis.values() {
        builder.mtu(*vni, inputs.mtus.port);
    }
    for service in &inputs.assignment.shared.services {
        for (id, (vni, network)) in vnis {
            let vips = service.vips.iter().filter(|v| &v.network == *id);
            let publishes = network.spec.ingress && !service.ports.is_empty();
            let vips: Vec<IpAddr> = vips.map(|v| v.addr.addr()).collect();
            let endpoints = by_service.get(&(&service.id, *id));
            // Who was published once has connections to end, without a port too.
            let was_published = network.spec.ingress && endpoints.is_some();
            if vips.is_empty() && !publishes && !was_published {
                continue;
            }
            let replicas = endpoints
                .into_iter()
                .flatten()
                .flat_map(|endpoint| replicas_of(endpoint, *vni, loads))
                .collect();
            let (name, policy) = (&service.name, service.connections);
            let index = builder.service(balanced(&service.id, name, policy, replicas, loads));
            for vip in vips {
                builder.vip(*vni, vip, index);
            }
            if publishes {
                let of_all = published
                    .iter()
                    .filter(|p| p.service.id == service.id && p.task.is_none());
                for entry in of_all {
                    let port = entry.port;
                    let load = loads.of_port(&service.id, port.protocol, entry.mesh_port);
                    let protocol = protocol(port.protocol);
                    builder.publish_counted(protocol, entry.mesh_port, index, port.target, load);
                }
            }
        }
    }
    // What was removed takes nothing new: no address and no port leads to it.
    for service in &inputs.assignment.shared.ending {
        for (id, (vni, _)) in vnis {
            let Some(endpoints) = by_service.get(&(&service.id, *id)) else {
                continue;
            };
            let replicas = endpoints.iter();
            let replicas = replicas
                .flat_map(|endpoint| replicas_of(endpoint, *vni, loads))
                .map(|replica| Replica {
                    draining: true,
                    ..replica
                })
                .collect();
            let policy = ConnectionPolicy::default();
            builder.service(balanced(
                &service.id,
                &service.name,
                policy,
                replicas,
                loads,
            ));
        }
    }
    // A port of one task is a service of its own with one replica.
    for entry in published {
        let (Some(task), Some((vni, _))) = (entry.task, ingress(vnis)) else {
            continue;
        };
        let replicas = replicas_of(task, vni, loads);
        let (id, name) = (&entry.service.id, &entry.service.name);
        let policy = entry.service.connections;
        let index = builder.service(balanced(id, name, policy, replicas, loads));
        let (port, mesh_port) = (entry.port, entry.mesh_port);
        let load = loads.of_port(&entry.service.id, port.protocol, mesh_port);
        builder.publish_counted(protocol(port.protocol), mesh_port, index, port.target, load);
    }
    builder.build()
}

fn balanced(
    service: &ServiceId,
    name: &str,
    policy: ConnectionPolicy,
    replicas: Vec<Replica>,
    loads: &mut Loads,
) -> weft_mesh::Service {
    weft_mesh::Service {
        id: service.as_str().into(),
        name: name.into(),
        local_first: policy.local_first,
        balancer: Balancer {
            affinity: match policy.affinity {
                Affinity::None => weft_mesh::Affinity::None,
                Affinity::Client => weft_mesh::Affinity::ClientAddress,
            },
            load: loads.of_service(service),
            ..Balancer::default()
        },
        limits: Limits {
            connections: policy.limit,
            per_client: policy.limit_per_client,
        },
        replicas,
    }
}

fn replicas_of(endpoint: &PlacedEndpoint<'_>, vni: Vni, loads: &mut Loads) -> Vec<Replica> {
    let record = endpoint.record;
    let load = loads.of(&record.id, &record.node);
    record
        .ips
        .iter()
        .map(|ip| Replica {
            key: replica_key(&record.id, *ip),
            vni,
            ip: *ip,
            mac: Mac(record.mac.0),
            local: endpoint.local,
            draining: !record.ready,
            load: Arc::clone(&load),
        })
        .collect()
}

/// FNV-1a of endpoint id and address: stable for the life of an endpoint, the same in a restarted
/// agent.
fn replica_key(id: &EndpointId, ip: IpAddr) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    id.as_str().bytes().for_each(&mut add);
    match ip {
        IpAddr::V4(v4) => v4.octets().into_iter().for_each(add),
        IpAddr::V6(v6) => v6.octets().into_iter().for_each(add),
    }
    hash
}

const fn protocol(protocol: Protocol) -> weft_mesh::Protocol {
    match protocol {
        Protocol::Tcp => weft_mesh::Protocol::Tcp,
        Protocol::Udp => weft_mesh::Protocol::Udp,
    }
}

fn zone(
    inputs: &Inputs<'_>,
    vnis: &Vnis<'_>,
    endpoints: &[PlacedEndpoint<'_>],
    problems: &mut Vec<String>,
) -> Zone {
    let mut zone = ZoneBuilder::new();
    let mut refused = |error: weft_dns::UnknownNetwork| problems.push(error.to_string());
    for (id, (_, network)) in vnis {
        // Nothing resolves on the ingress network: it carries published ports only.
        if network.spec.ingress {
            continue;
        }
        zone.network(id.as_str(), &network.spec.name);
        for service in &inputs.assignment.shared.services {
            let attached = service.networks.iter().find(|n| n.target == id.as_str());
            let Some(attached) = attached else { continue };
            let names = service_names(service, id, &attached.aliases, endpoints);
            if let Err(error) = zone.service(id.as_str(), &names) {
                refused(error);
            }
        }
        for endpoint in endpoints {
            let record = endpoint.record;
            if &record.network != *id || !record.ready {
                continue;
            }
            let names = EndpointNames {
                name: record.name.clone(),
                stack: None,
                aliases: record.aliases.clone(),
                hostnames: vec![
                    record
                        .task
                        .as_ref()
                        .map_or_else(|| record.id.short().to_owned(), |t| t.short().to_owned()),
                ],
                ips: record.ips.clone(),
            };
            if let Err(error) = zone.endpoint(id.as_str(), &names) {
                refused(error);
            }
        }
    }
    problems.extend(zone.refused().iter().map(ToString::to_string));
    zone.build()
}

fn service_names(
    service: &ServiceView,
    network: &NetworkId,
    aliases: &[String],
    endpoints: &[PlacedEndpoint<'_>],
) -> ServiceNames {
    ServiceNames {
        name: service.name.clone(),
        stack: None,
        aliases: aliases.to_vec(),
        mode: match service.endpoint_mode {
            EndpointMode::Vip => ResolutionMode::Vip,
            EndpointMode::Dnsrr => ResolutionMode::Dnsrr,
        },
        vips: service
            .vips
            .iter()
            .filter(|v| &v.network == network)
            .map(|v| v.addr.addr())
            .collect(),
        tasks: endpoints
            .iter()
            .map(|m| m.record)
            .filter(|r| r.ready && &r.network == network && r.service.as_ref() == Some(&service.id))
            .flat_map(|r| r.ips.iter().copied())
            .collect(),
        ports: service
            .ports
            .iter()
            .map(|p| ServicePort {
                name: None,
                port: p.target,
                protocol: p.protocol.to_string(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests;
