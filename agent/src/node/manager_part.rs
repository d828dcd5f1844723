//! The manager of a node after a restart. The node carries traffic by its last orders meanwhile,
//! and also while its manager cannot be opened.

use std::sync::Arc;
use std::time::Duration;

use weft_model::objects::Role;

use super::member::Member;
use crate::api::ApiError;
use crate::manager::{Manager, ManagerConfig};
use crate::session::Identity;

/// Between two attempts to open the manager: the first pause, and the longest.
const REOPEN_MIN: Duration = Duration::from_secs(1);
const REOPEN_MAX: Duration = Duration::from_secs(30);

/// Subject of the warning.
const SUBJECT: &str = "manager";

impl Member {
    /// Opens the manager; where that fails the node is without one, says so, and tries again: state
    /// may be restored, a port become free, a disk get room.
    pub(super) async fn open_manager(self: &Arc<Self>, config: ManagerConfig, identity: Identity) {
        if self.try_manager(&config, &identity).await {
            return;
        }
        let (this, mut stop) = (Arc::downgrade(self), self.stopping());
        let opening = tokio::spawn(async move {
            let mut pause = REOPEN_MIN;
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.wait_for(|s| *s) => return,
                }
                let Some(this) = this.upgrade() else { return };
                if this.try_manager(&config, &identity).await {
                    return;
                }
                pause = (pause * 2).min(REOPEN_MAX);
            }
        });
        *self.opening.lock().await = Some(opening);
    }

    /// Uses the certificates that the manager makes for its own node: it needs no session, and so
    /// no certificate, to get one.
    pub(super) fn follow_identity(self: &Arc<Self>, manager: &Manager) {
        let mut newest = manager.identities();
        newest.mark_changed();
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            while newest.changed().await.is_ok() {
                let identity = Arc::clone(&newest.borrow_and_update());
                let Some(this) = this.upgrade() else { return };
                if let Err(error) = this.session.adopt(&identity).await {
                    tracing::warn!(%error, "cannot keep the node's new certificate");
                }
            }
        });
    }

    async fn try_manager(self: &Arc<Self>, config: &ManagerConfig, identity: &Identity) -> bool {
        match Manager::open(config.clone(), identity).await {
            Ok(manager) => {
                let manager = self.manager.get_or_init(|| Arc::new(manager));
                self.follow_identity(manager);
                *self.manager_off() = None;
                self.warnings.clear(SUBJECT);
                true
            }
            Err(error) => {
                let why = format!(
                    "the manager of this node is off: {error}. What runs goes on by the last orders, and nothing can be changed; weftd tries again by itself"
                );
                *self.manager_off() = Some(why.clone());
                self.warnings.set(SUBJECT, why);
                false
            }
        }
    }

    /// The manager, for a command that needs one.
    ///
    /// # Errors
    /// The node has none, or it is off: the text says why and what to do.
    pub(super) fn need_manager(&self) -> Result<Arc<Manager>, ApiError> {
        if let Some(manager) = self.manager.get() {
            return Ok(Arc::clone(manager));
        }
        self.manager_is_on()?;
        let managers = &self.membership.managers;
        let list: Vec<String> = managers.iter().map(ToString::to_string).collect();
        Err(ApiError::unavailable(format!(
            "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node: {}.",
            self.named_managers().unwrap_or_else(|| list.join(", "))
        )))
    }

    /// Names and addresses of the managers, as the orders say.
    fn named_managers(&self) -> Option<String> {
        let orders = self.session.assignments().borrow().clone()?;
        let nodes = orders.shared.nodes.iter();
        let managers = nodes.filter(|node| node.role == Role::Manager);
        let list: Vec<String> = managers
            .map(|node| format!("{} ({})", node.hostname, node.addr))
            .collect();
        (!list.is_empty()).then(|| list.join(", "))
    }

    /// Refuses what only a manager can do while this node's own is off.
    ///
    /// # Errors
    /// It is off: the text says why and what to do.
    pub(super) fn manager_is_on(&self) -> Result<(), ApiError> {
        match &*self.manager_off() {
            Some(why) => Err(ApiError::unavailable(why.clone())),
            None => Ok(()),
        }
    }
}
