//! The session of a node with a manager: orders in, statuses and heartbeats out, for ever.

mod knock;
mod pauses;
mod renew;
mod renewal;
mod reports;
mod role;
mod writes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use weft_cluster::{Attach, CommandError, ErrorKind, NodeDescription, Vitals};
use weft_model::assignment::Assignment;
use weft_model::id::TaskId;
use weft_model::objects::{Endpoint, Role, TaskStatus};
use weft_model::text::{MAX_STATUS, cleaned};

use self::knock::Knocks;
use self::reports::Reports;
use self::writes::Writes;
use crate::assignment_file::AssignmentFile;
use crate::convert::{SCHEMA, decode, encode, from_status, vitals_to_proto};
use crate::identity::Identity;
use crate::leader_hint::named_leader;
use crate::orders::{self, RefusedOrders};
use crate::proto::control_client::ControlClient;
use crate::proto::dispatcher_client::DispatcherClient;
use crate::proto::{
    AttachEndpointRequest, DetachEndpointRequest, HeartbeatRequest, LeaveRequest, SessionMessage,
    SessionRequest, TaskUpdate, UpdateTaskStatusRequest,
};
use crate::tls::{connect, member_config};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// What another machine seems to be may be the agent before this one, until the manager misses it:
/// longest pause of so many first attempts.
const BACKOFF_SOON: Duration = Duration::from_millis(400);
const SOON: usize = 10;
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a user's command waits for a session that is just being opened.
const SESSION_WAIT: Duration = Duration::from_secs(2);
/// What a manager may ask for.
const BEAT_MIN: Duration = Duration::from_millis(20);
const BEAT_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two heartbeats.
const NEWS_PERIOD: Duration = Duration::from_millis(200);
/// The orders of a large cluster are larger than gRPC's default of 4 MiB.
const MAX_MESSAGE: usize = 256 << 20;

/// Statuses in one report, and bytes of them: less than a manager reads.
const MAX_REPORTS: usize = 1000;
const MAX_REPORT_BYTES: usize = 1 << 20;

/// What a session needs besides the identity.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Where identity and last orders are kept.
    pub data_dir: PathBuf,
    /// Managers to begin with, `host:port`; later ones are learnt from the orders.
    pub managers: Vec<String>,
    /// What the node says about itself whenever a session opens.
    pub node: NodeDescription,
}

/// Why a node says goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// It was a member; it is remembered as down.
    Left,
    /// What joining needs could not be started: the node is forgotten.
    NeverStarted,
}

/// Why no session is open, and since when for that reason.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The reason, and the next step.
    pub error: CommandError,
    /// When the last attempt failed.
    pub at: SystemTime,
}

/// A session that connects, and connects again, until it is dropped.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// The orders that were on disk at the start.
    remembered: Weak<Assignment>,
}

/// The session is over because the node has a certificate of another root or role.
struct Moved;

