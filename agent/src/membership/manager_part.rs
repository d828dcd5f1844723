//! The manager of a node that joined as one, or was started again. The node carries traffic by its
//! last orders meanwhile, and also while its manager cannot be opened.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use weft_cluster::CommandError;
use weft_model::objects::Role;
use weft_swarm::{Identity, LOCKED, Manager, ManagerConfig};

use crate::parts::handles::Handles;

/// Between two attempts to open the manager: the first pause, and the longest.
const REOPEN_MIN: Duration = Duration::from_secs(1);
const REOPEN_MAX: Duration = Duration::from_secs(30);

/// Subject of the warning.
const SUBJECT: &str = "manager";

/// The manager of this node waits for the unlock key. What runs goes on by the last orders.
pub(super) fn wait_for_key(handles: &Handles) {
    handles.manager.set_off(LOCKED.to_owned());
    handles.warnings.set(SUBJECT, LOCKED.to_owned());
}

/// Opens the manager; where that fails the node is without one, says so, and tries again until
/// `stop` is true: state may be restored, a port become free, a disk get room. The task that does
/// so, if it has to.
pub(super) async fn open(
    handles: &Arc<Handles>,
    mut stop: watch::Receiver<bool>,
    config: ManagerConfig,
    identity: Identity,
) -> Option<JoinHandle<()>> {
    if try_to_open(handles, &config, &identity).await {
        return None;
    }
    let handles = Arc::downgrade(handles);
    Some(tokio::spawn(async move {
        let mut pause = REOPEN_MIN;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            let Some(handles) = handles.upgrade() else {
                return;
            };
            if try_to_open(&handles, &config, &identity).await {
                return;
            }
            pause = (pause * 2).min(REOPEN_MAX);
        }
    }))
}

/// Uses the certificates that the manager makes for its own node: it needs no session, and so
/// no certificate, to get one.
pub(super) fn follow_identity(handles: &Arc<Handles>, manager: &Manager) {
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

/// The other managers, as the orders and the membership know them.
fn others(handles: &Handles, own: SocketAddr) -> Vec<String> {
    let orders = handles.session.assignments().borrow().clone();
    let nodes = orders.iter().flat_map(|orders| &orders.shared.nodes);
    let managers = nodes.filter(|node| node.role == Role::Manager);
    let ordered = managers.filter_map(|node| node.manager_addr.map(|addr| addr.to_string()));
    let told = handles.membership.managers.iter().cloned();
    let all: BTreeSet<String> = ordered.chain(told).collect();
    let own = own.to_string();
    all.into_iter().filter(|manager| *manager != own).collect()
}

/// Beside others it may be new, or have been away before it was in their log: then it joins them.
async fn open_or_join(
    handles: &Handles,
    config: ManagerConfig,
    identity: &Identity,
) -> Result<Manager, CommandError> {
    let others = others(handles, config.advertise);
    if others.is_empty() {
        Manager::open(config, identity).await
    } else {
        Manager::join(config, identity, others).await
    }
}

async fn try_to_open(handles: &Arc<Handles>, config: &ManagerConfig, identity: &Identity) -> bool {
    match open_or_join(handles, config.clone(), identity).await {
        Ok(manager) => {
            let manager = handles.manager.fill(manager);
            follow_identity(handles, manager);
            handles.warnings.clear(SUBJECT);
            true
        }
        Err(error) => {
            let why = format!(
                "the manager of this node is off: {error}. What runs goes on by the last orders, and nothing can be changed; weftd tries again by itself"
            );
            handles.manager.set_off(why.clone());
            handles.warnings.set(SUBJECT, why);
            false
        }
    }
}
