//! Registries over HTTPS: mirrors first, then the registry itself.
//!
//! A request goes through [`client`] (challenges, redirects) and [`exchange`] (time-outs) to [`connect`];
//! what comes back is content, or a [`RegistryError`] that names the host and the kind of trouble.

mod answer;
mod challenge;
mod client;
mod config;
mod connect;
mod error;
mod exchange;
mod manner;
mod source;
mod tls;
mod token;
mod unreached;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::CONTENT_RANGE;
use tokio::time::Instant;

pub use config::RegistryConfig;
pub use connect::TimeOuts;
pub use error::RegistryError;
pub use manner::Manner;
pub use source::RegistrySource;

use self::client::{Answer, Client, Wanted};
use self::config::Endpoint;
use self::exchange::Chunks;
use crate::blob::Blob;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::manifest::{self, MAX_BYTES, ManifestError, Parsed};
use crate::name::ImageName;
use crate::platform::{self, Platform};
use crate::source::{BlobStream, Manifest};

/// A mirror that did not answer is left out for this long.
const DOWN_FOR: Duration = Duration::from_secs(60);
/// Header with the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What a name stands for at its registry, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Of the manifest, or of the index where there is one: what pins the image.
    pub digest: Digest,
    /// What it runs on; empty where the image does not say.
    pub platforms: Vec<Platform>,
}

/// All registries of a node: their settings, connections and tokens.
#[derive(Debug)]
pub struct Registries {
    client: Client,
    /// Mirrors that did not answer, and when.
    down: Mutex<BTreeMap<String, Instant>>,
}

impl Registries {
    /// With the settings of each registry by its host, as in the configuration.
    ///
    /// # Errors
    /// A mirror is no host; a file of certificates cannot be read.
    pub fn new(configs: BTreeMap<String, RegistryConfig>) -> Result<Self, RegistryError> {
        Self::with_time_outs(configs, TimeOuts::default())
    }

