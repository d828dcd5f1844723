//! The manager of a node, which comes and goes with the node's role. The node carries traffic by its
//! last orders meanwhile, and also while its manager cannot be opened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use weft_cluster::CommandError;
use weft_model::objects::{Protocol, Role};
use weft_swarm::{ApiServer, LOCKED, Manager, ManagerConfig, Membership, Timing};

use super::known_managers::others;
use crate::blocking::blocking;
use crate::config::Config;
use crate::parts::handles::Handles;
use crate::published::owner;
use crate::reconcile::overlap::host_routes;

/// Between two attempts to open the manager: the first pause, and the longest.
const REOPEN_MIN: Duration = Duration::from_secs(1);
const REOPEN_MAX: Duration = Duration::from_secs(30);

/// Subject of the warning.
const SUBJECT: &str = "manager";

/// What a manager of this node needs that listens there and is reached there. `api` answers what users
/// ask other managers.
pub(super) fn settings(
    config: &Config,
    api: &ApiServer,
    listen: SocketAddr,
    advertise: SocketAddr,
) -> ManagerConfig {
    ManagerConfig {
        data_dir: config.data_dir.clone(),
        listen,
        advertise,
        timing: Timing::default(),
        routes: Arc::new(host_routes),
        holder_of: |port| owner::named(Protocol::Tcp, port),
        api: api.clone(),
    }
}

/// Opens the manager and ends it, one after the other.
#[derive(Debug)]
pub(super) struct ManagerPart {
    handles: Arc<Handles>,
    /// Answers what users ask other managers.
    api: ApiServer,
    /// True once the membership ends.
    stop: watch::Receiver<bool>,
    /// Tries to open it, where it has to be tried again. Held while something is done.
    opening: Mutex<Option<JoinHandle<()>>>,
}

impl ManagerPart {
    /// With the manager that was just made, or without one.
    pub(super) fn new(handles: Arc<Handles>, api: ApiServer, stop: watch::Receiver<bool>) -> Self {
        if let Some(manager) = handles.manager.get() {
            follow_identity(&handles, &manager);
        }
        Self {
            handles,
            api,
            stop,
            opening: Mutex::default(),
        }
    }

    /// As the membership says.
    fn usual(&self) -> ManagerConfig {
        let (listen, advertise) = self.handles.membership.manager_addrs();
        settings(&self.handles.config, &self.api, listen, advertise)
    }

    /// Opens the manager, unless it is there or is being opened. Where that fails the node is without
    /// one, says so, and it is tried again until the membership ends: state may be restored, a port
    /// become free, a disk get room. One that is locked waits for the key: what runs goes on by the last
    /// orders.
    pub(super) async fn begin(&self) {
        let mut opening = self.opening.lock().await;
        if self.handles.session.identity().is_locked() {
            self.handles.manager.set_off(LOCKED.to_owned());
            self.handles.warnings.set(SUBJECT, LOCKED.to_owned());
            return;
        }
        let is_opening = opening.as_ref().is_some_and(|task| !task.is_finished());
        if is_opening || self.handles.manager.get().is_some() {
            return;
        }
        let config = self.usual();
        if !try_to_open(&self.handles, &config).await {
            *opening = Some(self.keep_trying(config));
        }
    }

