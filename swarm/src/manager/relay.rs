//! Calls of the node API that reach a manager which does not lead go to the one that does. While
//! another one is elected they wait; what may have been carried out is not asked twice.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Status};
use weft_cluster::{CommandError, Leadership};
use weft_model::id::NodeId;

use super::api::{ApiCall, ApiReply};
use super::engine::{Engine, stopped};
use crate::convert::from_status;
use crate::identity::Identity;
use crate::leader_hint::is_not_led;
use crate::proto::CallRequest;
use crate::proto::api_client::ApiClient;
use crate::raft::RaftStore;
use crate::tls::{connect, member_config};

/// How long a swarm may be without a leader until calls are refused at once. An election takes 1.5 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts, unless another one leads before that.
const PAUSE: Duration = Duration::from_millis(50);
/// Until there is a connection: a leader whose machine is gone does not answer at all.
const DIAL: Duration = Duration::from_secs(2);
/// Until there is an answer. The leader gives up before that.
const ANSWER: Duration = Duration::from_secs(35);
/// Bytes of an answer at most, as a client of the node API takes them.
const MAX_ANSWER: usize = 64 << 20;

/// Why there is no answer.
enum Failure {
    /// Nothing was done: another attempt may follow.
    NotAsked(CommandError),
    /// It may have been done.
    NotAnswered(CommandError),
    /// It was refused, and would be again.
    Refused(CommandError),
}

/// What a request that failed has done.
fn failure(status: &Status) -> Failure {
    let error = from_status(status);
    if is_not_led(status) || never_sent(status) {
        return Failure::NotAsked(error);
    }
    match status.code() {
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented
        | Code::InvalidArgument
        | Code::ResourceExhausted
        | Code::OutOfRange => Failure::Refused(error),
        _ => Failure::NotAnswered(error),
    }
}

/// Whether a request found no connection: the one that there was had ended, and another one could not
/// be made.
fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Nobody knows whether a change was made.
fn undecided(error: &CommandError) -> CommandError {
    CommandError::unavailable(format!(
        "the manager that leads did not answer ({error}): the change may have been made or not; look \
         whether it was, and try again"
    ))
}

/// A connection to a leader.
#[derive(Debug, Clone)]
struct Line {
    addr: SocketAddr,
    /// What it was made with, and may not count for ever.
    by: Arc<Identity>,
    channel: Channel,
}

/// See the module.
/// No two of its locks are held at once.
#[derive(Debug)]
pub(super) struct Relay {
    core: Arc<Engine>,
    /// Knows where managers reach each other.
    raft: Arc<RaftStore>,
    /// To the leader that was asked last.
    line: Mutex<Option<Line>>,
    /// Since when no leader is known, while that is so.
    leaderless: Mutex<Option<Instant>>,
}

impl Relay {
    pub(super) fn new(core: Arc<Engine>, raft: Arc<RaftStore>) -> Self {
        Self {
            core,
            raft,
            line: Mutex::default(),
            leaderless: Mutex::default(),
        }
    }

