//! Decides who may call what, by certificate and path, before a byte of the body is read.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Context, Poll, Service, StdError};
use tonic::service::Routes;
use weft_model::id::NodeId;
use weft_model::objects::Role;

use super::engine::Engine;
use super::lapsed::{may_be_renewed, only_renewal};
use super::order_body::carry;
use crate::convert::to_status;
use crate::door::count;
use crate::identity::PeerIdentity;
use crate::leader_hint::name_leader;

/// What a machine without a certificate may call: all that joining needs. Whatever is not here is
/// for members.
const OPEN: [&str; 2] = [ROOT, ISSUE];
const ROOT: &str = "/weft.v1.Ca/GetRootCa";
const ISSUE: &str = "/weft.v1.Ca/IssueCertificate";
/// What a member may call whose certificate has run out: this, and nothing else.
const RENEW: &str = "/weft.v1.Ca/RenewCertificate";
/// What managers alone may call, and on each other whoever leads.
const LOG: &str = "/weft.v1.Raft/";
/// What managers alone may call, and on the leader: the calls of their users.
const API: &str = "/weft.v1.Api/";

/// Calls on one connection without a certificate; joining takes one on each of two.
const STRANGER_CALLS: usize = 8;
/// Until a call is answered; streams go on as long as they like after that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Who is on the other side of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// From its certificate; nothing for a machine that wants to join.
    pub(super) member: Option<Arc<PeerIdentity>>,
    /// The certificate has run out: all that it is good for is its renewal.
    pub(super) lapsed: bool,
    /// Root certificates that vouch for it, by digest: first the one that made it.
    pub(super) roots: Arc<[String]>,
}

pub(super) fn removed(node: &NodeId) -> Status {
    Status::permission_denied(format!(
        "Permission denied: node {node} was removed from swarm; run \"weft swarm leave\" there, \
         with --force where it was a manager, and join again"
    ))
}

/// The member on the other side of a connection, if it still is one and its certificate counts.
pub(super) fn member(core: &Engine, peer: &Peer) -> Result<Arc<PeerIdentity>, Status> {
    let member = known(core, peer)?;
    if peer.lapsed {
        return Err(only_renewal(&member, SystemTime::now()));
    }
    Ok(member)
}

/// The manager on the other side of a connection, by its certificate and as far as is known here. A
/// manager that has just been made one, or was away, does not know all of them: it lets others speak, and
/// the log asks what they know.
pub(super) fn manager(core: &Engine, peer: &Peer) -> Result<Arc<PeerIdentity>, Status> {
    let member = certified(core, peer)?;
    if peer.lapsed {
        return Err(only_renewal(&member, SystemTime::now()));
    }
    let state = core.state();
    let known = state.nodes.get(&member.node);
    // One that is being demoted has a part in the log until it is out of it.
    let is_manager = known.is_some_and(|n| n.spec.role == Role::Manager)
        || core.raft.has(&member.node)
        || core.raft.is_behind();
    if member.role != Role::Manager || !is_manager {
        return Err(Status::permission_denied(format!(
            "Permission denied: node {} is no manager",
            member.node
        )));
    }
    Ok(member)
}

/// The member on the other side, if it still is one and its certificate may be renewed.
pub(super) fn renewer(core: &Engine, peer: &Peer) -> Result<Arc<PeerIdentity>, Status> {
    let member = known(core, peer)?;
    if peer.lapsed {
        let state = core.state();
        let node = state.nodes.get(&member.node);
        let node = node.ok_or_else(|| removed(&member.node))?;
        let authority = core.authority().map_err(to_status)?;
        may_be_renewed(&member, node, authority.validity(), SystemTime::now())?;
    }
    Ok(member)
}

/// Who has a certificate of a node of this swarm that is there, whatever its age.
fn known(core: &Engine, peer: &Peer) -> Result<Arc<PeerIdentity>, Status> {
    let member = certified(core, peer)?;
    if !core.state().nodes.contains_key(&member.node) {
        return Err(removed(&member.node));
    }
    Ok(member)
}

/// Who has a certificate of this swarm, whatever its age; nobody who was removed.
fn certified(core: &Engine, peer: &Peer) -> Result<Arc<PeerIdentity>, Status> {
    let member = peer.member.clone().ok_or_else(|| {
        Status::permission_denied(format!(
            "Permission denied: {} has no node certificate; join the swarm first",
            peer.addr
        ))
    })?;
    if member.cluster != core.cluster {
        return Err(Status::permission_denied(format!(
            "Permission denied: node {} belongs to another swarm",
            member.node
        )));
    }
    if core.state().was_removed(&member.node) {
        return Err(removed(&member.node));
    }
    if !core.counts(&peer.roots) {
        return Err(Status::permission_denied(format!(
            "Permission denied: the root that made the certificate of node {} was replaced, and does \
             not count any more; run \"weft swarm leave --force\" there and join again",
            member.node
        )));
    }
    Ok(member)
}

