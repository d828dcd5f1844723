//! Published ports of a node: which ones it accepts, and what stands behind each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weft_model::assignment::ServiceView;
use weft_model::objects::{PortSpec, Protocol, PublishMode};

use super::known::{KnownEndpoint, PlacedEndpoint};
use crate::published::Published;

/// A port of a service that this node accepts, and what stands behind it.
#[derive(Debug)]
pub(super) struct AcceptedPort<T> {
    /// Place among the ports of the service.
    at: usize,
    /// With `mode=host`: what was made of the only replica.
    alone: Option<T>,
    /// A replica takes new connections, or clients wait for the next one.
    serving: bool,
    /// No replica that takes new connections is to be spoken to over IPv4 only.
    ipv6: bool,
}

/// The same among the ports of all services.
#[derive(Debug)]
pub(super) struct PublishedPort<'a, T> {
    pub(super) service: &'a ServiceView,
    pub(super) port: &'a PortSpec,
    /// With `mode=host`: what was made of the only replica.
    pub(super) alone: Option<&'a T>,
    serving: bool,
    ipv6: bool,
    /// Port at the mesh address that stands for it.
    pub(super) mesh_port: u16,
}

impl<'a, T> PublishedPort<'a, T> {
    /// Under its own number. None where the service has no such port.
    pub(super) fn of(service: &'a ServiceView, accepted: &'a AcceptedPort<T>) -> Option<Self> {
        let port = service.ports.get(accepted.at)?;
        Some(Self {
            service,
            port,
            alone: accepted.alone.as_ref(),
            serving: accepted.serving,
            ipv6: accepted.ipv6,
            mesh_port: port.published,
        })
    }

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

/// How a service stands, for all of its ports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// The mesh has an address of IPv6.
    pub(super) ipv6: bool,
    /// No replica takes connections, and who opens one waits for the next.
    pub(super) in_gap: bool,
}

/// True where a client of IPv6 is answered at that port of the replica if one of IPv4 is.
fn speaks_ipv6(record: &KnownEndpoint, port: &PortSpec) -> bool {
    record.ips.iter().any(IpAddr::is_ipv6) && !record.ipv4_only.contains(&port.target)
}

/// The ports of a service that this node accepts: those with `mode=host` while it has a task, of
/// which `alone` makes what is kept. `replicas` are those on the ingress network.
pub(super) fn accepted_ports<'a, T>(
    service: &ServiceView,
    replicas: impl Iterator<Item = &'a PlacedEndpoint> + Clone,
    standing: Standing,
    mut alone: impl FnMut(&PlacedEndpoint) -> T,
) -> Vec<AcceptedPort<T>> {
    let mut accepted = Vec::new();
    for (at, port) in service.ports.iter().enumerate() {
        let task = match port.mode {
            PublishMode::Ingress => None,
            // One that is on its way out still holds its address beside the next one.
            PublishMode::Host => {
                let own = replicas.clone().filter(|r| r.port.is_some());
                match own.max_by_key(|r| (r.record.ready, &r.record.id)) {
                    Some(task) => Some(task),
                    None => continue,
                }
            }
        };
        let mut ready = replicas.clone().filter(|r| r.record.ready);
        let ipv6 = standing.ipv6 && ready.clone().all(|r| speaks_ipv6(&r.record, port));
        accepted.push(AcceptedPort {
            at,
            alone: task.map(&mut alone),
            serving: task.map_or_else(|| ready.next().is_some(), |task| task.record.ready)
                || (standing.in_gap && port.protocol == Protocol::Tcp),
            ipv6,
        });
    }
    accepted
}

/// Gives every port a number of its own at the mesh address, which knows no host addresses: its
/// own one where no other port has it.
pub(super) fn number<T>(ports: &mut [PublishedPort<'_, T>]) {
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
    use weft_model::id::{EndpointId, NetworkId, NodeId};
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
            draining: false,
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