    fn keep_trying(&self, config: ManagerConfig) -> JoinHandle<()> {
        let handles = Arc::downgrade(&self.handles);
        let mut stop = self.stop.clone();
        tokio::spawn(async move {
            let mut pause = REOPEN_MIN;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.wait_for(|s| *s) => return,
                }
                let Some(handles) = handles.upgrade() else {
                    return;
                };
                if try_to_open(&handles, &config).await {
                    return;
                }
                pause = (pause * 2).min(REOPEN_MAX);
            }
        })
    }

    /// Nothing opens the manager any more; one that is open stays.
    pub(super) async fn end_opening(&self) {
        let mut opening = self.opening.lock().await;
        give_up(&mut opening).await;
    }

    /// Ends the manager of a node that is a worker now, and removes what only a manager has.
    pub(super) async fn end(&self) {
        let mut opening = self.opening.lock().await;
        give_up(&mut opening).await;
        if let Some(manager) = self.handles.manager.take() {
            manager.stop().await;
            tracing::info!("the node is a worker: its manager has ended");
        }
        self.handles.warnings.clear(SUBJECT);
        let data_dir = self.handles.config.data_dir.clone();
        match blocking(move || Membership::forget_manager(&data_dir)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "what the manager had is not removed until weftd starts again");
            }
            Err(error) => tracing::error!(%error, "what the manager had is not removed"),
        }
    }

    /// Opens the manager as the only one of its swarm, listening and reached there; the others are
    /// lost (`swarm init --force-new-cluster`).
    ///
    /// # Errors
    /// It is locked, or the others are not lost: nothing changes. The manager's: it is tried to open it as
    /// before.
    pub(super) async fn go_on_alone(
        &self,
        listen: SocketAddr,
        advertise: SocketAddr,
    ) -> Result<Arc<Manager>, CommandError> {
        let mut opening = self.opening.lock().await;
        if self.handles.session.identity().is_locked() {
            return Err(CommandError::unavailable(LOCKED));
        }
        if let Some(manager) = self.handles.manager.get() {
            manager.check_lost().await?;
        }
        give_up(&mut opening).await;
        if let Some(manager) = self.handles.manager.take() {
            manager.stop().await;
        }
        let identity = self.handles.session.identity();
        let config = settings(&self.handles.config, &self.api, listen, advertise);
        match Manager::open_alone(config, &identity).await {
            Ok(manager) => {
                let manager = self.handles.manager.fill(manager);
                self.handles.session.set_own_manager(true);
                follow_identity(&self.handles, &manager);
                self.handles.warnings.clear(SUBJECT);
                Ok(manager)
            }
            Err(error) => {
                *opening = Some(self.keep_trying(self.usual()));
                Err(error)
            }
        }
    }

    /// Begins and ends it as the node's certificate says, until the membership ends. Of a node that is a
    /// manager at first, whoever starts it opens the manager.
    pub(super) async fn follow_role(self: Arc<Self>) {
        let mut roles = self.handles.session.roles();
        let mut stop = self.stop.clone();
        if *roles.borrow_and_update() == Role::Worker {
            // What a demotion before the last stop left undone.
            self.follow(Role::Worker).await;
        }
        loop {
            tokio::select! {
                changed = roles.changed() => if changed.is_err() { return },
                _ = stop.wait_for(|s| *s) => return,
            }
            let role = *roles.borrow_and_update();
            self.follow(role).await;
        }
    }

    /// Begins it or ends it, unless the membership ends first.
    async fn follow(&self, role: Role) {
        let mut stop = self.stop.clone();
        let follow = async {
            match role {
                Role::Manager => self.begin().await,
                Role::Worker => self.end().await,
            }
        };
        tokio::select! {
            () = follow => {}
            _ = stop.wait_for(|s| *s) => {}
        }
    }
}

async fn give_up(opening: &mut Option<JoinHandle<()>>) {
    if let Some(opening) = opening.take() {
        opening.abort();
        // Cancelled, most likely: nothing opens the manager any more, that is all that counts.
        drop(opening.await);
    }
}

/// Uses the certificates that the manager makes for its own node: it needs no session, and so
/// no certificate, to get one.
fn follow_identity(handles: &Arc<Handles>, manager: &Manager) {
    let mut newest = manager.identities();
    newest.mark_changed();
    let handles = Arc::downgrade(handles);
    tokio::spawn(async move {
        while newest.changed().await.is_ok() {
            let identity = Arc::clone(&newest.borrow_and_update());
            let Some(handles) = handles.upgrade() else {
                return;
            };
            if let Err(error) = handles.session.adopt(&identity).await {
                tracing::warn!(%error, "cannot keep the node's new certificate");
            }
        }
    });
}

/// Beside others it may be new, or have been away before it was in their log: then it joins them.
async fn open_or_join(
    handles: &Arc<Handles>,
    config: ManagerConfig,
) -> Result<Manager, CommandError> {
    let (identity, own) = (handles.session.identity(), config.advertise);
    if others(handles, own).is_empty() {
        return Manager::open(config, &identity).await;
    }
    // The manager will be in them.
    let handles = Arc::downgrade(handles);
    let known = move || {
        let handles = handles.upgrade();
        handles.map_or_else(Vec::new, |handles| others(&handles, own))
    };
    Manager::join(config, &identity, Arc::new(known)).await
}

async fn try_to_open(handles: &Arc<Handles>, config: &ManagerConfig) -> bool {
    // It certifies its node as soon as it is open.
    handles.session.set_own_manager(true);
    match open_or_join(handles, config.clone()).await {
        Ok(manager) => {
            let manager = handles.manager.fill(manager);
            follow_identity(handles, &manager);
            handles.warnings.clear(SUBJECT);
            true
        }
        Err(error) => {
            let why = format!(
                "the manager of this node is off: {error}. What runs goes on by the last orders, and nothing can be changed; weftd tries again by itself"
            );
            handles.manager.set_off(why.clone());
            handles.warnings.set(SUBJECT, why);
            handles.session.set_own_manager(false);
            false
        }
    }
}
