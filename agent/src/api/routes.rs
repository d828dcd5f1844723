//! Routes of the API: from HTTP to one call of the [`NodeService`].

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use weft_model::api::{
    CaRotate, CaptureQuery, Check, Connect, Connected, ConnsQuery, Disconnect, Drops, DropsQuery,
    EventsQuery, Info, JoinToken, LogsQuery, MeshConns, MeshPort, NetworkDetail, NodeRemove,
    NodeRow, NodeUpdate, NodeUpdated, PeerAdd, PingQuery, Pong, Rebalance, Rebalanced,
    RestoreQuery, Scale, ServiceDetail, ServiceUpdate, SwarmDetail, SwarmInit, SwarmInitReply,
    SwarmJoin, SwarmJoinReply, SwarmLeave, SwarmLeft, SwarmRestoreReply, SwarmUnlock, SwarmUpdate,
    TaskRow, UnlockKeyReply, UpdatePlan, VersionQuery, VolumeAsk, VolumePrune, VolumeRequest,
    Volumes, VolumesQuery, Why,
};
use weft_model::objects::{Network, NetworkSpec, Role, Service, ServiceSpec, StaticPeer};

use super::error::{ApiError, ErrorKind};
use super::extract::{Asked, Body, Params, Sent};
use super::images::{self, ImageCalls};
use super::leading::{AskedBy, caught_up, confirmed, mark_self, pass_on};
use super::payloads::{self, Configs, PayloadCalls, Secrets};
use super::reply::{Empty, streamed, whole};
use super::service::{NodeService, SwarmCalls};

type Reply<T> = Result<Json<T>, ApiError>;
type Node<S> = State<Arc<S>>;

const OCTETS: &str = "application/octet-stream";

/// Lines of JSON, as Docker names them.
const LINES: &str = "application/x-ndjson";

const PCAPNG: &str = "application/x-pcapng";

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// About the swarm as a whole: the manager that leads answers them, and reads once it is sure of its
/// lead.
fn swarm_routes<S: NodeService + SwarmCalls + PayloadCalls>(service: &Arc<S>) -> Router<Arc<S>> {
    Router::new()
        .route("/v1/swarm", get(swarm::<S>))
        .route("/v1/swarm/ca/rotate", post(rotate_ca::<S>))
        .route("/v1/swarm/token/{role}", get(join_token::<S>))
        .route(
            "/v1/swarm/token/{role}/rotate",
            post(rotate_join_token::<S>),
        )
        .route("/v1/swarm/update", post(swarm_update::<S>))
        .route("/v1/swarm/unlock-key", get(unlock_key::<S>))
        .route("/v1/swarm/unlock-key/rotate", post(rotate_unlock_key::<S>))
        .route("/v1/nodes", get(nodes::<S>))
        .route("/v1/nodes/{ref}/update", post(node_update::<S>))
        .route("/v1/nodes/{ref}/tasks", get(node_tasks::<S>))
        .route("/v1/nodes/{ref}", get(node::<S>).delete(node_remove::<S>))
        .route("/v1/networks", get(networks::<S>).post(network_create::<S>))
        .route(
            "/v1/networks/{ref}",
            get(network::<S>).delete(network_remove::<S>),
        )
        .route(
            "/v1/networks/{ref}/peers",
            get(peers::<S>).post(peer_add::<S>),
        )
        .route("/v1/networks/{ref}/peers/{ip}", delete(peer_remove::<S>))
        .route("/v1/services", get(services::<S>).post(service_create::<S>))
        .route(
            "/v1/services/{ref}",
            get(service_detail::<S>).delete(service_remove::<S>),
        )
        .route("/v1/services/{ref}/scale", post(service_scale::<S>))
        .route("/v1/services/{ref}/update", post(service_update::<S>))
        .route("/v1/services/{ref}/plan", post(service_plan::<S>))
        .route("/v1/services/{ref}/rebalance", post(service_rebalance::<S>))
        .route("/v1/services/{ref}/tasks", get(service_tasks::<S>))
        .route("/v1/tasks/{ref}", get(task::<S>))
        .route(
            "/v1/secrets",
            get(payloads::list::<S, Secrets>).post(payloads::create::<S, Secrets>),
        )
        .route(
            "/v1/secrets/{ref}",
            get(payloads::inspect::<S, Secrets>).delete(payloads::remove::<S, Secrets>),
        )
        .route(
            "/v1/secrets/{ref}/update",
            post(payloads::update::<S, Secrets>),
        )
        .route(
            "/v1/configs",
            get(payloads::list::<S, Configs>).post(payloads::create::<S, Configs>),
        )
        .route(
            "/v1/configs/{ref}",
            get(payloads::inspect::<S, Configs>).delete(payloads::remove::<S, Configs>),
        )
        .route(
            "/v1/configs/{ref}/update",
            post(payloads::update::<S, Configs>),
        )
        .route_layer(from_fn_with_state(Arc::clone(service), confirmed::<S>))
}

