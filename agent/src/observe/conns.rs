//! `weft mesh conns`: the flows of the workers with the names that people know.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use weft_dataplane::FlowListing;
use weft_mesh::{FlowRow, FlowState, Target};
use weft_model::api::{ConnsQuery, MeshConn, MeshConns};
use weft_model::id::NetworkId;
use weft_model::names;
use weft_model::objects::{Network, Protocol};
use weft_wire::Vni;

use super::replicas::Seen;
use crate::api::ApiError;
use crate::blocking::blocking;
use crate::compile::known::KnownEndpoint;
use crate::parts::data_path::DataPath;

const DEFAULT_LIMIT: u32 = 10_000;

/// Connections that this node balances, as asked for.
pub(crate) async fn conns(
    data_path: &DataPath,
    seen: &Seen,
    query: &ConnsQuery,
) -> Result<MeshConns, ApiError> {
    let wanted = match &query.service {
        Some(reference) => Some(id_of(seen, reference)?),
        None => None,
    };
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT) as usize;
    let listing: FlowListing = data_path.plane.flows();
    let snapshot = std::sync::Arc::clone(&seen.snapshot);
    let collect = move || {
        listing.collect(limit, |row| {
            let service = service_of(&snapshot.services, row);
            wanted
                .as_ref()
                .is_none_or(|id| service.is_some_and(|s| *s.id == **id))
        })
    };
    let collected = blocking(collect).await;
    let (rows, complete) = collected.map_err(|e| ApiError::internal(e.to_string()))?;
    let names = Names::of(seen);
    let mut connections: Vec<MeshConn> = rows
        .iter()
        .map(|row| connection(data_path, seen, &names, row))
        .collect();
    connections.sort_by(|a, b| (&a.service, a.client).cmp(&(&b.service, b.client)));
    Ok(MeshConns {
        connections,
        complete,
    })
}

/// Full id of a service, by id, name, or unique start of an id.
fn id_of(seen: &Seen, reference: &str) -> Result<String, ApiError> {
    let services = &seen.orders.shared.services;
    let exact = services
        .iter()
        .find(|s| s.name == reference || s.id.as_str() == reference);
    let in_any_case = || services.iter().find(|s| names::same(&s.name, reference));
    if let Some(service) = exact.or_else(in_any_case) {
        return Ok(service.id.to_string());
    }
    let mut starting = services
        .iter()
        .filter(|s| !reference.is_empty() && s.id.as_str().starts_with(reference));
    match (starting.next(), starting.count()) {
        (Some(service), 0) => Ok(service.id.to_string()),
        (Some(_), more) => Err(ApiError::bad_request(format!(
            "service {reference} is ambiguous ({} matches found): give more of its id",
            more + 1
        ))),
        _ => Err(ApiError::not_found(format!(
            "no such service: {reference}; see `weft service ls`"
        ))),
    }
}

fn service_of<'a>(
    services: &'a weft_mesh::Services,
    row: &FlowRow,
) -> Option<&'a weft_mesh::Service> {
    match row.from {
        Target::Mesh => services
            .published(row.protocol, row.service.port())
            .map(|p| p.service),
        Target::Port(_) => services.vip(row.vni, row.service.ip()),
    }
}

/// Endpoints by network and address.
struct Names<'a> {
    endpoints: HashMap<(&'a NetworkId, IpAddr), &'a KnownEndpoint>,
    networks: HashMap<Vni, &'a Network>,
}

impl<'a> Names<'a> {
    fn of(seen: &'a Seen) -> Self {
        let endpoints = seen.there.all().flat_map(|record| {
            let ips = record.ips.iter();
            ips.map(move |ip| ((&record.network, *ip), record))
        });
        let networks = seen.orders.shared.networks.iter();
        Self {
            endpoints: endpoints.collect(),
            networks: networks
                .filter_map(|network| Some((Vni::new(network.vni)?, network)))
                .collect(),
        }
    }

    fn endpoint(&self, vni: Vni, ip: IpAddr) -> Option<&'a KnownEndpoint> {
        let network = self.networks.get(&vni)?;
        self.endpoints.get(&(&network.id, ip)).copied()
    }
}

fn connection(data_path: &DataPath, seen: &Seen, names: &Names<'_>, row: &FlowRow) -> MeshConn {
    let protocol = match row.protocol {
        weft_mesh::Protocol::Tcp => Protocol::Tcp,
        weft_mesh::Protocol::Udp => Protocol::Udp,
    };
    let service = service_of(&seen.snapshot.services, row);
    let replica = names.endpoint(row.vni, row.replica.ip());
    let (client, client_name, address) = match row.from {
        Target::Mesh => {
            let behind = data_path.mesh.client_behind(protocol, row.client.port());
            // Only a listener of this node has the node's own address towards the mesh.
            let own = seen.snapshot.mesh.as_ref().is_some_and(|mesh| {
                let own = [Some(mesh.v4), mesh.v6];
                own.iter()
                    .flatten()
                    .any(|own| own.host_ip == row.client.ip())
            });
            let client = behind.filter(|_| own).unwrap_or(row.client);
            (client, String::new(), published(seen, protocol, row))
        }
        Target::Port(_) => {
            let endpoint = names.endpoint(row.vni, row.client.ip());
            let name = endpoint.map_or_else(String::new, |e| e.name.clone());
            (row.client, name, row.service.to_string())
        }
    };
    MeshConn {
        protocol,
        client,
        client_name,
        address,
        service: service.map_or_else(String::new, |s| s.name.to_string()),
        network: names
            .networks
            .get(&row.vni)
            .map_or_else(String::new, |network| network.spec.name.clone()),
        replica: row.replica,
        replica_name: replica.map_or_else(String::new, |e| e.name.clone()),
        node: replica.map_or_else(String::new, |e| seen.hostname(&e.node)),
        state: state(row.state).to_owned(),
        idle_ms: u64::try_from(row.idle.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The published port that stands behind a port of the mesh address.
fn published(seen: &Seen, protocol: Protocol, row: &FlowRow) -> String {
    let mesh_port = row.service.port();
    let entry = seen.entries.iter().find(|entry| {
        entry.published.protocol == protocol && entry.published.mesh_port == mesh_port
    });
    match entry.map(|e| (e.published.host_ip, e.published.port)) {
        Some((Some(ip), port)) => SocketAddr::new(ip, port).to_string(),
        Some((None, port)) => format!("*:{port}"),
        None => format!("*:{mesh_port}"),
    }
}

/// As nf_conntrack calls it (net/netfilter/nf_conntrack_proto_tcp.c), seen from the client.
const fn state(state: FlowState) -> &'static str {
    match state {
        FlowState::SynSent => "SYN_SENT",
        FlowState::SynAnswered => "SYN_RECV",
        FlowState::Established => "ESTABLISHED",
        FlowState::FinClient => "FIN_WAIT",
        FlowState::FinReplica => "CLOSE_WAIT",
        FlowState::Closing => "TIME_WAIT",
        FlowState::Reset => "CLOSE",
        FlowState::Datagrams => "UNREPLIED",
        FlowState::DatagramsAnswered => "ASSURED",
    }
}
