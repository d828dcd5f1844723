//! What the node does for each route.

use std::future::Future;
use std::net::IpAddr;

use bytes::Bytes;
use tokio::sync::mpsc;
use weft_model::api::{
    CaRotate, CaptureQuery, Check, Connect, Connected, ConnsQuery, Disconnect, Drops, DropsQuery,
    EventsQuery, Info, JoinToken, LogsQuery, MeshConns, MeshPort, NetworkDetail, NodeRemove,
    NodeRow, NodeUpdate, NodeUpdated, PeerAdd, PingQuery, Pong, Rebalance, Rebalanced,
    RestoreQuery, Scale, ServiceDetail, ServiceUpdate, SwarmDetail, SwarmInit, SwarmInitReply,
    SwarmJoin, SwarmJoinReply, SwarmLeave, SwarmLeft, SwarmRestoreReply, SwarmUnlock, SwarmUpdate,
    TaskRow, UnlockKeyReply, UpdatePlan, VersionQuery, VolumeAsk, Volumes, VolumesQuery, Why,
};
use weft_model::objects::{Network, NetworkSpec, Role, Service, ServiceSpec, StaticPeer};
use weft_swarm::{ApiCall, ApiReply};

use super::error::ApiError;

/// Answer of every method.
pub(crate) type Answer<T> = Result<T, ApiError>;

