//! The image of a task, made ready: here, and with its layers unpacked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::interval;
use weft_images::{Digest, Image, ImageName, Store};
use weft_model::objects::ContainerSpec;
use zeroize::Zeroizing;

use super::Images;
use super::fetches::{Asker, Occasion};
use crate::blocking::blocking;

/// Between two words about how far something is.
pub(super) const TELL: Duration = Duration::from_millis(500);

/// An image that a task can be made of.
#[derive(Debug)]
pub(crate) struct Ready {
    /// What it says of itself.
    pub(crate) image: Image,
    /// Its layers, unpacked, bottom first.
    pub(crate) layers: Vec<PathBuf>,
    /// Nobody removes it before this is dropped: the task holds it by then.
    _kept: Kept,
}

/// An image that is kept for a moment.
#[derive(Debug)]
struct Kept {
    store: Store,
    owner: String,
}

/// What images that are kept for a moment are held by; no id of a task looks like this.
const PREPARING: &str = "preparing-";

/// Releases what an agent kept that was killed. Blocks.
pub(super) fn release_all(store: &Store) -> anyhow::Result<()> {
    let holds = store.holds();
    let mut stale = holds.keys().filter(|owner| owner.starts_with(PREPARING));
    stale.try_for_each(|owner| anyhow::Ok(store.release(owner)?))
}

impl Kept {
    /// Blocks.
    fn new(store: &Store, manifest: &Digest) -> anyhow::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let kept = Self {
            store: store.clone(),
            owner: format!("{PREPARING}{number}"),
        };
        kept.store.hold(&kept.owner, manifest)?;
        Ok(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Err(error) = self.store.release(&self.owner) {
            tracing::warn!(%error, "an image is kept longer than it is needed");
        }
    }
}

impl Images {
    /// Makes the image of a task ready, and says how far that is. What is here by its digest nobody is
    /// asked for. By a tag alone it is asked for each time, as docker does; what is here is taken where
    /// nobody answers soon. Cancel-safe: what was begun goes on, and is found by the next call.
    ///
    /// # Errors
    /// Nobody has the image, or not for this machine, or not for whoever asks; the disk's.
    pub(crate) async fn ensure(
        &self,
        spec: &ContainerSpec,
        said: &(dyn Fn(String) + Sync),
    ) -> anyhow::Result<Ready> {
        let name: ImageName = spec
            .image
            .parse()
            .with_context(|| format!("image {:?}", spec.image))?;
        let asker: Asker = Zeroizing::new(spec.pull_options.registry_auth.clone());
        let short = name.familiar_short();
        let manifest = self.here_or_pulled(&name, asker, &short, said).await?;
        let store = self.store().clone();
        let (image, kept) = blocking(move || {
            let kept = Kept::new(&store, &manifest)?;
            anyhow::Ok((store.image(&manifest)?, kept))
        })
        .await??;
        let layers = self.unpacked(&image, &short, said).await?;
        self.0.unpacked.notify_one();
        Ok(Ready {
            image,
            layers,
            _kept: kept,
        })
    }

    async fn here_or_pulled(
        &self,
        name: &ImageName,
        asker: Asker,
        short: &str,
        said: &(dyn Fn(String) + Sync),
    ) -> anyhow::Result<Digest> {
        if let Some(digest) = name.digest()
            && let Some(image) = self.0.present(digest).await?
        {
            return Ok(image.manifest);
        }
        let told = |done, total| said(progress("pulling", short, done, total));
        let error = match self.pull(name, asker, Occasion::Task, &told).await {
            Ok(manifest) => return Ok(manifest),
            Err(error) => error,
        };
        let here = match name.digest() {
            // Another image would be none at all.
            Some(_) => None,
            None => self.find(&name.to_string()).await?,
        };
        let Some(image) = here else {
            return Err(error);
        };
        let (store, manifest) = (self.store().clone(), image.manifest.clone());
        let is_whole = blocking(move || {
            let image = store.image(&manifest)?;
            anyhow::Ok(store.has_layers(&image))
        });
        if !is_whole.await?? {
            return Err(error);
        }
        tracing::warn!(
            image = short,
            error = %format!("{error:#}"),
            "an image could not be pulled; the one that is here is used"
        );
        Ok(image.manifest)
    }

    /// The image of a name or the beginning of an id; none also where a name is left of it alone.
    ///
    /// # Errors
    /// The disk's, or several begin so.
    pub(crate) async fn find(&self, word: &str) -> anyhow::Result<Option<Image>> {
        let (store, word) = (self.store().clone(), word.to_owned());
        match blocking(move || store.find(&word)).await? {
            Err(error) if error.is_gone() => {
                tracing::warn!(%error, "an image that has a name here is not whole");
                Ok(None)
            }
            found => Ok(found?),
        }
    }

    /// The layers of an image, unpacked where they are not yet.
    async fn unpacked(
        &self,
        image: &Image,
        short: &str,
        said: &(dyn Fn(String) + Sync),
    ) -> anyhow::Result<Vec<PathBuf>> {
        let (store, manifest) = (self.store().clone(), image.manifest.clone());
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        let mut unpacking = tokio::task::spawn_blocking(move || {
            store.unpack(&manifest, &|bytes| {
                // Those since the last call.
                count.fetch_add(bytes, Ordering::Relaxed);
            })
        });
        let total = image.layers.iter().map(|layer| layer.size).sum();
        let mut tick = interval(TELL);
        // Most are unpacked already: nothing is said of these.
        tick.reset();
        loop {
            tokio::select! {
                unpacked = &mut unpacking => {
                    let unpacked = unpacked.context("unpacking an image panicked")?;
                    return unpacked.with_context(|| format!("cannot unpack {short}"));
                }
                _ = tick.tick() => {
                    said(progress("unpacking", short, done.load(Ordering::Relaxed), total));
                }
            }
        }
    }
}

/// `pulling nginx:latest 34 %`
pub(super) fn progress(what: &str, image: &str, done: u64, total: u64) -> String {
    // Lists of layers are not there at once, so there is nothing to divide by.
    let percent = (u128::from(done.min(total)) * 100).checked_div(u128::from(total));
    match percent {
        Some(percent) => format!("{what} {image} {percent} %"),
        None => format!("{what} {image}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_has_a_figure_once_there_is_one() {
        assert_eq!(progress("pulling", "nginx", 0, 0), "pulling nginx");
        assert_eq!(progress("pulling", "nginx", 34, 100), "pulling nginx 34 %");
        assert_eq!(progress("pulling", "nginx", 7, 5), "pulling nginx 100 %");
        let huge = progress("unpacking", "a", u64::MAX / 2, u64::MAX);
        assert_eq!(huge, "unpacking a 49 %");
    }
}