/// About the swarm as a whole, with answers that are too long to be passed on: the manager that is asked
/// gives them itself, once it has all that the one which leads has.
fn long_routes<S: NodeService + SwarmCalls>(service: &Arc<S>) -> Router<Arc<S>> {
    Router::new()
        .route("/v1/swarm/backup", get(swarm_backup::<S>))
        .route_layer(from_fn_with_state(Arc::clone(service), caught_up::<S>))
}

/// About the node that is asked: it answers them itself, whoever leads.
fn node_routes<S: NodeService>() -> Router<Arc<S>> {
    Router::new()
        .route("/v1/info", get(info::<S>))
        .route("/v1/swarm/init", post(swarm_init::<S>))
        .route("/v1/swarm/join", post(swarm_join::<S>))
        .route("/v1/swarm/leave", post(swarm_leave::<S>))
        .route("/v1/swarm/unlock", post(swarm_unlock::<S>))
        .route("/v1/swarm/restore", post(swarm_restore::<S>))
        .route("/v1/networks/{ref}/connect", post(connect::<S>))
        .route("/v1/networks/{ref}/disconnect", post(disconnect::<S>))
        .route("/v1/services/{ref}/logs", get(service_logs::<S>))
        .route("/v1/tasks/{ref}/exec", post(task_exec::<S>))
        .route("/v1/volumes", get(volumes::<S>).post(volume_create::<S>))
        .route(
            "/v1/volumes/{name}",
            get(volume::<S>)
                .delete(volume_remove::<S>)
                .post(volumes_prune::<S>),
        )
        .route("/v1/events", get(events::<S>))
        .route("/v1/mesh/ports", get(mesh_ports::<S>))
        .route("/v1/mesh/conns", get(mesh_conns::<S>))
        .route("/v1/mesh/why/{asked}", get(why::<S>))
        .route("/v1/drops", get(drops::<S>))
        .route("/v1/doctor", get(doctor::<S>))
        .route("/v1/ping/{node}", get(ping::<S>))
        .route("/v1/capture", get(capture::<S>))
        .route("/metrics", get(metrics::<S>))
}

/// About images of the node that is asked, in a swarm or not.
fn image_routes<S: ImageCalls>() -> Router<Arc<S>> {
    Router::new()
        .route("/v1/images/json", get(images::list::<S>))
        .route("/v1/images/create", post(images::pull::<S>))
        .route("/v1/images/load", post(images::load::<S>))
        .route("/v1/images/get", get(images::save::<S>))
        .route("/v1/images/prune", post(images::prune::<S>))
        .route("/v1/images/resolve", get(images::resolve::<S>))
        .route("/v1/images/{ref}/json", get(images::inspect::<S>))
        .route("/v1/images/{ref}", delete(images::remove::<S>))
}

/// All routes of the API, served by `service`. Calls about the swarm go to the manager that leads.
pub(crate) fn router<S>(service: Arc<S>) -> Router
where
    S: NodeService + SwarmCalls + PayloadCalls + ImageCalls,
{
    let passed_on = from_fn_with_state(Arc::clone(&service), pass_on::<S>);
    swarm_routes(&service)
        .route_layer(passed_on)
        .merge(long_routes(&service))
        .merge(node_routes())
        .merge(image_routes())
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(service)
}

/// Those that another manager may pass on, for the one that leads.
pub(super) fn for_managers<S>(service: Arc<S>) -> Router
where
    S: NodeService + SwarmCalls + PayloadCalls,
{
    swarm_routes(&service)
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(service)
}

async fn unknown_path(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(format!(
        "{method} {}: weftd {} has no such path. Compare `weft --version` with the version of \
         weftd (GET /v1/info): the command line may be newer than the daemon.",
        uri.path(),
        env!("CARGO_PKG_VERSION"),
    ))
}

async fn unknown_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        ErrorKind::MethodNotAllowed,
        format!(
            "{method} {}: the path does not take this method. Compare `weft --version` with the \
             version of weftd (GET /v1/info): the command line may be newer than the daemon.",
            uri.path(),
        ),
    )
}