/// One method for each route of [`weft_model::api`].
///
/// A `reference` is a full id, an exact name, or a unique prefix of an id. Methods that change
/// something run to their end in a task of their own, also when the client goes away; the others
/// may be dropped at any await point.
///
/// Methods are written as `async fn` in implementations.
pub(crate) trait NodeService: Send + Sync + 'static {
    /// GET /v1/info
    fn info(&self) -> impl Future<Output = Answer<Info>> + Send;

    /// POST /v1/swarm/init
    fn swarm_init(&self, body: SwarmInit) -> impl Future<Output = Answer<SwarmInitReply>> + Send;

    /// POST /v1/swarm/join
    fn swarm_join(&self, body: SwarmJoin) -> impl Future<Output = Answer<SwarmJoinReply>> + Send;

    /// POST /v1/swarm/leave
    fn swarm_leave(&self, body: SwarmLeave) -> impl Future<Output = Answer<SwarmLeft>> + Send;

    /// GET /v1/swarm
    fn swarm(&self) -> impl Future<Output = Answer<SwarmDetail>> + Send;

    /// POST /v1/swarm/update
    fn swarm_update(
        &self,
        query: VersionQuery,
        body: SwarmUpdate,
    ) -> impl Future<Output = Answer<SwarmDetail>> + Send;

    /// POST /v1/swarm/ca/rotate
    fn rotate_ca(&self, body: CaRotate) -> impl Future<Output = Answer<SwarmDetail>> + Send;

    /// GET /v1/swarm/token/{role}
    fn join_token(&self, role: Role) -> impl Future<Output = Answer<JoinToken>> + Send;

    /// POST /v1/swarm/token/{role}/rotate
    fn rotate_join_token(&self, role: Role) -> impl Future<Output = Answer<JoinToken>> + Send;

    /// POST /v1/swarm/unlock
    fn swarm_unlock(&self, body: SwarmUnlock) -> impl Future<Output = Answer<()>> + Send;

    /// GET /v1/swarm/unlock-key
    fn unlock_key(&self) -> impl Future<Output = Answer<UnlockKeyReply>> + Send;

    /// POST /v1/swarm/unlock-key/rotate
    fn rotate_unlock_key(&self) -> impl Future<Output = Answer<UnlockKeyReply>> + Send;

    /// GET /v1/swarm/backup
    fn swarm_backup(&self) -> impl Future<Output = Answer<Bytes>> + Send;

    /// POST /v1/swarm/restore, with the unlock key where one was given.
    fn swarm_restore(
        &self,
        query: RestoreQuery,
        backup: Vec<u8>,
        unlock_key: Option<String>,
    ) -> impl Future<Output = Answer<SwarmRestoreReply>> + Send;

    /// GET /v1/nodes
    fn nodes(&self) -> impl Future<Output = Answer<Vec<NodeRow>>> + Send;

    /// GET /v1/nodes/{ref}
    fn node(&self, reference: String) -> impl Future<Output = Answer<NodeRow>> + Send;

    /// POST /v1/nodes/{ref}/update
    fn node_update(
        &self,
        reference: String,
        query: VersionQuery,
        body: NodeUpdate,
    ) -> impl Future<Output = Answer<NodeUpdated>> + Send;

    /// GET /v1/nodes/{ref}/tasks
    fn node_tasks(&self, reference: String) -> impl Future<Output = Answer<Vec<TaskRow>>> + Send;

    /// DELETE /v1/nodes/{ref}
    fn node_remove(
        &self,
        reference: String,
        body: NodeRemove,
    ) -> impl Future<Output = Answer<()>> + Send;

    /// GET /v1/networks
    fn networks(&self) -> impl Future<Output = Answer<Vec<Network>>> + Send;

    /// POST /v1/networks
    fn network_create(&self, spec: NetworkSpec) -> impl Future<Output = Answer<Network>> + Send;

    /// GET /v1/networks/{ref}
    fn network(&self, reference: String) -> impl Future<Output = Answer<NetworkDetail>> + Send;

    /// DELETE /v1/networks/{ref}
    fn network_remove(&self, reference: String) -> impl Future<Output = Answer<()>> + Send;

    /// POST /v1/networks/{ref}/connect
    fn connect(
        &self,
        network: String,
        body: Connect,
    ) -> impl Future<Output = Answer<Connected>> + Send;

    /// POST /v1/networks/{ref}/disconnect
    fn disconnect(
        &self,
        network: String,
        body: Disconnect,
    ) -> impl Future<Output = Answer<()>> + Send;

    /// GET /v1/networks/{ref}/peers
    fn peers(&self, network: String) -> impl Future<Output = Answer<Vec<StaticPeer>>> + Send;

    /// POST /v1/networks/{ref}/peers
    fn peer_add(
        &self,
        network: String,
        body: PeerAdd,
    ) -> impl Future<Output = Answer<StaticPeer>> + Send;

    /// DELETE /v1/networks/{ref}/peers/{ip}
    fn peer_remove(&self, network: String, ip: IpAddr) -> impl Future<Output = Answer<()>> + Send;

    /// GET /v1/services
    fn services(&self) -> impl Future<Output = Answer<Vec<ServiceDetail>>> + Send;

    /// POST /v1/services
    fn service_create(&self, spec: ServiceSpec) -> impl Future<Output = Answer<Service>> + Send;

    /// GET /v1/services/{ref}
    fn service(&self, reference: String) -> impl Future<Output = Answer<ServiceDetail>> + Send;

    /// DELETE /v1/services/{ref}
    fn service_remove(&self, reference: String) -> impl Future<Output = Answer<()>> + Send;

    /// POST /v1/services/{ref}/scale
    fn service_scale(
        &self,
        reference: String,
        query: VersionQuery,
        body: Scale,
    ) -> impl Future<Output = Answer<Service>> + Send;

    /// POST /v1/services/{ref}/update
    fn service_update(
        &self,
        reference: String,
        query: VersionQuery,
        body: ServiceUpdate,
    ) -> impl Future<Output = Answer<Service>> + Send;

    /// POST /v1/services/{ref}/plan
    fn service_plan(
        &self,
        reference: String,
        query: VersionQuery,
        body: ServiceUpdate,
    ) -> impl Future<Output = Answer<UpdatePlan>> + Send;

    /// POST /v1/services/{ref}/rebalance
    fn service_rebalance(
        &self,
        reference: String,
        body: Rebalance,
    ) -> impl Future<Output = Answer<Rebalanced>> + Send;

    /// GET /v1/services/{ref}/tasks
    fn service_tasks(&self, reference: String)
    -> impl Future<Output = Answer<Vec<TaskRow>>> + Send;

    /// GET /v1/services/{ref}/logs: lines of JSON, until there are no more.
    fn service_logs(
        &self,
        reference: String,
        query: LogsQuery,
    ) -> impl Future<Output = Answer<mpsc::Receiver<Bytes>>> + Send;

    /// GET /v1/tasks/{ref}
    fn task(&self, reference: String) -> impl Future<Output = Answer<TaskRow>> + Send;

    /// POST /v1/tasks/{ref}/exec: frames of [`weft_model::exec`], both ways; the program ends when
    /// the user says nothing more.
    fn task_exec(
        &self,
        reference: String,
        said: mpsc::Receiver<Bytes>,
    ) -> impl Future<Output = Answer<mpsc::Receiver<Bytes>>> + Send;

    /// GET /v1/events: pieces of lines; a dropped receiver ends them.
    fn events(
        &self,
        query: EventsQuery,
    ) -> impl Future<Output = Answer<mpsc::Receiver<Bytes>>> + Send;

    /// /v1/volumes…: of this node, or of those that the query names.
    fn volumes(
        &self,
        query: VolumesQuery,
        asked: VolumeAsk,
    ) -> impl Future<Output = Answer<Volumes>> + Send;

    /// GET /v1/mesh/ports
    fn mesh_ports(&self) -> impl Future<Output = Answer<Vec<MeshPort>>> + Send;

    /// GET /v1/mesh/conns
    fn mesh_conns(&self, query: ConnsQuery) -> impl Future<Output = Answer<MeshConns>> + Send;

    /// GET /v1/mesh/why/{asked}
    fn why(&self, asked: String) -> impl Future<Output = Answer<Why>> + Send;

    /// GET /v1/drops
    fn drops(&self, query: DropsQuery) -> impl Future<Output = Answer<Drops>> + Send;

    /// GET /v1/doctor
    fn doctor(&self) -> impl Future<Output = Answer<Vec<Check>>> + Send;

    /// GET /v1/ping/{node}
    fn ping(&self, node: String, query: PingQuery) -> impl Future<Output = Answer<Pong>> + Send;

    /// GET /v1/capture: pieces of pcapng; a dropped receiver ends the capture.
    fn capture(
        &self,
        query: CaptureQuery,
    ) -> impl Future<Output = Answer<mpsc::Receiver<Bytes>>> + Send;

    /// GET /metrics: OpenMetrics text.
    fn metrics(&self) -> impl Future<Output = Answer<String>> + Send;
}

/// Which manager answers calls about the whole swarm.
///
/// Methods are written as `async fn` in implementations.
pub(crate) trait SwarmCalls: Send + Sync + 'static {
    /// What the manager that leads answers; nothing where this node is to answer itself: its own
    /// manager leads, or it has none and says so.
    fn pass_on(&self, call: &ApiCall) -> impl Future<Output = Answer<Option<ApiReply>>> + Send;

    /// Waits until this node is sure that what it knows of the swarm is the newest. One without a
    /// manager need not be: it shows nothing.
    fn confirm(&self) -> impl Future<Output = Answer<()>> + Send;

    /// Waits until what the own manager knows of the swarm is the newest, whichever leads. A node without
    /// a manager need not be sure.
    fn catch_up(&self) -> impl Future<Output = Answer<()>> + Send;
}
