//! The session of a node with a manager: orders in, statuses and heartbeats out, for ever.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::transport::Channel;
use weft_control::assignment::{self, Assignment, Own};
use weft_control::cluster::{Attach, CommandError, NodeDescription};
use weft_control::id::TaskId;
use weft_control::objects::{Endpoint, Role, TaskStatus};
use weft_control::text::{MAX_STATUS, cleaned};

use super::convert::{SCHEMA, decode, encode, from_status};
use super::identity::Identity;
use super::join::request_certificate;
use super::orders::OrdersFile;
use super::proto::ca_client::CaClient;
use super::proto::control_client::ControlClient;
use super::proto::dispatcher_client::DispatcherClient;
use super::proto::{
    AttachEndpointRequest, DetachEndpointRequest, HeartbeatRequest, LeaveRequest,
    RenewCertificateRequest, SessionMessage, SessionRequest, TaskUpdate, UpdateTaskStatusRequest,
};
use super::reports::Reports;
use super::tls::{connect, member_config};
use super::writes::Writes;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a user's command waits for a session that is just being opened.
const SESSION_WAIT: Duration = Duration::from_secs(2);
/// A renewal that failed is tried again after this time, or with the next session.
const RENEWAL_RETRY: Duration = Duration::from_secs(3600);
/// How often the time of day is compared with the life of the certificate.
const RENEWAL_LOOK: Duration = Duration::from_secs(3600);
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

/// A session that connects, and connects again, until it is dropped.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// The orders that were on disk at the start.
    remembered: Weak<Assignment>,
}

