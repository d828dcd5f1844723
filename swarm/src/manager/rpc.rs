//! The gRPC services of a manager.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use subtle::ConstantTimeEq as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Empty;
use tonic::{Request, Response, Status};
use weft_cluster::{
    Attach, ClusterState, CommandError, Detacher, MAX_REPLICAS, NodeDescription, Token,
    attach_endpoint, detach_endpoint, join_as, leave_node, note_certificate, remove_node,
    role_of_secret, set_node_state, update_node, update_task_status,
};
use weft_model::id::{NodeId, TaskId};
use weft_model::objects::{Availability, NodeSpec, NodeState, Role, TaskStatus};
use weft_sys::clock::unix_millis;

use super::assignments::{News, Sent};
use super::engine::{Engine, stopped};
use super::gate::{self, Peer, removed};
use super::order_body::{Outgoing, Waiting};
use super::sessions::{Caller, Replaced, Twins};
use super::turns::Turn;
use crate::convert::{SCHEMA, decode, encode, to_status, vitals_from_proto};
use crate::identity::{IdentityError, PeerIdentity};
use crate::proto::ca_server::Ca;
use crate::proto::control_server::Control;
use crate::proto::dispatcher_server::Dispatcher;
use crate::proto::{
    AttachEndpointRequest, AttachEndpointResponse, CountManagersRequest, CountManagersResponse,
    DetachEndpointRequest, DetachEndpointResponse, GetRootCaRequest, GetRootCaResponse,
    HeartbeatRequest, HeartbeatResponse, IssueCertificateRequest, IssueCertificateResponse,
    LeaveRequest, LeaveResponse, RenewCertificateRequest, RenewCertificateResponse, ResignRequest,
    ResignResponse, SessionMessage, SessionRequest, UpdateTaskStatusRequest,
    UpdateTaskStatusResponse,
};

/// Longest text of a node about itself, of an endpoint that it asks for and of a task's status, in
/// bytes. The longest that mean anything have a tenth of it.
const MAX_DESCRIPTION: usize = 16 << 10;
const MAX_ATTACH: usize = 16 << 10;
const MAX_STATUS_JSON: usize = 256 << 10;

/// Statuses in one message at most: as many as a service may have tasks.
const MAX_UPDATES: usize = MAX_REPLICAS as usize;

/// All services; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Rpc(pub(super) Arc<Engine>);

fn peer<T>(request: &Request<T>) -> Result<&Peer, Status> {
    request
        .extensions()
        .get::<Peer>()
        .ok_or_else(|| Status::internal("the connection has no peer"))
}

#[expect(clippy::needless_pass_by_value, reason = "used as map_err(internal)")]
fn internal(error: IdentityError) -> Status {
    Status::internal(error.to_string())
}

/// A description of a node, before anything is done with it.
fn description(schema: u32, json: &[u8]) -> Result<NodeDescription, Status> {
    if json.len() > MAX_DESCRIPTION {
        return Err(Status::invalid_argument(format!(
            "the description of the node has {} bytes, and may have {MAX_DESCRIPTION}",
            json.len()
        )));
    }
    let node: NodeDescription = decode(schema, json)?;
    node.check().map_err(to_status)?;
    Ok(node)
}

impl Rpc {
    /// The member that sent a request, if it still is one: the [`gate`] has asked before, but that
    /// was before the body came.
    fn member<T>(&self, request: &Request<T>) -> Result<Arc<PeerIdentity>, Status> {
        gate::member(&self.0, peer(request)?)
    }

    async fn set_state(
        &self,
        node: &NodeId,
        state: NodeState,
        why: &str,
    ) -> Result<(), CommandError> {
        self.0
            .change(|s, now, e| set_node_state(s, now, e, node, state, why))
            .await
    }
}

/// For whom a node takes endpoints away: users of a manager may take more.
fn detacher<'a>(state: &ClusterState, node: &'a NodeId, force: bool) -> Detacher<'a> {
    let known = state.nodes.get(node);
    match known.map(|node| node.spec.role) {
        Some(Role::Manager) if force => Detacher::Force,
        Some(Role::Manager) => Detacher::Manager(node),
        Some(Role::Worker) | None => Detacher::Node(node),
    }
}