fn role(text: &str) -> Result<Role, ApiError> {
    match text {
        "worker" => Ok(Role::Worker),
        "manager" => Ok(Role::Manager),
        other => Err(ApiError::bad_request(format!(
            "{other:?} is not a role: expected \"worker\" or \"manager\""
        ))),
    }
}

async fn info<S: NodeService>(State(node): Node<S>) -> Reply<Info> {
    node.info().await.map(Json)
}

async fn swarm_init<S: NodeService>(
    State(node): Node<S>,
    Body(body): Body<SwarmInit>,
) -> Reply<SwarmInitReply> {
    whole(async move { node.swarm_init(body).await })
        .await
        .map(Json)
}

async fn swarm_join<S: NodeService>(
    State(node): Node<S>,
    Body(body): Body<SwarmJoin>,
) -> Reply<SwarmJoinReply> {
    whole(async move { node.swarm_join(body).await })
        .await
        .map(Json)
}

async fn swarm_leave<S: NodeService>(
    State(node): Node<S>,
    Body(body): Body<SwarmLeave>,
) -> Reply<SwarmLeft> {
    whole(async move { node.swarm_leave(body).await })
        .await
        .map(Json)
}

async fn swarm<S: NodeService>(State(node): Node<S>) -> Reply<SwarmDetail> {
    node.swarm().await.map(Json)
}

async fn swarm_update<S: NodeService>(
    State(node): Node<S>,
    Asked(query): Asked<VersionQuery>,
    Body(body): Body<SwarmUpdate>,
) -> Reply<SwarmDetail> {
    whole(async move { node.swarm_update(query, body).await })
        .await
        .map(Json)
}

async fn rotate_ca<S: NodeService>(
    State(node): Node<S>,
    Body(body): Body<CaRotate>,
) -> Reply<SwarmDetail> {
    whole(async move { node.rotate_ca(body).await })
        .await
        .map(Json)
}

async fn join_token<S: NodeService>(
    State(node): Node<S>,
    Params(text): Params<String>,
) -> Reply<JoinToken> {
    node.join_token(role(&text)?).await.map(Json)
}

async fn rotate_join_token<S: NodeService>(
    State(node): Node<S>,
    Params(text): Params<String>,
) -> Reply<JoinToken> {
    let role = role(&text)?;
    whole(async move { node.rotate_join_token(role).await })
        .await
        .map(Json)
}

async fn swarm_unlock<S: NodeService>(
    State(node): Node<S>,
    Body(body): Body<SwarmUnlock>,
) -> Reply<Empty> {
    whole(async move { node.swarm_unlock(body).await })
        .await
        .map(|()| Json(Empty {}))
}

async fn unlock_key<S: NodeService>(State(node): Node<S>) -> Reply<UnlockKeyReply> {
    node.unlock_key().await.map(Json)
}

async fn rotate_unlock_key<S: NodeService>(State(node): Node<S>) -> Reply<UnlockKeyReply> {
    whole(async move { node.rotate_unlock_key().await })
        .await
        .map(Json)
}

async fn swarm_backup<S: NodeService>(State(node): Node<S>) -> Result<impl IntoResponse, ApiError> {
    let file = node.swarm_backup().await?;
    Ok(([(header::CONTENT_TYPE, OCTETS)], file))
}

async fn swarm_restore<S: NodeService>(
    State(node): Node<S>,
    Asked(query): Asked<RestoreQuery>,
    Sent { file, unlock_key }: Sent,
) -> Reply<SwarmRestoreReply> {
    whole(async move { node.swarm_restore(query, file, unlock_key).await })
        .await
        .map(Json)
}

async fn nodes<S: NodeService>(
    State(node): Node<S>,
    asked_by: Option<Extension<AskedBy>>,
) -> Reply<Vec<NodeRow>> {
    let mut rows = node.nodes().await?;
    for row in &mut rows {
        mark_self(row, asked_by.as_ref());
    }
    Ok(Json(rows))
}

async fn node<S: NodeService>(
    State(node): Node<S>,
    asked_by: Option<Extension<AskedBy>>,
    Params(reference): Params<String>,
) -> Reply<NodeRow> {
    let mut row = node.node(reference).await?;
    mark_self(&mut row, asked_by.as_ref());
    Ok(Json(row))
}

async fn node_remove<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    Body(body): Body<NodeRemove>,
) -> Reply<Empty> {
    whole(async move { node.node_remove(reference, body).await })
        .await
        .map(|()| Json(Empty {}))
}