#[derive(Debug)]
struct Shared {
    config: SessionConfig,
    identity: Mutex<Arc<Identity>>,
    assignment: watch::Sender<Option<Arc<Assignment>>>,
    orders_file: OrdersFile,
    /// There are orders on disk that the loss of power would lose.
    unsynced: Notify,
    channel: watch::Sender<Option<Channel>>,
    last_error: Mutex<Option<CommandError>>,
    reports: Reports,
    writes: Writes,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Starts in the background; the last orders of an earlier run are offered at once. Needs a
    /// tokio runtime.
    #[must_use]
    pub fn start(identity: Identity, config: SessionConfig) -> Self {
        let orders_file = OrdersFile::new(&config.data_dir);
        let last = orders_file.load(&identity).map(Arc::new);
        let remembered = last.as_ref().map_or_else(Weak::new, Arc::downgrade);
        let shared = Arc::new(Shared {
            identity: Mutex::new(Arc::new(identity)),
            assignment: watch::Sender::new(last),
            orders_file,
            unsynced: Notify::new(),
            channel: watch::Sender::new(None),
            last_error: Mutex::new(None),
            reports: Reports::default(),
            writes: Writes::default(),
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

    /// Why the last attempt to open a session failed; nothing while it is open.
    #[must_use]
    pub fn last_error(&self) -> Option<CommandError> {
        lock(&self.shared.last_error).clone()
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

    /// Removes an endpoint of this node (`weft network disconnect`); returns what it was.
    ///
    /// # Errors
    /// The manager's refusal in its words, or no manager is reachable.
    pub async fn detach(&self, network: &str, endpoint: &str) -> Result<Endpoint, CommandError> {
        let request = DetachEndpointRequest {
            network: network.to_owned(),
            endpoint: endpoint.to_owned(),
        };
        let channel = self.channel().await?;
        let reply = rpc(ControlClient::new(channel).detach_endpoint(request)).await?;
        decode(reply.schema, &reply.endpoint_json).map_err(|s| from_status(&s))
    }

    /// Ends the session, then tells the manager that this node does not come back
    /// (`weft swarm leave`, or a join that failed). Once this returns, also with an error, the session writes no file any
    /// more; those there are [`super::Membership::forget`]'s.
    ///
    /// # Errors
    /// No manager is reachable: it will find out by missing heartbeats.
    pub async fn leave(&self, farewell: Farewell) -> Result<(), CommandError> {
        let channel = self.channel().await;
        // The session first: it must neither open again after the farewell nor bring files back.
        self.task.abort();
        self.shared.writes.close().await;
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
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CommandError> {
    match timeout(RPC_TIMEOUT, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => Err(CommandError::unavailable(format!(
            "the manager did not answer within {} seconds",
            RPC_TIMEOUT.as_secs()
        ))),
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        tokio::join!(self.hold_sessions(), self.sync_orders());
    }

    async fn hold_sessions(&self) {
        let mut backoff = BACKOFF_MIN;
        for attempt in 0_usize.. {
            let managers = self.managers();
            let error = match managers.get(attempt % managers.len().max(1)) {
                Some(manager) => self.serve(manager, &mut backoff).await,
                None => CommandError::unavailable("no manager is known"),
            };
            self.channel.send_replace(None);
            tracing::debug!(%error, "session ended");
            *lock(&self.last_error) = Some(error);
            let jitter = rand::rng().random_range(0.5..1.0);
            sleep(backoff.mul_f64(jitter)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
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

    /// One session with one manager, until it fails.
    async fn serve(&self, manager: &str, backoff: &mut Duration) -> CommandError {
        match self.serve_until_error(manager, backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn serve_until_error(
        &self,
        manager: &str,
        backoff: &mut Duration,
    ) -> Result<std::convert::Infallible, CommandError> {
        let identity = Arc::clone(&lock(&self.identity));
        let channel = connect(manager, member_config(&identity)?).await?;
        let mut dispatcher =
            DispatcherClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = SessionRequest {
            schema: SCHEMA,
            node_json: encode(&self.config.node).map_err(|s| from_status(&s))?,
        };
        let mut stream = rpc(dispatcher.session(request)).await?;
        let first = timeout(RPC_TIMEOUT, stream.message())
            .await
            .map_err(|_| CommandError::unavailable("the manager sent no orders"))?
            .map_err(|s| from_status(&s))?
            .ok_or_else(|| CommandError::unavailable("the manager closed the session"))?;
        let period = Duration::from_millis(u64::from(first.heartbeat_ms.clamp(20, 60_000)));
        let mut held = self.take_orders(&first, None).await?;
        *backoff = BACKOFF_MIN;
        *lock(&self.last_error) = None;
        self.channel.send_replace(Some(channel.clone()));
        tracing::info!(manager, "session with the manager is open");
        let orders = async {
            loop {
                match stream.message().await {
                    Ok(Some(message)) => held = self.take_orders(&message, Some(&held)).await?,
                    Ok(None) => {
                        return Err(CommandError::unavailable("the manager closed the session"));
                    }
                    Err(status) => return Err(from_status(&status)),
                }
            }
        };
        tokio::select! {
            result = orders => result,
            result = self.beat(channel.clone(), period) => result,
            result = self.send_reports(channel.clone()) => result,
            result = self.renew(channel) => result,
        }
    }

    /// Takes over a message; a half that it does not bring is the one that was `held`.
    async fn take_orders(
        &self,
        message: &SessionMessage,
        held: Option<&Assignment>,
    ) -> Result<Assignment, CommandError> {
        let missing = || CommandError::unavailable("the manager sent half of the orders");
        let schema = message.schema;
        let shared: Arc<assignment::Shared> = match &message.shared_json {
            Some(json) => Arc::new(decode(schema, json).map_err(|s| from_status(&s))?),
            None => held.map(|h| Arc::clone(&h.shared)).ok_or_else(missing)?,
        };
        let own: Arc<Own> = match &message.own_json {
            Some(json) => Arc::new(decode(schema, json).map_err(|s| from_status(&s))?),
            None => held.map(|h| Arc::clone(&h.own)).ok_or_else(missing)?,
        };
        let orders = Assignment { shared, own };
        let file = self.orders_file.clone();
        let (shared_json, own_json) = (message.shared_json.clone(), message.own_json.clone());
        // Before anybody acts on them: an agent that is killed in between must not come back with
        // orders older than its deeds. The disk is not waited for: orders would queue behind it.
        let written = self
            .writes
            .run(move || file.replace(shared_json.as_deref(), own_json.as_deref()))
            .await;
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
            let file = self.orders_file.clone();
            let synced = tokio::task::spawn_blocking(move || file.sync()).await;
            if let Ok(Err(error)) = synced {
                tracing::warn!(%error, "the orders may not outlive a loss of power");
            }
        }
    }

    async fn beat(
        &self,
        channel: Channel,
        period: Duration,
    ) -> Result<std::convert::Infallible, CommandError> {
        let mut dispatcher = DispatcherClient::new(channel);
        loop {
            sleep(period).await;
            // A beat that takes two periods is a lost manager: the next one may be reachable.
            let limit = (period * 2).max(Duration::from_millis(500));
            match timeout(limit, dispatcher.heartbeat(HeartbeatRequest {})).await {
                Ok(Ok(_)) => {}
                Ok(Err(status)) => return Err(from_status(&status)),
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

    /// Renews the certificate at a random moment between 50 and 80 % of its life (Swarm's rule).
    async fn renew(&self, channel: Channel) -> Result<std::convert::Infallible, CommandError> {
        let mut ca = CaClient::new(channel);
        let share = rand::rng().random_range(0.5..0.8);
        let mut retry = Duration::ZERO;
        loop {
            let identity = Arc::clone(&lock(&self.identity));
            let (from, until) = identity.validity();
            let life = until.duration_since(from).unwrap_or_default();
            let due = from + life.mul_f64(share);
            let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
            if wait > RENEWAL_LOOK {
                // Somebody may set the clock, or send the machine to sleep.
                sleep(RENEWAL_LOOK).await;
                continue;
            }
            sleep_until(Instant::now() + wait.max(retry)).await;
            retry = match self.renew_now(&mut ca, &identity).await {
                Ok(()) => {
                    tracing::info!("node certificate renewed");
                    Duration::ZERO
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot renew the node certificate yet");
                    RENEWAL_RETRY
                }
            };
        }
    }

    async fn renew_now(
        &self,
        ca: &mut CaClient<Channel>,
        old: &Identity,
    ) -> Result<(), CommandError> {
        let (key_pem, csr_pem) = request_certificate()?;
        let reply = rpc(ca.renew_certificate(RenewCertificateRequest { csr_pem })).await?;
        let new = Identity::new(old.root_pem().to_owned(), &reply.certificate_pem, &key_pem)?;
        let data_dir = self.config.data_dir.clone();
        let written = new.clone();
        self.writes
            .run(move || written.save(&data_dir))
            .await
            .map_err(|e| CommandError::unavailable(e.to_string()))??;
        *lock(&self.identity) = Arc::new(new);
        Ok(())
    }
}
