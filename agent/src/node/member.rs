//! A node as part of a swarm: from joining, or starting again, to leaving.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use weft_model::id::{EndpointId, NodeId};

use super::keeper;
use super::local::LocalPorts;
use super::places::Places;
use super::reconcile::Reconciler;
use super::running::{Running, blocking};
use super::self_tests::SelfTests;
use super::tasks::Tasks;
use super::vitals::{self, SLOW_START};
use super::warnings::Warnings;
use super::{ping, probe};
use crate::config::Config;
use crate::dns::DnsServer;
use crate::dns::resolv_conf::HOST_PATH;
use crate::manager::Manager;
use crate::mesh::uplinks;
use crate::sandbox::gwbridge::GatewayBridge;
use crate::sandbox::runner::{self, Runner};
use crate::sandbox::{Sandbox, remove_mesh_tap};
use crate::session::{Farewell, Identity, Membership, Session, SessionConfig};
use crate::state_file;

/// Between two attempts to start what the orders ask for.
const RETRY: Duration = Duration::from_secs(2);

/// How long init and join wait for the first orders to be carried out.
const FIRST_START: Duration = Duration::from_secs(20);

/// In the data directory; also the subject of a warning about it.
pub(super) const FILE_OF_PLACES: &str = "endpoints.json";

/// Everything that a member has, running or not yet.
pub(super) struct Member {
    pub(super) config: Arc<Config>,
    pub(super) membership: Membership,
    pub(super) node_id: NodeId,
    pub(super) session: Session,
    /// On a manager. After a restart the ports come first and this later: traffic waits for nobody.
    pub(super) manager: OnceLock<Arc<Manager>>,
    /// Why that is absent on a manager.
    manager_off: std::sync::Mutex<Option<String>>,
    /// Tries to open it.
    pub(super) opening: Mutex<Option<JoinHandle<()>>>,
    pub(super) running: ArcSwapOption<Running>,
    pub(super) local: LocalPorts,
    pub(super) dns: DnsServer,
    pub(super) runner: Runner,
    pub(super) places: Mutex<Places>,
    pub(super) seen_endpoints: Mutex<BTreeSet<EndpointId>>,
    pub(super) warnings: Arc<Warnings>,
    self_tests: Arc<SelfTests>,
    /// Outcome of the last attempt to start; nothing while the first orders are awaited.
    started: watch::Sender<Option<Result<(), String>>>,
    stop: watch::Sender<bool>,
    /// Set when the node cannot go on; `weftd` ends then, for its supervisor to start it again.
    fatal: Arc<watch::Sender<Option<String>>>,
    main: Mutex<Option<JoinHandle<Option<Tasks>>>>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member")
            .field("node_id", &self.node_id)
            .field("membership", &self.membership)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// Opens the session and starts the loop, which starts the rest with the first orders.
    pub(super) async fn start(
        config: Arc<Config>,
        membership: Membership,
        identity: Identity,
        manager: Option<Manager>,
        warnings: Arc<Warnings>,
        self_tests: Arc<SelfTests>,
        fatal: Arc<watch::Sender<Option<String>>>,
    ) -> anyhow::Result<Arc<Self>> {
        let places = Places::load(config.data_dir.join(FILE_OF_PLACES))?;
        if let Some(damage) = places.damage() {
            warnings.set(FILE_OF_PLACES, damage.to_string());
        }
        let seen = places.ids();
        let session = Session::start(
            identity.clone(),
            SessionConfig {
                data_dir: config.data_dir.clone(),
                managers: membership.managers.clone(),
                node: membership.node.clone(),
            },
        );
        let dns = if config.dns_upstreams.is_empty() {
            DnsServer::following(HOST_PATH.as_ref())
        } else {
            DnsServer::new(&config.dns_upstreams)
        };
        let member = Arc::new(Self {
            node_id: identity.node_id().clone(),
            membership,
            session,
            manager: manager.map_or_else(OnceLock::new, |m| Arc::new(m).into()),
            manager_off: std::sync::Mutex::default(),
            opening: Mutex::default(),
            running: ArcSwapOption::empty(),
            local: LocalPorts::default(),
            dns,
            runner: Runner::new(
                config.data_dir.join("tasks"),
                config.name.as_str(),
                identity.node_id().clone(),
            )
            .hiding(runner::hidden(
                &config.data_dir,
                &config.run_dir,
                &config.socket,
            )),
            places: Mutex::new(places),
            seen_endpoints: Mutex::new(seen),
            warnings,
            self_tests,
            config,
            started: watch::Sender::new(None),
            stop: watch::Sender::new(false),
            fatal,
            main: Mutex::new(None),
        });
        let this = Arc::clone(&member);
        let main = tokio::spawn(async move {
            let looped = tokio::spawn(Arc::clone(&this).main()).await;
            looped.unwrap_or_else(|error| {
                this.fatal
                    .send_replace(Some(format!("the node's loop panicked: {error}")));
                None
            })
        });
        *member.main.lock().await = Some(main);
        if let Some(manager) = member.manager.get() {
            member.follow_identity(manager);
        }
        Ok(member)
    }

