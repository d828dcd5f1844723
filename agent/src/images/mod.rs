//! Images of this node: what tasks are made of, where it comes from, and what other nodes get of it.
//!
//! ```text
//!  a task, `weft image pull` ──► ensure ──► fetches: one at a time for each image
//!                                             │ which image: by digest, else the registry says
//!                                             │ turn: who of the nodes asks the registry
//!                                             ▼
//!                          peers ◄── weft_images::pull ──► registry
//!                            │                │
//!   other nodes' exchange ◄──┘                ▼
//!   own exchange ──► desk ──► shelf ──►  weft_images::Store
//! ```
//!
//! The store has its own locks; nodes of one machine may share its contents.

mod circle;
mod desk;
mod exchange;
mod fetches;
mod givers;
mod line;
mod lines;
mod peers;
mod ready;
mod resolve;
mod settle;
mod shelf;
mod stream;
#[cfg(test)]
mod tests;
mod turn;
mod words;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use weft_images::{
    Credentials, Digest, Image, ImageName, Manner, Platform, Registries, RegistryConfig, Source,
    Store, pull,
};
use weft_swarm::door::DoorSample;

pub(crate) use circle::{Circle, Peer, port};
pub(crate) use fetches::Occasion;
pub(crate) use ready::Ready;

use crate::blocking::blocking;
use crate::config::Config;
use desk::Desk;
use exchange::Exchange;
use fetches::{Asker, Carried, Fetch, Fetches, Joined, Outcome};
use lines::Lines;
use peers::{Peers, Wait};
use turn::{Next, Stage, Turn};

/// Below the data directory: names of images, and which task holds which.
const OWN: &str = "images";

/// The images of this node. Copies are the same.
#[derive(Debug, Clone)]
pub(crate) struct Images(Arc<Inner>);

struct Inner {
    registries: Arc<Registries>,
    desk: Arc<Desk>,
    lines: Arc<Lines>,
    membership: Mutex<Option<Membership>>,
    /// Layers were unpacked.
    unpacked: Notify,
}

/// What there is of the exchange while the node is in a swarm.
struct Membership {
    circle: Arc<dyn Circle>,
    /// None where its port could not be opened: this node asks others all the same.
    exchange: Option<Exchange>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images")
            .field("store", &self.desk.store)
            .finish_non_exhaustive()
    }
}