fn is_a_clone(node: &NodeId, description: &NodeDescription, twins: Twins) -> Status {
    let Twins { first, second } = twins;
    let name = &description.hostname;
    tracing::warn!(%node, name, %first, %second, "two machines say that they are this node");
    Status::already_exists(format!(
        "node {name} ({node}) has a session from {first} already, and this machine, {second}, shows the \
         same identity: its data directory is a copy. Stop weftd on one of them; to make this one a \
         node of its own, empty its data directory, start weftd and join the swarm"
    ))
}

#[tonic::async_trait]
impl Ca for Rpc {
    async fn get_root_ca(
        &self,
        _request: Request<GetRootCaRequest>,
    ) -> Result<Response<GetRootCaResponse>, Status> {
        let authority = self.0.authority().map_err(to_status)?;
        Ok(Response::new(GetRootCaResponse {
            root_pem: authority.root_pem().to_owned(),
        }))
    }

    async fn issue_certificate(
        &self,
        request: Request<IssueCertificateRequest>,
    ) -> Result<Response<IssueCertificateResponse>, Status> {
        let addr = peer(&request)?.addr;
        let request = request.into_inner();
        let role = request.token.parse::<Token>().ok().and_then(|token| {
            role_of_secret(&self.0.state(), &token.secret, |a, b| a.ct_eq(b).into())
        });
        let Some(role) = role else {
            self.0
                .quiet
                .joins
                .say(|| tracing::warn!(%addr, "a machine tried to join without a valid token"));
            return Err(Status::permission_denied(
                "A valid join token is necessary to join this cluster. The token may have been \
                 rotated: run `weft swarm join-token worker` on a manager and use what it prints.",
            ));
        };
        let node = description(request.schema, &request.node_json)?;
        if role == Role::Manager && node.manager_addr.is_none() {
            return Err(Status::invalid_argument(
                "the node does not say where the other managers reach it: its weftd is of a version \
                 that cannot join as a manager; update it, or join with the token of `weft swarm \
                 join-token worker`",
            ));
        }
        let availability = match request.availability_json.as_slice() {
            [] => Availability::default(),
            json => decode(request.schema, json)?,
        };
        let spec = NodeSpec {
            role,
            availability,
            ..NodeSpec::default()
        };
        let id = NodeId::from_entropy(super::engine::entropy().next_u128());
        // First the certificate: a request that cannot be signed must not leave a node behind.
        let authority = self.0.authority().map_err(to_status)?;
        let certificate_pem = authority
            .sign(
                &request.csr_pem,
                &id,
                role,
                &self.0.cluster,
                SystemTime::now(),
            )
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.0
            .run(|s, now, e| join_as(s, now, e, id.clone(), spec.clone(), &node))
            .await
            .map_err(to_status)?;
        self.0.health.heard(&id, Instant::now());
        tracing::info!(node = %id, hostname = node.hostname, %addr, "node joined");
        Ok(Response::new(IssueCertificateResponse { certificate_pem }))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateResponse>, Status> {
        let peer = peer(&request)?;
        let member = gate::renewer(&self.0, peer)?;
        let state = self.0.state();
        let node = state
            .nodes
            .get(&member.node)
            .ok_or_else(|| removed(&member.node))?;
        let role = self.0.role_to_certify(node)?;
        let authority = self.0.authority().map_err(to_status)?;
        let certificate_pem = authority
            .sign(
                &request.get_ref().csr_pem,
                &node.id,
                role,
                &self.0.cluster,
                SystemTime::now(),
            )
            .map_err(internal)?;
        if peer.lapsed {
            tracing::warn!(node = %node.id, addr = %peer.addr, "renewed a certificate that had run out");
        }
        Ok(Response::new(RenewCertificateResponse { certificate_pem }))
    }
}

/// The turn of a session; never, where it waits for none.
async fn granted(queued: &mut Option<oneshot::Receiver<Turn>>) -> Option<Turn> {
    match queued {
        Some(queued) => queued.await.ok(),
        None => std::future::pending().await,
    }
}

/// Streams orders until the node goes, a newer session replaces this one, or the manager stops.
async fn stream_orders(
    core: Arc<Engine>,
    node: NodeId,
    out: mpsc::Sender<Result<Outgoing, Status>>,
    mut replaced: Replaced,
) {
    let mut states = core.store.subscribe();
    let mut stop = core.stop.subscribe();
    let mut sent = Sent::default();
    let mut queued = None;
    loop {
        let permit = tokio::select! {
            permit = out.reserve() => permit,
            _ = &mut replaced => return,
            () = stopped(&mut stop) => return,
        };
        // The channel holds one message: whoever reads slowly gets the newest orders, not all.
        let Ok(permit) = permit else { return };
        let state = Arc::clone(&states.borrow_and_update());
        let heartbeat = core.timing.by(&state).heartbeat;
        let heartbeat_ms = u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX);
        match core
            .assignments
            .news(&state, &node, &mut sent, heartbeat_ms)
        {
            Ok(News::Message(message, turn)) => permit.send(Ok(Outgoing { message, turn })),
            Ok(News::Nothing) => drop(permit),
            Ok(News::Removed) => {
                permit.send(Err(removed(&node)));
                return;
            }
            Err(error) => {
                permit.send(Err(error));
                return;
            }
        }
        let wanted = sent.wanted();
        if wanted == 0 {
            queued = None;
        } else if queued.is_none() {
            queued = Some(core.assignments.queue(wanted));
        }
        tokio::select! {
            turn = granted(&mut queued) => {
                queued = None;
                sent.take_turn(turn);
                continue;
            }
            changed = states.changed() => if changed.is_err() { return },
            () = out.closed() => return,
            _ = &mut replaced => return,
            () = stopped(&mut stop) => return,
        }
        tokio::time::sleep(core.timing.debounce).await;
    }
}

