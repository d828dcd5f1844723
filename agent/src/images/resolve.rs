//! Which image a name stands for.

#[cfg(test)]
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;
use weft_images::{Credentials, Digest, ImageName, Manner, Platform, RegistryError, Resolved};
use zeroize::Zeroizing;

use super::{Images, Inner, credentials};
use crate::blocking::blocking;

/// How long a registry may take to say which image a name stands for, before others are asked.
const REGISTRY: Duration = Duration::from_secs(15);

/// Which image a name stands for, and who says so.
#[derive(Debug)]
pub(crate) struct Meaning {
    /// The image.
    pub(crate) resolved: Resolved,
    /// Why no registry says so: it is the image that a node has.
    pub(crate) registry_error: Option<RegistryError>,
}

impl Images {
    /// Which image a name stands for: by its registry; where that does not answer, by what is here or
    /// on another node, so that a cluster without a registry works with what was loaded.
    ///
    /// # Errors
    /// Neither a registry nor a node knows it.
    pub(crate) async fn resolve(&self, name: &ImageName, asker: String) -> anyhow::Result<Meaning> {
        let credentials = credentials(&Zeroizing::new(asker))?;
        let manner = self.0.manner(name).await;
        let registries = &self.0.registries;
        let asked = registries.resolve(name, credentials.as_ref(), manner);
        let error = match timeout(REGISTRY, asked).await {
            Ok(Ok(resolved)) => {
                return Ok(Meaning {
                    resolved,
                    registry_error: None,
                });
            }
            Ok(Err(error)) => error,
            Err(_) => RegistryError::Silent {
                host: name.registry_host().to_owned(),
                limit: REGISTRY,
            },
        };
        let others_too = error.is_transient();
        match self.0.without_registry(name, others_too).await? {
            Some((digest, platforms)) => Ok(Meaning {
                resolved: Resolved { digest, platforms },
                registry_error: Some(error),
            }),
            None => Err(error).with_context(|| format!("no registry tells of {}", name.familiar())),
        }
    }
}

impl Inner {
    /// How the registry of an image is asked for it: where the node has one of that very name, all of
    /// it, that is what it goes on with, so it waits a moment only.
    pub(super) async fn manner(&self, name: &ImageName) -> Manner {
        let (store, word) = (self.store().clone(), name.to_string());
        let is_here = blocking(move || {
            let image = store.find(&word)?;
            anyhow::Ok(image.is_some_and(|image| store.has_layers(&image)))
        });
        // What is wrong with the store is told by whoever needs the image.
        if matches!(is_here.await, Ok(Ok(true))) {
            Manner::Brief
        } else {
            Manner::Usual
        }
    }

    /// The name with the digest of its image.
    ///
    /// # Errors
    /// Neither a registry nor a node knows it.
    pub(super) async fn pinned(
        &self,
        name: &ImageName,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> anyhow::Result<ImageName> {
        if name.digest().is_some() {
            return Ok(name.clone());
        }
        let asked = self.registries.digest(name, credentials, manner);
        let error = match asked.await {
            Ok(digest) => return Ok(name.with_digest(digest)),
            Err(error) => error,
        };
        // What it says itself counts: that there is no such image, or not for whoever asks.
        let found = if error.is_transient() {
            self.on_another_node(name).await
        } else {
            None
        };
        match found {
            Some(digest) => {
                tracing::info!(image = name.familiar(), %error, "the image of another node is taken");
                Ok(name.with_digest(digest))
            }
            None => Err(error).with_context(|| format!("cannot pull {}", name.familiar())),
        }
    }

    /// What an image of this name is here, or on another node if those are to be asked.
    async fn without_registry(
        &self,
        name: &ImageName,
        others_too: bool,
    ) -> anyhow::Result<Option<(Digest, Vec<Platform>)>> {
        let (store, word) = (self.store().clone(), name.to_string());
        let here = blocking(move || store.find(&word)).await??;
        if let Some(image) = here {
            let config = &image.config;
            let platform = Platform {
                os: config.os().to_string(),
                architecture: config.architecture().to_string(),
                variant: config.variant().clone(),
            };
            return Ok(Some((image.manifest, vec![platform])));
        }
        if !others_too {
            return Ok(None);
        }
        let elsewhere = self.on_another_node(name).await;
        Ok(elsewhere.map(|digest| (digest, Vec::new())))
    }

    async fn on_another_node(&self, name: &ImageName) -> Option<Digest> {
        // Nobody is closer to a name than another node.
        let any = Digest::of(name.to_string().as_bytes());
        let peers = self.peers(&any)?;
        peers.by_name(name).await
    }
}

/// A registry that answers no name at all, for those who need none.
#[cfg(test)]
pub(super) fn nobody() -> Arc<weft_images::Registries> {
    let none = weft_images::Registries::new(std::collections::BTreeMap::new());
    Arc::new(none.expect("no settings are right"))
}