/// No two of its locks are held at once, but for `taking`, which is taken first.
#[derive(Debug)]
struct Shared {
    config: SessionConfig,
    identity: Mutex<Arc<Identity>>,
    /// Role in it.
    role: watch::Sender<Role>,
    /// Who replaces the identity.
    taking: tokio::sync::Mutex<()>,
    assignment: watch::Sender<Option<Arc<Assignment>>>,
    assignment_file: AssignmentFile,
    /// There are orders on disk that the loss of power would lose.
    unsynced: Notify,
    refused: RefusedOrders,
    channel: watch::Sender<Option<Channel>>,
    last_failure: Mutex<Option<Failure>>,
    /// The leader, where the manager named it that was asked last.
    leader: Mutex<Option<SocketAddr>>,
    /// A manager takes this node's certificate for one that has run out.
    lapsed: AtomicBool,
    /// Names this process towards managers.
    life: String,
    /// The next attempt need not wait.
    again: Notify,
    /// Counts the certificates of another root or role than the one before: the session is opened again
    /// with it, so that the manager sees it.
    moved: watch::Sender<u64>,
    /// Counts changes of the roots.
    roots: watch::Sender<u64>,
    /// A manager of this process makes the node's certificates, where the node is one.
    own_manager: watch::Sender<bool>,
    /// Between two heartbeats, as the manager wants it.
    period: watch::Sender<Duration>,
    reports: Reports,
    writes: Writes,
    /// What heartbeats say; nothing until the node knows.
    vitals: watch::Sender<Option<Vitals>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Starts in the background; the last orders of an earlier run are offered at once. Needs a
    /// tokio runtime.
    #[must_use]
    pub fn start(identity: Identity, config: SessionConfig) -> Self {
        let assignment_file = AssignmentFile::new(&config.data_dir);
        let last = assignment_file.load(&identity).map(Arc::new);
        let remembered = last.as_ref().map_or_else(Weak::new, Arc::downgrade);
        let shared = Arc::new(Shared {
            role: watch::Sender::new(identity.role()),
            identity: Mutex::new(Arc::new(identity)),
            taking: tokio::sync::Mutex::default(),
            assignment: watch::Sender::new(last),
            assignment_file,
            unsynced: Notify::new(),
            refused: RefusedOrders::default(),
            channel: watch::Sender::new(None),
            last_failure: Mutex::new(None),
            leader: Mutex::default(),
            lapsed: AtomicBool::new(false),
            life: format!("{:032x}", rand::random::<u128>()),
            again: Notify::new(),
            moved: watch::Sender::new(0),
            roots: watch::Sender::new(0),
            own_manager: watch::Sender::new(true),
            period: watch::Sender::new(BEAT_MAX),
            reports: Reports::default(),
            writes: Writes::default(),
            vitals: watch::Sender::new(None),
            config,
        });
        let task = tokio::spawn(Arc::clone(&shared).run());
        Self {
            shared,
            task,
            remembered,
        }
    }

    /// True of orders that an earlier agent left on disk and no manager has confirmed since. They
    /// may be old: put up what they name, take nothing down that they do not.
    #[must_use]
    pub fn is_remembered(&self, orders: &Arc<Assignment>) -> bool {
        std::ptr::eq(self.remembered.as_ptr(), Arc::as_ptr(orders))
    }

    /// The orders of this node, newest only; nothing before the first manager answered.
    #[must_use]
    pub fn assignments(&self) -> watch::Receiver<Option<Arc<Assignment>>> {
        self.shared.assignment.subscribe()
    }

