//! A node as part of a swarm: from joining, or starting again, to leaving.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use weft_cluster::{CommandError, NodeDescription, Quorum};
use weft_model::objects::Role;
use weft_swarm::{ApiServer, Farewell, Identity, Manager, Membership, Session, SessionConfig};
use weft_sys::state_file;
use weft_volumes::Volumes;

use super::answers::answerer;
use super::machine;
use super::manager_part::ManagerPart;
use super::neighbours::Neighbours;
use super::new_address;
use super::self_tests::SelfTests;
use crate::blocking::blocking;
use crate::config::Config;
use crate::data_format;
use crate::dns::DnsServer;
use crate::images::Images;
use crate::names::HOST_RESOLV_CONF;
use crate::observe::ping;
use crate::observe::vitals::{self, SLOW_START};
use crate::parts::data_path::DataPath;
use crate::parts::handles::Handles;
use crate::parts::local::LocalPorts;
use crate::parts::manager_slot::ManagerSlot;
use crate::parts::warnings::Warnings;
use crate::published::uplinks;
use crate::reconcile::endpoints::Endpoints;
use crate::reconcile::keeper;
use crate::reconcile::places::{self, Places};
use crate::reconcile::probe;
use crate::reconcile::reconciler::Reconciler;
use crate::reconcile::shortcuts;
use crate::reconcile::tasks::Tasks;
use crate::sandbox::gwbridge::GatewayBridge;
use crate::sandbox::runner::{self, ContainerEngine, Runner};
use crate::sandbox::{Sandbox, remove_mesh_tap};

/// Between two attempts to start what the orders ask for.
const RETRY: Duration = Duration::from_secs(2);

/// How long a node that is a worker now may take to end its manager and to have a session as one: the
/// others elect a leader first where it led.
const RESIGN_LIMIT: Duration = Duration::from_secs(15);
/// How often is looked meanwhile.
const RESIGNS: Duration = Duration::from_millis(20);

/// How long init and join wait for the first orders to be carried out.
const FIRST_START: Duration = Duration::from_secs(20);

/// What is there before a membership and after it.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) config: Arc<Config>,
    pub(crate) warnings: Arc<Warnings>,
    /// Those of this node, in a swarm or not.
    pub(crate) images: Images,
    /// What it runs containers with.
    pub(crate) engine: ContainerEngine,
    /// The static program that is the shim of tasks; where there is none, weftd is it.
    pub(crate) shim: Option<PathBuf>,
    pub(crate) self_tests: Arc<SelfTests>,
    /// Those of this node, in a swarm or not.
    pub(crate) volumes: Volumes,
    /// Set when the node cannot go on; `weftd` ends then, for its supervisor to start it again.
    pub(crate) fatal: Arc<watch::Sender<Option<String>>>,
    /// Answers what users ask other managers, while the node's own one leads.
    pub(crate) api: ApiServer,
}

/// A node in its swarm.
/// No two of its locks are held at once.
pub(crate) struct SwarmNode {
    pub(crate) handles: Arc<Handles>,
    /// Those of `network connect`.
    pub(crate) endpoints: Arc<Endpoints>,
    around: Surroundings,
    manager_part: Arc<ManagerPart>,
    /// Follow what managers say that the node is, and where.
    following: Mutex<Vec<JoinHandle<()>>>,
    /// Outcome of the last attempt to start; nothing while the first orders are awaited.
    started: watch::Sender<Option<Result<(), String>>>,
    stop: watch::Sender<bool>,
    main: Mutex<Option<JoinHandle<Option<Tasks>>>>,
}

impl std::fmt::Debug for SwarmNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwarmNode")
            .field("handles", &self.handles)
            .finish_non_exhaustive()
    }
}

