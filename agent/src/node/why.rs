//! `weft why`: who answers a published port or a name, and why not.

use weft_control::api::{MeshPort, MeshPortState, Why};
use weft_control::assignment::ServiceView;
use weft_control::names;
use weft_control::objects::{PortSpec, Protocol, PublishMode};

use super::mesh::Seen;
use super::running::blocking;
use crate::api::{Answer, ApiError};
use crate::mesh::owner;

/// A port as people write it: `8000`, or `8000/udp`.
fn port_of(asked: &str) -> Option<(u16, Option<Protocol>)> {
    let (port, protocol) = match asked.split_once('/') {
        None => (asked, None),
        Some((port, "tcp")) => (port, Some(Protocol::Tcp)),
        Some((port, "udp")) => (port, Some(Protocol::Udp)),
        Some(_) => return None,
    };
    let port = port.parse().ok().filter(|p| *p != 0)?;
    Some((port, protocol))
}

/// Answers it.
///
/// # Errors
/// Neither a port nor a name that this node knows.
pub(super) async fn why(seen: &Seen, asked: &str) -> Answer<Why> {
    let empty = Why {
        asked: asked.to_owned(),
        node: seen.orders.own.node.hostname.clone(),
        ..Why::default()
    };
    match port_of(asked) {
        Some((port, protocol)) => why_port(seen, empty, port, protocol).await,
        None => why_name(seen, empty),
    }
}

async fn why_port(seen: &Seen, mut why: Why, port: u16, protocol: Option<Protocol>) -> Answer<Why> {
    let wanted = |p: Protocol| protocol.is_none_or(|asked| asked == p);
    why.ports = seen.ports();
    why.ports.retain(|p| p.port == port && wanted(p.protocol));
    for row in why.ports.clone() {
        why.found.push(said_of_port(&row, &why.node));
    }
    why.found.extend(said_of_front_end(seen, &why.ports));
    let publishes = |s: &&ServiceView| {
        let mut ports = s.ports.iter();
        ports.any(|p: &PortSpec| p.published == port && wanted(p.protocol))
    };
    let services: Vec<&ServiceView> = seen
        .orders
        .shared
        .services
        .iter()
        .filter(publishes)
        .collect();
    for service in &services {
        let here = why.ports.iter().any(|p| p.service == service.name);
        if !here {
            why.found.push(format!(
                "service {} publishes port {port} with mode=host, and has no task on this node: ask a node of its tasks (weft service ps {})",
                service.name, service.name
            ));
        }
        let network = seen.orders.shared.networks.iter().find(|n| n.spec.ingress);
        let replicas = seen
            .replicas(service)
            .into_iter()
            .filter(|r| r.network.is_empty() || network.is_none_or(|n| r.network == n.spec.name));
        let host_only = service
            .ports
            .iter()
            .filter(|p| p.published == port)
            .all(|p| p.mode == PublishMode::Host);
        why.replicas
            .extend(replicas.filter(|r| !host_only || r.node == why.node));
        why.service.clone_from(&service.name);
        why.source = "published ports of the swarm's services, as the manager ordered them; \
                      which of them take connections, from gossip"
            .to_owned();
    }
    if services.is_empty() {
        let asked = protocol.map_or_else(|| port.to_string(), |p| format!("{port}/{p}"));
        let holders = blocking(move || {
            [Protocol::Tcp, Protocol::Udp]
                .into_iter()
                .filter(|p| protocol.is_none_or(|asked| asked == *p))
                .filter_map(|p| {
                    owner::of_port(p, port)
                        .map(|owner| format!("{owner} holds {port}/{p} on this node"))
                })
                .collect::<Vec<_>>()
        });
        let holders = holders
            .await
            .map_err(|e| ApiError::internal(format!("{e:#}")))?;
        why.found.push(format!(
            "no service publishes port {asked}: publish it with weft service update --publish-add {port}:TARGET SERVICE"
        ));
        if holders.is_empty() {
            why.found.push(
                "no program of this node holds it: connections are refused by the kernel"
                    .to_owned(),
            );
        }
        why.found.extend(holders);
    }
    Ok(why)
}

