//! The one place of a node for a membership: becoming part of a swarm, being it again after a
//! restart, and leaving.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{Mutex, RwLock};
use weft_cluster::{CommandError, NodeDescription, Quorum, UnlockKey};
use weft_model::api::{
    RestoreQuery, SwarmInit, SwarmInitReply, SwarmJoin, SwarmJoinReply, SwarmLeave, SwarmLeft,
    SwarmRestoreReply,
};
use weft_model::objects::Role;
use weft_swarm::{
    Farewell, Identity, InitParams, JoinParams, Manager, ManagerConfig, Membership, RestoreParams,
    join,
};
use weft_sys::netns_lock::{self, NetnsLock, NetnsLockError};

use super::address::{AddressError, HostAddresses};
use super::machine;
use super::manager_part::settings;
use super::new_address::begin_again;
use super::swarm_node::{Surroundings, SwarmNode};
use crate::api::ApiError;
use crate::blocking::blocking;
use crate::config::Config;
use crate::data_format;

impl From<AddressError> for ApiError {
    fn from(error: AddressError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// Addresses from the flags of init and join.
struct Addresses {
    advertise: IpAddr,
    advertise_port: Option<u16>,
    listen: SocketAddr,
    data_path: IpAddr,
}

impl Addresses {
    /// Where others reach the node as a manager.
    fn control(&self) -> SocketAddr {
        let port = self.advertise_port.unwrap_or_else(|| self.listen.port());
        SocketAddr::new(self.advertise, port)
    }
}

/// At most one membership.
/// Its locks are taken in this order: `transition`, `member`.
#[derive(Debug)]
pub(crate) struct Slot {
    around: Surroundings,
    /// Held only for reading and for swapping, never while something is waited for.
    member: RwLock<Option<Arc<SwarmNode>>>,
    /// One init, join or leave at a time. Holds the network namespace while the node is a member:
    /// `weft0`, the gateway bridge and the rules are there once, and so are removed by their owner
    /// only.
    transition: Mutex<Option<NetnsLock>>,
}

impl Slot {
    /// No membership yet.
    pub(crate) fn new(around: Surroundings) -> Self {
        Self {
            around,
            member: RwLock::new(None),
            transition: Mutex::new(None),
        }
    }

    /// The membership, if there is one.
    pub(crate) async fn get(&self) -> Option<Arc<SwarmNode>> {
        self.member.read().await.as_ref().map(Arc::clone)
    }

    /// The membership, for a command that needs one.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn need(&self) -> Result<Arc<SwarmNode>, ApiError> {
        self.get().await.ok_or_else(not_member)
    }

    fn addresses(
        advertise: Option<&str>,
        listen: Option<&str>,
        data_path: Option<&str>,
    ) -> Result<Addresses, AddressError> {
        let host = HostAddresses::read()?;
        let (ip, port) = host.advertise(advertise)?;
        Ok(Addresses {
            advertise: ip,
            advertise_port: port,
            listen: host.listen(listen, ip)?,
            data_path: host.data_path(data_path, ip)?,
        })
    }

    /// As a manager: a joining node does not know yet whether its token makes it one.
    fn describe(&self, addresses: &Addresses) -> NodeDescription {
        NodeDescription {
            hostname: self.around.config.name.clone(),
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            addr: addresses.advertise,
            data_path_addr: addresses.data_path,
            gossip_port: self.around.config.gossip_port,
            manager_addr: Some(addresses.control()),
            platform: machine::platform(),
            resources: machine::resources(),
            runtimes: self.around.engine.names(),
        }
    }

    fn settings(&self, addresses: &Addresses) -> ManagerConfig {
        let (config, api) = (&self.around.config, &self.around.api);
        settings(config, api, addresses.listen, addresses.control())
    }

    /// A member's files are the first that another version may misread: a directory without any is
    /// everybody's.
    fn note_format(&self) -> Result<(), ApiError> {
        data_format::note(&self.around.config.data_dir).map_err(|error| {
            ApiError::unavailable(format!("{error:#}; make room there and try again"))
        })
    }

    /// `weft swarm init`. Nothing is left behind when it fails.
    pub(crate) async fn init(&self, body: SwarmInit) -> Result<SwarmInitReply, ApiError> {
        let mut held = self.transition.lock().await;
        if body.force_new_cluster {
            return self.go_on_alone(&body).await;
        }
        if self.member.read().await.is_some() {
            return Err(already_member());
        }
        let lock = lock_namespace(&self.around.config)?;
        self.note_format()?;
        let addresses = Self::addresses(
            body.advertise_addr.as_deref(),
            body.listen_addr.as_deref(),
            body.data_path_addr.as_deref(),
        )?;
        let (manager, identity, membership) = Manager::init(
            self.settings(&addresses),
            InitParams {
                node: self.describe(&addresses),
                default_address_pools: body.default_addr_pool,
                subnet_prefix_len: body.default_addr_pool_mask_length,
                data_path_port: body.data_path_port,
                autolock: body.autolock,
                availability: body.availability.unwrap_or_default(),
            },
        )
        .await?;
        let unlock_key = unlock_key_text(&manager);
        let token = manager.join_token(Role::Worker)?;
        let node_id = identity.node_id().clone();
        let member = self.enter(membership, identity, Some(manager)).await?;
        *held = Some(lock);
        *self.member.write().await = Some(member);
        Ok(SwarmInitReply {
            node_id,
            worker_token: token.token,
            manager_addr: token.manager_addr,
            unlock_key,
        })
    }

    /// `weft swarm init --force-new-cluster`: the manager of this node goes on as the only one, with all
    /// that it knows. What runs goes on meanwhile.
    async fn go_on_alone(&self, body: &SwarmInit) -> Result<SwarmInitReply, ApiError> {
        let member = self.need().await?;
        if member.handles.session.identity().role() != Role::Manager {
            return Err(ApiError::unavailable(
                "This node is not a swarm manager: it does not have the state of the swarm. Use --force-new-cluster on a manager that is left.",
            ));
        }
        let before = &member.handles.membership;
        let (_, told) = before.manager_addrs();
        let mut advertise = told;
        if body.advertise_addr.is_some() {
            let host = HostAddresses::read()?;
            let (ip, port) = host.advertise(body.advertise_addr.as_deref())?;
            advertise = SocketAddr::new(ip, port.unwrap_or_else(|| advertise.port()));
        }
        let listen = if body.listen_addr.is_some() {
            let host = HostAddresses::read()?;
            host.listen(body.listen_addr.as_deref(), advertise.ip())?
        } else {
            before.moved_to(advertise.ip()).manager_addrs().0
        };
        let manager = member.go_on_alone(listen, advertise).await?;
        let mut after = before.moved_to(advertise.ip());
        after.node.manager_addr = Some(advertise);
        after.managers = vec![advertise.to_string()];
        after.listen = Some(listen);
        let data_dir = self.around.config.data_dir.clone();
        blocking(move || after.replace(&data_dir))
            .await
            .map_err(|error| ApiError::internal(format!("{error:#}")))?
            .map_err(|error| {
                ApiError::internal(format!(
                    "The swarm goes on with this manager alone, but its address is not kept: {error}"
                ))
            })?;
        if advertise != told {
            let ends = Arc::clone(&self.around.fatal);
            tokio::spawn(async move { begin_again(&ends, advertise).await });
        }
        let token = manager.join_token(Role::Worker)?;
        Ok(SwarmInitReply {
            node_id: member.handles.node_id.clone(),
            worker_token: token.token,
            manager_addr: token.manager_addr,
            unlock_key: unlock_key_text(&manager),
        })
    }

    /// `weft swarm restore`. Nothing is left behind when it fails.
    pub(crate) async fn restore_backup(
        &self,
        query: RestoreQuery,
        backup: Vec<u8>,
        unlock_key: Option<String>,
    ) -> Result<SwarmRestoreReply, ApiError> {
        let mut held = self.transition.lock().await;
        if self.member.read().await.is_some() {
            return Err(already_member());
        }
        let unlock_key = unlock_key.map(|key| parse_key(&key)).transpose()?;
        let lock = lock_namespace(&self.around.config)?;
        self.note_format()?;
        let addresses = Self::addresses(
            query.advertise_addr.as_deref(),
            query.listen_addr.as_deref(),
            query.data_path_addr.as_deref(),
        )?;
        let (manager, identity, membership) = Manager::restore(
            self.settings(&addresses),
            RestoreParams {
                backup,
                unlock_key,
                node: self.describe(&addresses),
            },
        )
        .await?;
        let token = manager.join_token(Role::Worker)?;
        let state = manager.state();
        let node_id = identity.node_id().clone();
        let member = self.enter(membership, identity, Some(manager)).await?;
        *held = Some(lock);
        *self.member.write().await = Some(member);
        let others = state.nodes.values().filter(|node| node.id != node_id);
        Ok(SwarmRestoreReply {
            nodes: others.count(),
            networks: state.networks.values().count(),
            services: state.services.values().count(),
            node_id,
            worker_token: token.token,
            manager_addr: token.manager_addr,
        })
    }

    /// `weft swarm unlock`: the manager of this node opens, as after any start.
    pub(crate) async fn unlock(&self, key: &str) -> Result<(), ApiError> {
        let _one = self.transition.lock().await;
        let member = self.need().await?;
        if !member.handles.session.identity().is_locked() {
            return Err(ApiError::conflict("swarm is not locked"));
        }
        let (key, data_dir) = (parse_key(key)?, self.around.config.data_dir.clone());
        let identity = blocking(move || Identity::unlock(&data_dir, &key)).await?;
        let identity = identity.map_err(CommandError::from)?;
        member.handles.session.adopt(&identity).await?;
        member.open_manager().await;
        let is_on = member.handles.manager.is_on();
        is_on.map_err(|error| {
            ApiError::unavailable(format!("The key is right, but {}", error.message))
        })
    }

    /// `weft swarm join`. Nothing is left behind when it fails.
    pub(crate) async fn join(&self, body: SwarmJoin) -> Result<SwarmJoinReply, ApiError> {
        let mut held = self.transition.lock().await;
        if self.member.read().await.is_some() {
            return Err(already_member());
        }
        let lock = lock_namespace(&self.around.config)?;
        self.note_format()?;
        let addresses = Self::addresses(
            body.advertise_addr.as_deref(),
            body.listen_addr.as_deref(),
            body.data_path_addr.as_deref(),
        )?;
        let identity = join(JoinParams {
            token: body.token,
            remote: body.remote_addr,
            node: self.describe(&addresses),
            availability: body.availability.unwrap_or_default(),
            listen: addresses.listen,
            data_dir: self.around.config.data_dir.clone(),
        })
        .await?;
        let loaded = Membership::load(&self.around.config.data_dir)
            .map_err(|e| ApiError::internal(e.to_string()))?;
        let Some((membership, _)) = loaded else {
            return Err(ApiError::internal("the membership was not written"));
        };
        let (node_id, role) = (identity.node_id().clone(), identity.role());
        let member = self.enter(membership, identity, None).await?;
        let mut warnings = Vec::new();
        if role == Role::Manager {
            member.open_manager().await;
            if let Err(off) = member.handles.manager.is_on() {
                warnings.push(off.message);
            }
            if let Some(manager) = member.handles.manager.get() {
                let state = manager.state();
                let nodes = state.nodes.values();
                let managers = nodes.filter(|node| node.spec.role == Role::Manager).count();
                warnings.extend(Quorum::warning_of(managers).map(str::to_owned));
            }
        }
        *held = Some(lock);
        *self.member.write().await = Some(member);
        Ok(SwarmJoinReply {
            node_id,
            role,
            warnings,
        })
    }

    /// Starts as a member and waits for the first orders; leaves again when they fail.
    async fn enter(
        &self,
        membership: Membership,
        identity: Identity,
        manager: Option<Manager>,
    ) -> Result<Arc<SwarmNode>, ApiError> {
        let around = self.around.clone();
        let started = SwarmNode::start(around, membership, identity, manager).await;
        let member = match started {
            Ok(member) => member,
            Err(error) => {
                if let Err(error) = Membership::forget(&self.around.config.data_dir) {
                    tracing::warn!(%error, "a failed start was not undone");
                }
                return Err(ApiError::internal(format!("{error:#}")));
            }
        };
        if let Err(why) = member.wait_started().await {
            if let Err(error) = member.leave(Farewell::NeverStarted).await {
                tracing::warn!(error = %format!("{error:#}"), "a failed start was not undone");
            }
            self.around.warnings.clear("start");
            return Err(ApiError::unavailable(why));
        }
        Ok(member)
    }

    /// Starts again what was a member before `weftd` was restarted.
    ///
    /// # Errors
    /// What there is of a membership cannot be read or started.
    pub(crate) async fn restore(&self) -> anyhow::Result<()> {
        let Some((membership, identity)) = Membership::load(&self.around.config.data_dir)? else {
            return Ok(());
        };
        let lock = lock_namespace(&self.around.config)?;
        let member = self.rejoin(membership, identity).await?;
        *self.transition.lock().await = Some(lock);
        *self.member.write().await = Some(member);
        Ok(())
    }

    async fn rejoin(
        &self,
        membership: Membership,
        identity: Identity,
    ) -> anyhow::Result<Arc<SwarmNode>> {
        let role = identity.role();
        let around = self.around.clone();
        let member = SwarmNode::start(around, membership, identity, None).await?;
        if role == Role::Manager {
            member.open_manager().await;
        }
        Ok(member)
    }

    /// `weft swarm leave`
    pub(crate) async fn leave(&self, body: SwarmLeave) -> Result<SwarmLeft, ApiError> {
        let mut held = self.transition.lock().await;
        let member = self.need().await?;
        let identity = member.handles.session.identity();
        if identity.is_locked() && !body.force {
            return Err(ApiError::unavailable(
                "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
            ));
        }
        let mut warnings = Vec::new();
        if identity.role() == Role::Manager {
            if body.demote {
                warnings = member.resign().await?;
            } else if !body.force {
                return Err(ApiError::unavailable(member.quorum().await.leave_refusal()));
            }
        }
        let left = member.leave(Farewell::Left).await;
        *self.member.write().await = None;
        *held = None;
        left.map_err(|e| {
            ApiError::internal(format!(
                "The node left the swarm, but not everything that it had made was removed: {e:#}"
            ))
        })?;
        Ok(SwarmLeft { warnings })
    }

    /// Stops the agent's part: tasks, sandboxes and rules stay for the next `weftd`.
    pub(crate) async fn shut_down(&self) {
        let member = self.member.write().await.take();
        if let Some(member) = member {
            member.shut_down().await;
            tracing::info!(
                "stopped: tasks, sandboxes and rules stay for the next weftd; `weft swarm leave` before the stop removes them"
            );
        }
    }
}

/// Before anything else is touched: what an agent undoes has to be its own.
///
/// # Errors
/// Another agent has the namespace, or the kernel refuses.
fn lock_namespace(config: &Config) -> Result<NetnsLock, NetnsLockError> {
    match NetnsLock::acquire(netns_lock::FOLDER.as_ref()) {
        // An ordinary user, in a user namespace perhaps: agents of one `--run-dir` see each other.
        Err(error) if error.is_for_another_user() => {
            NetnsLock::acquire(&config.run_dir.join("locks"))
        }
        locked => locked,
    }
}

impl From<NetnsLockError> for ApiError {
    fn from(error: NetnsLockError) -> Self {
        match error {
            NetnsLockError::Held { .. } => Self::conflict(error.to_string()),
            error => Self::internal(error.to_string()),
        }
    }
}

fn unlock_key_text(manager: &Manager) -> Option<String> {
    manager.unlock_key().map(|key| key.to_text().to_string())
}

fn parse_key(text: &str) -> Result<UnlockKey, ApiError> {
    let parsed: Result<UnlockKey, _> = text.parse();
    parsed.map_err(|error| ApiError::bad_request(error.to_string()))
}

fn not_member() -> ApiError {
    ApiError::unavailable(
        "This node is not part of a swarm. Use \"weft swarm init\" or \"weft swarm join\" to connect this node to swarm and try again.",
    )
}

fn already_member() -> ApiError {
    ApiError::unavailable(
        "This node is already part of a swarm. Use \"weft swarm leave\" to leave this swarm and join another one.",
    )
}
