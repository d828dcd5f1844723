//! The manager of a cluster: desired state on disk, certificates, and the other end of sessions.
//!
//! In: commands of the node API, sessions and reports of nodes, hints of gossip. Out: changes in
//! the store, and from there orders for every node. The logic is `weft_cluster`; this is
//! its shell.

mod api;
mod assignments;
mod backup;
mod bind;
mod broker;
mod ca;
mod engine;
mod enlist;
mod events;
mod gate;
mod handle;
mod health;
mod lapsed;
mod listener;
mod lock;
mod logs;
mod new_root;
mod order_body;
mod own;
mod past;
mod payloads;
mod planners;
mod questions;
mod raft_rpc;
mod relay;
mod restore;
mod roles;
mod rpc;
mod sessions;
mod settings;
mod shared_feed;
mod shown;
mod store_file;
mod talks;
mod turns;
mod vitals;
mod volumes;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use weft_cluster::{
    ClusterState, CommandError, Entropy, HostRoute, InitCluster, NodeDescription, go_on_alone,
    init_cluster,
};
use weft_model::api::MAX_PAYLOAD_REQUEST;
use weft_model::id::{NodeId, base36};
use weft_model::objects::{Availability, Role};
use weft_sys::clock::unix_ms;

use self::api::ApiRpc;
use self::bind::bind;
use self::ca::{Authority, HeldAuthority};
use self::engine::{Engine, Lines, entropy, stopped};
use self::enlist::{data_keys, enlist};
use self::events::EventLog;
use self::health::Health;
use self::listener::server_config;
use self::lock::{Lock, keep_locked, keys_of};
use self::own::{certify_self, keep_certified};
use self::questions::Questions;
use self::raft_rpc::RaftRpc;
use self::relay::Relay;
use self::rpc::Rpc;
use self::sessions::Sessions;
use self::store_file::{check_store_file, open_store};
use crate::desired_store::DesiredStore;
use crate::door::{Door, DoorSample};
use crate::exchange::MAX_PIECE;
use crate::identity::Identity;
use crate::membership::{Membership, STORE_FILE};
use crate::proto::api_server::ApiServer as ApiService;
use crate::proto::broker_server::BrokerServer;
use crate::proto::ca_server::CaServer;
use crate::proto::control_server::ControlServer;
use crate::proto::dispatcher_server::DispatcherServer;
use crate::proto::raft_server::RaftServer;
use crate::raft::{Member, RaftStore, Start};
use crate::sealing::{DataKeys, KeyRing};

pub use api::{ApiCall, ApiReply, ApiServer};
pub use enlist::KnownManagers;
pub use events::{EventBatch, EventReader};
pub use health::Timing;
pub use restore::RestoreParams;

/// Routes of this host with words that name them; asked when a network is made.
pub type HostRoutes = Arc<dyn Fn() -> Vec<HostRoute> + Send + Sync>;

/// Bytes of a request to join: a key, a token, and what a node says about itself.
const MAX_CA_REQUEST: usize = 32 << 10;
/// Bytes of what a node reports: task statuses come in batches. It is etcd's limit.
const MAX_REPORT: usize = 3 << 19;
/// Bytes of a command that a node sends on behalf of its users.
const MAX_COMMAND: usize = 256 << 10;
/// Bytes of a call of the node API, with its path. Its body is bounded by the API itself, most of all where
/// it has a secret or a config.
const MAX_API_CALL: usize = MAX_PAYLOAD_REQUEST + (64 << 10);
/// Bytes of what another manager sends: the longest entry of the log, and room for what is around it.
const MAX_LOG_MESSAGE: usize = 40 << 20;
/// How long a manager waits for the state of its swarm, or for more of it: a new one has it from the
/// leader.
const STATE_LIMIT: Duration = Duration::from_secs(10);

/// What a manager needs.
#[derive(Clone)]
pub struct ManagerConfig {
    /// Where state and keys are kept.
    pub data_dir: PathBuf,
    /// Where nodes connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where nodes are told to connect; port 0 means the port of `listen`.
    pub advertise: SocketAddr,
    /// Periods; the default is right outside of tests.
    pub timing: Timing,
    /// Routes that no subnet may overlap with.
    pub routes: HostRoutes,
    /// Words for the program that holds a TCP port; asked when it is the one to listen on. May
    /// block.
    pub holder_of: fn(u16) -> String,
    /// Answers calls of the node API that reach other managers, while this one leads.
    pub api: ApiServer,
}