    /// The same, with other time-outs.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_time_outs(
        configs: BTreeMap<String, RegistryConfig>,
        times: TimeOuts,
    ) -> Result<Self, RegistryError> {
        for (registry, config) in &configs {
            for mirror in &config.mirrors {
                config::mirror_endpoint(&configs, registry, mirror)?;
            }
        }
        Ok(Self {
            client: Client::new(configs, times)?,
            down: Mutex::default(),
        })
    }

    /// Asks what a name stands for, to pin it.
    ///
    /// # Errors
    /// The registry has no such image, gives no access, or does not answer.
    pub async fn resolve(
        &self,
        name: &ImageName,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> Result<Resolved, RegistryError> {
        let manifest = self.manifest(name, credentials, manner).await?;
        let host = name.registry_host();
        let refused = |error| damaged(host, error);
        let platforms = match manifest::parse(&manifest.bytes).map_err(refused)? {
            Parsed::Index(index) => platform::platforms(&index),
            Parsed::Image(image) => {
                let (config, _) = manifest::content(&image).map_err(refused)?;
                // Somebody is there, so that it is worth a wait.
                let manner = manner.unhurried();
                match self.small(name, &config, credentials, manner).await {
                    Ok(bytes) => {
                        let platform = manifest::platform(&bytes).map_err(refused)?;
                        let is_told = !platform.os.is_empty() && !platform.architecture.is_empty();
                        is_told.then_some(platform).into_iter().collect()
                    }
                    // Nodes find out; what the name stands for is known.
                    Err(error) if error.is_transient() => {
                        tracing::info!(%error, image = %name.familiar(), "its platform is not known");
                        Vec::new()
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Resolved {
            digest: manifest.digest,
            platforms,
        })
    }

    /// What a name stands for, and nothing else of it.
    ///
    /// # Errors
    /// As of [`Registries::resolve`].
    pub async fn digest(
        &self,
        name: &ImageName,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> Result<Digest, RegistryError> {
        Ok(self.manifest(name, credentials, manner).await?.digest)
    }

    /// A source of images for whoever has these credentials, which is asked in this manner at first.
    /// What it has begun to give is worth every attempt.
    #[must_use]
    pub fn source(
        self: &Arc<Self>,
        credentials: Option<Credentials>,
        manner: Manner,
    ) -> RegistrySource {
        RegistrySource::new(Arc::clone(self), credentials, manner)
    }

    /// The manifest or index of a name, its digest checked.
    pub(crate) async fn manifest(
        &self,
        name: &ImageName,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> Result<Manifest, RegistryError> {
        let mut last = None;
        for endpoint in self.endpoints(name)? {
            match self.manifest_of(&endpoint, name, credentials, manner).await {
                Ok(manifest) => return Ok(manifest),
                Err(error) => last = Some(self.noted(&endpoint, error, manner)),
            }
        }
        Err(last.expect("the registry itself is always asked"))
    }

    async fn manifest_of(
        &self,
        endpoint: &Endpoint,
        name: &ImageName,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> Result<Manifest, RegistryError> {
        let answer = self
            .client
            .get(endpoint, name, Wanted::Manifest, credentials, manner)
            .await?;
        let said: Option<Digest> = answer
            .response
            .headers()
            .get(CONTENT_DIGEST)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok());
        let idle = self.client.exchange().idle();
        let body = answer.response.into_body();
        let bytes = exchange::read(&answer.host, body, MAX_BYTES, idle).await?;
        let digest = Digest::of(&bytes);
        // What was asked for counts; by a tag, what the registry says of it.
        match name.digest().or(said.as_ref()) {
            Some(wanted) if *wanted != digest => Err(RegistryError::WrongDigest {
                host: answer.host,
                wanted: wanted.clone(),
                got: digest,
            }),
            _ => Ok(Manifest { digest, bytes }),
        }
    }

    /// Bytes of a blob, which are not checked here.
    pub(crate) async fn blob(
        &self,
        name: &ImageName,
        blob: &Blob,
        offset: u64,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> Result<BlobStream, RegistryError> {
        let mut last = None;
        for endpoint in self.endpoints(name)? {
            match self
                .blob_of(&endpoint, name, blob, offset, credentials, manner)
                .await
            {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(self.noted(&endpoint, error, manner)),
            }
        }
        Err(last.expect("the registry itself is always asked"))
    }

    async fn blob_of(
        &self,
        endpoint: &Endpoint,
        name: &ImageName,
        blob: &Blob,
        offset: u64,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> Result<BlobStream, RegistryError> {
        let wanted = |offset| Wanted::Blob {
            digest: &blob.digest,
            offset,
        };
        let answer = match self
            .client
            .get(endpoint, name, wanted(offset), credentials, manner)
            .await
        {
            // "Range Not Satisfiable": whole then.
            Err(RegistryError::Server { status: 416, .. }) if offset > 0 => {
                self.client
                    .get(endpoint, name, wanted(0), credentials, manner)
                    .await?
            }
            other => other?,
        };
        let starts_at = first_byte(&answer)?;
        let idle = self.client.exchange().idle();
        let chunks = Chunks::new(answer.host, answer.response.into_body(), idle);
        Ok(BlobStream::new(starts_at, chunks))
    }

    /// All of a small blob, its digest checked.
    async fn small(
        &self,
        name: &ImageName,
        blob: &Blob,
        credentials: Option<&Credentials>,
        manner: Manner,
    ) -> Result<Vec<u8>, RegistryError> {
        let host = name.registry_host().to_owned();
        let mut stream = self.blob(name, blob, 0, credentials, manner).await?;
        let mut bytes = Vec::new();
        loop {
            let chunk = stream.chunk().await.map_err(|error| RegistryError::Cut {
                host: host.clone(),
                reason: error.message,
            })?;
            let Some(chunk) = chunk else { break };
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(RegistryError::Protocol {
                    host,
                    reason: format!("a configuration of more than {MAX_BYTES} bytes"),
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        let got = Digest::of(&bytes);
        if got != blob.digest {
            let wanted = blob.digest.clone();
            return Err(RegistryError::WrongDigest { host, wanted, got });
        }
        Ok(bytes)
    }

    /// Whom to ask, without mirrors that were down a moment ago.
    fn endpoints(&self, name: &ImageName) -> Result<Vec<Endpoint>, RegistryError> {
        let mut endpoints = config::endpoints(self.client.configs(), name)?;
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.retain(|_, since| since.elapsed() < DOWN_FOR);
        endpoints.retain(|one| one.mirrors.is_none() || !down.contains_key(&one.host));
        Ok(endpoints)
    }

    fn noted(&self, endpoint: &Endpoint, error: RegistryError, manner: Manner) -> RegistryError {
        if endpoint.mirrors.is_some() {
            tracing::debug!(mirror = %endpoint.host, %error, "a mirror does not have it");
            // Who waits a moment only has not seen that it is down.
            if error.is_down() && manner != Manner::Brief {
                let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
                down.insert(endpoint.host.clone(), Instant::now());
            }
        }
        error
    }
}

/// Where the body of an answer begins in the blob.
fn first_byte(answer: &Answer) -> Result<u64, RegistryError> {
    if answer.response.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    // RFC 9110 section 14.4: `bytes 42-1233/1234`.
    answer
        .response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.strip_prefix("bytes "))
        .and_then(|text| text.split('-').next())
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| RegistryError::Protocol {
            host: answer.host.clone(),
            reason: "a part of a blob that does not say which one".to_owned(),
        })
}

fn damaged(host: &str, error: ManifestError) -> RegistryError {
    match error {
        ManifestError::MediaType(source) => RegistryError::MediaType {
            host: host.to_owned(),
            source,
        },
        other => RegistryError::Protocol {
            host: host.to_owned(),
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