impl Images {
    /// Opens the store of a node. Blocks.
    ///
    /// # Errors
    /// The disk's, or settings of registries that cannot be used.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let registries = config.registries.iter().map(|(host, registry)| {
            let registry = RegistryConfig {
                mirrors: registry.mirrors.clone(),
                insecure: registry.insecure,
                ca: registry.ca.clone(),
            };
            (host.clone(), registry)
        });
        let registries = Registries::new(registries.collect());
        let registries = registries.context("[registries] of the configuration")?;
        Self::at(
            &config.image_store,
            &config.data_dir.join(OWN),
            Arc::new(registries),
        )
    }

    fn at(shared: &Path, own: &Path, registries: Arc<Registries>) -> anyhow::Result<Self> {
        let store = Store::open(shared, own).context("the store of images")?;
        ready::release_all(&store)?;
        Ok(Self(Arc::new(Inner {
            registries,
            desk: Arc::new(Desk::new(store, Arc::default())),
            lines: Arc::default(),
            membership: Mutex::default(),
            unpacked: Notify::new(),
        })))
    }

    /// The store. What is changed by other ways than this one is told with [`Images::changed`].
    pub(crate) fn store(&self) -> &Store {
        &self.0.desk.store
    }

    /// Images have come or gone.
    pub(crate) fn changed(&self) {
        self.0.desk.shelf.changed();
    }

    /// The node is part of a swarm: other nodes are asked from now on, and may ask. In a runtime.
    ///
    /// # Errors
    /// The port for them cannot be opened. This node asks others all the same.
    pub(crate) fn join(
        &self,
        circle: Arc<dyn Circle>,
        listen: Option<SocketAddr>,
    ) -> anyhow::Result<()> {
        let inner = &self.0;
        let opened = listen
            .context(
                "gossip has the last port there is: other nodes cannot get images from this one",
            )
            .and_then(|addr| {
                let (lines, desk) = (Arc::clone(&inner.lines), Arc::clone(&inner.desk));
                Exchange::open(addr, Arc::clone(&circle), lines, desk)
            });
        let (exchange, error) = match opened {
            Ok(exchange) => (Some(exchange), None),
            Err(error) => (None, Some(error)),
        };
        *inner.membership() = Some(Membership { circle, exchange });
        error.map_or(Ok(()), Err)
    }

    /// The node is part of no swarm any more.
    pub(crate) fn part(&self) {
        let parted = self.0.membership().take();
        drop(parted);
    }

    /// Counters of the port where other nodes ask, while it is open.
    pub(crate) fn door(&self) -> Option<DoorSample> {
        let membership = self.0.membership();
        let exchange = membership.as_ref()?.exchange.as_ref()?;
        Some(exchange.sample())
    }

    /// Keeps an image for a task, over restarts, until it is released. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn hold(&self, task: &str, manifest: &Digest) -> anyhow::Result<()> {
        let held = self.store().hold(task, manifest);
        held.with_context(|| format!("cannot keep image {manifest} for task {task}"))
    }

    /// A task needs its image no more. Blocks.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn release(&self, task: &str) -> anyhow::Result<()> {
        let released = self.store().release(task);
        released.with_context(|| format!("cannot release the image of task {task}"))
    }

    /// Fetches an image, whether it is here or not, and tells how far that is until it ends.
    ///
    /// # Errors
    /// Nobody has it, or not for whoever asks; the disk's.
    pub(crate) async fn pull(
        &self,
        name: &ImageName,
        asker: Asker,
        occasion: Occasion,
        told: &(dyn Fn(u64, u64) + Sync),
    ) -> anyhow::Result<Digest> {
        loop {
            let joined = self.0.fetches().join(name, asker.clone(), occasion);
            let (fetch, own) = match joined {
                Joined::Shared(fetch) => (fetch, false),
                Joined::Own(carried) => {
                    let fetch = Arc::clone(carried.fetch());
                    tokio::spawn(Arc::clone(&self.0).carry_out(name.clone(), carried));
                    (fetch, true)
                }
            };
            match wait(&fetch, told).await {
                Ok(manifest) => return Ok(manifest),
                // Another one was refused: this one may be somebody else to the registry, or ask where
                // that one did not.
                Err(_) if !own && !fetch.speaks_for(&asker, occasion) => {}
                Err(error) => return Err(anyhow::anyhow!("{error:#}")),
            }
        }
    }
}

/// Waits until a fetch ends, and tells how far it is meanwhile.
async fn wait(fetch: &Fetch, told: &(dyn Fn(u64, u64) + Sync)) -> Outcome {
    let mut outcome = fetch.outcome();
    let mut tick = tokio::time::interval(ready::TELL);
    loop {
        tokio::select! {
            ended = outcome.wait_for(Option::is_some) => {
                let ended = ended.ok().and_then(|outcome| outcome.clone());
                return ended.unwrap_or_else(|| {
                    Err(Arc::new(anyhow::anyhow!("weftd is stopping")))
                });
            }
            _ = tick.tick() => told(fetch.progress.done(), fetch.progress.total()),
        }
    }
}

impl Inner {
    fn store(&self) -> &Store {
        &self.desk.store
    }

    fn fetches(&self) -> &Arc<Fetches> {
        &self.desk.fetches
    }

    fn membership(&self) -> MutexGuard<'_, Option<Membership>> {
        // Every change is a single step, so it stays whole.
        let locked = self.membership.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// Those who are asked about an image; none outside of a swarm.
    fn peers(&self, image: &Digest) -> Option<Peers> {
        let circle = {
            let membership = self.membership();
            membership.as_ref().map(|m| Arc::clone(&m.circle))?
        };
        let peers = Peers::of(circle, Arc::clone(&self.lines), image);
        (!peers.is_empty()).then_some(peers)
    }

    async fn carry_out(self: Arc<Self>, name: ImageName, carried: Carried) {
        let fetch = Arc::clone(carried.fetch());
        let outcome = self.fetch(&name, &fetch).await;
        self.desk.shelf.changed();
        if let Err(error) = &outcome {
            let image = name.familiar();
            tracing::debug!(image, error = %format!("{error:#}"), "an image was not fetched");
        }
        carried.end(outcome.map_err(Arc::new));
    }

