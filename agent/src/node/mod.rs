//! The node: one `weftd` put together.
//!
//! [`run`] serves the node API and holds at most one membership. A membership has a session with
//! a manager (and is one itself, perhaps), a data plane, gossip, DNS, mesh sockets, a gateway
//! bridge and tasks; its loop (`reconcile`) makes them what the orders say.

mod address;
mod compile;
mod endpoints;
mod figures;
mod loads;
mod local;
mod member;
mod reconcile;
mod running;
mod service;
mod swarm;
mod tasks;
mod warnings;

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{RwLock, watch};

use crate::api::ApiSocket;
use crate::config::Config;
use crate::session::Membership;
use member::Member;
use warnings::Warnings;

/// What the node API works on.
#[derive(Debug)]
pub(crate) struct Node {
    config: Arc<Config>,
    member: RwLock<Option<Arc<Member>>>,
    warnings: Arc<Warnings>,
}

/// Runs the node until `shutdown` becomes true. Tasks outlive it, for the next agent.
///
/// # Errors
/// The node cannot start, or a part that it cannot do without has failed.
pub async fn run(config: Config, mut shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    let socket = ApiSocket::bind(&config.socket).context("the node API")?;
    tracing::info!(path = %socket.path().display(), "the node API listens");
    let node = Arc::new(Node {
        config: Arc::new(config),
        member: RwLock::new(None),
        warnings: Arc::default(),
    });
    if let Some((membership, identity)) = Membership::load(&node.config.data_dir)? {
        let member = node.rejoin(membership, identity).await?;
        *node.member.write().await = Some(member);
    }
    crate::notify::ready();
    let served = socket.serve(Arc::clone(&node), shutdown.clone()).await;
    shutdown
        .wait_for(|stop| *stop)
        .await
        .context("the shutdown flag lost its owner")?;
    if let Some(member) = node.member.write().await.take() {
        member.shut_down().await;
    }
    served.context("the node API")
}
