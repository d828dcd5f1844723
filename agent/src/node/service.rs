//! The node API: each route, on the node's membership.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use weft_model::api::{
    CaptureQuery, Check, Connect, Connected, ConnsQuery, Disconnect, Drops, DropsQuery,
    EndpointRow, Info, JoinToken, MeshConns, MeshPort, NetworkDetail, NodeRemove, NodeRow,
    NodeUpdate, PeerAdd, PingQuery, Pong, Scale, ServiceDetail, ServiceUpdate, SwarmInfo,
    SwarmInit, SwarmInitReply, SwarmJoin, SwarmJoinReply, SwarmLeave, TaskRow, Why,
};
use weft_model::objects::{
    Network, NetworkSpec, PortSpec, Protocol, Role, Service, ServiceSpec, StaticPeer,
};
use weft_model::text::cleaned;

use super::Node;
use super::conns;
use super::figures;
use super::member::Member;
use super::mesh::Seen;
use super::ping;
use super::running::{Running, millis};
use super::swarm::not_member;
use super::why;
use crate::api::{Answer, ApiError, NodeService};
use crate::capture;
use crate::manager::Manager;
use crate::metrics::Metrics;

impl Node {
    async fn current(&self) -> Answer<Arc<Member>> {
        self.member
            .read()
            .await
            .as_ref()
            .map(Arc::clone)
            .ok_or_else(not_member)
    }

    async fn running(&self) -> Answer<(Arc<Member>, Arc<Running>)> {
        let member = self.current().await?;
        let running = member.running.load_full().ok_or_else(|| {
            ApiError::unavailable(
                "This node has not received its first orders yet; `weft info` or the log of weftd says why, try again",
            )
        })?;
        Ok((member, running))
    }

    async fn manager(&self) -> Answer<(Arc<Member>, Arc<Manager>)> {
        let member = self.current().await?;
        let manager = member.need_manager()?;
        Ok((member, manager))
    }
}