async fn node_update<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    Asked(query): Asked<VersionQuery>,
    Body(body): Body<NodeUpdate>,
) -> Reply<NodeUpdated> {
    whole(async move { node.node_update(reference, query, body).await })
        .await
        .map(Json)
}

async fn node_tasks<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<Vec<TaskRow>> {
    node.node_tasks(reference).await.map(Json)
}

async fn networks<S: NodeService>(State(node): Node<S>) -> Reply<Vec<Network>> {
    node.networks().await.map(Json)
}

async fn network_create<S: NodeService>(
    State(node): Node<S>,
    Body(spec): Body<NetworkSpec>,
) -> Reply<Network> {
    whole(async move { node.network_create(spec).await })
        .await
        .map(Json)
}

async fn network<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<NetworkDetail> {
    node.network(reference).await.map(Json)
}

async fn network_remove<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<Empty> {
    whole(async move { node.network_remove(reference).await })
        .await
        .map(|()| Json(Empty {}))
}

async fn connect<S: NodeService>(
    State(node): Node<S>,
    Params(network): Params<String>,
    Body(body): Body<Connect>,
) -> Reply<Connected> {
    whole(async move { node.connect(network, body).await })
        .await
        .map(Json)
}

async fn disconnect<S: NodeService>(
    State(node): Node<S>,
    Params(network): Params<String>,
    Body(body): Body<Disconnect>,
) -> Reply<Empty> {
    whole(async move { node.disconnect(network, body).await })
        .await
        .map(|()| Json(Empty {}))
}

async fn peers<S: NodeService>(
    State(node): Node<S>,
    Params(network): Params<String>,
) -> Reply<Vec<StaticPeer>> {
    node.peers(network).await.map(Json)
}

async fn peer_add<S: NodeService>(
    State(node): Node<S>,
    Params(network): Params<String>,
    Body(body): Body<PeerAdd>,
) -> Reply<StaticPeer> {
    whole(async move { node.peer_add(network, body).await })
        .await
        .map(Json)
}

async fn peer_remove<S: NodeService>(
    State(node): Node<S>,
    Params((network, ip)): Params<(String, String)>,
) -> Reply<Empty> {
    let ip: IpAddr = ip
        .parse()
        .map_err(|_| ApiError::bad_request(format!("{ip:?} is not an IP address")))?;
    whole(async move { node.peer_remove(network, ip).await })
        .await
        .map(|()| Json(Empty {}))
}

async fn services<S: NodeService>(State(node): Node<S>) -> Reply<Vec<ServiceDetail>> {
    node.services().await.map(Json)
}

async fn service_create<S: NodeService>(
    State(node): Node<S>,
    Body(spec): Body<ServiceSpec>,
) -> Reply<Service> {
    whole(async move { node.service_create(spec).await })
        .await
        .map(Json)
}

async fn service_detail<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<ServiceDetail> {
    node.service(reference).await.map(Json)
}

async fn service_remove<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<Empty> {
    whole(async move { node.service_remove(reference).await })
        .await
        .map(|()| Json(Empty {}))
}

async fn service_scale<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    Asked(query): Asked<VersionQuery>,
    Body(body): Body<Scale>,
) -> Reply<Service> {
    whole(async move { node.service_scale(reference, query, body).await })
        .await
        .map(Json)
}

async fn service_rebalance<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    Body(body): Body<Rebalance>,
) -> Reply<Rebalanced> {
    whole(async move { node.service_rebalance(reference, body).await })
        .await
        .map(Json)
}

async fn service_update<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    Asked(query): Asked<VersionQuery>,
    Body(body): Body<ServiceUpdate>,
) -> Reply<Service> {
    whole(async move { node.service_update(reference, query, body).await })
        .await
        .map(Json)
}

async fn service_plan<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    Asked(query): Asked<VersionQuery>,
    Body(body): Body<ServiceUpdate>,
) -> Reply<UpdatePlan> {
    node.service_plan(reference, query, body).await.map(Json)
}

async fn service_tasks<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<Vec<TaskRow>> {
    node.service_tasks(reference).await.map(Json)
}

async fn task<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
) -> Reply<TaskRow> {
    node.task(reference).await.map(Json)
}

/// Frames both ways: the answer begins while the request goes on.
async fn task_exec<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    request: Request,
) -> Result<impl IntoResponse, ApiError> {
    let said = pieces(request.into_body());
    Ok(streamed(OCTETS, node.task_exec(reference, said).await?))
}

/// A body as it comes.
fn pieces(body: axum::body::Body) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut body = body.into_data_stream();
        loop {
            let piece = tokio::select! {
                piece = body.next() => piece,
                () = sender.closed() => return,
            };
            let Some(Ok(piece)) = piece else { return };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    receiver
}

