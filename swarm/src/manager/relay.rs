//! Calls of the node API that reach a manager which does not lead go to the one that does. While
//! another one is elected they wait; what may have been carried out is not asked twice. A read that is
//! too long to travel is answered here, once this manager is as far as the leader was.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Status};
use weft_cluster::{CommandError, Leadership};
use weft_model::id::NodeId;
use weft_model::talk::Talk;

use super::api::{ApiCall, ApiReply};
use super::engine::{Engine, stopped};
use crate::convert::{encode, from_status};
use crate::exchange::{Exchange, MAX_PIECE};
use crate::identity::Identity;
use crate::leader_hint::is_not_led;
use crate::proto::api_client::ApiClient;
use crate::proto::raft_client::RaftClient;
use crate::proto::{CallRequest, Piece, ReadIndexRequest};
use crate::raft::RaftStore;
use crate::tls::{Upkeep, connect_with, member_config};

/// How long a swarm may be without a leader until calls are refused at once. An election takes 1.5 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts, unless another one leads before that.
const PAUSE: Duration = Duration::from_millis(50);
/// Until there is a connection: a leader whose machine is gone does not answer at all.
const DIAL: Duration = Duration::from_secs(2);
/// What a leader of before may yet say of a change that it was sent, once another one leads.
const LAST_WORDS: Duration = Duration::from_millis(250);
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
    /// Who asks is not let in by what the connection showed when it was made; nothing was done.
    Denied(CommandError),
}

