//! The node API: each route, on the node's membership.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use weft_model::api::{
    CaRotate, CaptureQuery, Check, Connect, Connected, ConnsQuery, Disconnect, Drops, DropsQuery,
    EndpointRow, EventsQuery, Info, JoinToken, LogsQuery, MeshConns, MeshPort, NetworkDetail,
    NodeRemove, NodeRow, NodeUpdate, NodeUpdated, PeerAdd, PingQuery, Pong, Rebalance, Rebalanced,
    RestoreQuery, Scale, ServiceDetail, ServiceUpdate, SwarmDetail, SwarmInit, SwarmInitReply,
    SwarmJoin, SwarmJoinReply, SwarmLeave, SwarmLeft, SwarmRestoreReply, SwarmState, SwarmUnlock,
    SwarmUpdate, TaskRow, UnlockKeyReply, UpdatePlan, VersionQuery, VolumeAsk, Volumes,
    VolumesQuery, Why,
};
use weft_model::objects::{Network, NetworkSpec, Role, Service, ServiceSpec, StaticPeer};
use weft_model::talk::Talk;
use weft_swarm::{ApiCall, ApiReply, Manager};

use super::{Node, exec, info, volumes};
use crate::api::{Answer, ApiError, NodeService, SwarmCalls};
use crate::capture;
use crate::membership::swarm_node::SwarmNode;
use crate::metrics::Metrics;
use crate::observe::replicas::Seen;
use crate::observe::{conns, counters, doctor, events, logs, ping, ports, why};
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;

impl Node {
    /// Of the membership, with its data path.
    async fn carrying(&self) -> Answer<(Arc<SwarmNode>, Arc<DataPath>)> {
        let member = self.slot.need().await?;
        let data_path = member.handles.data_path.load_full().ok_or_else(|| {
            ApiError::unavailable(
                "This node has not received its first orders yet; `weft info` or the log of weftd says why, try again",
            )
        })?;
        Ok((member, data_path))
    }

    /// The manager of this node, where it has one that is open.
    pub(super) async fn own_manager(&self) -> Option<Arc<Manager>> {
        let member = self.slot.get().await?;
        member.handles.manager.get()
    }

    pub(super) async fn manager(&self) -> Answer<(Arc<SwarmNode>, Arc<Manager>)> {
        let member = self.slot.get().await.ok_or_else(no_manager)?;
        let manager = member.handles.need_manager()?;
        Ok((member, manager))
    }
}

fn unlock_key_of(manager: &Manager) -> UnlockKeyReply {
    let key = manager.unlock_key();
    UnlockKeyReply {
        unlock_key: key.map_or_else(String::new, |key| key.to_text().to_string()),
    }
}

/// Refuses ports of an update that no node could open.
fn check_ports(handles: &Handles, update: &ServiceUpdate) -> Answer<()> {
    ports::check(handles, &update.publish_add)?;
    match &update.spec {
        Some(spec) => ports::check(handles, &spec.endpoint.ports),
        None => Ok(()),
    }
}

fn no_manager() -> ApiError {
    ApiError::unavailable(
        "This node is not a swarm manager. Use \"weft swarm init\" or \"weft swarm join\" to connect this node to swarm and try again.",
    )
}

impl SwarmCalls for Node {
    async fn pass_on(&self, call: &ApiCall) -> Answer<Option<ApiReply>> {
        match self.own_manager().await {
            Some(manager) => Ok(manager.pass_on(call).await?),
            None => Ok(None),
        }
    }

    async fn confirm(&self) -> Answer<()> {
        match self.own_manager().await {
            Some(manager) => Ok(manager.confirm_lead().await?),
            None => Ok(()),
        }
    }

    async fn catch_up(&self) -> Answer<()> {
        match self.own_manager().await {
            Some(manager) => Ok(manager.catch_up().await?),
            None => Ok(()),
        }
    }
}