#[tonic::async_trait]
impl Dispatcher for Rpc {
    /// What it carries goes around tonic's encoder: see `order_body`.
    type SessionStream = Empty<Result<SessionMessage, Status>>;

    async fn session(
        &self,
        request: Request<SessionRequest>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let member = self.member(&request)?;
        let addr = peer(&request)?.addr.ip();
        let root = peer(&request)?.roots.first().cloned().unwrap_or_default();
        let request = request.into_inner();
        let description = description(request.schema, &request.node_json)?;
        // First: a manager that has just started takes nodes without a session for unknown.
        let replaced = {
            let homes = [description.addr, description.data_path_addr];
            let caller = Caller::new(request.life, addr, &homes);
            let now = Instant::now();
            let silence = self.0.health.silence(&member.node, now);
            let period = self.0.heartbeat();
            let sessions = &self.0.sessions;
            let opened = sessions.open(&member.node, caller, silence, period, now);
            opened.map_err(|twins| is_a_clone(&member.node, &description, twins))?
        };
        self.0
            .change(|s, now, e| update_node(s, now, e, &member.node, &description))
            .await
            .map_err(to_status)?;
        // From now on no older one of this node is renewed after its time, and who waits for
        // certificates of another root knows.
        let since = unix_millis(member.not_before);
        self.0
            .change(|s, now, e| note_certificate(s, now, e, &member.node, since, &root))
            .await
            .map_err(to_status)?;
        self.0.health.heard(&member.node, Instant::now());
        self.set_state(&member.node, NodeState::Ready, "")
            .await
            .map_err(to_status)?;
        let (out, orders) = mpsc::channel(1);
        let core = Arc::clone(&self.0);
        tokio::spawn(stream_orders(core, member.node.clone(), out, replaced));
        let mut response = Response::new(tokio_stream::empty());
        response.extensions_mut().insert(Waiting::new(orders));
        Ok(response)
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let member = self.member(&request)?;
        let state = self.0.state();
        let state = state.nodes.get(&member.node).map(|n| n.status.state);
        if state != Some(NodeState::Ready) || self.0.health.is_unheard(&member.node) {
            // It was taken for dead, or this manager is new: its orders may have changed.
            return Err(Status::failed_precondition(
                "the session is not open any more; open a new one",
            ));
        }
        self.0.health.heard(&member.node, Instant::now());
        if let Some(vitals) = request.into_inner().vitals {
            self.0.vitals.note(&member.node, vitals_from_proto(vitals));
        }
        Ok(Response::new(HeartbeatResponse {}))
    }

