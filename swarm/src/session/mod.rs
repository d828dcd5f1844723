//! The session of a node with a manager: orders in, statuses and heartbeats out, for ever.

mod answerer;
mod answers;
mod exchange;
mod hold;
mod knock;
mod pauses;
mod renew;
mod renewal;
mod reports;
mod requests;
mod role;
mod writes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;
use weft_cluster::{CommandError, NodeDescription, Vitals};
use weft_model::assignment::Assignment;
use weft_model::id::TaskId;
use weft_model::objects::{Role, TaskStatus};
use weft_model::text::{MAX_STATUS, cleaned};

pub use self::answerer::Answerer;
use self::reports::Reports;
use self::writes::Writes;
use crate::assignment_file::AssignmentFile;
use crate::convert::from_status;
use crate::identity::Identity;
use crate::orders::RefusedOrders;

const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time between two heartbeats that a manager may ask for.
const BEAT_MAX: Duration = Duration::from_secs(60);

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
    /// Answers questions of managers.
    answerer: watch::Sender<Option<Answerer>>,
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
            answerer: watch::Sender::new(None),
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
}
