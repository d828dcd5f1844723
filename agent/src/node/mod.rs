//! The node: one `weftd` put together.
//!
//! [`run`] serves the node API and holds at most one membership. A membership has a session with
//! a manager (and is one itself, perhaps), a data plane, gossip, DNS, mesh sockets, a gateway
//! bridge and tasks; its loop (`reconcile`) makes them what the orders say.

mod service;

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{Mutex, RwLock, watch};
use weft_sys::netns_lock::NetnsLock;

use crate::api::ApiSocket;
use crate::config::Config;
use crate::membership::self_tests::SelfTests;
use crate::membership::swarm;
use crate::membership::swarm_node::SwarmNode;
use crate::parts::warnings::Warnings;
use crate::session::Membership;

/// What the node API works on.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: Arc<Config>,
    /// Held only for reading and for swapping, never while something is waited for.
    pub(crate) member: RwLock<Option<Arc<SwarmNode>>>,
    /// One init, join or leave at a time. Holds the network namespace while the node is a member:
    /// `weft0`, the gateway bridge and the rules are there once, and so are removed by their owner
    /// only.
    pub(crate) transition: Mutex<Option<NetnsLock>>,
    pub(crate) fatal: Arc<watch::Sender<Option<String>>>,
    pub(crate) warnings: Arc<Warnings>,
    pub(crate) self_tests: Arc<SelfTests>,
    /// True once `weftd` ends: what streams has to end, too.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Runs the node until `shutdown` becomes true. Tasks outlive it, for the next agent.
///
/// # Errors
/// The node cannot start, or a part that it cannot do without has failed.
pub async fn run(config: Config, mut shutdown: watch::Receiver<bool>) -> anyhow::Result<()> {
    let self_tests = SelfTests::start()?;
    let socket = ApiSocket::bind(&config.socket).context("the node API")?;
    tracing::info!(path = %socket.path().display(), "the node API listens");
    let node = Arc::new(Node {
        config: Arc::new(config),
        member: RwLock::new(None),
        transition: Mutex::new(None),
        fatal: Arc::new(watch::Sender::new(None)),
        warnings: Arc::default(),
        self_tests,
        stopping: shutdown.clone(),
    });
    if let Some((membership, identity)) = Membership::load(&node.config.data_dir)? {
        let lock = swarm::lock_namespace(&node.config)?;
        let member = node.rejoin(membership, identity).await?;
        *node.transition.lock().await = Some(lock);
        *node.member.write().await = Some(member);
    }
    crate::notify::ready();
    let mut fatal = node.fatal.subscribe();
    let served = tokio::select! {
        served = socket.serve(Arc::clone(&node), shutdown.clone()) => served,
        fatal = fatal.wait_for(Option::is_some) => {
            let why = fatal.ok().and_then(|why| why.clone()).unwrap_or_default();
            anyhow::bail!("{why}; tasks go on and the next weftd takes them over")
        }
    };
    shutdown
        .wait_for(|stop| *stop)
        .await
        .context("the shutdown flag lost its owner")?;
    let member = node.member.write().await.take();
    if let Some(member) = member {
        member.shut_down().await;
        tracing::info!(
            "stopped: tasks, sandboxes and rules stay for the next weftd; `weft swarm leave` before the stop removes them"
        );
    }
    served.context("the node API")
}