    /// Waits until the first orders were carried out, or could not be.
    pub(super) async fn wait_started(&self) -> Result<(), String> {
        let mut started = self.started.subscribe();
        let outcome = tokio::time::timeout(FIRST_START, started.wait_for(Option::is_some)).await;
        match outcome {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Ok(())),
            Ok(Err(_)) => Err("the node stopped while it was starting".to_owned()),
            Err(_) => Err(format!(
                "no orders arrived within {} seconds; {}",
                FIRST_START.as_secs(),
                self.session
                    .last_error()
                    .map_or_else(|| "the manager is slow".to_owned(), |e| e.to_string())
            )),
        }
    }

    async fn main(self: Arc<Self>) -> Option<Tasks> {
        let mut stop = self.stop.subscribe();
        let mut orders = self.session.assignments();
        let running = loop {
            let first = tokio::select! {
                orders = orders.wait_for(Option::is_some) => orders.ok()?.clone()?,
                _ = stop.wait_for(|s| *s) => return None,
            };
            let this = Arc::clone(&self);
            let start = move || {
                let found = this.self_tests.found();
                Running::start(&this.config, &first, found, &this.local, &this.warnings)
            };
            let mut starting = std::pin::pin!(blocking(start));
            let quickly = tokio::time::timeout(SLOW_START, starting.as_mut()).await;
            let started = match quickly {
                Ok(started) => started,
                Err(_) => {
                    let seconds = SLOW_START.as_secs();
                    let why = format!("it has not started within {seconds} seconds");
                    self.session.tell(vitals::off(why));
                    starting.await
                }
            };
            let started = started.and_then(|started| started);
            match started {
                Ok(running) => break Arc::new(running),
                Err(error) => {
                    let text = format!("{error:#}");
                    self.warnings.set("start", text.clone());
                    self.session.tell(vitals::off(&*text));
                    self.started.send_replace(Some(Err(text)));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = stop.wait_for(|s| *s) => return None,
            }
        };
        self.warnings.clear("start");
        self.running.store(Some(Arc::clone(&running)));
        self.started.send_replace(Some(Ok(())));
        tracing::info!(node = %self.node_id, "the node carries traffic");
        let probing = tokio::spawn(probe::run(Arc::clone(&running), stop.clone()));
        let hearing = tokio::spawn(ping::run(Arc::clone(&running), stop.clone()));
        let (end, ended) = watch::channel(false);
        let keeping = keeper::run(Arc::clone(&self), Arc::clone(&running), ended);
        let keeping = tokio::spawn(keeping);
        let reconciler = Reconciler::new(Arc::clone(&self), running);
        let (tasks, result) = reconciler.run(&self.session, stop).await;
        // Waited for: what the node removes when it leaves nobody may put back.
        end.send_replace(true);
        if let Err(error) = keeping.await {
            tracing::error!(%error, "the state of the host was not kept any more");
        }
        // It ends as the loop does; should that have failed, nobody told it.
        probing.abort();
        if let Err(error) = probing.await
            && error.is_panic()
        {
            tracing::error!(%error, "replicas were not probed any more");
        }
        hearing.abort();
        if let Err(error) = hearing.await
            && error.is_panic()
        {
            tracing::error!(%error, "what other nodes ask by VXLAN was not told of any more");
        }
        if let Err(error) = result {
            self.fatal.send_replace(Some(format!("{error:#}")));
        }
        Some(tasks)
    }

    /// Becomes true when the node stops or leaves.
    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    pub(super) fn manager_off(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.manager_off
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn end_main(&self) -> Option<Tasks> {
        self.stop.send_replace(true);
        if let Some(opening) = self.opening.lock().await.take() {
            opening.abort();
            // Cancelled, most likely: nothing opens the manager any more, that is all that counts.
            drop(opening.await);
        }
        let main = self.main.lock().await.take()?;
        match main.await {
            Ok(tasks) => tasks,
            Err(error) => {
                tracing::error!(%error, "the node's loop panicked");
                None
            }
        }
    }

    /// Stops the agent's part: tasks, namespaces and TAPs stay for the next agent.
    pub(super) async fn shut_down(&self) {
        if let Some(tasks) = self.end_main().await {
            tasks.abandon();
        }
        self.running.store(None);
        if let Some(manager) = self.manager.get() {
            manager.stop().await;
        }
    }

    /// Leaves the swarm, or undoes a start that failed: everything that the node made is removed.
    ///
    /// # Errors
    /// What could not be removed. The node is no member any more all the same.
    pub(super) async fn leave(self: &Arc<Self>, farewell: Farewell) -> anyhow::Result<()> {
        if let Some(tasks) = self.end_main().await {
            tasks.stop_all().await;
        }
        if let Some(running) = self.running.load_full() {
            self.detach_all(&running).await;
            running.gossip.leave().await;
        }
        // A manager that is going away cannot say goodbye to itself.
        if self.manager.get().is_none()
            && let Err(error) = self.session.leave(farewell).await
        {
            tracing::warn!(%error, "no manager heard the farewell; it will miss the heartbeats");
        }
        if let Some(manager) = self.manager.get() {
            manager.stop().await;
        }
        self.running.store(None);
        let config = Arc::clone(&self.config);
        blocking(move || {
            // First what makes the node a member; then the rest, each whatever the others say.
            let steps = [
                Membership::forget(&config.data_dir).map_err(anyhow::Error::from),
                GatewayBridge::teardown().context("the gateway bridge"),
                uplinks::remove().context("the rules of routing"),
                remove_mesh_tap().context("weft0"),
                remove_namespaces(&config.run_dir.join("netns")),
                remove_dir(&config.data_dir.join("tasks")),
                remove_file(&config.data_dir.join(FILE_OF_PLACES)),
                remove_file(&config.data_dir.join("heard.json")),
            ];
            steps.into_iter().collect::<anyhow::Result<()>>()
        })
        .await?
    }

    /// Where the namespace of a task is bound.
    pub(super) fn netns_path(&self, task: &str) -> PathBuf {
        self.config.run_dir.join("netns").join(task)
    }
}

/// Unmounts and removes every namespace that is bound in `dir`.
fn remove_namespaces(dir: &std::path::Path) -> anyhow::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        Sandbox::remove(entry?.path())?;
    }
    remove_dir(dir)
}

fn remove_file(path: &std::path::Path) -> anyhow::Result<()> {
    state_file::remove(path).with_context(|| format!("cannot remove {}", path.display()))
}

fn remove_dir(dir: &std::path::Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
