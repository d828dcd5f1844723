//! Calls to the other members: one connection to each, kept and made again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{RaftNetwork, RaftNetworkFactory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use weft_cluster::CommandError;

use super::links::Links;
use super::types::{LogId, Member, RaftId, Types};
use super::wire::{Installed, SnapshotOf};
use crate::convert::{SCHEMA, decode, encode};
use crate::identity::Identity;
use crate::proto::raft_client::RaftClient;
use crate::proto::{RaftRequest, RaftResponse, SnapshotChunk};
use crate::tls::{connect, member_config};

/// Between two attempts to connect: the first pause, and the longest.
const DIAL_MIN: Duration = Duration::from_millis(50);
const DIAL_MAX: Duration = Duration::from_secs(2);
/// A call waits so long for a connection. openraft gives most calls little more.
const LINK_WAIT: Duration = Duration::from_millis(80);
/// Pauses of openraft before it calls a member again that was not reached; the last one stays.
const CALL_PAUSES: [u64; 4] = [20, 50, 100, 200];

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreached(String);

impl From<Status> for Unreached {
    fn from(status: Status) -> Self {
        Self(format!("{:?}: {}", status.code(), status.message()))
    }
}

impl Unreached {
    fn as_error<E: std::error::Error>(&self) -> RPCError<RaftId, Member, E> {
        RPCError::Unreachable(Unreachable::new(self))
    }
}

/// A connection to one member.
#[derive(Debug)]
struct Link {
    channel: watch::Receiver<Option<Channel>>,
    broken: Arc<Notify>,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    fn to(addr: SocketAddr, own: watch::Receiver<Arc<Identity>>) -> Self {
        let (sender, channel) = watch::channel(None);
        let broken = Arc::new(Notify::new());
        let task = tokio::spawn(keep(addr, own, sender, Arc::clone(&broken)));
        Self {
            channel,
            broken,
            task: task.abort_handle(),
        }
    }

    async fn client(&self) -> Result<RaftClient<Channel>, Unreached> {
        let mut channel = self.channel.clone();
        let ready = timeout(LINK_WAIT, connected(&mut channel)).await;
        let channel = ready.ok().flatten();
        channel
            .map(RaftClient::new)
            .ok_or_else(|| Unreached("there is no connection".to_owned()))
    }

    /// What an answer says, and whether the connection is still one.
    fn answer<T: DeserializeOwned>(
        &self,
        answer: Result<tonic::Response<RaftResponse>, Status>,
    ) -> Result<T, Unreached> {
        let answer = answer.inspect_err(|status| {
            if matches!(
                status.code(),
                Code::Unavailable | Code::Unknown | Code::Cancelled
            ) {
                self.broken.notify_waiters();
            }
        })?;
        let RaftResponse {
            schema,
            response_json,
        } = answer.into_inner();
        Ok(decode(schema, &response_json)?)
    }
}

async fn connected(channel: &mut watch::Receiver<Option<Channel>>) -> Option<Channel> {
    let found = channel.wait_for(Option::is_some).await.ok()?;
    found.clone()
}

async fn dial(addr: SocketAddr, own: &Identity) -> Result<Channel, CommandError> {
    let config = member_config(own)?;
    connect(&addr.to_string(), config).await
}

/// Connects, and connects again whenever the connection broke; with the newest certificate.
async fn keep(
    addr: SocketAddr,
    mut own: watch::Receiver<Arc<Identity>>,
    channel: watch::Sender<Option<Channel>>,
    broken: Arc<Notify>,
) {
    let mut pause = DIAL_MIN;
    loop {
        let identity = Arc::clone(&own.borrow_and_update());
        match dial(addr, &identity).await {
            Ok(new) => {
                pause = DIAL_MIN;
                let gone = broken.notified();
                channel.send_replace(Some(new));
                tokio::select! {
                    () = gone => {}
                    // What this one was made with may not count much longer.
                    Ok(()) = own.changed() => continue,
                }
                channel.send_replace(None);
            }
            Err(error) => {
                tracing::debug!(%addr, %error, "another manager is not reached");
                sleep(pause).await;
                pause = (pause * 2).min(DIAL_MAX);
            }
        }
    }
}

/// A member that has another address is another place to call.
type LinksByAddress = BTreeMap<(RaftId, SocketAddr), Arc<Link>>;

/// Makes lines to members; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    own: watch::Receiver<Arc<Identity>>,
    known: Arc<Links>,
    links: Arc<Mutex<LinksByAddress>>,
}

impl Dialer {
    /// Shows the newest of the certificates `own`, and tells `known` who answers.
    pub(crate) fn new(own: watch::Receiver<Arc<Identity>>, known: Arc<Links>) -> Self {
        Self {
            own,
            known,
            links: Arc::default(),
        }
    }

    fn link(&self, target: RaftId, addr: SocketAddr) -> Arc<Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        // A member has one address: that of another one, or of before, is not needed any more.
        links.retain(|(id, at), link| {
            let is_other = *id == target && *at != addr;
            !is_other || Arc::strong_count(link) > 1
        });
        let link = links
            .entry((target, addr))
            .or_insert_with(|| Arc::new(Link::to(addr, self.own.clone())));
        Arc::clone(link)
    }
}