    fn line(&self) -> MutexGuard<'_, Option<Line>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaderless(&self) -> MutexGuard<'_, Option<Instant>> {
        let leaderless = self.leaderless.lock();
        leaderless.unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes since when there is no leader, until the manager stops.
    pub(super) async fn watch_leader(self: Arc<Self>) {
        let mut stop = self.core.stop.subscribe();
        let mut leadership = self.core.store.leadership();
        loop {
            let is_led = !matches!(
                &*leadership.borrow_and_update(),
                Leadership::Follower { leader: None }
            );
            {
                let mut leaderless = self.leaderless();
                *leaderless = if is_led {
                    None
                } else {
                    leaderless.or_else(|| Some(Instant::now()))
                };
            }
            tokio::select! {
                changed = leadership.changed() => if changed.is_err() { return },
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// Has the leader answer. Nothing when this manager leads: it is to answer itself.
    pub(super) async fn pass_on(&self, call: &ApiCall) -> Result<Option<ApiReply>, CommandError> {
        let since = *self.leaderless();
        let until = since.unwrap_or_else(Instant::now) + PATIENCE;
        let mut leadership = self.core.store.leadership();
        loop {
            let leader = match &*leadership.borrow_and_update() {
                Leadership::Leader { .. } => return Ok(None),
                Leadership::Follower { leader } => leader.clone(),
            };
            let error = match self.attempt(leader, call, &mut leadership).await {
                Ok(reply) => return Ok(Some(reply)),
                Err(Failure::NotAsked(error)) => error,
                Err(Failure::NotAnswered(error)) if call.is_read() => error,
                Err(Failure::NotAnswered(error)) => return Err(undecided(&error)),
                Err(Failure::Refused(error)) => return Err(error),
            };
            if Instant::now() >= until {
                return Err(error);
            }
            tracing::debug!(%error, "a call waits for the leader of the swarm");
            tokio::select! {
                _ = leadership.changed() => {}
                () = sleep(PAUSE) => {}
            }
        }
    }

    fn addr_of(&self, manager: &NodeId) -> Option<SocketAddr> {
        let members = self.raft.members();
        let member = members.iter().find(|member| member.node == *manager);
        member.map(|member| member.addr)
    }

    /// Asks one leader. A read does not wait for one that is none any more.
    async fn attempt(
        &self,
        leader: Option<NodeId>,
        call: &ApiCall,
        leadership: &mut watch::Receiver<Leadership>,
    ) -> Result<ApiReply, Failure> {
        let addr = leader.as_ref().and_then(|leader| self.addr_of(leader));
        let Some(addr) = addr else {
            return Err(Failure::NotAsked(self.core.not_leader(leader)));
        };
        if !call.is_read() {
            return self.ask(addr, call).await;
        }
        tokio::select! {
            biased;
            reply = self.ask(addr, call) => reply,
            _ = leadership.changed() => Err(Failure::NotAsked(self.core.not_leader(None))),
        }
    }

    async fn ask(&self, addr: SocketAddr, call: &ApiCall) -> Result<ApiReply, Failure> {
        let channel = self.channel(addr).await.map_err(Failure::NotAsked)?;
        let mut client = ApiClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let request = CallRequest {
            method: call.method.clone(),
            path: call.path.clone(),
            body: call.body.clone(),
        };
        let asked = timeout(ANSWER, client.call(request)).await;
        let Ok(answer) = asked else {
            self.forget(addr);
            let seconds = ANSWER.as_secs();
            return Err(Failure::NotAnswered(CommandError::unavailable(format!(
                "no answer from {addr} within {seconds} seconds"
            ))));
        };
        let reply = answer.map_err(|status| {
            self.forget(addr);
            failure(&status)
        })?;
        let reply = reply.into_inner();
        if reply.not_led {
            // It has just lost its lead, or does not know of it yet.
            return Err(Failure::NotAsked(self.core.not_leader(None)));
        }
        let status = u16::try_from(reply.status).map_err(|_| {
            let text = format!("{addr} answered with status {}", reply.status);
            Failure::NotAnswered(CommandError::unavailable(text))
        })?;
        Ok(ApiReply {
            status,
            content_type: reply.content_type,
            body: reply.body,
            not_led: false,
        })
    }

    /// The connection to a leader, made where there is none.
    async fn channel(&self, addr: SocketAddr) -> Result<Channel, CommandError> {
        let identity = Arc::clone(&self.core.own.borrow());
        let known = self.line().clone();
        if let Some(line) = known.filter(|l| l.addr == addr && Arc::ptr_eq(&l.by, &identity)) {
            return Ok(line.channel);
        }
        let config = member_config(&identity)?;
        let remote = addr.to_string();
        let connected = timeout(DIAL, connect(&remote, config)).await;
        let channel = connected.map_err(|_| {
            let seconds = DIAL.as_secs();
            CommandError::unavailable(format!(
                "the manager at {addr}, which leads, was not reached within {seconds} seconds"
            ))
        })??;
        *self.line() = Some(Line {
            addr,
            by: identity,
            channel: channel.clone(),
        });
        Ok(channel)
    }

    /// The next call makes another connection, with the newest certificate.
    fn forget(&self, addr: SocketAddr) {
        let mut line = self.line();
        if line.as_ref().is_some_and(|line| line.addr == addr) {
            *line = None;
        }
    }
}