impl SwarmNode {
    /// Opens the session and starts the loop, which starts the rest with the first orders.
    pub(crate) async fn start(
        around: Surroundings,
        membership: Membership,
        identity: Identity,
        manager: Option<Manager>,
    ) -> anyhow::Result<Arc<Self>> {
        let config = Arc::clone(&around.config);
        let places = Places::load(config.data_dir.join(places::FILE))?;
        if let Some(damage) = places.damage() {
            around.warnings.set(places::FILE, damage.to_string());
        }
        let session = Session::start(
            identity.clone(),
            SessionConfig {
                data_dir: config.data_dir.clone(),
                managers: membership.managers.clone(),
                // The file may be of another version, or of a machine with less memory.
                node: NodeDescription {
                    platform: machine::platform(),
                    resources: machine::resources(),
                    runtimes: around.engine.names(),
                    ..membership.node.clone()
                },
            },
        );
        let dns = if config.dns_upstreams.is_empty() {
            DnsServer::following(HOST_RESOLV_CONF.as_ref())
        } else {
            DnsServer::new(&config.dns_upstreams)
        };
        let handles = Arc::new(Handles {
            node_id: identity.node_id().clone(),
            membership,
            session,
            manager: ManagerSlot::new(manager),
            data_path: ArcSwapOption::empty(),
            local: Arc::new(LocalPorts::default()),
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
            ))
            .with_shim(around.shim.as_deref())
            .with_containers(around.engine.clone(), around.volumes.clone())
            .keeping_memory_in(config.run_dir.join("tasks")),
            images: around.images.clone(),
            volumes: around.volumes.clone(),
            warnings: Arc::clone(&around.warnings),
            config,
        });
        handles.session.answer_with(answerer(&handles));
        Neighbours::meet(&handles);
        let stop = watch::Sender::new(false);
        let api = around.api.clone();
        let manager_part = ManagerPart::new(Arc::clone(&handles), api, stop.subscribe());
        let manager_part = Arc::new(manager_part);
        let following = vec![
            tokio::spawn(Arc::clone(&manager_part).follow_role()),
            tokio::spawn(new_address::follow(
                Arc::clone(&handles),
                stop.subscribe(),
                Arc::clone(&around.fatal),
            )),
        ];
        let member = Arc::new(Self {
            endpoints: Arc::new(Endpoints::new(Arc::clone(&handles), places)),
            handles,
            around,
            manager_part,
            following: Mutex::new(following),
            started: watch::Sender::new(None),
            stop,
            main: Mutex::new(None),
        });
        let this = Arc::clone(&member);
        let main = tokio::spawn(async move {
            let looped = tokio::spawn(Arc::clone(&this).main()).await;
            looped.unwrap_or_else(|error| {
                this.is_over(format!("the node's loop panicked: {error}"));
                None
            })
        });
        *member.main.lock().await = Some(main);
        Ok(member)
    }

    /// Opens the manager of a node that is one, now or as soon as that can be done.
    pub(crate) async fn open_manager(&self) {
        self.manager_part.begin().await;
    }

    /// Goes on as the only manager of the swarm (`swarm init --force-new-cluster`), which listens and
    /// is reached there.
    pub(crate) async fn go_on_alone(
        &self,
        listen: SocketAddr,
        advertise: SocketAddr,
    ) -> Result<Arc<Manager>, CommandError> {
        self.manager_part.go_on_alone(listen, advertise).await
    }

    /// Becomes a worker, where the managers that stay are a quorum; with what a person should know of
    /// them. When it returns, the node's manager has ended, or is about to.
    pub(crate) async fn resign(&self) -> Result<Vec<String>, CommandError> {
        let session = &self.handles.session;
        let warnings = session.resign().await?;
        let demoted = async {
            let mut roles = session.roles();
            // The session outlives this.
            drop(roles.wait_for(|role| *role == Role::Worker).await);
            while self.handles.manager.get().is_some() || !session.connected() {
                tokio::time::sleep(RESIGNS).await;
            }
        };
        if tokio::time::timeout(RESIGN_LIMIT, demoted).await.is_err() {
            tracing::warn!(
                "the node is no manager any more, but has no certificate of a worker yet"
            );
        }
        Ok(warnings)
    }

    /// How many managers there are and answer, as the leader knows; where there is none, as this node
    /// does.
    pub(crate) async fn quorum(&self) -> Quorum {
        let handles = &self.handles;
        if let Ok(quorum) = handles.session.count_managers().await {
            return quorum;
        }
        if let Some(manager) = handles.manager.get() {
            return manager.quorum();
        }
        let orders = handles.session.assignments().borrow().clone();
        let nodes = orders.iter().flat_map(|orders| &orders.shared.nodes);
        let managers = nodes.filter(|node| node.role == Role::Manager).count();
        Quorum {
            managers: managers.max(1),
            reachable: managers.max(1),
        }
    }

    fn is_over(&self, why: String) {
        self.around.fatal.send_replace(Some(why));
    }

    /// Waits until the first orders were carried out, or could not be.
    pub(crate) async fn wait_started(&self) -> Result<(), String> {
        let mut started = self.started.subscribe();
        let outcome = tokio::time::timeout(FIRST_START, started.wait_for(Option::is_some)).await;
        match outcome {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Ok(())),
            Ok(Err(_)) => Err("the node stopped while it was starting".to_owned()),
            Err(_) => Err(format!(
                "no orders arrived within {} seconds; {}",
                FIRST_START.as_secs(),
                self.handles
                    .session
                    .last_error()
                    .map_or_else(|| "the manager is slow".to_owned(), |e| e.to_string())
            )),
        }
    }

    async fn main(self: Arc<Self>) -> Option<Tasks> {
        let handles = &self.handles;
        let mut stop = self.stop.subscribe();
        let mut orders = handles.session.assignments();
        let data_path = loop {
            let first = tokio::select! {
                orders = orders.wait_for(Option::is_some) => orders.ok()?.clone()?,
                _ = stop.wait_for(|s| *s) => return None,
            };
            let this = Arc::clone(&self);
            let start = move || {
                let (found, handles) = (this.around.self_tests.found(), &this.handles);
                let (local, warnings) = (&handles.local, &handles.warnings);
                let home = &handles.membership.node;
                DataPath::start(&handles.config, &first, home, found, local, warnings)
            };
            let mut starting = std::pin::pin!(blocking(start));
            let quickly = tokio::time::timeout(SLOW_START, starting.as_mut()).await;
            let started = match quickly {
                Ok(started) => started,
                Err(_) => {
                    let seconds = SLOW_START.as_secs();
                    let why = format!("it has not started within {seconds} seconds");
                    handles.session.tell(vitals::off(why));
                    starting.await
                }
            };
            let started = started.and_then(|started| started);
            match started {
                Ok(data_path) => break Arc::new(data_path),
                Err(error) => {
                    let text = format!("{error:#}");
                    handles.warnings.set("start", text.clone());
                    handles.session.tell(vitals::off(&*text));
                    self.started.send_replace(Some(Err(text)));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = stop.wait_for(|s| *s) => return None,
            }
        };
        handles.warnings.clear("start");
        handles.data_path.store(Some(Arc::clone(&data_path)));
        self.started.send_replace(Some(Ok(())));
        tracing::info!(node = %handles.node_id, "the node carries traffic");
        let probing = tokio::spawn(probe::run(Arc::clone(&data_path), stop.clone()));
        let hearing = tokio::spawn(ping::run(Arc::clone(&data_path), stop.clone()));
        let (end, ended) = watch::channel(false);
        let keeping = keeper::run(Arc::clone(handles), Arc::clone(&data_path), ended.clone());
        let keeping = tokio::spawn(keeping);
        let shortening = shortcuts::run(Arc::clone(handles), Arc::clone(&data_path), ended);
        let shortening = tokio::spawn(shortening);
        let endpoints = Arc::clone(&self.endpoints);
        let reconciler = Reconciler::new(Arc::clone(handles), endpoints, data_path);
        let (tasks, result) = reconciler.run(&handles.session, stop).await;
        // Waited for: what the node removes when it leaves nobody may put back.
        end.send_replace(true);
        if let Err(error) = keeping.await {
            tracing::error!(%error, "the state of the host was not kept any more");
        }
        if let Err(error) = shortening.await {
            tracing::error!(%error, "flows were not left to the kernel any more");
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
            self.is_over(format!("{error:#}"));
        }
        Some(tasks)
    }

    async fn end_main(&self) -> Option<Tasks> {
        self.stop.send_replace(true);
        self.handles.images.part();
        for following in self.following.lock().await.drain(..) {
            if let Err(error) = following.await {
                tracing::error!(%error, "the node did not follow what its managers say of it");
            }
        }
        self.manager_part.end_opening().await;
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
    pub(crate) async fn shut_down(&self) {
        if let Some(tasks) = self.end_main().await {
            tasks.abandon();
        }
        self.handles.data_path.store(None);
        if let Some(manager) = self.handles.manager.get() {
            manager.stop().await;
        }
    }

    /// Leaves the swarm, or undoes a start that failed: everything that the node made is removed.
    ///
    /// # Errors
    /// What could not be removed. The node is no member any more all the same.
    pub(crate) async fn leave(&self, farewell: Farewell) -> anyhow::Result<()> {
        if let Some(tasks) = self.end_main().await {
            tasks.stop_all().await;
        }
        if let Some(data_path) = self.handles.data_path.load_full() {
            self.endpoints.detach_all(&data_path).await;
            data_path.gossip.leave().await;
        }
        let manager = self.handles.manager.get();
        if manager.as_ref().is_some_and(|manager| manager.leads()) {
            // It cannot say goodbye to itself; the next leader will miss the heartbeats.
            self.handles.session.end().await;
        } else if let Err(error) = self.handles.session.leave(farewell).await {
            tracing::warn!(%error, "no manager heard the farewell; it will miss the heartbeats");
        }
        if let Some(manager) = manager {
            manager.stop().await;
        }
        self.handles.data_path.store(None);
        let config = Arc::clone(&self.handles.config);
        let runner = self.handles.runner.clone();
        blocking(move || {
            // First what makes the node a member; then the rest, each whatever the others say.
            let steps = [
                Membership::forget(&config.data_dir).map_err(anyhow::Error::from),
                GatewayBridge::teardown().context("the gateway bridge"),
                uplinks::remove().context("the rules of routing"),
                shortcuts::remove().context("the programs of the fast path"),
                remove_mesh_tap().context("weft0"),
                remove_namespaces(&config.run_dir.join("netns")),
                // What is mounted there first: nothing is removed through it.
                runner
                    .remove_all()
                    .map_err(anyhow::Error::from)
                    .and_then(|()| remove_dir(&config.data_dir.join("tasks"))),
                remove_file(&config.data_dir.join(places::FILE)),
                remove_file(&config.data_dir.join("heard.json")),
                remove_file(&config.data_dir.join(data_format::FILE)),
            ];
            steps.into_iter().collect::<anyhow::Result<()>>()
        })
        .await?
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