async fn service_logs<S: NodeService>(
    State(node): Node<S>,
    Params(reference): Params<String>,
    Asked(query): Asked<LogsQuery>,
) -> Result<impl IntoResponse, ApiError> {
    Ok(streamed(LINES, node.service_logs(reference, query).await?))
}

/// What the query of a call about volumes says of nodes.
fn of_nodes(query: &VolumesQuery) -> Result<(), ApiError> {
    if query.all && query.node.is_some() {
        return Err(ApiError::bad_request(
            "one node and all nodes are asked for at once: leave node or all out",
        ));
    }
    Ok(())
}

async fn volumes<S: NodeService>(
    State(node): Node<S>,
    Asked(query): Asked<VolumesQuery>,
) -> Reply<Volumes> {
    of_nodes(&query)?;
    node.volumes(query, VolumeAsk::List).await.map(Json)
}

async fn volume_create<S: NodeService>(
    State(node): Node<S>,
    Asked(query): Asked<VolumesQuery>,
    Body(body): Body<VolumeRequest>,
) -> Reply<Volumes> {
    of_nodes(&query)?;
    whole(async move { node.volumes(query, VolumeAsk::Create(body)).await })
        .await
        .map(Json)
}

async fn volume<S: NodeService>(
    State(node): Node<S>,
    Params(name): Params<String>,
    Asked(query): Asked<VolumesQuery>,
) -> Reply<Volumes> {
    of_nodes(&query)?;
    let asked = VolumeAsk::Inspect { name };
    node.volumes(query, asked).await.map(Json)
}

async fn volume_remove<S: NodeService>(
    State(node): Node<S>,
    Params(name): Params<String>,
    Asked(query): Asked<VolumesQuery>,
) -> Reply<Volumes> {
    of_nodes(&query)?;
    let asked = VolumeAsk::Remove {
        name,
        force: query.force,
    };
    whole(async move { node.volumes(query, asked).await })
        .await
        .map(Json)
}

/// As Docker's: a volume may be called `prune`, and is got and removed by that name.
async fn volumes_prune<S: NodeService>(
    State(node): Node<S>,
    Params(name): Params<String>,
    Asked(query): Asked<VolumesQuery>,
    Body(body): Body<VolumePrune>,
) -> Reply<Volumes> {
    of_nodes(&query)?;
    if name != "prune" {
        return Err(ApiError::new(
            ErrorKind::MethodNotAllowed,
            "a volume is made by POST /v1/volumes, and cannot be changed",
        ));
    }
    whole(async move { node.volumes(query, VolumeAsk::Prune(body)).await })
        .await
        .map(Json)
}

async fn mesh_ports<S: NodeService>(State(node): Node<S>) -> Reply<Vec<MeshPort>> {
    node.mesh_ports().await.map(Json)
}

async fn mesh_conns<S: NodeService>(
    State(node): Node<S>,
    Asked(query): Asked<ConnsQuery>,
) -> Reply<MeshConns> {
    node.mesh_conns(query).await.map(Json)
}

async fn why<S: NodeService>(State(node): Node<S>, Params(asked): Params<String>) -> Reply<Why> {
    node.why(asked).await.map(Json)
}

async fn drops<S: NodeService>(
    State(node): Node<S>,
    Asked(query): Asked<DropsQuery>,
) -> Reply<Drops> {
    node.drops(query).await.map(Json)
}

async fn doctor<S: NodeService>(State(node): Node<S>) -> Reply<Vec<Check>> {
    node.doctor().await.map(Json)
}

async fn ping<S: NodeService>(
    State(node): Node<S>,
    Params(other): Params<String>,
    Asked(query): Asked<PingQuery>,
) -> Reply<Pong> {
    node.ping(other, query).await.map(Json)
}

async fn capture<S: NodeService>(
    State(node): Node<S>,
    Asked(query): Asked<CaptureQuery>,
) -> Result<impl IntoResponse, ApiError> {
    Ok(streamed(PCAPNG, node.capture(query).await?))
}

async fn events<S: NodeService>(
    State(node): Node<S>,
    Asked(query): Asked<EventsQuery>,
) -> Result<impl IntoResponse, ApiError> {
    Ok(streamed(LINES, node.events(query).await?))
}

async fn metrics<S: NodeService>(State(node): Node<S>) -> Result<impl IntoResponse, ApiError> {
    let text = node.metrics().await?;
    Ok(([(header::CONTENT_TYPE, OPENMETRICS)], text))
}
