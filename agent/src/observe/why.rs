//! `weft why`: who answers a published port or a name, and why not.

use std::net::IpAddr;

use weft_model::api::{MeshPort, MeshPortState, Why};
use weft_model::assignment::{EndpointView, NodeView, ServiceView};
use weft_model::id::NetworkId;
use weft_model::names;
use weft_model::objects::{PortSpec, Protocol, PublishMode};

use super::replicas::Seen;
use crate::api::{Answer, ApiError};
use crate::blocking::blocking;
use crate::compile::known::KnownEndpoint;
use crate::published::owner;

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
pub(crate) async fn why(seen: &Seen, asked: &str) -> Answer<Why> {
    let empty = Why {
        asked: asked.to_owned(),
        node: seen.orders.own.node.description.hostname.clone(),
        ..Why::default()
    };
    if let Some((port, protocol)) = port_of(asked) {
        return why_port(seen, empty, port, protocol).await;
    }
    match asked.trim_matches(['[', ']']).parse() {
        Ok(ip) => why_address(seen, empty, ip),
        Err(_) => why_name(seen, empty),
    }
}

async fn why_port(seen: &Seen, mut why: Why, port: u16, protocol: Option<Protocol>) -> Answer<Why> {
    let wanted = |p: Protocol| protocol.is_none_or(|asked| asked == p);
    why.ports = seen.ports();
    why.ports.retain(|p| p.port == port && wanted(p.protocol));
    for row in why.ports.clone() {
        why.found.push(said_of_port(&row, &why.node));
        why.found.extend(said_of_own_clients(&row));
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
    if let [service] = services[..]
        && service.ports.len() > 1
        && !why.replicas.is_empty()
    {
        why.found.push(format!(
            "figures of replicas are those of all {} ports of service {}, and of its name",
            service.ports.len(),
            service.name
        ));
    }
    if services.is_empty() {
        let asked = protocol.map_or_else(|| port.to_string(), |p| format!("{port}/{p}"));
        let holders = blocking(move || {
            [Protocol::Tcp, Protocol::Udp]
                .into_iter()
                .filter(|p| protocol.is_none_or(|asked| asked == *p))
                .filter_map(|p| {
                    let holder = owner::of_port(p, port)?;
                    Some(format!("{holder} holds {port}/{p} on this node"))
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
        MeshPortState::Listening => match (row.healthy, row.ejected) {
            (0, 0) => format!(
                "{what} is accepted by {node}, and clients wait some seconds for a replica: none takes connections just now"
            ),
            (0, 1) => format!(
                "{what} is accepted by {node}, but its one replica failed again and again: clients are refused while it refuses"
            ),
            (0, out) => format!(
                "{what} is accepted by {node}, but all of its {out} replicas failed again and again: clients are refused while they refuse"
            ),
            (1, _) => format!(
                "{what} is accepted by {node} and goes to its one replica that takes connections"
            ),
            (healthy, _) => {
                format!("{what} is accepted by {node} and goes to one of {healthy} replicas")
            }
        },
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

/// Why programs of the node itself are refused where clients elsewhere are not.
fn said_of_own_clients(row: &MeshPort) -> Option<String> {
    let (port, held_by) = (row.port, &row.held_by);
    let only_elsewhere = row.state == MeshPortState::Listening && !held_by.is_empty();
    only_elsewhere.then(|| {
        format!("programs of this node itself are refused while {held_by} has the number {port}: keep it from the kernel's choice with sysctl -w net.ipv4.ip_local_reserved_ports={port}")
    })
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
        format!("{} accepts these connections itself, so replicas see its address in place of the client's: {error}", seen.orders.own.node.description.hostname)
    })
}

/// Whose an address is.
fn why_address(seen: &Seen, mut why: Why, ip: IpAddr) -> Answer<Why> {
    let shared = &seen.orders.shared;
    let network = |id: &NetworkId| {
        let network = shared.networks.iter().find(|n| n.id == *id);
        network.map_or_else(|| id.to_string(), |n| n.spec.name.clone())
    };
    for service in &shared.services {
        if let Some(vip) = service.vips.iter().find(|vip| vip.addr.addr() == ip) {
            let found = format!(
                "{ip} is the address of service {} on network {}",
                service.name,
                network(&vip.network)
            );
            service.name.clone_into(&mut why.asked);
            let mut why = why_name(seen, why)?;
            why.asked = ip.to_string();
            why.found.insert(0, found);
            return Ok(why);
        }
    }
    if let Some(endpoint) = seen.there.all().find(|e| e.ips.contains(&ip)) {
        why.source = OF_ENDPOINTS.to_owned();
        why.found
            .push(said_of_endpoint(seen, &ip.to_string(), endpoint));
        return Ok(why);
    }
    if let Some(view) = shared.endpoints.iter().find(|e| e.ips.contains(&ip)) {
        why.source = OF_ENDPOINTS.to_owned();
        why.found.push(said_of_silent(seen, &ip.to_string(), view));
        return Ok(why);
    }
    if let Some(peer) = shared.peers.iter().find(|p| p.ip == ip) {
        why.source = "static peers, as the manager ordered them".to_owned();
        why.found.push(format!(
            "{ip} is a static peer of network {}, behind VTEP {}: nobody knows whether it answers",
            network(&peer.network),
            peer.vtep
        ));
        return Ok(why);
    }
    let node = |n: &&NodeView| n.addr == ip || n.data_path_addr == ip;
    if let Some(node) = shared.nodes.iter().find(node) {
        why.source = "nodes of the swarm, as the manager ordered them".to_owned();
        why.found.push(format!(
            "{ip} is node {}: weft ping {} tries the way to it",
            node.hostname, node.hostname
        ));
        return Ok(why);
    }
    let around = shared.networks.iter().find(|n| {
        let mut subnets = n.subnets().iter();
        subnets.any(|s| s.cidr.contains(&ip))
    });
    Err(ApiError::not_found(match around {
        Some(network) => format!(
            "nobody has the address {ip} of network {0}: weft network inspect {0} shows who has which",
            network.spec.name
        ),
        None => format!("{ip} is of no network, service, peer or node of this swarm"),
    }))
}

/// Where what is said of endpoints is known from.
const OF_ENDPOINTS: &str =
    "endpoints, as the manager ordered them, that their nodes speak of in gossip";

fn said_of_endpoint(seen: &Seen, asked: &str, endpoint: &KnownEndpoint) -> String {
    let ips: Vec<String> = endpoint.ips.iter().map(ToString::to_string).collect();
    let networks = &seen.orders.shared.networks;
    let network = networks.iter().find(|n| n.id == endpoint.network);
    let mut services = seen.orders.shared.services.iter();
    let service = services.find(|s| Some(&s.id) == endpoint.service.as_ref());
    let early = service.is_some_and(|s| s.names_before_healthy);
    // By its address, people want to know the name.
    let what = if ips.iter().any(|ip| ip == asked) {
        format!("endpoint {}", endpoint.name)
    } else {
        "one endpoint".to_owned()
    };
    format!(
        "{asked} is {what}, {}, on network {} at node {}{}",
        ips.join(" and "),
        network.map_or(endpoint.network.as_str(), |n| n.spec.name.as_str()),
        seen.hostname(&endpoint.node),
        match (endpoint.ready, endpoint.is_told(early)) {
            (true, _) => "",
            (false, true) => ", and not ready: DNS gives it out all the same, as its service says",
            (false, false) => ", and not ready: DNS does not give it out",
        }
    )
}

/// Of an endpoint that the orders name and its node does not speak of.
fn said_of_silent(seen: &Seen, asked: &str, view: &EndpointView) -> String {
    let ips: Vec<String> = view.ips.iter().map(ToString::to_string).collect();
    let networks = &seen.orders.shared.networks;
    let network = networks.iter().find(|n| n.id == view.network);
    let node = seen.hostname(&view.node);
    format!(
        "{asked} is endpoint {}, {}, on network {} at node {node}, {}",
        view.name,
        ips.join(" and "),
        network.map_or(view.network.as_str(), |n| n.spec.name.as_str()),
        if seen.down.contains(&view.node) {
            format!(
                "which does not answer: nobody reaches it, and DNS does not give it out; see weft node ls, and weft doctor on {node}"
            )
        } else {
            "which does not speak of it: it has just begun, or is being stopped".to_owned()
        }
    )
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
                    service.name,
                    vip.addr.addr(),
                    network.spec.name
                ));
            }
        }
        why.ports = seen.ports();
        why.ports.retain(|p| p.service == service.name);
        why.replicas = seen.replicas(service);
        let found: Vec<String> = why
            .ports
            .iter()
            .flat_map(|p| [Some(said_of_port(p, &why.node)), said_of_own_clients(p)])
            .flatten()
            .collect();
        why.found.extend(found);
        why.found.extend(said_of_front_end(seen, &why.ports));
        let taking = why.replicas.iter().filter(|r| r.why_not.is_empty()).count();
        if taking == 0 {
            let mut tables = seen.snapshot.services.all().iter();
            let fate = if tables.any(|s| s.in_gap && *s.id == *service.id.as_str()) {
                "they wait for the next one, 10 s at most"
            } else {
                "they are refused"
            };
            why.found.push(format!(
                "no replica takes connections: {fate}; see weft service ps {}",
                service.name
            ));
        }
        return Ok(why);
    }
    let with_name = |r: &&KnownEndpoint| {
        let mut all = std::iter::once(&r.name).chain(&r.aliases);
        all.any(|known| names::same(known, &name))
    };
    for record in seen.there.all().filter(with_name) {
        why.source = OF_ENDPOINTS.to_owned();
        why.found.push(said_of_endpoint(seen, &name, record));
    }
    if why.found.is_empty() {
        let named = |e: &&EndpointView| {
            let mut all = std::iter::once(&e.name).chain(&e.aliases);
            all.any(|known| names::same(known, &name))
        };
        let views = seen.orders.shared.endpoints.iter().map(|view| &**view);
        for view in views.filter(named) {
            why.source = OF_ENDPOINTS.to_owned();
            why.found.push(said_of_silent(seen, &name, view));
        }
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
    use weft_model::api::ConnectTime;

    #[test]
    fn a_port_says_how_many_take_connections() {
        let row = |healthy, ejected| MeshPort {
            port: 8000,
            protocol: Protocol::Tcp,
            mode: PublishMode::Ingress,
            service: "web".to_owned(),
            host_ip: None,
            front_end: "frame".to_owned(),
            state: MeshPortState::Listening,
            held_by: String::new(),
            healthy,
            total: healthy + ejected,
            accepted: 0,
            active: 0,
            failed: 0,
            retried: 0,
            ejected,
            rx_bytes: 0,
            tx_bytes: 0,
            connect: ConnectTime::default(),
        };
        for (healthy, ejected, said) in [
            (3, 0, "goes to one of 3 replicas"),
            (1, 2, "goes to its one replica that takes connections"),
            (
                0,
                2,
                "all of its 2 replicas failed again and again: clients are refused",
            ),
            (
                0,
                1,
                "its one replica failed again and again: clients are refused",
            ),
            (0, 0, "clients wait some seconds for a replica: none takes"),
        ] {
            let text = said_of_port(&row(healthy, ejected), "node1");
            assert!(text.contains(said), "{text}");
        }
    }

    #[test]
    fn ports_are_told_from_names() {
        assert_eq!(port_of("8000"), Some((8000, None)));
        assert_eq!(port_of("53/udp"), Some((53, Some(Protocol::Udp))));
        for name in ["0", "65536", "web", "80/sctp", "/tcp", "-1", ""] {
            assert_eq!(port_of(name), None, "{name}");
        }
    }
}