    /// Fetches an image: which one it is, whose turn it is, and then all of it.
    async fn fetch(&self, name: &ImageName, fetch: &Fetch) -> anyhow::Result<Digest> {
        let credentials = credentials(fetch.asker())?;
        let manner = match fetch.occasion() {
            Occasion::Command => Manner::Again,
            Occasion::Task => self.manner(name).await,
        };
        let pinned = self.pinned(name, credentials.as_ref(), manner).await?;
        let image = pinned
            .digest()
            .cloned()
            .context("a name that was pinned has no digest")?;
        let by_digest = by_digest(name, &image)?;
        let names = [name, &by_digest];
        if let Some(here) = self.present(&image).await? {
            self.name(&here.manifest, names).await?;
            return Ok(here.manifest);
        }
        let registry = self.registries.source(credentials, manner.unhurried());
        let registry: Arc<dyn Source> = Arc::new(registry);
        let sources: Vec<Arc<dyn Source>> = match self.peers(&image) {
            Some(peers) => {
                let wait = self.turn(&peers, &image, fetch).await;
                vec![Arc::new(peers.waiting(wait)), registry]
            }
            None => {
                fetch.tell(&image, Stage::Fetches);
                vec![registry]
            }
        };
        let platform = Platform::of_machine();
        // It has the name by its digest then, and nobody takes it for unused.
        let pulled = pull(
            self.store(),
            &by_digest,
            &platform,
            &sources,
            &fetch.progress,
        )
        .await;
        let manifest = pulled.with_context(|| format!("cannot pull {}", name.familiar()))?;
        self.name(&manifest, names).await?;
        Ok(manifest)
    }

    /// Agrees with the other nodes who asks the registry.
    async fn turn(&self, peers: &Peers, image: &Digest, fetch: &Fetch) -> Wait {
        let begun = Instant::now();
        let mut turn = Turn::new(peers.own_rank(image));
        // Before they are asked: of any two nodes one sees the other.
        fetch.tell(image, Stage::Wants);
        loop {
            let said = peers.turns(image).await;
            match turn.handle(begun.elapsed(), &said) {
                Next::Ask(stage, pause) => {
                    fetch.tell(image, stage);
                    sleep(pause).await;
                }
                Next::Lead => {
                    fetch.tell(image, Stage::Fetches);
                    return Wait::ForNobody;
                }
                Next::Follow => {
                    fetch.tell(image, Stage::Follows);
                    return Wait::ForOthers;
                }
            }
        }
    }

    /// The image that has this digest: that of its manifest, or of a list that its manifest is from.
    /// None where a layer of it is gone, as one that was damaged: it is to be fetched again.
    async fn present(&self, digest: &Digest) -> anyhow::Result<Option<Image>> {
        let (store, digest) = (self.store().clone(), digest.clone());
        blocking(move || {
            let is_it = |image: &Image| {
                let mut names = image.names.iter();
                image.manifest == digest || names.any(|name| name.digest() == Some(&digest))
            };
            let image = store.images()?.into_iter().find(is_it);
            anyhow::Ok(image.filter(|image| store.has_layers(image)))
        })
        .await?
    }

    /// Gives an image names: that which was asked for, and that by its digest.
    async fn name(&self, manifest: &Digest, names: [&ImageName; 2]) -> anyhow::Result<()> {
        let mut names = names.map(ImageName::clone).to_vec();
        if names[0].digest().is_some() {
            names.remove(0);
        }
        let (store, manifest) = (self.store().clone(), manifest.clone());
        blocking(move || {
            names
                .iter()
                .try_for_each(|name| store.set_name(name, &manifest))
        })
        .await??;
        Ok(())
    }
}

/// The name of an image by its digest alone, as a registry has it for ever.
fn by_digest(name: &ImageName, digest: &Digest) -> anyhow::Result<ImageName> {
    let text = format!("{}/{}@{digest}", name.domain(), name.path());
    text.parse()
        .with_context(|| format!("no name by a digest: {text}"))
}

/// Credentials for a registry; none where nobody in particular asks.
///
/// # Errors
/// They are not in the form of Docker's header. The text is in no error.
fn credentials(asker: &Asker) -> anyhow::Result<Option<Credentials>> {
    // As Docker writes that nobody in particular asks: `{}`.
    const NOBODY: [&str; 2] = ["e30=", "e30"];
    if asker.is_empty() || NOBODY.contains(&asker.as_str()) {
        return Ok(None);
    }
    let read = Credentials::from_header(asker);
    read.map(Some)
        .context("the credentials for the registry are not in the form of X-Registry-Auth")
}
