//! The desired state in a log that managers share, or that one has for itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, RaftNetworkFactory};
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use weft_cluster::{Change, ClusterState, Leadership, ProposeError};

use super::arrival;
use super::file::RaftFile;
use super::life::keep_running;
use super::links::Links;
use super::medium::{Medium, OnDisk, StoreError};
use super::pipeline::{Answered, Taking};
use super::read_index::confirm;
use super::recover::go_on_alone;
use super::seal::Seal;
use super::shared::Shared;
use super::types::{Member, Raft, RaftId, Types, config};
use crate::desired_store::{BoxFuture, DesiredStore, Head};
use crate::disk_thread::DiskThread;
use crate::sealing::DataKeys;

/// How long the log of a manager that is alone may take to begin.
const START: Duration = Duration::from_secs(10);

/// What a log runs on.
pub(crate) struct Setup {
    pub(crate) medium: Box<dyn Medium>,
    /// What the file is sealed with.
    pub(crate) keys: DataKeys,
    pub(crate) disk: DiskThread,
    pub(crate) links: Arc<Links>,
    pub(crate) config: Config,
}

impl Setup {
    /// A file on the disk, and the periods that are right outside of tests.
    pub(crate) fn on_disk(path: PathBuf, keys: DataKeys, links: Arc<Links>) -> Self {
        Self {
            medium: Box::new(OnDisk(path)),
            keys,
            disk: DiskThread::start("weft-store"),
            links,
            config: config(),
        }
    }
}

/// How a manager comes to its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// It is the first one, and makes the log.
    Found(Member),
    /// It makes a file, and waits until the leader adds it.
    Join,
    /// It has a file from an earlier life.
    Again,
    /// It has a file, and the others will not come back.
    Alone(Member),
}

/// A [`DesiredStore`] on a log. Dropping it stops it; [`DesiredStore::close`] also waits for the disk.
#[derive(Debug)]
pub(crate) struct RaftStore {
    pub(super) shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
    /// Members change one after the other.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
}

impl RaftStore {
    /// Opens the log, or makes it, and runs it. A manager that is alone leads when this returns.
    ///
    /// # Errors
    /// A file that is busy, damaged, not ours, or cannot be read.
    pub(crate) async fn open<N>(setup: Setup, start: Start, network: N) -> Result<Self, StoreError>
    where
        N: RaftNetworkFactory<Types> + Clone,
    {
        let Setup {
            medium,
            keys,
            disk,
            links,
            config,
        } = setup;
        let seal = Seal::new(keys);
        let file = match &start {
            Start::Found(_) | Start::Join => {
                let member: RaftId = rand::rng().random();
                RaftFile::found(medium, seal, member, disk)?
            }
            Start::Again => RaftFile::open(medium, seal, disk, |_, _, (id, _)| Ok(id))?,
            Start::Alone(member) => {
                let member = member.clone();
                RaftFile::open(medium, seal, disk, |database, seal, (_, known)| {
                    go_on_alone(database, seal, known, member)
                })?
            }
        };
        let file = Arc::new(file);
        let shared = Arc::new(Shared::new(file, links));
        let is_alone = shared.is_alone();
        let running = keep_running(Arc::clone(&shared), network, Arc::new(config));
        let mended = Arc::clone(&shared.file).keep_mended();
        let store = Self {
            shared,
            tasks: vec![tokio::spawn(running), tokio::spawn(mended)],
            changing: Arc::default(),
        };
        if let Start::Found(member) = start {
            store.initialize(member).await?;
            store.wait_to_lead().await;
        } else if is_alone {
            store.wait_to_lead().await;
        }
        Ok(store)
    }

    /// Makes this manager the only member of a log that is empty.
    async fn initialize(&self, member: Member) -> Result<(), StoreError> {
        let raft = timeout(START, running(&self.shared)).await.ok().flatten();
        let raft = raft.ok_or_else(|| self.not_started())?;
        let members = BTreeMap::from([(self.shared.file.member, member)]);
        let initialized = raft.initialize(members).await;
        initialized.map_err(|error| StoreError::Start(error.to_string()))
    }