impl std::fmt::Debug for ManagerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManagerConfig")
            .field("data_dir", &self.data_dir)
            .field("listen", &self.listen)
            .field("advertise", &self.advertise)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// `weft swarm init`
#[derive(Debug, Clone)]
pub struct InitParams {
    /// What the first node says about itself; its control address is filled in.
    pub node: NodeDescription,
    /// Pools of subnets; empty means 10.0.0.0/8.
    pub default_address_pools: Vec<IpNet>,
    /// Prefix length of subnets from the pools; default 24.
    pub subnet_prefix_len: Option<u8>,
    /// UDP port of the data path; default 4789.
    pub data_path_port: Option<u16>,
    /// Managers lock what they keep on disk.
    pub autolock: bool,
    /// Whether the node takes tasks.
    pub availability: Availability,
}

/// A running manager. Dropping it stops it; [`Manager::stop`] also waits for the disk.
#[derive(Debug)]
pub struct Manager {
    core: Arc<Engine>,
    /// The log that managers share; the engine knows it as its store.
    raft: Arc<RaftStore>,
    relay: Arc<Relay>,
    events: Arc<EventLog>,
    advertise: SocketAddr,
    #[cfg(test)]
    local_addr: SocketAddr,
    routes: RoutesOf,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// The newest certificate of the manager itself.
type Own = watch::Sender<Arc<Identity>>;

/// Gives [`HostRoutes`] a `Debug`.
struct RoutesOf(HostRoutes);

impl std::fmt::Debug for RoutesOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostRoutes(..)")
    }
}

impl std::ops::Deref for RoutesOf {
    type Target = HostRoutes;

    fn deref(&self) -> &HostRoutes {
        &self.0
    }
}

impl Manager {
    /// Makes a cluster with this node as its first manager, and starts. Writes the node's
    /// membership too; nothing is left behind when it fails.
    ///
    /// # Errors
    /// The node is part of a swarm already, the port is in use, a pool or port that cannot be
    /// used, the disk's.
    pub async fn init(
        config: ManagerConfig,
        params: InitParams,
    ) -> Result<(Self, Identity, Membership), CommandError> {
        if Identity::load(&config.data_dir)?.is_some() {
            return Err(CommandError::unavailable(
                "This node is already part of a swarm. Use \"weft swarm leave\" to leave this \
                 swarm and join another one.",
            ));
        }
        let (listener, local_addr, advertise) = bind(&config).await?;
        // What an earlier attempt left behind does not count.
        Membership::forget(&config.data_dir)?;
        let node = NodeDescription {
            manager_addr: Some(advertise),
            ..params.node.clone()
        };
        let made = Self::make(&config, params, node).await;
        let (store, own, membership) = match made {
            Ok(made) => made,
            Err(error) => {
                Membership::forget(&config.data_dir)?;
                return Err(error);
            }
        };
        let identity = Identity::clone(&own.borrow());
        let listener = (listener, local_addr, advertise);
        let desired = Arc::clone(&store) as Arc<dyn DesiredStore>;
        let manager = Self::serve(desired, store, config, listener, own)?;
        Ok((manager, identity, membership))
    }

    async fn make(
        config: &ManagerConfig,
        params: InitParams,
        node: NodeDescription,
    ) -> Result<(Arc<RaftStore>, Own, Membership), CommandError> {
        let now = SystemTime::now();
        let mut entropy = entropy();
        let cluster_id = base36(entropy.next_u128(), weft_model::id::ID_LEN);
        let node_id = NodeId::from_entropy(entropy.next_u128());
        let root = new_root::generate(now)?;
        let command = InitCluster {
            cluster_id: cluster_id.clone(),
            node_id: node_id.clone(),
            node: node.clone(),
            default_address_pools: params.default_address_pools,
            subnet_prefix_len: params.subnet_prefix_len,
            data_path_port: params.data_path_port,
            autolock: params.autolock,
            availability: params.availability,
            reserved: (config.routes)(),
            root: root.clone(),
        };
        let planned = init_cluster(&ClusterState::default(), unix_ms(), &mut entropy, command)?;
        let ring = KeyRing::draw();
        let unlock = lock::planned_key(&planned.changes);
        lock::found(&config.data_dir, 0, &ring, unlock.as_ref())?;
        let keys = DataKeys::from(ring);
        let authority = Authority::first(root)?;
        let identity = authority.issue(&node_id, Role::Manager, &cluster_id, now)?;
        let own = watch::Sender::new(Arc::new(identity.sealed_by(keys.clone())));
        let member = Member {
            node: node_id,
            addr: node.manager_addr.unwrap_or(config.advertise),
        };
        let store = open_store(&config.data_dir, keys, Start::Found(member), &own).await?;
        let proposed = store.propose(&store.head(), planned.changes).await;
        proposed.map_err(|e| CommandError::unavailable(e.to_string()))?;
        let membership = Membership {
            managers: node.manager_addr.iter().map(ToString::to_string).collect(),
            node,
            listen: Some(config.listen),
        };
        let identity = Arc::clone(&own.borrow());
        membership.save(&config.data_dir, &identity)?;
        Ok((store, own, membership))
    }

