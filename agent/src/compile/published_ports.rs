//! Published ports of a node: which ones it accepts, and what stands behind each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_model::assignment::ServiceView;
use weft_model::id::NetworkId;
use weft_model::objects::{PortSpec, Protocol, PublishMode};

use super::known::{KnownEndpoint, PlacedEndpoint};
use crate::published::Published;

/// A port that this node accepts.
pub(super) struct PublishedPort<'a> {
    pub(super) service: &'a ServiceView,
    pub(super) port: &'a PortSpec,
    /// With `mode=host`: the only replica.
    pub(super) task: Option<&'a PlacedEndpoint<'a>>,
    /// A replica takes new connections.
    pub(super) serving: bool,
    /// Port at the mesh address that stands for it.
    pub(super) mesh_port: u16,
    /// No replica that takes new connections is to be spoken to over IPv4 only.
    pub(super) ipv6: bool,
}

impl PublishedPort<'_> {
    /// What the listener is told.
    pub(super) fn wanted(&self) -> Published {
        Published {
            host_ip: self.port.host_ip,
            port: self.port.published,
            protocol: self.port.protocol,
            service: self.service.name.clone(),
            mode: self.port.mode,
            client_address: self.port.client_address,
            mesh_port: self.mesh_port,
            serving: self.serving,
            limit_per_client: self.service.connections.limit_per_client,
            ipv6: self.ipv6,
        }
    }
}

/// True for a replica of the service that published ports reach.
pub(super) fn is_replica(
    record: &KnownEndpoint,
    service: &ServiceView,
    ingress: &NetworkId,
) -> bool {
    record.service.as_ref() == Some(&service.id) && record.network == *ingress
}

/// True where a client of IPv6 is answered at that port of the replica if one of IPv4 is.
fn speaks_ipv6(record: &KnownEndpoint, port: &PortSpec) -> bool {
    record.ips.iter().any(IpAddr::is_ipv6) && !record.ipv4_only.contains(&port.target)
}

/// Every port of the services that this node accepts: those with `mode=host` while it has a task.
/// `ipv6` says whether the mesh has an address of that family.
pub(super) fn published_ports<'a>(
    services: &'a [ServiceView],
    endpoints: &'a [PlacedEndpoint<'a>],
    ingress: Option<&NetworkId>,
    ipv6: bool,
) -> Vec<PublishedPort<'a>> {
    let Some(ingress) = ingress else {
        return Vec::new();
    };
    let mut ports = Vec::new();
    for service in services {
        let replicas = endpoints
            .iter()
            .filter(|m| is_replica(m.record, service, ingress));
        for port in &service.ports {
            let task = match port.mode {
                PublishMode::Ingress => None,
                // One that is on its way out still holds its address beside the next one.
                PublishMode::Host => {
                    let own = replicas.clone().filter(|m| m.local);
                    match own.max_by_key(|m| (m.record.ready, &m.record.id)) {
                        Some(task) => Some(task),
                        None => continue,
                    }
                }
            };
            let serving = task.map_or_else(
                || replicas.clone().any(|m| m.record.ready),
                |task| task.record.ready,
            );
            ports.push(PublishedPort {
                service,
                port,
                task,
                serving,
                mesh_port: port.published,
                ipv6: ipv6
                    && replicas
                        .clone()
                        .filter(|m| m.record.ready)
                        .all(|m| speaks_ipv6(m.record, port)),
            });
        }
    }
    number(&mut ports);
    ports
}

/// Gives every port a number of its own at the mesh address, which knows no host addresses: its
/// own one where no other port has it.
fn number(ports: &mut [PublishedPort<'_>]) {
    let mut claims: BTreeMap<(Protocol, u16), u32> = BTreeMap::new();
    for entry in ports.iter() {
        let claim = (entry.port.protocol, entry.port.published);
        *claims.entry(claim).or_default() += 1;
    }
    let mut taken: BTreeSet<(Protocol, u16)> = claims.keys().copied().collect();
    for entry in ports {
        let own = (entry.port.protocol, entry.port.published);
        if claims.get(&own).is_none_or(|n| *n == 1) {
            continue;
        }
        let start = spread(entry.service.id.as_str(), entry.port.host_ip, own.1);
        let free = (0..u16::MAX)
            .map(|step| start.wrapping_add(step))
            .find(|n| *n != 0 && !taken.contains(&(own.0, *n)));
        if let Some(free) = free {
            taken.insert((own.0, free));
            entry.mesh_port = free;
        }
    }
}

/// FNV-1a folded to 16 bits: the number stays the same while the other ports do.
fn spread(service: &str, host_ip: Option<IpAddr>, port: u16) -> u16 {
    let mut hash = 0x811c_9dc5_u32;
    let text = format!("{service} {host_ip:?} {port}");
    for byte in text.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let [a, b, c, d] = hash.to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d])
}

#[cfg(test)]
mod tests {
    use weft_model::assignment::EndpointView;
    use weft_model::id::{EndpointId, NodeId};
    use weft_model::objects::Mac;
    use weft_model::records::EndpointRecord;

    use super::*;

    #[test]
    fn a_replica_speaks_ipv6_unless_it_has_no_address_or_its_program_does_not() {
        let view = EndpointView {
            id: EndpointId("e".to_owned()),
            network: NetworkId("ingress".to_owned()),
            node: NodeId("n".to_owned()),
            name: "web.1".to_owned(),
            ips: vec![[10, 0, 0, 5].into()],
            mac: Mac([2, 0x42, 10, 0, 0, 5]),
            aliases: Vec::new(),
            service: None,
            task: None,
        };
        let said = EndpointRecord {
            id: view.id.clone(),
            ready: true,
            ipv4_only: Vec::new(),
            without_ipv6: false,
        };
        let mut record = KnownEndpoint::new(view, &said);
        let to = |target| PortSpec {
            target,
            ..PortSpec::default()
        };
        assert!(!speaks_ipv6(&record, &to(80)));
        record.ips.extend("fd00::a00:5".parse::<IpAddr>());
        assert!(speaks_ipv6(&record, &to(80)));
        record.ipv4_only.push(80);
        assert!(!speaks_ipv6(&record, &to(80)));
        assert!(speaks_ipv6(&record, &to(81)));
    }
}
