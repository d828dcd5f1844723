//! Which image a name stands for.

#[cfg(test)]
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::timeout;
use weft_images::{Credentials, Digest, ImageName, Platform, RegistryError, Resolved};
use zeroize::Zeroizing;

use super::{Images, Inner, credentials};
use crate::blocking::blocking;

/// How long a registry may take to say which image a name stands for, before others are asked.
const REGISTRY: Duration = Duration::from_secs(15);

impl Images {
    /// Which image a name stands for: by its registry; where that does not answer, by what is here or
    /// on another node, so that a cluster without a registry works with what was loaded.
    ///
    /// # Errors
    /// Neither a registry nor a node knows it.
    pub(crate) async fn resolve(
        &self,
        name: &ImageName,
        asker: String,
    ) -> anyhow::Result<Resolved> {
        let credentials = credentials(&Zeroizing::new(asker))?;
        let asked = self.0.registries.resolve(name, credentials.as_ref());
        let error = match timeout(REGISTRY, asked).await {
            Ok(Ok(resolved)) => return Ok(resolved),
            Ok(Err(error)) => error,
            Err(_) => RegistryError::Silent {
                host: name.registry_host().to_owned(),
                limit: REGISTRY,
            },
        };
        let others_too = error.is_transient();
        match self.0.without_registry(name, others_too).await? {
            Some((digest, platforms)) => Ok(Resolved { digest, platforms }),
            None => Err(error).with_context(|| format!("no registry tells of {}", name.familiar())),
        }
    }
}

impl Inner {
    /// The name with the digest of its image.
    ///
    /// # Errors
    /// Neither a registry nor a node knows it.
    pub(super) async fn pinned(
        &self,
        name: &ImageName,
        credentials: Option<&Credentials>,
    ) -> anyhow::Result<ImageName> {
        if name.digest().is_some() {
            return Ok(name.clone());
        }
        let error = match self.registries.digest(name, credentials).await {
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