    /// Starts the manager of a data directory again. Every node counts as unknown until its
    /// session opens; its tasks stay.
    ///
    /// # Errors
    /// State or keys that are missing or damaged, the port is in use.
    pub async fn open(config: ManagerConfig, identity: &Identity) -> Result<Self, CommandError> {
        Self::reopen(config, identity, Start::Again).await
    }

    /// The same after all other managers were lost for good: this one goes on alone, with all that it
    /// knows, reached at the address of `config`.
    ///
    /// # Errors
    /// As of [`Self::open`].
    pub async fn open_alone(
        config: ManagerConfig,
        identity: &Identity,
    ) -> Result<Self, CommandError> {
        let id = identity.node_id();
        let member = Member {
            node: id.clone(),
            addr: config.advertise,
        };
        let manager = Self::reopen(config, identity, Start::Alone(member)).await?;
        let addr = manager.advertise;
        let alone = |s: &ClusterState, now, e: &mut Entropy| go_on_alone(s, now, e, id, addr);
        if let Err(error) = manager.core.change(alone).await {
            manager.stop().await;
            return Err(error);
        }
        tracing::warn!("this manager goes on alone, the others count as lost");
        Ok(manager)
    }

    async fn reopen(
        config: ManagerConfig,
        identity: &Identity,
        start: Start,
    ) -> Result<Self, CommandError> {
        let listener = bind(&config).await?;
        check_store_file(&config.data_dir)?;
        let keys = keys_of(identity)?;
        let own = watch::Sender::new(Arc::new(identity.clone()));
        let store = open_store(&config.data_dir, keys, start, &own).await?;
        let desired = Arc::clone(&store) as Arc<dyn DesiredStore>;
        let manager = Self::serve(desired, store, config, listener, own)?;
        manager.with_state().await
    }

    /// Starts a manager on a node that was made one, beside `managers`, as the node knows them at each
    /// moment: it has the state from them, the root's key in it, and is in their log when the leader has added it. Once more
    /// after a restart that came too soon.
    ///
    /// # Errors
    /// No manager answers that knows it for one, the port is in use, the disk's.
    pub async fn join(
        config: ManagerConfig,
        identity: &Identity,
        managers: KnownManagers,
    ) -> Result<Self, CommandError> {
        let listener = bind(&config).await?;
        let keys = data_keys(&config.data_dir, &managers(), identity).await?;
        let start = if config.data_dir.join(STORE_FILE).exists() {
            Start::Again
        } else {
            Start::Join
        };
        let own = identity.clone().sealed_by(keys.clone());
        let own = watch::Sender::new(Arc::new(own));
        let store = open_store(&config.data_dir, keys, start, &own).await?;
        let (raft, certificates, addr) = (Arc::clone(&store), own.subscribe(), listener.2);
        let desired = Arc::clone(&store) as Arc<dyn DesiredStore>;
        let manager = Self::serve(desired, store, config, listener, own)?;
        let mut stop = manager.core.stop.subscribe();
        manager.running().push(tokio::spawn(async move {
            tokio::select! {
                () = enlist(raft, certificates, managers, addr) => {}
                () = stopped(&mut stop) => {}
            }
        }));
        manager.with_state().await
    }

    /// Waits for the state of the swarm: a manager that is new has it from the leader, who finds it
    /// because it serves.
    async fn with_state(self) -> Result<Self, CommandError> {
        self.raft.wait_for_cluster(STATE_LIMIT).await;
        if self.state().cluster.is_some() {
            // What it had may have run out.
            certify_self(&self.core)?;
            return Ok(self);
        }
        self.stop().await;
        Err(CommandError::unavailable(
            "this manager does not have the state of the swarm yet, and no leader was heard of that \
             sends it; check that more than half of the managers run",
        ))
    }

