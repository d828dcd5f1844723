//! Published ports: unique in the cluster, dynamic ones from 30000.

use std::net::IpAddr;

use weft_model::id::ServiceId;
use weft_model::objects::{
    ClientAddress, EndpointMode, PortSpec, Protocol, PublishMode, ServiceSpec,
};

use super::error::CommandError;
use super::index::Key;
use super::state::ClusterState;

/// Range of dynamic ports (Swarm's choice).
pub const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Two ports that cannot both be bound on one node.
pub(super) fn collide(a: &PortSpec, b: &PortSpec) -> bool {
    // `::` takes IPv4 too, as a socket of both families does.
    let covers =
        |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a.published == b.published
        && a.protocol == b.protocol
        && match (a.host_ip, b.host_ip) {
            (Some(a), Some(b)) => a == b || covers(a, b) || covers(b, a),
            _ => true,
        }
}

/// Checks the ports of a spec by themselves.
pub(super) fn validate(spec: &ServiceSpec) -> Result<(), CommandError> {
    for (i, port) in spec.endpoint.ports.iter().enumerate() {
        if port.target == 0 {
            return Err(CommandError::bad(
                "missing mandatory field 'target': give the port inside the task, as in \
                 --publish 8000:80",
            ));
        }
        if port.mode == PublishMode::Ingress && spec.endpoint.mode == EndpointMode::Dnsrr {
            return Err(CommandError::bad(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        let proxied = matches!(
            port.client_address,
            ClientAddress::ProxyV1 | ClientAddress::ProxyV2
        );
        if proxied && port.protocol != Protocol::Tcp {
            return Err(CommandError::bad(format!(
                "port {port}: the PROXY protocol is for tcp; publish it with client_address=keep or client_address=node"
            )));
        }
        let earlier = spec.endpoint.ports.get(..i).unwrap_or_default();
        if port.published != 0 && earlier.iter().any(|p| collide(p, port)) {
            return Err(CommandError::bad(
                "EndpointSpec: duplicate published ports provided",
            ));
        }
    }
    Ok(())
}

/// Fills dynamic ports in and checks explicit ones against all other services. A dynamic port that
/// the service `had` stays its own. Returns the ports and the last dynamic one.
pub(super) fn allocate(
    state: &ClusterState,
    service: &ServiceId,
    spec: &ServiceSpec,
    had: &[PortSpec],
) -> Result<(Vec<PortSpec>, u16), CommandError> {
    let others = |published| {
        let there = state.services_at(Key::Port(published));
        there.filter(|s| s.id != *service)
    };
    let mut ports = spec.endpoint.ports.clone();
    for port in ports.iter().filter(|p| p.published != 0) {
        for other in others(port.published) {
            let theirs = other.endpoint.ports.iter();
            for taken in theirs.filter(|t| collide(t, port)) {
                let how = match (port.mode, taken.mode) {
                    // Only the scheduler knows whether two of these meet on one node.
                    (PublishMode::Host, PublishMode::Host) => continue,
                    (_, PublishMode::Ingress) => "as an ingress port",
                    (_, PublishMode::Host) => "as a host-published port",
                };
                return Err(CommandError::conflict(format!(
                    "port '{}' is already in use by service '{}' ({}) {how}",
                    port.published, other.spec.name, other.id
                )));
            }
        }
    }
    for i in 0..ports.len() {
        if ports[i].published != 0 {
            continue;
        }
        let kept = had.iter().find(|had| {
            let same = PortSpec {
                published: had.published,
                ..ports[i].clone()
            };
            same == **had && !ports.iter().any(|p| collide(p, had))
        });
        if let Some(kept) = kept {
            ports[i].published = kept.published;
        }
    }
    let mut last = state.counters.last_port;
    for i in 0..ports.len() {
        if ports[i].published != 0 {
            continue;
        }
        let start = last.saturating_add(1).max(*DYNAMIC_PORTS.start());
        let candidates = (start..=*DYNAMIC_PORTS.end()).chain(*DYNAMIC_PORTS.start()..start);
        let free = candidates.into_iter().find(|published| {
            let wanted = PortSpec {
                published: *published,
                ..ports[i].clone()
            };
            !ports.iter().any(|p| collide(p, &wanted))
                && !others(*published).any(|s| s.endpoint.ports.iter().any(|p| collide(p, &wanted)))
        });
        let published = free.ok_or_else(|| {
            CommandError::conflict(format!(
                "no dynamic {} port is free ({}-{} are all in use); give a published port",
                ports[i].protocol,
                DYNAMIC_PORTS.start(),
                DYNAMIC_PORTS.end()
            ))
        })?;
        ports[i].published = published;
        last = published;
    }
    Ok((ports, last))
}
