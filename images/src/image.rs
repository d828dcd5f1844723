//! One image: what its manifest and its configuration say.

use std::time::Duration;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use weft_model::objects::HealthConfig;

use crate::blob::Blob;
use crate::digest::{Digest, ParseDigestError};
use crate::manifest::{self, ManifestError, Parsed};
use crate::name::ImageName;

/// The check of health that an image brings along, as of a service.
pub type ImageHealth = HealthConfig;

/// Why a manifest and its configuration are no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoImage {
    /// Remote: not a manifest of content that weft knows.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Local: several images for several platforms, of which one has to be chosen first.
    #[error("it is an index of images")]
    Index,
    /// Remote: not the JSON of a configuration.
    #[error("its configuration cannot be read: {0}")]
    Config(serde_json::Error),
    /// Remote: a digest of another algorithm, or none.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// Remote: manifest and configuration speak of other layers.
    #[error("its manifest has {layers} layers, and its configuration {diff_ids}")]
    Layers {
        /// Those of the manifest.
        layers: usize,
        /// Those of the configuration.
        diff_ids: usize,
    },
}

/// What a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) config: Blob,
    /// Bottom first.
    pub(crate) layers: Vec<Blob>,
}

impl Parts {
    /// Reads a manifest.
    ///
    /// # Errors
    /// See [`NoImage`].
    pub(crate) fn of(manifest: &[u8]) -> Result<Self, NoImage> {
        match manifest::parse(manifest)? {
            Parsed::Index(_) => Err(NoImage::Index),
            Parsed::Image(image) => {
                let (config, layers) = manifest::content(&image)?;
                Ok(Self { config, layers })
            }
        }
    }
}

/// An image of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Digest of the configuration: what docker calls the image's id.
    pub id: Digest,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// What it is called on this node; nothing for one whose name went to a newer one.
    pub names: Vec<ImageName>,
    /// Bytes of its files where its layers are unpacked, of the blob for each layer that is not.
    pub size: u64,
    /// What the image says of itself.
    pub config: ImageConfiguration,
    /// Compressed layers, bottom first.
    pub layers: Vec<Blob>,
    /// Of the uncompressed layers, in the same order.
    pub diff_ids: Vec<Digest>,
    /// Docker's `HEALTHCHECK`, which OCI does not have.
    pub health: Option<ImageHealth>,
    /// `STOPSIGNAL`, such as `SIGQUIT`.
    pub stop_signal: Option<String>,
}

impl Image {
    /// From the bytes of its configuration. It has no names, and its size is that of its blobs.
    ///
    /// # Errors
    /// See [`NoImage`].
    pub(crate) fn of(manifest: &Digest, parts: Parts, config: &[u8]) -> Result<Self, NoImage> {
        let health = health(config).map_err(NoImage::Config)?;
        let id = parts.config.digest;
        let config: ImageConfiguration = serde_json::from_slice(config).map_err(NoImage::Config)?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != parts.layers.len() {
            return Err(NoImage::Layers {
                layers: parts.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        let diff_ids = diff_ids
            .iter()
            .map(|id| id.parse())
            .collect::<Result<Vec<Digest>, ParseDigestError>>()?;
        let inner = config.config().as_ref();
        let stop_signal = inner.and_then(|inner| inner.stop_signal().clone());
        Ok(Self {
            id,
            manifest: manifest.clone(),
            names: Vec::new(),
            size: parts
                .layers
                .iter()
                .fold(0, |sum, layer| layer.size.saturating_add(sum)),
            stop_signal: stop_signal.filter(|signal| !signal.is_empty()),
            config,
            layers: parts.layers,
            diff_ids,
            health,
        })
    }

    /// Names of its layers in the store: each for itself and all below it.
    pub(crate) fn chain_ids(&self) -> Vec<Digest> {
        chain_ids(&self.diff_ids)
    }
}

/// OCI image specification, config.md, "Layer ChainID".
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

/// What Docker adds to a configuration. What is not known here does not matter.
#[derive(Deserialize)]
struct Extended {
    config: Option<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(rename = "Healthcheck")]
    health: Option<Health>,
}

/// Times are nanoseconds; 0 stands for Docker's default.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    test: Option<Vec<String>>,
    #[serde(default)]
    interval: i64,
    #[serde(default)]
    timeout: i64,
    #[serde(default)]
    start_period: i64,
    #[serde(default)]
    start_interval: i64,
    #[serde(default)]
    retries: i64,
}

fn health(config: &[u8]) -> serde_json::Result<Option<ImageHealth>> {
    let extended: Extended = serde_json::from_slice(config)?;
    let duration = |ns: i64| Duration::from_nanos(u64::try_from(ns).unwrap_or(0));
    let health = extended.config.and_then(|inner| inner.health);
    Ok(health.map(|health| ImageHealth {
        test: health.test.unwrap_or_default(),
        interval: duration(health.interval),
        timeout: duration(health.timeout),
        start_period: duration(health.start_period),
        start_interval: duration(health.start_interval),
        retries: u32::try_from(health.retries).unwrap_or(0),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn manifest(layers: usize, media_type: &str) -> String {
        let layer = format!(
            r#"{{"mediaType":"{media_type}","digest":"{}","size":7}}"#,
            digest("layer")
        );
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},"layers":[{}]}}"#,
            digest("config"),
            vec![layer; layers].join(",")
        )
    }