    /// Starts on any store; `raft` is the log that other managers speak to.
    fn serve(
        store: Arc<dyn DesiredStore>,
        raft: Arc<RaftStore>,
        config: ManagerConfig,
        (listener, local_addr, advertise): (TcpListener, SocketAddr, SocketAddr),
        own: Own,
    ) -> Result<Self, CommandError> {
        let identity = Arc::clone(&own.borrow());
        let keys = keys_of(&identity)?;
        let lock = Arc::new(Lock::new(&config.data_dir, keys, Arc::clone(&raft)));
        let tls = Arc::new(ArcSwap::new(server_config(&identity)?));
        let core = Arc::new(Engine {
            node: identity.node_id().clone(),
            cluster: identity.cluster_id().to_owned(),
            store,
            raft: Arc::clone(&raft),
            roles: tokio::sync::Mutex::default(),
            ca: HeldAuthority::default(),
            lock,
            timing: config.timing,
            health: Health::new(config.timing, Instant::now()),
            vitals: vitals::VitalsBook::default(),
            assignments: assignments::Assignments::default(),
            sessions: Sessions::default(),
            questions: Questions::default(),
            own,
            tls: Arc::clone(&tls),
            stop: watch::Sender::new(false),
            door: Door::new("manager", listener::limits()),
            quiet: Lines::default(),
            past: past::PastManagers::default(),
        });
        let rpc = Rpc(Arc::clone(&core));
        let log = RaftServer::new(RaftRpc {
            core: Arc::clone(&core),
            raft: Arc::clone(&raft),
        });
        let api = ApiService::new(ApiRpc {
            server: config.api,
            core: Arc::clone(&core),
        });
        let relay = Arc::new(Relay::new(Arc::clone(&core), Arc::clone(&raft)));
        let events = Arc::new(EventLog::default());
        let routes = Routes::default()
            .add_service(CaServer::new(rpc.clone()).max_decoding_message_size(MAX_CA_REQUEST))
            .add_service(DispatcherServer::new(rpc.clone()).max_decoding_message_size(MAX_REPORT))
            .add_service(BrokerServer::new(rpc.clone()).max_decoding_message_size(MAX_PIECE))
            .add_service(ControlServer::new(rpc).max_decoding_message_size(MAX_COMMAND))
            .add_service(log.max_decoding_message_size(MAX_LOG_MESSAGE))
            .add_service(api.max_decoding_message_size(MAX_API_CALL))
            .prepare();
        let tasks = vec![
            tokio::spawn(listener::accept(listener, tls, Arc::clone(&core), routes)),
            tokio::spawn(Arc::clone(&core).lead_loop()),
            tokio::spawn(Arc::clone(&relay).watch_leader()),
            tokio::spawn(Arc::clone(&events).fill(Arc::clone(&core))),
            tokio::spawn(keep_certified(Arc::clone(&core))),
            tokio::spawn(keep_locked(
                Arc::clone(&core.lock),
                core.store.subscribe(),
                core.stop.subscribe(),
            )),
        ];
        tracing::info!(listen = %local_addr, %advertise, "manager started");
        Ok(Self {
            core,
            raft,
            relay,
            events,
            advertise,
            #[cfg(test)]
            local_addr,
            routes: RoutesOf(config.routes),
            tasks: Mutex::new(tasks),
        })
    }

    /// Where it listens.
    #[cfg(test)]
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Counters of the port that nodes connect to.
    #[must_use]
    pub fn door(&self) -> DoorSample {
        self.core.door.sample()
    }

    /// The manager's own certificate, made anew at each start and whenever it gets old: its node
    /// needs nobody else for it.
    #[must_use]
    pub fn identities(&self) -> watch::Receiver<Arc<Identity>> {
        self.core.own.subscribe()
    }

    fn running(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all sessions and closes the state file.
    pub async fn stop(&self) {
        self.core.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.running());
        for task in tasks {
            let limit = Duration::from_secs(2);
            let abort = task.abort_handle();
            if tokio::time::timeout(limit, task).await.is_err() {
                abort.abort();
            }
        }
        self.core.store.close().await;
        self.core.lock.close().await;
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.core.stop.send_replace(true);
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in tasks {
            task.abort();
        }
    }
}
