//! Services and published ports: what was made of each service is kept until it, or one of its
//! endpoints, is another one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_mesh::{Balancer, Limits, Replica, Service, ServiceIndex, Services, ServicesBuilder};
use weft_model::assignment::ServiceView;
use weft_model::id::ServiceId;
use weft_model::objects::{Affinity, ConnectionPolicy, EndingService, Protocol};
use weft_wire::{Mac, Vni};

use super::{Look, Work};
use crate::compile::gaps::is_wanted;
use crate::compile::known::PlacedEndpoint;
use crate::compile::loads::Loads;
use crate::compile::published_ports::{
    AcceptedPort, PublishedPort, Standing, accepted_ports, number,
};
use crate::published::Published;

/// What was made of each service.
#[derive(Debug, Default)]
pub(super) struct ServiceTables {
    services: BTreeMap<ServiceId, OfService>,
    /// Published ports go to replicas over IPv6, too.
    ipv6: bool,
}

#[derive(Debug)]
struct OfService {
    parts: Vec<Part>,
    ports: Vec<AcceptedPort<Arc<Service>>>,
}

/// A service on one network.
#[derive(Debug)]
struct Part {
    vni: Vni,
    service: Arc<Service>,
    vips: Vec<IpAddr>,
    /// Published ports lead here.
    publishes: bool,
}

impl ServiceTables {
    /// The services of this moment, and the ports to be accepted.
    pub(super) fn make(
        &mut self,
        look: &Look<'_>,
        loads: &mut Loads,
        work: &mut Work,
    ) -> (Services, BTreeSet<Published>) {
        if look.anew || look.ipv6 != self.ipv6 {
            self.services.clear();
            self.ipv6 = look.ipv6;
        }
        for id in &look.services {
            self.services.remove(id);
        }
        for service in &look.shared().services {
            if !self.services.contains_key(&service.id) {
                let made = OfService::of(service, look, loads);
                self.services.insert(service.id.clone(), made);
                work.services += 1;
            }
        }
        for service in &look.shared().ending {
            if !self.services.contains_key(&service.id) {
                let made = OfService::of_ending(service, look, loads);
                self.services.insert(service.id.clone(), made);
                work.services += 1;
            }
        }
        self.assemble(look, loads)
    }

    fn assemble(&self, look: &Look<'_>, loads: &mut Loads) -> (Services, BTreeSet<Published>) {
        let shared = look.shared();
        let mut ports = Vec::new();
        let mut ends = Vec::with_capacity(shared.services.len());
        for service in &shared.services {
            let made = self.services.get(&service.id).into_iter();
            let accepted = made.flat_map(|of| &of.ports);
            ports.extend(accepted.filter_map(|port| PublishedPort::of(service, port)));
            ends.push(ports.len());
        }
        number(&mut ports);
        let mut builder = ServicesBuilder::new();
        for (vni, _) in look.vnis.values() {
            builder.mtu(*vni, look.inputs.mtus.port);
        }
        let mut begin = 0;
        for (service, end) in shared.services.iter().zip(ends) {
            let of_all = ports.get(begin..end).unwrap_or_default().iter();
            let of_all = of_all.filter(|port| port.alone.is_none());
            begin = end;
            for part in self.parts(&service.id) {
                let index = builder.service(Arc::clone(&part.service));
                for vip in &part.vips {
                    builder.vip(part.vni, *vip, index);
                }
                if part.publishes {
                    for port in of_all.clone() {
                        publish(&mut builder, port, index, loads);
                    }
                }
            }
        }
        // What was removed takes nothing new: no address and no port leads to it.
        for service in &shared.ending {
            for part in self.parts(&service.id) {
                builder.service(Arc::clone(&part.service));
            }
        }
        // A port of one task is a service of its own with one replica.
        for port in &ports {
            if let Some(alone) = port.alone {
                let index = builder.service(Arc::clone(alone));
                publish(&mut builder, port, index, loads);
            }
        }
        let services = builder.build_after(look.inputs.before);
        (services, ports.iter().map(PublishedPort::wanted).collect())
    }

    fn parts(&self, service: &ServiceId) -> impl Iterator<Item = &Part> {
        let made = self.services.get(service).into_iter();
        made.flat_map(|of| &of.parts)
    }
}