impl NodeService for Node {
    async fn info(&self) -> Answer<Info> {
        let member = self.member.read().await.as_ref().map(Arc::clone);
        let swarm = member.map(|m| {
            let identity = m.session.identity();
            let failure = m.session.last_failure();
            SwarmInfo {
                cluster_id: identity.cluster_id().to_owned(),
                node_id: m.node_id.clone(),
                role: identity.role(),
                addr: m.membership.node.addr,
                managers: m.membership.managers.clone(),
                connected: m.session.connected(),
                last_error_at: failure.as_ref().map(|failure| millis(failure.at)),
                last_error: failure.map(|failure| failure.error.to_string()),
            }
        });
        Ok(Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.config.name.clone(),
            pid: std::process::id(),
            swarm,
            warnings: self.warnings.all(),
        })
    }

    async fn swarm_init(&self, body: SwarmInit) -> Answer<SwarmInitReply> {
        self.init(body).await
    }

    async fn swarm_join(&self, body: SwarmJoin) -> Answer<SwarmJoinReply> {
        self.join(body).await
    }

    async fn swarm_leave(&self, body: SwarmLeave) -> Answer<()> {
        self.leave(body).await
    }

    async fn join_token(&self, role: Role) -> Answer<JoinToken> {
        Ok(self.manager().await?.1.join_token(role)?)
    }

    async fn rotate_join_token(&self, role: Role) -> Answer<JoinToken> {
        Ok(self.manager().await?.1.rotate_join_token(role).await?)
    }

    async fn nodes(&self) -> Answer<Vec<NodeRow>> {
        Ok(self.manager().await?.1.nodes())
    }

    async fn node(&self, reference: String) -> Answer<NodeRow> {
        Ok(self.manager().await?.1.node(&reference)?)
    }

    async fn node_remove(&self, reference: String, body: NodeRemove) -> Answer<()> {
        let (_, manager) = self.manager().await?;
        Ok(manager.remove_node(&reference, body.force).await?)
    }

    async fn node_update(
        &self,
        reference: String,
        body: NodeUpdate,
    ) -> Answer<weft_model::objects::Node> {
        let (_, manager) = self.manager().await?;
        Ok(manager
            .set_availability(&reference, body.availability)
            .await?)
    }

    async fn node_tasks(&self, reference: String) -> Answer<Vec<TaskRow>> {
        Ok(self.manager().await?.1.node_tasks(&reference)?)
    }

    async fn networks(&self) -> Answer<Vec<Network>> {
        Ok(self.manager().await?.1.networks())
    }

    async fn network_create(&self, spec: NetworkSpec) -> Answer<Network> {
        Ok(self.manager().await?.1.create_network(spec).await?)
    }

    async fn network(&self, reference: String) -> Answer<NetworkDetail> {
        let (member, manager) = self.manager().await?;
        let (network, addresses) = manager.network(&reference)?;
        let state = manager.state();
        let hostname = |id: &weft_model::id::NodeId| {
            state
                .nodes
                .get(id)
                .map_or_else(|| id.as_str().to_owned(), |n| n.hostname.clone())
        };
        let running = member.running.load_full();
        let seen = running.as_ref().and_then(|r| Seen::of(&member, r));
        let there = seen.into_iter().flat_map(|seen| seen.endpoints);
        let mut endpoints: Vec<EndpointRow> = there
            .filter(|e| e.network == network.id)
            .map(|e| EndpointRow {
                node: hostname(&e.node),
                id: e.id,
                name: e.name,
                ips: e.ips,
                mac: e.mac,
            })
            .collect();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(NetworkDetail {
            network,
            mtu: running.map_or(0, |r| u32::from(r.mtu())),
            endpoints,
            addresses,
        })
    }

    async fn network_remove(&self, reference: String) -> Answer<()> {
        Ok(self.manager().await?.1.remove_network(&reference).await?)
    }

    async fn connect(&self, network: String, body: Connect) -> Answer<Connected> {
        let (member, running) = self.running().await?;
        // A client that goes away must not leave half an endpoint behind.
        let work = async move { member.connect(&running, &network, body).await };
        tokio::spawn(work)
            .await
            .map_err(|e| ApiError::internal(e.to_string()))?
    }

    async fn disconnect(&self, network: String, body: Disconnect) -> Answer<()> {
        let (member, running) = self.running().await?;
        let work = async move { member.disconnect(&running, &network, &body).await };
        tokio::spawn(work)
            .await
            .map_err(|e| ApiError::internal(e.to_string()))?
    }

    async fn peers(&self, network: String) -> Answer<Vec<StaticPeer>> {
        Ok(self.manager().await?.1.peers(&network)?)
    }

    async fn peer_add(&self, network: String, body: PeerAdd) -> Answer<StaticPeer> {
        Ok(self.manager().await?.1.add_peer(&network, &body).await?)
    }

    async fn peer_remove(&self, network: String, ip: IpAddr) -> Answer<()> {
        Ok(self.manager().await?.1.remove_peer(&network, ip).await?)
    }

    async fn services(&self) -> Answer<Vec<ServiceDetail>> {
        let (member, manager) = self.manager().await?;
        let mut services = manager.services();
        for service in &mut services {
            service.port_errors = port_errors(&member, &manager, service);
        }
        Ok(services)
    }

    async fn service_create(&self, spec: ServiceSpec) -> Answer<Service> {
        let (member, manager) = self.manager().await?;
        check_ports(&member, &spec.ports)?;
        Ok(manager.create_service(spec).await?)
    }

    async fn service(&self, reference: String) -> Answer<ServiceDetail> {
        let (member, manager) = self.manager().await?;
        let mut service = manager.service(&reference)?;
        service.port_errors = port_errors(&member, &manager, &service);
        Ok(service)
    }

    async fn service_remove(&self, reference: String) -> Answer<()> {
        Ok(self.manager().await?.1.remove_service(&reference).await?)
    }

    async fn service_scale(&self, reference: String, body: Scale) -> Answer<Service> {
        let (_, manager) = self.manager().await?;
        Ok(manager.scale_service(&reference, body.replicas).await?)
    }

    async fn service_update(&self, reference: String, body: ServiceUpdate) -> Answer<Service> {
        let (member, manager) = self.manager().await?;
        check_ports(&member, &body.publish_add)?;
        Ok(manager.update_service(&reference, &body).await?)
    }

    async fn service_tasks(&self, reference: String) -> Answer<Vec<TaskRow>> {
        Ok(self.manager().await?.1.tasks(&reference)?)
    }

    async fn mesh_ports(&self) -> Answer<Vec<MeshPort>> {
        let (member, running) = self.running().await?;
        Ok(Seen::of(&member, &running).map_or_else(Vec::new, |seen| seen.ports()))
    }

    async fn mesh_conns(&self, query: ConnsQuery) -> Answer<MeshConns> {
        let (member, running) = self.running().await?;
        let seen = Seen::of(&member, &running)
            .ok_or_else(|| ApiError::unavailable("the node has no orders yet: try again"))?;
        conns::conns(&running, &seen, &query).await
    }

    async fn why(&self, asked: String) -> Answer<Why> {
        let (member, running) = self.running().await?;
        let seen = Seen::of(&member, &running)
            .ok_or_else(|| ApiError::unavailable("the node has no orders yet: try again"))?;
        why::why(&seen, &asked).await
    }

    async fn drops(&self, query: DropsQuery) -> Answer<Drops> {
        let (member, running) = self.running().await?;
        if let Some(port) = &query.port {
            figures::check_port(&member, &running, port)?;
        }
        Ok(figures::drops(&member, &running, query.port.as_deref()))
    }

    async fn doctor(&self) -> Answer<Vec<Check>> {
        let checks = self.examine().await;
        checks.map_err(|e| ApiError::internal(format!("{e:#}")))
    }

    async fn ping(&self, node: String, query: PingQuery) -> Answer<Pong> {
        let (member, running) = self.running().await?;
        let orders = member.session.assignments().borrow().clone();
        let orders =
            orders.ok_or_else(|| ApiError::unavailable("the node has no orders yet: try again"))?;
        ping::ping(&running, &orders, &node, &query).await
    }

    async fn capture(&self, query: CaptureQuery) -> Answer<mpsc::Receiver<Bytes>> {
        let (member, running) = self.running().await?;
        if let Some(port) = &query.port {
            figures::check_port(&member, &running, port)?;
        }
        let reader = running
            .plane
            .capture(capture::filter(&query))
            .map_err(|e| ApiError::conflict(e.to_string()))?;
        capture::stream(reader, &query, self.stopping.clone())
            .map_err(|e| ApiError::internal(format!("cannot capture: {e}")))
    }

    async fn metrics(&self) -> Answer<String> {
        let member = self.member.read().await.as_ref().map(Arc::clone);
        let sample = member.map(|m| figures::sample(&m)).unwrap_or_default();
        Metrics::new(Arc::new(figures::Once(sample)))
            .encode()
            .map_err(|e| ApiError::internal(e.to_string()))
    }
}