    async fn update_task_status(
        &self,
        request: Request<UpdateTaskStatusRequest>,
    ) -> Result<Response<UpdateTaskStatusResponse>, Status> {
        let member = self.member(&request)?;
        let request = request.into_inner();
        if request.updates.len() > MAX_UPDATES {
            return Err(Status::invalid_argument(format!(
                "{} statuses in one message are too many: there may be {MAX_UPDATES}",
                request.updates.len()
            )));
        }
        let mut updates: Vec<(TaskId, TaskStatus)> = Vec::with_capacity(request.updates.len());
        for update in &request.updates {
            if update.status_json.len() > MAX_STATUS_JSON {
                tracing::warn!(node = %member.node, "ignored a report that is too long");
                continue;
            }
            let status = decode(request.schema, &update.status_json)?;
            updates.push((TaskId(update.task.clone()), status));
        }
        let plan =
            |s: &ClusterState, now, e: &mut weft_cluster::Entropy| {
                let mut changes = Vec::new();
                for (task, status) in &updates {
                    match update_task_status(s, now, e, &member.node, task, status) {
                        Ok(more) => changes.extend(more),
                        // One bad report must not hold the others up for ever.
                        Err(error) => self.0.quiet.reports.say(
                            || tracing::warn!(node = %member.node, %error, "ignored a report"),
                        ),
                    }
                }
                Ok(changes)
            };
        self.0.change(plan).await.map_err(to_status)?;
        Ok(Response::new(UpdateTaskStatusResponse {}))
    }

    async fn leave(
        &self,
        request: Request<LeaveRequest>,
    ) -> Result<Response<LeaveResponse>, Status> {
        let member = self.member(&request)?;
        self.0.sessions.end(&member.node);
        let never_started = request.get_ref().never_started;
        if never_started {
            // It is no manager, whatever its token was for.
            let role = self
                .0
                .change_role(member.node.as_str(), Role::Worker, false);
            role.await.map_err(to_status)?;
        }
        self.0
            .change(|s, now, e| {
                if never_started {
                    let id = member.node.as_str();
                    return Ok(remove_node(s, now, e, id, true)?.changes);
                }
                leave_node(s, now, e, &member.node)
            })
            .await
            .map_err(to_status)?;
        tracing::info!(node = %member.node, never_started, "node left");
        Ok(Response::new(LeaveResponse {}))
    }
}

#[tonic::async_trait]
impl Control for Rpc {
    async fn attach_endpoint(
        &self,
        request: Request<AttachEndpointRequest>,
    ) -> Result<Response<AttachEndpointResponse>, Status> {
        let member = self.member(&request)?;
        let request = request.into_inner();
        if request.attach_json.len() > MAX_ATTACH {
            return Err(Status::invalid_argument("the request is too long"));
        }
        let attach: Attach = decode(request.schema, &request.attach_json)?;
        let endpoint = self
            .0
            .run(|s, now, e| attach_endpoint(s, now, e, &member.node, attach.clone()))
            .await
            .map_err(to_status)?;
        Ok(Response::new(AttachEndpointResponse {
            schema: SCHEMA,
            endpoint_json: encode(&endpoint)?,
        }))
    }

    async fn detach_endpoint(
        &self,
        request: Request<DetachEndpointRequest>,
    ) -> Result<Response<DetachEndpointResponse>, Status> {
        let member = self.member(&request)?;
        let request = request.into_inner();
        let endpoint = self
            .0
            .run(|s, now, e| {
                let who = detacher(s, &member.node, request.force);
                detach_endpoint(s, now, e, who, &request.network, &request.endpoint)
            })
            .await
            .map_err(to_status)?;
        Ok(Response::new(DetachEndpointResponse {
            schema: SCHEMA,
            endpoint_json: encode(&endpoint)?,
        }))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let member = self.member(&request)?;
        let role = self
            .0
            .change_role(member.node.as_str(), Role::Worker, false);
        let (_, warnings) = role.await.map_err(to_status)?;
        tracing::info!(node = %member.node, "the node is a worker, as it asked");
        Ok(Response::new(ResignResponse { warnings }))
    }

    async fn count_managers(
        &self,
        request: Request<CountManagersRequest>,
    ) -> Result<Response<CountManagersResponse>, Status> {
        self.member(&request)?;
        let quorum = self.0.raft.quorum();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Response::new(CountManagersResponse {
            managers: count(quorum.managers),
            reachable: count(quorum.reachable),
        }))
    }
}