    const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    #[test]
    fn an_image_is_its_manifest_and_its_configuration() {
        let parts = Parts::of(manifest(2, GZIP).as_bytes()).expect("a manifest");
        assert_eq!(parts.layers.len(), 2);
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","unknown":1,"rootfs":{{"type":"layers","diff_ids":["{0}","{1}"]}},
            "config":{{"StopSignal":"SIGQUIT","Env":["A=b"],"Volumes":{{"/data":{{}}}},"OnBuild":null,
            "Healthcheck":{{"Test":["CMD","true"],"Interval":2000000000,"Retries":3,"New":true}}}}}}"#,
            digest("a"),
            digest("b")
        );
        let image = Image::of(&digest("m"), parts.clone(), config.as_bytes()).expect("an image");
        assert_eq!(image.id, digest("config"));
        assert_eq!(image.size, 14);
        assert_eq!(image.stop_signal.as_deref(), Some("SIGQUIT"));
        let health = image.health.clone().expect("a check");
        assert_eq!(health.test, ["CMD", "true"]);
        assert_eq!(health.interval, Duration::from_secs(2));
        assert_eq!((health.timeout, health.retries), (Duration::ZERO, 3));
        let both = format!("{} {}", digest("a"), digest("b"));
        assert_eq!(image.chain_ids(), [digest("a"), digest(&both)]);

        let one =
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let error =
            Image::of(&digest("m"), parts.clone(), one.as_bytes()).expect_err("not its own");
        assert!(
            error
                .to_string()
                .contains("2 layers, and its configuration 0"),
            "{error}"
        );
        Image::of(&digest("m"), parts, b"{").expect_err("cut off");
    }

    #[test]
    fn what_cannot_be_unpacked_is_said_before_it_is_pulled() {
        for bad in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        ] {
            let error = Parts::of(manifest(1, bad).as_bytes()).expect_err(bad);
            assert!(
                matches!(error, NoImage::Manifest(ManifestError::MediaType(_))),
                "{error}"
            );
        }
        let many = Parts::of(manifest(501, GZIP).as_bytes());
        assert!(matches!(
            many,
            Err(NoImage::Manifest(ManifestError::Layers(501)))
        ));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(Parts::of(index.as_bytes()), Err(NoImage::Index)));
        let other = manifest(1, GZIP).replace("sha256:", "sha512:");
        assert!(Parts::of(other.as_bytes()).is_err(), "another algorithm");
        for half in ["", "{", "{}", "[]", "null"] {
            let read = Parts::of(half.as_bytes());
            assert!(matches!(read, Err(NoImage::Manifest(_))), "{half}");
        }
    }
}