/// Refuses ports that no node could open.
fn check_ports(member: &Member, ports: &[PortSpec]) -> Answer<()> {
    let node = &member.membership.node;
    let data_path = member
        .session
        .assignments()
        .borrow()
        .as_ref()
        .map_or(0, |orders| orders.shared.data_path_port);
    let manager = node.manager_addr.map_or(0, |addr| addr.port());
    for port in ports {
        let own = match port.protocol {
            Protocol::Tcp => [(manager, "managers"), (node.gossip_port, "gossip")],
            Protocol::Udp => [(data_path, "VXLAN"), (node.gossip_port, "gossip")],
        };
        let taken = own.iter().find(|(p, _)| *p != 0 && *p == port.published);
        if let Some((number, user)) = taken {
            return Err(ApiError::conflict(format!(
                "port {number}/{} is used by weft itself on every node ({user}); publish another port",
                port.protocol
            )));
        }
    }
    Ok(())
}

/// Longest name of a program that holds a port, in bytes.
const MAX_HOLDER: usize = 128;

/// Published ports of a service that some node could not open, as gossip tells it.
fn port_errors(member: &Member, manager: &Manager, service: &ServiceDetail) -> Vec<String> {
    let Some(running) = member.running.load_full() else {
        return Vec::new();
    };
    let view = running.gossip.view().borrow().clone();
    let state = manager.state();
    let mut errors = Vec::new();
    // Ports on an address that is not there, and on how many nodes.
    let mut absent: BTreeMap<String, usize> = BTreeMap::new();
    let mut nodes = 0;
    for (owner, record) in view.nodes() {
        nodes += 1;
        for closed in &record.closed_ports {
            let (port, protocol) = (closed.port, closed.protocol);
            let ours = service.service.ports.iter().any(|p| {
                p.published == port && p.protocol == protocol && p.host_ip == closed.host_ip
            });
            if !ours {
                continue;
            }
            let node = state
                .nodes
                .get(owner)
                .map_or(owner.as_str(), |n| n.hostname.as_str());
            match (&closed.holder, closed.host_ip) {
                (None, Some(ip)) => {
                    let error = format!("port {port}/{protocol}: no node has the address {ip}");
                    *absent.entry(error).or_default() += 1;
                }
                (holder, _) => errors.push(format!(
                    "port {port}/{protocol} on node {node} is held by {}: stop it there, or publish another port",
                    cleaned(holder.as_deref().unwrap_or("somebody"), MAX_HOLDER)
                )),
            }
        }
    }
    errors.extend(
        absent
            .into_iter()
            .filter(|(_, count)| *count == nodes)
            .map(|(error, _)| format!("{error}: give it to one, or publish another address")),
    );
    errors.sort();
    errors
}