/// What the gate tells the task of its connection.
#[derive(Debug, Default)]
pub(super) struct Visit {
    calls: AtomicUsize,
    joining: AtomicUsize,
    /// The connection is to be closed once what was asked is answered.
    pub(super) over: Notify,
}

impl Visit {
    /// True while somebody is being made a member.
    pub(super) fn joining(&self) -> bool {
        self.joining.load(Ordering::Relaxed) > 0
    }
}

/// Counts a join that is under way.
struct Joining(Arc<Visit>);

impl Joining {
    fn begin(visit: &Arc<Visit>) -> Self {
        visit.joining.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(visit))
    }
}

impl Drop for Joining {
    fn drop(&mut self) {
        self.0.joining.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The services of a manager, behind the question who asks. One for each connection.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) core: Arc<Engine>,
    pub(super) peer: Peer,
    pub(super) visit: Arc<Visit>,
    pub(super) routes: Routes,
}

impl Gate {
    fn may_call(&self, path: &str) -> Result<(), Status> {
        if self.peer.lapsed {
            let calls = self.visit.calls.fetch_add(1, Ordering::Relaxed);
            if path == RENEW && calls < STRANGER_CALLS {
                return renewer(&self.core, &self.peer).map(drop);
            }
        }
        if path.starts_with(API) && self.core.check_leads().is_ok() {
            // The leader knows all managers; another one says that it is none.
            member(&self.core, &self.peer)?;
        }
        if path.starts_with(LOG) || path.starts_with(API) {
            let manager = manager(&self.core, &self.peer).map(drop);
            if manager.is_err() && path.starts_with(LOG) {
                self.note_past();
            }
            return manager;
        }
        if self.peer.lapsed || !OPEN.contains(&path) {
            return member(&self.core, &self.peer).map(drop);
        }
        if member(&self.core, &self.peer).is_err()
            && self.visit.calls.fetch_add(1, Ordering::Relaxed) >= STRANGER_CALLS
        {
            return Err(Status::resource_exhausted(
                "too many calls on a connection without a node certificate",
            ));
        }
        Ok(())
    }

    /// Takes note of who was a manager, and speaks as one yet.
    fn note_past(&self) {
        let Some(member) = &self.peer.member else {
            return;
        };
        let state = self.core.state();
        let known = state.nodes.get(&member.node);
        let was_one = known.is_some_and(|node| node.spec.role == Role::Worker)
            || state.was_removed(&member.node);
        if was_one && member.role == Role::Manager && member.cluster == self.core.cluster {
            let from = self.peer.addr.ip().to_canonical();
            self.core.past.called(&member.node, from, Instant::now());
        }
    }

    /// The caller gets his answer, and with it the end of the connection.
    fn refuse(&self, path: &str, status: Status) -> Response<Body> {
        count(&self.core.door.counters().calls_refused);
        let (addr, why) = (self.peer.addr, status.code());
        self.core
            .quiet
            .calls
            .say(|| tracing::warn!(%addr, path, ?why, "refused a call to the manager"));
        self.visit.over.notify_one();
        status.into_http()
    }
}

impl<B> Service<Request<B>> for Gate
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        if let Err(status) = self.may_call(path) {
            // The body is dropped with the request: its stream is reset.
            let refused = self.refuse(path, status);
            return Box::pin(std::future::ready(Ok(refused)));
        }
        if path != ROOT
            && !path.starts_with(LOG)
            && let Err(error) = self.core.check_leads()
        {
            // Nobody's fault: the caller tries the next manager.
            let status = name_leader(to_status(error), self.core.leader_addr());
            let refused: Response<Body> = status.into_http();
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let joining = (path == ISSUE).then(|| Joining::begin(&self.visit));
        request.extensions_mut().insert(self.peer.clone());
        let answer = self.routes.call(request);
        let (core, visit, peer) = (
            Arc::clone(&self.core),
            Arc::clone(&self.visit),
            self.peer.clone(),
        );
        Box::pin(async move {
            let answer = match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
                Ok(Ok(answer)) => carry(answer),
                Ok(Err(never)) => match never {},
                Err(_) => Status::deadline_exceeded("the call took too long").into_http(),
            };
            if joining.is_some() {
                // One attempt for each connection, and few for each address.
                if Status::from_header_map(answer.headers()).is_some() {
                    count(&core.door.counters().joins_refused);
                    core.door.strike(peer.addr.ip());
                }
                visit.over.notify_one();
            }
            Ok(answer)
        })
    }
}