impl RaftNetworkFactory<Types> for Dialer {
    type Network = Line;

    async fn new_client(&mut self, target: RaftId, node: &Member) -> Line {
        Line {
            target,
            link: self.link(target, node.addr),
            known: Arc::clone(&self.known),
            sending: None,
        }
    }
}

/// Entries on their way. openraft gives up after the time of a heartbeat, which is too short for a
/// long entry or a slow disk; the call goes on, and its answer counts when openraft tries again.
#[derive(Debug)]
struct Sending {
    after: Option<LogId>,
    last: Option<LogId>,
    answer: JoinHandle<Result<AppendEntriesResponse<RaftId>, Unreached>>,
}

impl Sending {
    /// Whether they are those of this request, or the first of them.
    fn is_part_of(&self, request: &AppendEntriesRequest<Types>) -> bool {
        let mut entries = request.entries.iter();
        self.after == request.prev_log_id && entries.any(|entry| Some(entry.log_id) == self.last)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.answer.abort();
    }
}

/// The way to one member, for one of openraft's tasks.
#[derive(Debug)]
pub(crate) struct Line {
    target: RaftId,
    link: Arc<Link>,
    known: Arc<Links>,
    sending: Option<Sending>,
}

impl Line {
    fn request<T: Serialize>(&self, request: &T) -> Result<RaftRequest, Unreached> {
        let (list_term, list_index) = self.known.list();
        Ok(RaftRequest {
            schema: SCHEMA,
            target: self.target,
            list_term,
            list_index,
            request_json: encode(request)?,
        })
    }

    /// Sends entries, or none, for as long as it takes.
    fn send(
        &self,
        request: &AppendEntriesRequest<Types>,
    ) -> impl Future<Output = Result<AppendEntriesResponse<RaftId>, Unreached>> + use<> {
        let (target, link) = (self.target, Arc::clone(&self.link));
        let (known, request) = (Arc::clone(&self.known), self.request(request));
        async move {
            let mut client = link.client().await?;
            let answer = link.answer(client.append(request?).await)?;
            known.heard(target);
            Ok(answer)
        }
    }

    async fn ask(&self, request: &VoteRequest<RaftId>) -> Result<VoteResponse<RaftId>, Unreached> {
        let request = self.request(request)?;
        let mut client = self.link.client().await?;
        let answer = self.link.answer(client.vote(request).await)?;
        self.known.heard(self.target);
        Ok(answer)
    }

    async fn install(&self, part: InstallSnapshotRequest<Types>) -> Result<Installed, Unreached> {
        let (list_term, list_index) = self.known.list();
        let of = SnapshotOf {
            vote: part.vote,
            meta: part.meta,
        };
        let chunk = SnapshotChunk {
            schema: SCHEMA,
            target: self.target,
            list_term,
            list_index,
            of_json: encode(&of)?,
            offset: part.offset,
            data: part.data,
            done: part.done,
        };
        let mut client = self.link.client().await?;
        let answer = self.link.answer(client.install(chunk).await)?;
        self.known.heard(self.target);
        Ok(answer)
    }
}

impl RaftNetwork<Types> for Line {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<RaftId>, RPCError<RaftId, Member, RaftError<RaftId>>> {
        if rpc.entries.is_empty() {
            // A heartbeat does not wait behind entries.
            let answer = self.send(&rpc).await;
            return answer.map_err(|error| error.as_error());
        }
        let sending = self
            .sending
            .take()
            .filter(|sending| sending.is_part_of(&rpc));
        let (after, last) = (
            rpc.prev_log_id,
            rpc.entries.last().map(|entry| entry.log_id),
        );
        let sending = sending.unwrap_or_else(|| Sending {
            after,
            last,
            answer: tokio::spawn(self.send(&rpc)),
        });
        drop(rpc);
        // It stays in its place while it is waited for: this future may be dropped any time.
        let sent = sending.last;
        let answer = self.sending.insert(sending);
        let answer = (&mut answer.answer).await;
        self.sending = None;
        match answer {
            Ok(Ok(AppendEntriesResponse::Success)) if sent != last => {
                Ok(AppendEntriesResponse::PartialSuccess(sent))
            }
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(error.as_error()),
            Err(error) => Err(Unreached(error.to_string()).as_error()),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<RaftId>,
        RPCError<RaftId, Member, RaftError<RaftId, InstallSnapshotError>>,
    > {
        match self.install(rpc).await {
            Ok(Installed::Answer(answer)) => Ok(answer),
            Ok(Installed::Refused(error)) => {
                let error = RaftError::APIError(error);
                Err(RPCError::RemoteError(RemoteError::new(self.target, error)))
            }
            Err(error) => Err(error.as_error()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<RaftId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<RaftId>, RPCError<RaftId, Member, RaftError<RaftId>>> {
        let asked = self.ask(&rpc).await;
        asked.map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    fn backoff(&self) -> Backoff {
        let last = CALL_PAUSES[CALL_PAUSES.len() - 1];
        let pauses = CALL_PAUSES.into_iter().chain(std::iter::repeat(last));
        Backoff::new(pauses.map(Duration::from_millis))
    }
}
