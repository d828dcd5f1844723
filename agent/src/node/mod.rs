//! The node: one `weftd` put together.
//!
//! [`run`] serves the node API and holds at most one membership. A membership has a session with
//! a manager (and is one itself, perhaps), a data path, DNS, and tasks; its loop
//! (`reconcile`) makes them what the orders say.

mod exec;
mod image_shapes;
mod images;
mod info;
mod payloads;
mod pipe;
mod service;
mod volumes;

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use anyhow::Context;
use tokio::sync::watch;
use weft_swarm::ApiServer;
use weft_volumes::Volumes;

use crate::api::{ApiSocket, answer, not_led};
use crate::blocking::blocking;
use crate::config::Config;
use crate::images::Images;
use crate::membership::self_tests::SelfTests;
use crate::membership::slot::Slot;
use crate::membership::swarm_node::Surroundings;
use crate::parts::warnings::Warnings;
use crate::sandbox::runner::ContainerEngine;

/// Folder of the data directory for volumes.
const VOLUMES: &str = "volumes";

/// What the node API works on.
#[derive(Debug)]
struct Node {
    config: Arc<Config>,
    warnings: Arc<Warnings>,
    images: Images,
    engine: ContainerEngine,
    slot: Slot,
    volumes: Volumes,
    /// True once `weftd` ends: what streams has to end, too.
    stopping: watch::Receiver<bool>,
}

/// Runs the node until `shutdown` becomes true. Tasks outlive it, for the next agent.
///
/// # Errors
/// The node cannot start, or a part that it cannot do without has failed.
pub(crate) async fn run(
    config: Config,
    shim: Option<PathBuf>,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let self_tests = SelfTests::start()?;
    let config = Arc::new(config);
    let of_images = Arc::clone(&config);
    let images = blocking(move || Images::open(&of_images)).await??;
    let unsettled = images.clone();
    let settling = tokio::spawn(async move { unsettled.settle().await });
    let (run_dir, data_dir) = (config.run_dir.clone(), config.data_dir.clone());
    let runtime = config.runtime.clone();
    let look = move || ContainerEngine::find(runtime.as_deref(), &run_dir, &data_dir);
    let engine = blocking(look).await?;
    match engine.program() {
        Ok(runtime) => tracing::info!(
            name = runtime.name,
            version = runtime.version,
            path = %runtime.path.display(),
            "containers can be run"
        ),
        Err(why) => tracing::info!(why, "no containers can be run"),
    }
    let socket = ApiSocket::bind(&config.socket).context("the node API")?;
    tracing::info!(path = %socket.path().display(), "the node API listens");
    let volumes = Volumes::open(&config.data_dir.join(VOLUMES))?;
    let ends = Arc::new(watch::Sender::new(None));
    let mut fatal = ends.subscribe();
    let node = Arc::new_cyclic(|node| {
        let around = Surroundings {
            config,
            images,
            warnings: Arc::default(),
            engine,
            shim,
            self_tests,
            volumes: volumes.clone(),
            fatal: ends,
            api: for_other_managers(Weak::clone(node)),
        };
        Node {
            config: Arc::clone(&around.config),
            warnings: Arc::clone(&around.warnings),
            images: around.images.clone(),
            engine: around.engine.clone(),
            slot: Slot::new(around),
            volumes,
            stopping: shutdown.clone(),
        }
    });
    node.slot.restore().await?;
    crate::notify::ready();
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
    node.slot.shut_down().await;
    settling.abort();
    served.context("the node API")
}

/// Answers calls of the node API that other managers pass on, while this node's manager leads.
fn for_other_managers(node: Weak<Node>) -> ApiServer {
    ApiServer::new(move |asked_by, call| {
        let node = node.upgrade();
        async move {
            let Some(node) = node else {
                return not_led("this manager is stopping: ask another one").await;
            };
            // It serves a moment before the node is a member, and after.
            if node.own_manager().await.is_none() {
                return not_led("this manager has just started or is stopping: try again").await;
            }
            answer(node, asked_by, call).await
        }
    })
}