    /// True while a manager streams orders to this node.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.shared.channel.borrow().is_some()
    }

    /// Messages of orders that were refused since the start, by why.
    #[must_use]
    pub fn refused_orders(&self) -> Vec<(&'static str, u64)> {
        self.shared.refused.sample()
    }

    /// Why the last attempt to open a session failed; nothing while it is open.
    #[must_use]
    pub fn last_error(&self) -> Option<CommandError> {
        self.last_failure().map(|failure| failure.error)
    }

    /// The same with its time.
    #[must_use]
    pub fn last_failure(&self) -> Option<Failure> {
        lock(&self.shared.last_failure).clone()
    }

    /// Between two heartbeats, as the manager wants it.
    #[cfg(test)]
    pub(crate) fn period(&self) -> Duration {
        *self.shared.period.borrow()
    }

    /// The newest identity: renewed certificates replace older ones.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&lock(&self.shared.identity))
    }

    /// Queues a status; it is sent until a manager has stored it. The latest of a task wins.
    pub fn report(&self, task: TaskId, mut status: TaskStatus) {
        status.err = cleaned(&status.err, MAX_STATUS);
        self.shared.reports.add(task, status);
    }

    /// Says how the node is: with the next heartbeat, which comes at once where it is news.
    pub fn tell(&self, vitals: Vitals) {
        self.shared.vitals.send_if_modified(|told| {
            let news = told.as_ref() != Some(&vitals);
            *told = Some(vitals);
            news
        });
    }

    /// Makes an endpoint on this node (`weft network connect`).
    ///
    /// # Errors
    /// The manager's refusal in its words, or no manager is reachable.
    pub async fn attach(&self, attach: &Attach) -> Result<Endpoint, CommandError> {
        let request = AttachEndpointRequest {
            schema: SCHEMA,
            attach_json: encode(attach).map_err(|s| from_status(&s))?,
        };
        let channel = self.channel().await?;
        let reply = rpc(ControlClient::new(channel).attach_endpoint(request)).await?;
        decode(reply.schema, &reply.endpoint_json).map_err(|s| from_status(&s))
    }

    /// Removes an endpoint of this node (`weft network disconnect`), or that of a node that is down when
    /// this one is a manager, or any then with `force`; returns what it was.
    ///
    /// # Errors
    /// The manager's refusal in its words, or no manager is reachable.
    pub async fn detach(
        &self,
        network: &str,
        endpoint: &str,
        force: bool,
    ) -> Result<Endpoint, CommandError> {
        let request = DetachEndpointRequest {
            network: network.to_owned(),
            endpoint: endpoint.to_owned(),
            force,
        };
        let channel = self.channel().await?;
        let reply = rpc(ControlClient::new(channel).detach_endpoint(request)).await?;
        decode(reply.schema, &reply.endpoint_json).map_err(|s| from_status(&s))
    }

    /// Ends the session, then tells the manager that this node does not come back
    /// (`weft swarm leave`, or a join that failed). Once this returns, also with an error, the session writes no file any
    /// more; those there are [`crate::Membership::forget`]'s.
    ///
    /// # Errors
    /// No manager is reachable: it will find out by missing heartbeats.
    pub async fn leave(&self, farewell: Farewell) -> Result<(), CommandError> {
        let channel = self.channel().await;
        // The session first: it must neither open again after the farewell nor bring files back.
        self.end().await;
        let channel = channel?;
        let request = LeaveRequest {
            never_started: farewell == Farewell::NeverStarted,
        };
        rpc(DispatcherClient::new(channel).leave(request)).await?;
        Ok(())
    }

    /// The open connection, waiting a little for one that is just being made.
    async fn channel(&self) -> Result<Channel, CommandError> {
        let mut channel = self.shared.channel.subscribe();
        let found = timeout(SESSION_WAIT, channel.wait_for(Option::is_some)).await;
        if let Ok(Ok(found)) = &found
            && let Some(channel) = &**found
        {
            return Ok(channel.clone());
        }
        let why = self
            .last_error()
            .map_or_else(String::new, |e| format!(": {e}"));
        Err(CommandError::unavailable(format!(
            "no manager is reachable{why}"
        )))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One unary call, with a time limit, and with errors in the manager's words.
async fn rpc<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CommandError> {
    within(RPC_TIMEOUT, call).await
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, CommandError> {
    match timeout(limit, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => Err(CommandError::unavailable(format!(
            "the manager did not answer within {} seconds",
            limit.as_secs()
        ))),
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        tokio::join!(self.hold_sessions(), self.sync_orders());
    }

    async fn hold_sessions(&self) {
        let mut backoff = BACKOFF_MIN;
        let mut told = String::new();
        let mut follows = false;
        let mut knocks = Knocks::default();
        for attempt in 0_usize.. {
            let ended = match self.next_manager(attempt) {
                Some(manager) => tokio::select! {
                    ended = self.serve(&manager, &mut backoff) => {
                        knocks.forget(&manager);
                        ended
                    }
                    opened = self.answers_again(&mut knocks) => {
                        *lock(&self.leader) = Some(opened);
                        continue;
                    }
                },
                None => Err(CommandError::unavailable("no manager is known")),
            };
            self.channel.send_replace(None);
            let Err(error) = ended else {
                tracing::info!("the session is opened again with another certificate");
                continue;
            };
            // Once: two managers that name each other are no leader.
            follows = !follows && lock(&self.leader).is_some();
            if follows {
                tracing::debug!(%error, "another manager leads");
                continue;
            }
            if lock(&self.last_failure).is_none() {
                // A session was open since: what comes now is news.
                told.clear();
            }
            // The same words with other times and ports in them are the same reason.
            let reason: String = error.message.replace(|c: char| c.is_ascii_digit(), "");
            if reason == told {
                tracing::debug!(%error, "no session with the manager");
            } else {
                tracing::warn!(%error, "no session with the manager; what runs goes on");
                told = reason;
            }
            if error.kind == ErrorKind::Conflict && attempt < SOON {
                // The session of a life before, which is over in a moment.
                backoff = backoff.min(BACKOFF_SOON);
            }
            let at = SystemTime::now();
            *lock(&self.last_failure) = Some(Failure { error, at });
            let jitter = rand::rng().random_range(0.5..1.0);
            // All ends are fine: the pause, or a reason to try at once.
            tokio::select! {
                ended = timeout(backoff.mul_f64(jitter), self.again.notified()) => {
                    drop(ended);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                opened = self.answers_again(&mut knocks) => {
                    *lock(&self.leader) = Some(opened);
                    backoff = BACKOFF_MIN;
                }
            }
        }
    }

    /// Waits until a manager answers that did not, while no session is open.
    async fn answers_again(&self, knocks: &mut Knocks) -> SocketAddr {
        let mut channel = self.channel.subscribe();
        let managers = || -> Vec<SocketAddr> {
            let managers = self.managers().into_iter();
            managers.filter_map(|m| m.parse().ok()).collect()
        };
        tokio::select! {
            biased;
            _ = channel.wait_for(Option::is_some) => {}
            opened = knocks.opened(managers) => return opened,
        }
        knocks.clear();
        std::future::pending().await
    }

    /// The leader, if it was named; else the managers in turn.
    fn next_manager(&self, attempt: usize) -> Option<String> {
        let named = lock(&self.leader).take();
        named.map(|leader| leader.to_string()).or_else(|| {
            let managers = self.managers();
            managers.get(attempt % managers.len().max(1)).cloned()
        })
    }

    /// Keeps whom a refusal names.
    fn note_leader(&self, refusal: &Status) {
        *lock(&self.leader) = named_leader(refusal);
    }

    /// Managers of the last orders, then those that the node was told.
    fn managers(&self) -> Vec<String> {
        let mut managers: Vec<String> = self
            .assignment
            .borrow()
            .iter()
            .flat_map(|a| &a.shared.nodes)
            .filter(|n| n.role == Role::Manager)
            .filter_map(|n| n.manager_addr.map(|a| a.to_string()))
            .collect();
        for manager in &self.config.managers {
            if !managers.contains(manager) {
                managers.push(manager.clone());
            }
        }
        managers
    }

    /// One session with one manager, until it fails, or is to be opened again with it.
    async fn serve(&self, manager: &str, backoff: &mut Duration) -> Result<Moved, CommandError> {
        let mut moved = self.moved.subscribe();
        let failed = self.serve_until_error(manager, backoff);
        tokio::select! {
            biased;
            result = failed => match result {
                Ok(never) => match never {},
                Err(error) => Err(error),
            },
            // The sender is in `self`.
            _ = moved.changed() => {
                *lock(&self.leader) = manager.parse().ok();
                Ok(Moved)
            }
        }
    }

    async fn serve_until_error(
        &self,
        manager: &str,
        backoff: &mut Duration,
    ) -> Result<std::convert::Infallible, CommandError> {
        self.renew_outside(manager).await?;
        let identity = Arc::clone(&lock(&self.identity));
        let channel = connect(manager, member_config(&identity)?).await?;
        let mut dispatcher =
            DispatcherClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = SessionRequest {
            schema: SCHEMA,
            node_json: encode(&self.config.node).map_err(|s| from_status(&s))?,
            life: self.life.clone(),
        };
        let opened = async {
            let opened = dispatcher.session(request).await;
            if let Err(status) = &opened {
                self.note_leader(status);
                if status.code() == Code::Unauthenticated {
                    self.lapsed.store(true, Ordering::Relaxed);
                }
            }
            opened
        };
        let mut stream = rpc(opened).await?;
        let first = timeout(RPC_TIMEOUT, stream.message())
            .await
            .map_err(|_| CommandError::unavailable("the manager sent no orders"))?
            .map_err(|s| from_status(&s))?
            .ok_or_else(|| CommandError::unavailable("the manager closed the session"))?;
        let mut held = self.take_orders(first, None).await?;
        *backoff = BACKOFF_MIN;
        *lock(&self.last_failure) = None;
        self.channel.send_replace(Some(channel.clone()));
        tracing::info!(manager, "session with the manager is open");
        let orders = async {
            loop {
                match stream.message().await {
                    Ok(Some(message)) => held = self.take_orders(message, Some(&held)).await?,
                    Ok(None) => {
                        return Err(CommandError::unavailable("the manager closed the session"));
                    }
                    Err(status) => return Err(from_status(&status)),
                }
            }
        };
        tokio::select! {
            result = orders => result,
            result = self.beat(channel.clone()) => result,
            result = self.send_reports(channel.clone()) => result,
            result = self.follow_role(channel.clone()) => result,
            result = self.renew(channel) => result,
        }
    }

    /// Takes over a message; what it does not bring is as it was in `held`.
    async fn take_orders(
        &self,
        message: SessionMessage,
        held: Option<&Assignment>,
    ) -> Result<Assignment, CommandError> {
        let orders =
            orders::next(held, &message).inspect_err(|refusal| self.refused.count(refusal))?;
        let period = Duration::from_millis(u64::from(message.heartbeat_ms));
        self.period.send_if_modified(|known| {
            let wanted = period.clamp(BEAT_MIN, BEAT_MAX);
            std::mem::replace(known, wanted) != wanted
        });
        if let Some(roots) = &message.roots_pem {
            self.take_roots(roots).await?;
        }
        let (file, shared) = (self.assignment_file.clone(), Arc::clone(&orders.shared));
        // Before anybody acts on them: an agent that is killed in between must not come back with
        // orders older than its deeds. The disk is not waited for: orders would queue behind it.
        let written = self.writes.run(move || file.keep(&message, &shared)).await;
        match written {
            Ok(Err(error)) => {
                // The node works on; only a restart without managers would miss the file.
                tracing::warn!(%error, "cannot keep the orders");
            }
            _ => self.unsynced.notify_one(),
        }
        self.assignment.send_replace(Some(Arc::new(orders.clone())));
        Ok(orders)
    }

    /// Brings written orders to the disk, however many at once.
    async fn sync_orders(&self) {
        loop {
            self.unsynced.notified().await;
            let file = self.assignment_file.clone();
            let synced = tokio::task::spawn_blocking(move || file.sync()).await;
            if let Ok(Err(error)) = synced {
                tracing::warn!(%error, "the orders may not outlive a loss of power");
            }
        }
    }

    async fn beat(&self, channel: Channel) -> Result<std::convert::Infallible, CommandError> {
        let mut dispatcher = DispatcherClient::new(channel);
        let mut vitals = self.vitals.subscribe();
        let mut wanted = self.period.subscribe();
        // A manager that this session is new to has heard nothing yet.
        vitals.mark_changed();
        loop {
            let period = *wanted.borrow_and_update();
            // The senders are in `self`. Not even much news makes many heartbeats.
            let news = async {
                sleep(period.min(NEWS_PERIOD)).await;
                tokio::select! {
                    told = vitals.changed() => told,
                    other = wanted.changed() => other,
                }
            };
            // Both ends are fine: news, or the period.
            drop(timeout(period, news).await);
            let told = vitals.borrow_and_update().clone();
            let request = HeartbeatRequest {
                vitals: told.map(vitals_to_proto),
            };
            // A beat that takes two periods is a lost manager: the next one may be reachable.
            let limit = (period * 2).max(Duration::from_millis(500));
            match timeout(limit, dispatcher.heartbeat(request)).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => {
                    self.note_leader(&status);
                    return Err(from_status(&status));
                }
                Err(_) => {
                    return Err(CommandError::unavailable(
                        "the manager does not answer heartbeats",
                    ));
                }
            }
        }
    }

    async fn send_reports(
        &self,
        channel: Channel,
    ) -> Result<std::convert::Infallible, CommandError> {
        let mut dispatcher = DispatcherClient::new(channel);
        loop {
            let mut batch = self.reports.wait().await;
            let mut updates = Vec::new();
            let mut bytes = 0;
            for (task, status) in batch.iter().take(MAX_REPORTS) {
                let status_json = encode(status).map_err(|s| from_status(&s))?;
                bytes += status_json.len();
                if bytes > MAX_REPORT_BYTES && !updates.is_empty() {
                    break;
                }
                let task = task.0.clone();
                updates.push(TaskUpdate { task, status_json });
            }
            // The rest is still pending, and next.
            batch.truncate(updates.len());
            let request = UpdateTaskStatusRequest {
                schema: SCHEMA,
                updates,
            };
            rpc(dispatcher.update_task_status(request)).await?;
            self.reports.stored(&batch);
        }
    }
}
