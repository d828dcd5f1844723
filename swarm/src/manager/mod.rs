//! The manager of a cluster: desired state on disk, certificates, and the other end of sessions.
//!
//! In: commands of the node API, sessions and reports of nodes, hints of gossip. Out: changes in
//! the store, and from there orders for every node. The logic is `weft_cluster`; this is
//! its shell.

mod assignments;
mod ca;
mod engine;
mod gate;
mod handle;
mod health;
mod lapsed;
mod listener;
mod planners;
mod rpc;
mod sessions;
mod shared_feed;
mod store;
mod vitals;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use weft_cluster::{
    ClusterState, CommandError, Entry, HostRoute, InitCluster, NodeDescription, init_cluster,
};
use weft_model::id::{NodeId, base36};
use weft_model::objects::Role;
use weft_sys::clock::unix_ms;

use self::ca::{Authority, NODE_LIFE};
use self::engine::{Engine, Lines, entropy, stopped};
use self::health::Health;
use self::rpc::Rpc;
use self::sessions::Sessions;
use self::store::{RedbStore, StoreError};
use crate::desired_store::DesiredStore;
use crate::door::{Door, DoorSample};
use crate::identity::Identity;
use crate::membership::{Membership, STORE_FILE};
use crate::proto::ca_server::CaServer;
use crate::proto::control_server::ControlServer;
use crate::proto::dispatcher_server::DispatcherServer;

pub use health::Timing;

/// Routes of this host with words that name them; asked when a network is made.
pub type HostRoutes = Arc<dyn Fn() -> Vec<HostRoute> + Send + Sync>;

/// How often the time of day is compared with the life of the manager's own certificate.
const RENEWAL_LOOK: Duration = Duration::from_secs(60);

/// Bytes of a request to join: a key, a token, and what a node says about itself.
const MAX_CA_REQUEST: usize = 32 << 10;
/// Bytes of what a node reports: task statuses come in batches. It is etcd's limit.
const MAX_REPORT: usize = 3 << 19;
/// Bytes of a command that a node sends on behalf of its users.
const MAX_COMMAND: usize = 256 << 10;

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
}