impl OfService {
    fn of(view: &ServiceView, look: &Look<'_>, loads: &mut Loads) -> Self {
        let members = look.endpoints.of_service(&view.id);
        let policy = view.connections;
        let none_takes = members.clone().all(|m| !m.record.ready);
        let wanted = is_wanted(view, members.clone().next().is_some());
        let in_gap = loads.gaps.note(&view.id, none_takes && wanted);
        let of = (&view.id, &*view.name);
        let mut parts = Vec::new();
        for (id, (vni, network)) in &look.vnis {
            let there = members.clone().filter(|m| m.record.network == **id);
            let vips = view.vips.iter().filter(|v| v.network == **id);
            let vips: Vec<IpAddr> = vips.map(|v| v.addr.addr()).collect();
            let publishes = network.spec.ingress && !view.ports.is_empty();
            // Who was published once has connections to end, without a port too.
            let was_published = network.spec.ingress && there.clone().next().is_some();
            if vips.is_empty() && !publishes && !was_published {
                continue;
            }
            let replicas = there.flat_map(|placed| replicas_of(placed, *vni, loads));
            let replicas = replicas.collect();
            parts.push(Part {
                vni: *vni,
                service: balanced(of, policy, in_gap, replicas, loads),
                vips,
                publishes,
            });
        }
        let ports = look.ingress().map(|(vni, ingress)| {
            let there = members.filter(|m| m.record.network == ingress.id);
            let standing = Standing {
                ipv6: look.ipv6,
                in_gap,
            };
            accepted_ports(view, there, standing, |task| {
                let replicas = replicas_of(task, vni, loads);
                balanced(of, policy, in_gap, replicas, loads)
            })
        });
        Self {
            parts,
            ports: ports.unwrap_or_default(),
        }
    }

    fn of_ending(ending: &EndingService, look: &Look<'_>, loads: &mut Loads) -> Self {
        let members = look.endpoints.of_service(&ending.id);
        let mut parts = Vec::new();
        for (id, (vni, _)) in &look.vnis {
            let there = members.clone().filter(|m| m.record.network == **id);
            let replicas = there.flat_map(|placed| replicas_of(placed, *vni, loads));
            let replicas = replicas.map(|replica| Replica {
                draining: true,
                ..replica
            });
            let replicas: Vec<Replica> = replicas.collect();
            if replicas.is_empty() {
                continue;
            }
            let of = (&ending.id, &*ending.name);
            let policy = ConnectionPolicy::default();
            parts.push(Part {
                vni: *vni,
                service: balanced(of, policy, false, replicas, loads),
                vips: Vec::new(),
                publishes: false,
            });
        }
        Self {
            parts,
            ports: Vec::new(),
        }
    }
}

fn publish(
    builder: &mut ServicesBuilder,
    entry: &PublishedPort<'_, Arc<Service>>,
    index: ServiceIndex,
    loads: &mut Loads,
) {
    let (port, mesh_port) = (entry.port, entry.mesh_port);
    let load = loads.of_port(&entry.service.id, port.protocol, mesh_port);
    builder.publish_counted(protocol(port.protocol), mesh_port, index, port.target, load);
}

fn balanced(
    (id, name): (&ServiceId, &str),
    policy: ConnectionPolicy,
    in_gap: bool,
    replicas: Vec<Replica>,
    loads: &mut Loads,
) -> Arc<Service> {
    Arc::new(Service {
        id: id.as_str().into(),
        name: name.into(),
        local_first: policy.local_first,
        balancer: Balancer {
            affinity: match policy.affinity {
                Affinity::None => weft_mesh::Affinity::None,
                Affinity::Client => weft_mesh::Affinity::ClientAddress,
            },
            load: loads.of_service(id),
            ..Balancer::default()
        },
        limits: Limits {
            connections: policy.limit,
            per_client: policy.limit_per_client,
        },
        in_gap,
        replicas,
    })
}

fn replicas_of(placed: &PlacedEndpoint, vni: Vni, loads: &mut Loads) -> Vec<Replica> {
    let record = &placed.record;
    let load = loads.of(&record.id, &record.node, record.ready);
    record
        .ips
        .iter()
        .map(|ip| Replica {
            key: record.replica_key(*ip),
            vni,
            ip: *ip,
            mac: Mac(record.mac.0),
            local: placed.port.is_some(),
            draining: !record.ready,
            load: Arc::clone(&load),
        })
        .collect()
}

const fn protocol(protocol: Protocol) -> weft_mesh::Protocol {
    match protocol {
        Protocol::Tcp => weft_mesh::Protocol::Tcp,
        Protocol::Udp => weft_mesh::Protocol::Udp,
    }
}