fn said_of_port(row: &MeshPort, node: &str) -> String {
    let place = row
        .host_ip
        .map_or_else(String::new, |ip| format!(" on {ip}"));
    let what = format!(
        "port {}/{}{place} of service {}",
        row.port, row.protocol, row.service
    );
    match row.state {
        MeshPortState::Listening if row.mode == PublishMode::Host => {
            format!("{what} is accepted by {node} for its own task")
        }
        MeshPortState::Listening => format!(
            "{what} is accepted by {node} and goes to one of {} replicas",
            row.healthy
        ),
        MeshPortState::NoReplica => {
            format!("{what} is refused at once: no replica takes connections")
        }
        MeshPortState::Busy => format!(
            "{what} is not accepted by {node}: {} holds it; stop that, and the port is taken within a second",
            row.held_by
        ),
        MeshPortState::NoAddress => {
            format!("{what} is not accepted by {node}, which does not have the address")
        }
    }
}

/// Why the node accepts connections that should go on to replicas as they are.
fn said_of_front_end(seen: &Seen, rows: &[MeshPort]) -> Option<String> {
    let error = seen.frame_error.as_ref()?;
    let own = |row: &MeshPort| {
        row.front_end == "socket"
            && row.mode == PublishMode::Ingress
            && row.protocol == Protocol::Tcp
    };
    rows.iter().any(own).then(|| {
        format!("{} accepts these connections itself, so replicas see its address in place of the client's: {error}", seen.orders.own.node.hostname)
    })
}

fn why_name(seen: &Seen, mut why: Why) -> Answer<Why> {
    let name = why.asked.clone();
    let services = &seen.orders.shared.services;
    let exact = services.iter().find(|s| s.name == name);
    let named = exact.or_else(|| services.iter().find(|s| names::same(&s.name, &name)));
    let by_id = || {
        let mut with = services.iter().filter(|s| s.id.as_str().starts_with(&name));
        with.next()
            .filter(|_| name.len() >= 4 && with.next().is_none())
    };
    if let Some(service) = named.or_else(by_id) {
        why.service.clone_from(&service.name);
        why.source =
            "services of the swarm, as the manager ordered them; which replicas take connections, from gossip".to_owned();
        for vip in &service.vips {
            let network = seen
                .orders
                .shared
                .networks
                .iter()
                .find(|n| n.id == vip.network);
            let network = network.filter(|n| !n.spec.ingress);
            if let Some(network) = network {
                why.found.push(format!(
                    "{} is {} on network {}: the data plane of the client's node picks a replica",
                    service.name, vip.ip, network.spec.name
                ));
            }
        }
        why.ports = seen.ports();
        why.ports.retain(|p| p.service == service.name);
        why.replicas = seen.replicas(service);
        let found: Vec<String> = why
            .ports
            .iter()
            .map(|p| said_of_port(p, &why.node))
            .collect();
        why.found.extend(found);
        why.found.extend(said_of_front_end(seen, &why.ports));
        let taking = why.replicas.iter().filter(|r| r.why_not.is_empty()).count();
        if taking == 0 {
            why.found.push(format!(
                "no replica takes connections: they are refused; see weft service ps {}",
                service.name
            ));
        }
        return Ok(why);
    }
    let with_name = |r: &&super::known::KnownEndpoint| {
        let mut all = std::iter::once(&r.name).chain(&r.aliases);
        all.any(|known| names::same(known, &name))
    };
    for record in seen.endpoints.iter().filter(with_name) {
        let ips: Vec<String> = record.ips.iter().map(ToString::to_string).collect();
        let network = seen
            .orders
            .shared
            .networks
            .iter()
            .find(|n| n.id == record.network);
        why.source = "endpoints, as the manager ordered them, that their nodes speak of in gossip"
            .to_owned();
        why.found.push(format!(
            "{name} is one endpoint, {}, on network {} at node {}{}",
            ips.join(" and "),
            network.map_or(record.network.as_str(), |n| n.spec.name.as_str()),
            seen.hostname(&record.node),
            if record.ready {
                ""
            } else {
                ", and not ready: DNS does not give it out"
            }
        ));
    }
    if why.found.is_empty() {
        return Err(ApiError::not_found(format!(
            "no service or endpoint is called {name}, and it is no port: weft service ls and weft network inspect show the names"
        )));
    }
    Ok(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_from_names() {
        assert_eq!(port_of("8000"), Some((8000, None)));
        assert_eq!(port_of("53/udp"), Some((53, Some(Protocol::Udp))));
        for name in ["0", "65536", "web", "80/sctp", "/tcp", "-1", ""] {
            assert_eq!(port_of(name), None, "{name}");
        }
    }
}