/// A running manager. Dropping it stops it; [`Manager::stop`] also waits for the disk.
#[derive(Debug)]
pub struct Manager {
    core: Arc<Engine>,
    advertise: SocketAddr,
    #[cfg(test)]
    local_addr: SocketAddr,
    routes: RoutesOf,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

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

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// Binds the control port, before anything is written.
async fn bind(
    config: &ManagerConfig,
) -> Result<(TcpListener, SocketAddr, SocketAddr), CommandError> {
    let listen = config.listen;
    let fail = |e: std::io::Error| {
        CommandError::bad(format!(
            "cannot listen on {listen} for nodes: {e}; choose another --listen-addr"
        ))
    };
    let listener = match listener::listen(listen) {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            // All of /proc is read for it.
            let holder_of = config.holder_of;
            let holder = tokio::task::spawn_blocking(move || holder_of(listen.port()))
                .await
                .unwrap_or_else(|_| "another process".to_owned());
            return Err(CommandError::conflict(format!(
                "cannot listen on {listen} for nodes: the port is held by {holder}; stop that, or \
                 choose another --listen-addr"
            )));
        }
        bound => bound.map_err(fail)?,
    };
    let local = listener.local_addr().map_err(fail)?;
    let mut advertise = config.advertise;
    if advertise.port() == 0 {
        advertise.set_port(local.port());
    }
    Ok((listener, local, advertise))
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
        let (authority, store, identity, membership) = match made {
            Ok(made) => made,
            Err(error) => {
                Membership::forget(&config.data_dir)?;
                return Err(error);
            }
        };
        let listener = (listener, local_addr, advertise);
        let manager = Self::serve(config, listener, authority, store, &identity)?;
        Ok((manager, identity, membership))
    }

    async fn make(
        config: &ManagerConfig,
        params: InitParams,
        node: NodeDescription,
    ) -> Result<(Authority, RedbStore, Identity, Membership), CommandError> {
        let now = SystemTime::now();
        let mut entropy = entropy();
        let cluster_id = base36(entropy.next_u128(), weft_model::id::ID_LEN);
        let node_id = NodeId::from_entropy(entropy.next_u128());
        let command = InitCluster {
            cluster_id: cluster_id.clone(),
            node_id: node_id.clone(),
            node: node.clone(),
            default_address_pools: params.default_address_pools,
            subnet_prefix_len: params.subnet_prefix_len,
            data_path_port: params.data_path_port,
            reserved: (config.routes)(),
        };
        let planned = init_cluster(&ClusterState::default(), unix_ms(), &mut entropy, command)?;
        let authority = Authority::generate(now)?;
        authority.save(&config.data_dir)?;
        let store = RedbStore::open(&config.data_dir.join(STORE_FILE))?;
        let entry = Entry {
            base: 0,
            changes: planned.changes,
        };
        store
            .propose(entry)
            .await
            .map_err(|e| CommandError::unavailable(e.to_string()))?;
        let identity = authority.issue(&node_id, Role::Manager, &cluster_id, now)?;
        let membership = Membership {
            managers: node.manager_addr.iter().map(ToString::to_string).collect(),
            node,
            listen: Some(config.listen),
        };
        membership.save(&config.data_dir, &identity)?;
        Ok((authority, store, identity, membership))
    }

    /// Starts the manager of a data directory again. Every node counts as unknown until its
    /// session opens; its tasks stay.
    ///
    /// # Errors
    /// State or keys that are missing or damaged, the port is in use.
    pub async fn open(config: ManagerConfig, identity: &Identity) -> Result<Self, CommandError> {
        let listener = bind(&config).await?;
        let authority = Authority::load(&config.data_dir)?;
        let path = config.data_dir.join(STORE_FILE);
        if !path.exists() {
            return Err(CommandError::unavailable(format!(
                "{} is missing, and with it the state of the swarm; restore it from a backup, or \
                 leave the swarm with --force",
                path.display()
            )));
        }
        let store = RedbStore::open(&path)?;
        let cluster = store.read().cluster.as_ref().map(|c| c.id.clone());
        if cluster.as_deref() != Some(identity.cluster_id()) {
            return Err(CommandError::unavailable(format!(
                "{} holds the state of another swarm than {}",
                path.display(),
                identity.cluster_id()
            )));
        }
        Self::serve(config, listener, authority, store, identity)
    }

    /// Starts on a store of one file.
    fn serve(
        config: ManagerConfig,
        listener: (TcpListener, SocketAddr, SocketAddr),
        authority: Authority,
        store: RedbStore,
        identity: &Identity,
    ) -> Result<Self, CommandError> {
        let store = Arc::new(store);
        let desired = Arc::clone(&store) as Arc<dyn DesiredStore>;
        let manager = Self::serve_on(desired, config, listener, authority, identity)?;
        let mut stop = manager.core.stop.subscribe();
        manager.running().push(tokio::spawn(async move {
            tokio::select! {
                () = store.keep_mended() => {}
                () = stopped(&mut stop) => {}
            }
        }));
        Ok(manager)
    }

    /// Starts on any store.
    fn serve_on(
        store: Arc<dyn DesiredStore>,
        config: ManagerConfig,
        (listener, local_addr, advertise): (TcpListener, SocketAddr, SocketAddr),
        authority: Authority,
        identity: &Identity,
    ) -> Result<Self, CommandError> {
        let core = Arc::new(Engine {
            node: identity.node_id().clone(),
            cluster: identity.cluster_id().to_owned(),
            store,
            authority,
            timing: config.timing,
            health: Health::new(config.timing, Instant::now()),
            vitals: vitals::VitalsBook::default(),
            assignments: assignments::Assignments::default(),
            sessions: Sessions::default(),
            own: watch::Sender::new(Arc::new(identity.clone())),
            stop: watch::Sender::new(false),
            door: Door::new("manager", listener::limits()),
            quiet: Lines::default(),
        });
        let tls = Arc::new(ArcSwap::new(certify_self(&core)?));
        let rpc = Rpc(Arc::clone(&core));
        let routes = Routes::default()
            .add_service(CaServer::new(rpc.clone()).max_decoding_message_size(MAX_CA_REQUEST))
            .add_service(DispatcherServer::new(rpc.clone()).max_decoding_message_size(MAX_REPORT))
            .add_service(ControlServer::new(rpc).max_decoding_message_size(MAX_COMMAND))
            .prepare();
        let tasks = vec![
            tokio::spawn(listener::accept(
                listener,
                Arc::clone(&tls),
                Arc::clone(&core),
                routes,
            )),
            tokio::spawn(Arc::clone(&core).lead_loop()),
            tokio::spawn(keep_certified(Arc::clone(&core), tls)),
        ];
        tracing::info!(listen = %local_addr, %advertise, "manager started");
        Ok(Self {
            core,
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

/// A new certificate for the manager itself: what it shows to nodes, and its own node to it.
fn certify_self(core: &Engine) -> Result<Arc<ServerConfig>, CommandError> {
    let now = SystemTime::now();
    let identity = core
        .authority
        .issue(&core.node, Role::Manager, &core.cluster, now)?;
    let config = listener::server_config(&identity)?;
    core.own.send_replace(Arc::new(identity));
    Ok(config)
}

/// The manager certifies itself anew at each start, and a few times in a long life.
async fn keep_certified(core: Arc<Engine>, tls: Arc<ArcSwap<ServerConfig>>) {
    let mut stop = core.stop.subscribe();
    let (mut made, mut steady) = (SystemTime::now(), Instant::now());
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            () = tokio::time::sleep(RENEWAL_LOOK) => {}
        }
        if is_fresh(made, SystemTime::now(), steady.elapsed()) {
            continue;
        }
        match certify_self(&core) {
            Ok(config) => {
                (made, steady) = (SystemTime::now(), Instant::now());
                tls.store(config);
            }
            Err(error) => tracing::error!(%error, "cannot renew the manager's certificate"),
        }
    }
}

/// Whether a certificate that was `made` then is young by the time of day, and by a clock that
/// nobody sets. A clock that was set back may make it too new for others.
fn is_fresh(made: SystemTime, now: SystemTime, held: Duration) -> bool {
    let young = |age| age < NODE_LIFE / 3;
    now.duration_since(made).is_ok_and(young) && young(held)
}