    fn not_started(&self) -> StoreError {
        let why = self.shared.file.trouble().borrow().clone();
        StoreError::Start(why.unwrap_or_else(|| "it took too long".to_owned()))
    }

    /// Waits until it leads. Where the disk does not allow that, it is read all the same.
    async fn wait_to_lead(&self) {
        let mut leadership = self.shared.leadership.subscribe();
        drop(timeout(START, leadership.wait_for(Leadership::leads)).await);
    }

    /// Waits for a state with a cluster in it: a manager that is new hears of it from the leader. Parts of
    /// a snapshot may be `limit` apart.
    pub(crate) async fn wait_for_cluster(&self, limit: Duration) {
        let mut states = self.shared.states.subscribe();
        let there = states.wait_for(|state| state.cluster.is_some());
        arrival::wait(there, self.shared.arrival.subscribe(), limit).await;
    }

    /// Writes all that its file holds anew, sealed by the newest key. What is to be stored meanwhile
    /// waits.
    ///
    /// # Errors
    /// The disk's: what is in the file is sealed as before.
    pub(crate) async fn seal_anew(&self) -> Result<(), StoreError> {
        self.shared.file.seal_anew().await
    }

    /// Under which name the log knows this manager.
    pub(crate) fn member(&self) -> RaftId {
        self.shared.file.member
    }

    /// Whether it has a vote, and leads or hears from a leader: that one calls nobody who is not on its
    /// list.
    pub(crate) fn takes_part(&self) -> bool {
        let hears = match &*self.shared.leadership.borrow() {
            Leadership::Leader { .. } => true,
            Leadership::Follower { leader } => leader.is_some(),
        };
        let known = self.shared.file.known();
        hears && known.members().voter_ids().any(|id| id == self.member())
    }

    /// openraft, while it runs.
    pub(super) fn raft(&self) -> Option<Raft> {
        self.shared.raft.borrow().clone()
    }
}

async fn running(shared: &Shared) -> Option<Raft> {
    let mut raft = shared.raft.subscribe();
    let found = raft.wait_for(Option::is_some).await.ok()?;
    found.clone()
}

impl Drop for RaftStore {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// An answer that does not come was in the hands of a life of openraft that ended.
async fn answered(answer: Answered) -> Result<(), ProposeError> {
    answer.await.unwrap_or(Err(ProposeError::Undecided))
}

impl DesiredStore for RaftStore {
    fn read(&self) -> Arc<ClusterState> {
        self.shared.state()
    }

    fn subscribe(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.shared.states.subscribe()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.shared.file.trouble()
    }

    fn head(&self) -> Head {
        self.shared.pipeline.head(&self.shared.state())
    }

    fn propose(&self, on: &Head, changes: Vec<Change>) -> BoxFuture<'_, Result<(), ProposeError>> {
        let taken = self.shared.pipeline.propose(on, changes);
        Box::pin(async move { answered(taken?).await })
    }

    fn settled(&self, on: &Head) -> BoxFuture<'_, Result<(), ProposeError>> {
        let stored = self.shared.state().version;
        let waiting = self.shared.pipeline.settle(on, stored);
        Box::pin(async move {
            match waiting? {
                Some(answer) => answered(answer).await,
                None => Ok(()),
            }
        })
    }

    fn confirm_lead(&self) -> BoxFuture<'_, Result<(), ProposeError>> {
        Box::pin(confirm(&self.shared))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            shared.stop.send_replace(true);
            shared.pipeline.shut(Taking::Closed, shared.state());
            let raft = shared.raft.borrow().clone();
            if let Some(raft) = raft
                && let Err(error) = raft.shutdown().await
            {
                tracing::debug!(%error, "the log of the managers ends");
            }
            shared.file.close().await;
        })
    }
}