impl NodeService for Node {
    async fn info(&self) -> Answer<Info> {
        let member = self.slot.get().await;
        let swarm = member.map(|member| {
            let info = info::of_member(&member.handles);
            if member.handles.session.identity().is_locked() {
                SwarmState::Locked(info)
            } else {
                SwarmState::Active(info)
            }
        });
        Ok(Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.config.name.clone(),
            pid: std::process::id(),
            containers: info::of_containers(&self.engine),
            swarm: swarm.unwrap_or_default(),
            warnings: self.warnings.all(),
        })
    }

    async fn swarm_init(&self, body: SwarmInit) -> Answer<SwarmInitReply> {
        self.slot.init(body).await
    }

    async fn swarm_join(&self, body: SwarmJoin) -> Answer<SwarmJoinReply> {
        self.slot.join(body).await
    }

    async fn swarm_leave(&self, body: SwarmLeave) -> Answer<SwarmLeft> {
        self.slot.leave(body).await
    }

    async fn swarm(&self) -> Answer<SwarmDetail> {
        Ok(self.manager().await?.1.swarm()?)
    }

    async fn swarm_update(&self, query: VersionQuery, body: SwarmUpdate) -> Answer<SwarmDetail> {
        let (_, manager) = self.manager().await?;
        Ok(manager.update_swarm(query.version, &body).await?)
    }

    async fn rotate_ca(&self, body: CaRotate) -> Answer<SwarmDetail> {
        Ok(self.manager().await?.1.rotate_ca(&body).await?)
    }

    async fn join_token(&self, role: Role) -> Answer<JoinToken> {
        Ok(self.manager().await?.1.join_token(role)?)
    }

    async fn rotate_join_token(&self, role: Role) -> Answer<JoinToken> {
        Ok(self.manager().await?.1.rotate_join_token(role).await?)
    }

    async fn swarm_unlock(&self, body: SwarmUnlock) -> Answer<()> {
        self.slot.unlock(&body.unlock_key).await
    }

    async fn unlock_key(&self) -> Answer<UnlockKeyReply> {
        let (_, manager) = self.manager().await?;
        Ok(unlock_key_of(&manager))
    }

    async fn rotate_unlock_key(&self) -> Answer<UnlockKeyReply> {
        let (_, manager) = self.manager().await?;
        manager.rotate_unlock_key().await?;
        Ok(unlock_key_of(&manager))
    }

    async fn swarm_backup(&self) -> Answer<Bytes> {
        let (_, manager) = self.manager().await?;
        Ok(manager.backup().await?.into())
    }

    async fn swarm_restore(
        &self,
        query: RestoreQuery,
        backup: Vec<u8>,
        unlock_key: Option<String>,
    ) -> Answer<SwarmRestoreReply> {
        self.slot.restore_backup(query, backup, unlock_key).await
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
        query: VersionQuery,
        body: NodeUpdate,
    ) -> Answer<NodeUpdated> {
        let (_, manager) = self.manager().await?;
        let version = query.version;
        Ok(manager.update_node(&reference, version, &body).await?)
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
            state.nodes.get(id).map_or_else(
                || id.as_str().to_owned(),
                |n| n.description.hostname.clone(),
            )
        };
        let data_path = member.handles.data_path.load_full();
        let seen = data_path
            .as_ref()
            .and_then(|d| Seen::of(&member.handles, d));
        let there = seen.iter().flat_map(|seen| seen.there.all());
        let containers = there
            .filter(|e| e.network == network.id)
            .map(|e| {
                let of_family = |ipv4: bool| {
                    let ip = e.ips.iter().find(|ip| ip.is_ipv4() == ipv4);
                    ip.map(|ip| network.with_prefix(*ip))
                };
                let row = EndpointRow {
                    ipv4: of_family(true),
                    ipv6: of_family(false),
                    node: hostname(&e.node),
                    id: e.id.clone(),
                    name: e.name.clone(),
                    mac: e.mac,
                };
                (e.id.clone(), row)
            })
            .collect();
        Ok(NetworkDetail {
            network,
            mtu: data_path.map_or(0, |r| u32::from(r.mtu())),
            containers,
            addresses,
        })
    }

    async fn network_remove(&self, reference: String) -> Answer<()> {
        Ok(self.manager().await?.1.remove_network(&reference).await?)
    }

    async fn connect(&self, network: String, body: Connect) -> Answer<Connected> {
        let (member, data_path) = self.carrying().await?;
        // A client that goes away must not leave half an endpoint behind.
        let work = async move { member.endpoints.connect(&data_path, &network, body).await };
        tokio::spawn(work)
            .await
            .map_err(|e| ApiError::internal(e.to_string()))?
    }

    async fn disconnect(&self, network: String, body: Disconnect) -> Answer<()> {
        let (member, data_path) = self.carrying().await?;
        let work = async move {
            member
                .endpoints
                .disconnect(&data_path, &network, &body)
                .await
        };
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
            service.port_errors = ports::errors(&member.handles, &manager, service);
        }
        Ok(services)
    }

    async fn service_create(&self, spec: ServiceSpec) -> Answer<Service> {
        let (member, manager) = self.manager().await?;
        ports::check(&member.handles, &spec.endpoint.ports)?;
        Ok(manager.create_service(spec).await?)
    }

    async fn service(&self, reference: String) -> Answer<ServiceDetail> {
        let (member, manager) = self.manager().await?;
        let mut service = manager.service(&reference)?;
        service.port_errors = ports::errors(&member.handles, &manager, &service);
        Ok(service)
    }

    async fn service_remove(&self, reference: String) -> Answer<()> {
        Ok(self.manager().await?.1.remove_service(&reference).await?)
    }

    async fn service_scale(
        &self,
        reference: String,
        query: VersionQuery,
        body: Scale,
    ) -> Answer<Service> {
        let (_, manager) = self.manager().await?;
        let (version, replicas) = (query.version, body.replicas);
        Ok(manager.scale_service(&reference, version, replicas).await?)
    }

    async fn service_rebalance(&self, reference: String, body: Rebalance) -> Answer<Rebalanced> {
        let (_, manager) = self.manager().await?;
        Ok(manager.rebalance_service(&reference, body).await?)
    }

    async fn service_update(
        &self,
        reference: String,
        query: VersionQuery,
        body: ServiceUpdate,
    ) -> Answer<Service> {
        let (member, manager) = self.manager().await?;
        check_ports(&member.handles, &body)?;
        let version = query.version;
        Ok(manager.update_service(&reference, version, &body).await?)
    }

    async fn service_plan(
        &self,
        reference: String,
        query: VersionQuery,
        body: ServiceUpdate,
    ) -> Answer<UpdatePlan> {
        let (member, manager) = self.manager().await?;
        check_ports(&member.handles, &body)?;
        Ok(manager.plan_update(&reference, query.version, &body)?)
    }

    async fn service_tasks(&self, reference: String) -> Answer<Vec<TaskRow>> {
        Ok(self.manager().await?.1.tasks(&reference)?)
    }

    async fn service_logs(
        &self,
        reference: String,
        query: LogsQuery,
    ) -> Answer<mpsc::Receiver<Bytes>> {
        let (_, manager) = self.manager().await?;
        let exchange = manager.talk(Talk::Logs { reference, query }).await?;
        Ok(logs::stream(exchange, self.stopping.clone()))
    }

    async fn task(&self, reference: String) -> Answer<TaskRow> {
        Ok(self.manager().await?.1.task(&reference)?)
    }

    async fn task_exec(
        &self,
        reference: String,
        said: mpsc::Receiver<Bytes>,
    ) -> Answer<mpsc::Receiver<Bytes>> {
        let (_, manager) = self.manager().await?;
        exec::begin(&manager, reference, said, self.stopping.clone()).await
    }

    async fn volumes(&self, query: VolumesQuery, asked: VolumeAsk) -> Answer<Volumes> {
        if query.node.is_none() && !query.all {
            return volumes::of_this_node(&self.volumes, asked).await;
        }
        let (_, manager) = self.manager().await?;
        volumes::of_nodes(&manager, query, asked).await
    }

    async fn mesh_ports(&self) -> Answer<Vec<MeshPort>> {
        let (member, data_path) = self.carrying().await?;
        Ok(Seen::of(&member.handles, &data_path).map_or_else(Vec::new, |seen| seen.ports()))
    }

    async fn mesh_conns(&self, query: ConnsQuery) -> Answer<MeshConns> {
        let (member, data_path) = self.carrying().await?;
        let seen = Seen::of(&member.handles, &data_path)
            .ok_or_else(|| ApiError::unavailable("the node has no orders yet: try again"))?;
        conns::conns(&data_path, &seen, &query).await
    }

    async fn why(&self, asked: String) -> Answer<Why> {
        let (member, data_path) = self.carrying().await?;
        let seen = Seen::of(&member.handles, &data_path)
            .ok_or_else(|| ApiError::unavailable("the node has no orders yet: try again"))?;
        why::why(&seen, &asked).await
    }

    async fn drops(&self, query: DropsQuery) -> Answer<Drops> {
        let (member, data_path) = self.carrying().await?;
        if let Some(port) = &query.port {
            counters::check_row(&member.handles, &data_path, port)?;
        }
        Ok(counters::drops(
            &member.handles,
            &data_path,
            query.port.as_deref(),
        ))
    }

    async fn doctor(&self) -> Answer<Vec<Check>> {
        let handles = self.slot.get().await.map(|m| Arc::clone(&m.handles));
        let checks = doctor::examine(handles, &self.warnings, &self.engine).await;
        checks.map_err(|e| ApiError::internal(format!("{e:#}")))
    }

    async fn ping(&self, node: String, query: PingQuery) -> Answer<Pong> {
        let (member, data_path) = self.carrying().await?;
        let orders = member.handles.session.assignments().borrow().clone();
        let orders =
            orders.ok_or_else(|| ApiError::unavailable("the node has no orders yet: try again"))?;
        ping::ping(&data_path, &orders, &node, &query).await
    }

    async fn capture(&self, query: CaptureQuery) -> Answer<mpsc::Receiver<Bytes>> {
        let (member, data_path) = self.carrying().await?;
        if let Some(port) = &query.port {
            counters::check_port(&member.handles, &data_path, port)?;
        }
        let reader = data_path
            .plane
            .capture(capture::filter(&query))
            .map_err(|e| ApiError::conflict(e.to_string()))?;
        capture::stream(reader, &query, self.stopping.clone())
            .map_err(|e| ApiError::internal(format!("cannot capture: {e}")))
    }

    async fn events(&self, query: EventsQuery) -> Answer<mpsc::Receiver<Bytes>> {
        let (_, manager) = self.manager().await?;
        let reader = manager.events(query.since);
        Ok(events::stream(reader, query, self.stopping.clone()))
    }

    async fn metrics(&self) -> Answer<String> {
        let member = self.slot.get().await;
        let sample = member.map(|m| counters::sample(&m.handles));
        let sample = sample.unwrap_or_default();
        Metrics::new(Arc::new(counters::Once::from(sample)))
            .encode()
            .map_err(|e| ApiError::internal(e.to_string()))
    }
}