/// What a request that failed has done.
fn failure(status: &Status) -> Failure {
    let error = from_status(status);
    if is_not_led(status) || never_sent(status) {
        return Failure::NotAsked(error);
    }
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Failure::Denied(error),
        Code::Unimplemented
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

/// Whether another manager leads than `leader`.
fn is_another(now: &Leadership, leader: Option<&NodeId>) -> bool {
    match now {
        Leadership::Leader { .. } => true,
        Leadership::Follower { leader: now } => now.is_some() && now.as_ref() != leader,
    }
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
    /// The same for conversations: who does not read holds up no calls.
    talk_line: Mutex<Option<Line>>,
    /// Since when no leader is known, while that is so.
    leaderless: Mutex<Option<Instant>>,
}

impl Relay {
    pub(super) fn new(core: Arc<Engine>, raft: Arc<RaftStore>) -> Self {
        Self {
            core,
            raft,
            line: Mutex::default(),
            talk_line: Mutex::default(),
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

    /// Until when a call waits for a leader.
    fn until(&self) -> Instant {
        let since = *self.leaderless();
        since.unwrap_or_else(Instant::now) + PATIENCE
    }

    /// Waits until this manager has all that anybody was told is stored when this was called.
    pub(super) async fn catch_up(&self) -> Result<(), CommandError> {
        let until = self.until();
        let mut leadership = self.core.store.leadership();
        let version = loop {
            let leader = match &*leadership.borrow_and_update() {
                Leadership::Leader { .. } => None,
                Leadership::Follower { leader } => Some(leader.clone()),
            };
            let asked = match leader {
                None => return self.confirm_lead().await,
                Some(leader) => {
                    let mut news = leadership.clone();
                    tokio::select! {
                        biased;
                        asked = self.read_index(leader) => asked,
                        _ = news.changed() => Err(self.core.not_leader(None)),
                    }
                }
            };
            match asked {
                Ok(version) => break version,
                Err(error) if Instant::now() >= until => return Err(error),
                Err(error) => tracing::debug!(%error, "a read waits for the leader of the swarm"),
            }
            tokio::select! {
                _ = leadership.changed() => {}
                () = sleep(PAUSE) => {}
            }
        };
        let mut states = self.core.store.subscribe();
        let caught_up = timeout(PATIENCE, states.wait_for(|state| state.version >= version));
        if caught_up.await.is_ok_and(|state| state.is_ok()) {
            return Ok(());
        }
        Err(CommandError::unavailable(
            "this manager does not have yet what the one that leads has; try again, or ask that one \
             (`weft node ls` shows which)",
        ))
    }

    async fn confirm_lead(&self) -> Result<(), CommandError> {
        let confirmed = self.core.store.confirm_lead().await;
        confirmed.map_err(|error| self.core.not_proposed(error))
    }

    /// How far the state of the leader is, once it is sure that it leads.
    async fn read_index(&self, leader: Option<NodeId>) -> Result<u64, CommandError> {
        let addr = leader.as_ref().and_then(|leader| self.addr_of(leader));
        let Some(addr) = addr else {
            return Err(self.core.not_leader(leader));
        };
        let mut client = RaftClient::new(self.channel(addr).await?);
        let asked = timeout(PATIENCE, client.read_index(ReadIndexRequest {})).await;
        let answer = asked.unwrap_or_else(|_| Err(Status::unavailable("it does not answer")));
        let answer = answer.map_err(|status| {
            self.forget(addr);
            from_status(&status)
        })?;
        Ok(answer.into_inner().state_version)
    }

    /// Has the leader answer. Nothing when this manager leads: it is to answer itself.
    pub(super) async fn pass_on(&self, call: &ApiCall) -> Result<Option<ApiReply>, CommandError> {
        let until = self.until();
        let mut leadership = self.core.store.leadership();
        loop {
            let leader = match &*leadership.borrow_and_update() {
                Leadership::Leader { .. } => return Ok(None),
                Leadership::Follower { leader } => leader.clone(),
            };
            let error = match self.attempt(leader, call, &leadership).await {
                Ok(reply) => return Ok(Some(reply)),
                Err(Failure::NotAsked(error)) => error,
                Err(Failure::NotAnswered(error)) if call.is_read() => error,
                Err(Failure::NotAnswered(error)) => return Err(undecided(&error)),
                Err(Failure::Refused(error) | Failure::Denied(error)) => return Err(error),
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

    /// Asks one leader, for as long as it may be the one: neither a connection to it is waited for, nor its
    /// answer, when another one leads. A change does not go to one that is silent: nobody would know what
    /// became of it.
    async fn attempt(
        &self,
        leader: Option<NodeId>,
        call: &ApiCall,
        leadership: &watch::Receiver<Leadership>,
    ) -> Result<ApiReply, Failure> {
        let addr = leader.as_ref().and_then(|leader| self.addr_of(leader));
        let Some(addr) = addr else {
            return Err(Failure::NotAsked(self.core.not_leader(leader)));
        };
        if !call.is_read() && !self.raft.has_leader() {
            return Err(Failure::NotAsked(self.core.not_leader(None)));
        }
        // Who called looks at the news as well.
        let mut news = leadership.clone();
        let sent = AtomicBool::new(false);
        let is_over = async {
            if call.is_read() {
                drop(news.changed().await);
                return;
            }
            drop(news.wait_for(|now| is_another(now, leader.as_ref())).await);
            if sent.load(Ordering::Relaxed) {
                sleep(LAST_WORDS).await;
            }
        };
        tokio::select! {
            biased;
            reply = self.ask(addr, call, &sent) => reply,
            () = is_over => {
                self.forget(addr);
                let error = self.core.not_leader(None);
                Err(if sent.load(Ordering::Relaxed) {
                    Failure::NotAnswered(error)
                } else {
                    Failure::NotAsked(error)
                })
            }
        }
    }

    /// Asks, and once more by another connection where the one that there was is not let in: what it
    /// showed may not count any more. `sent` becomes true when the leader may have heard of the call.
    async fn ask(
        &self,
        addr: SocketAddr,
        call: &ApiCall,
        sent: &AtomicBool,
    ) -> Result<ApiReply, Failure> {
        let was_there = self.line().is_some();
        match self.ask_once(addr, call, sent).await {
            Err(Failure::Denied(_)) if was_there => {
                sent.store(false, Ordering::Relaxed);
                self.ask_once(addr, call, sent).await
            }
            answered => answered,
        }
    }

    async fn ask_once(
        &self,
        addr: SocketAddr,
        call: &ApiCall,
        sent: &AtomicBool,
    ) -> Result<ApiReply, Failure> {
        let channel = self.channel(addr).await.map_err(Failure::NotAsked)?;
        sent.store(true, Ordering::Relaxed);
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

    /// Has the leader begin a conversation. Nothing when this manager leads.
    pub(super) async fn open(&self, talk: &Talk) -> Result<Option<Exchange>, CommandError> {
        let until = self.until();
        let mut leadership = self.core.store.leadership();
        loop {
            let leader = match &*leadership.borrow_and_update() {
                Leadership::Leader { .. } => return Ok(None),
                Leadership::Follower { leader } => leader.clone(),
            };
            let error = match self.open_once(leader, talk).await {
                Ok(exchange) => return Ok(Some(exchange)),
                Err(Failure::NotAsked(error)) => error,
                Err(
                    Failure::NotAnswered(error) | Failure::Refused(error) | Failure::Denied(error),
                ) => return Err(error),
            };
            if Instant::now() >= until {
                return Err(error);
            }
            tokio::select! {
                _ = leadership.changed() => {}
                () = sleep(PAUSE) => {}
            }
        }
    }

    async fn open_once(&self, leader: Option<NodeId>, talk: &Talk) -> Result<Exchange, Failure> {
        let addr = leader.as_ref().and_then(|leader| self.addr_of(leader));
        let Some(addr) = addr else {
            return Err(Failure::NotAsked(self.core.not_leader(leader)));
        };
        let data = encode(talk).map_err(|status| Failure::Refused(from_status(&status)))?;
        let channel = self.line_to(&self.talk_line, addr).await;
        let mut client = ApiClient::new(channel.map_err(Failure::NotAsked)?)
            .max_decoding_message_size(MAX_PIECE);
        let first = Piece {
            id: 0,
            data: data.into(),
        };
        let dialled = Exchange::dial(first, |stream| async move { client.open(stream).await });
        let opened = timeout(ANSWER, dialled).await;
        let opened = opened.unwrap_or_else(|_| Err(Status::unavailable("it does not answer")));
        opened.map_err(|status| {
            *self
                .talk_line
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = None;
            failure(&status)
        })
    }

    /// The connection to a leader, made where there is none.
    async fn channel(&self, addr: SocketAddr) -> Result<Channel, CommandError> {
        self.line_to(&self.line, addr).await
    }

    async fn line_to(
        &self,
        kept: &Mutex<Option<Line>>,
        addr: SocketAddr,
    ) -> Result<Channel, CommandError> {
        let identity = Arc::clone(&self.core.own.borrow());
        let kept = || kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().clone();
        if let Some(line) = known.filter(|l| l.addr == addr && Arc::ptr_eq(&l.by, &identity)) {
            return Ok(line.channel);
        }
        let config = member_config(&identity)?;
        let remote = addr.to_string();
        let connected = timeout(DIAL, connect_with(&remote, config, Upkeep::Once)).await;
        let channel = connected.map_err(|_| {
            let seconds = DIAL.as_secs();
            CommandError::unavailable(format!(
                "the manager at {addr}, which leads, was not reached within {seconds} seconds"
            ))
        })??;
        *kept() = Some(Line {
            addr,
            by: identity,
            channel: channel.clone(),
        });
        Ok(channel)
    }

    /// Has the next call to a leader go by this connection.
    #[cfg(test)]
    pub(super) fn hold(&self, addr: SocketAddr, channel: Channel) {
        let by = Arc::clone(&self.core.own.borrow());
        *self.line() = Some(Line { addr, by, channel });
    }

    /// The next call makes another connection, with the newest certificate.
    fn forget(&self, addr: SocketAddr) {
        let mut line = self.line();
        if line.as_ref().is_some_and(|line| line.addr == addr) {
            *line = None;
        }
    }
}
