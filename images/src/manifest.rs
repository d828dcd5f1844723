//! Reading manifests and indexes that strangers wrote.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::blob::Blob;
use crate::media::{self, ManifestKind, MediaTypeError};
use crate::platform::Platform;

/// Longest manifest, index or configuration, in bytes; what registries take, too.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// More layers than an overlay has lower folders; Docker ends at 127.
const MAX_LAYERS: usize = 500;

/// Why bytes are no manifest that weft can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that it should be.
    #[error("the manifest is damaged: {0}")]
    Json(String),
    /// Of a kind that is no image.
    #[error(transparent)]
    MediaType(#[from] MediaTypeError),
    /// It could be read in two ways.
    #[error("the manifest is both an image and an index of images, and is refused")]
    Ambiguous,
    /// Content by another digest than sha256.
    #[error("the manifest names content by {0}: only sha256 is known")]
    Digest(String),
    /// More than can be mounted.
    #[error("the image has {0} layers: {MAX_LAYERS} at most can be mounted")]
    Layers(usize),
    /// More bytes than a manifest or configuration has.
    #[error("{what} says that it has {size} bytes: more than {MAX_BYTES} are refused")]
    Size {
        /// `manifest` or `configuration`.
        what: &'static str,
        /// What it says.
        size: u64,
    },
}

/// What the bytes are.
#[derive(Debug)]
pub(crate) enum Parsed {
    Index(Box<ImageIndex>),
    Image(Box<ImageManifest>),
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u32>,
    #[serde(rename = "mediaType")]
    media_type: Option<MediaType>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// # Errors
/// Damaged, ambiguous, or of another kind.
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, ManifestError> {
    let damaged = |error: serde_json::Error| ManifestError::Json(error.to_string());
    let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
    if head.schema_version == Some(1) {
        let old = "application/vnd.docker.distribution.manifest.v1+json";
        return Err(MediaTypeError::Manifest(old.to_owned()).into());
    }
    // One digest must not be two things to two programs.
    if head.manifests.is_some() && head.layers.is_some() {
        return Err(ManifestError::Ambiguous);
    }
    match media::manifest_kind(head.media_type.as_ref(), head.manifests.is_some())? {
        ManifestKind::Index => serde_json::from_slice(bytes)
            .map(|index| Parsed::Index(Box::new(index)))
            .map_err(damaged),
        ManifestKind::Image => serde_json::from_slice(bytes)
            .map(|image| Parsed::Image(Box::new(image)))
            .map_err(damaged),
    }
}

/// Digest and size of a descriptor.
///
/// # Errors
/// [`ManifestError::Digest`].
pub(crate) fn blob(descriptor: &Descriptor) -> Result<Blob, ManifestError> {
    let text = descriptor.digest().to_string();
    match text.parse() {
        Ok(digest) => Ok(Blob {
            digest,
            size: descriptor.size(),
        }),
        Err(_) => Err(ManifestError::Digest(
            descriptor
                .digest()
                .algorithm()
                .as_ref()
                .chars()
                .take(40)
                .collect(),
        )),
    }
}

/// The same of a manifest that an index names.
///
/// # Errors
/// [`ManifestError::Digest`], [`ManifestError::Size`].
pub(crate) fn small_blob(
    descriptor: &Descriptor,
    what: &'static str,
) -> Result<Blob, ManifestError> {
    let blob = blob(descriptor)?;
    if blob.size > MAX_BYTES as u64 {
        let size = blob.size;
        return Err(ManifestError::Size { what, size });
    }
    Ok(blob)
}

/// Configuration and layers of an image, bottom first, all of kinds that weft knows.
///
/// # Errors
/// What is refused.
pub(crate) fn content(image: &ImageManifest) -> Result<(Blob, Vec<Blob>), ManifestError> {
    media::check_config(image.config().media_type())?;
    let config = small_blob(image.config(), "the configuration")?;
    if image.layers().len() > MAX_LAYERS {
        return Err(ManifestError::Layers(image.layers().len()));
    }
    let mut layers = Vec::with_capacity(image.layers().len());
    for layer in image.layers() {
        media::check_layer(layer.media_type())?;
        layers.push(blob(layer)?);
    }
    Ok((config, layers))
}

#[derive(Deserialize)]
struct ConfigHead {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// What a configuration says of where its image runs.
///
/// # Errors
/// [`ManifestError::Json`].
pub(crate) fn platform(config: &[u8]) -> Result<Platform, ManifestError> {
    let head: ConfigHead =
        serde_json::from_slice(config).map_err(|error| ManifestError::Json(error.to_string()))?;
    Ok(Platform {
        os: head.os,
        architecture: head.architecture,
        variant: head.variant.filter(|text| !text.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(layer: &str, size: u64) -> String {
        format!(
            r#"{{"schemaVersion": 2,
            "config": {{"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": "sha256:{0}", "size": {size}}},
            "layers": [{{"mediaType": "{layer}", "digest": "sha256:{0}", "size": 7}}]}}"#,
            "a".repeat(64)
        )
    }

    fn read(text: &str) -> Result<(Blob, Vec<Blob>), ManifestError> {
        match parse(text.as_bytes())? {
            Parsed::Image(image) => content(&image),
            Parsed::Index(_) => Err(ManifestError::Ambiguous),
        }
    }

    #[test]
    fn an_image_is_config_and_layers() {
        let text = image("application/vnd.oci.image.layer.v1.tar+gzip", 3);
        let (config, layers) = read(&text).expect("an image");
        assert_eq!(config.size, 3);
        assert_eq!(layers.len(), 1);
        assert_eq!(layers[0].size, 7);
    }

    #[test]
    fn what_is_refused() {
        let layer = "application/vnd.oci.image.layer.v1.tar";
        assert!(matches!(
            read(&image("application/x-tar", 3)),
            Err(ManifestError::MediaType(MediaTypeError::Layer(_)))
        ));
        assert!(matches!(
            read(&image(layer, u64::MAX)),
            Err(ManifestError::Size { size: u64::MAX, .. })
        ));
        let sha512 = image(layer, 3).replace(
            "sha256:",
            "sha512:aaaaaaaaaaaaaaaa\
            aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        );
        assert_eq!(
            read(&sha512),
            Err(ManifestError::Digest("sha512".to_owned()))
        );
        let both =
            image(layer, 3).replace("\"schemaVersion\"", "\"manifests\": [], \"schemaVersion\"");
        assert_eq!(read(&both), Err(ManifestError::Ambiguous));
        assert!(matches!(
            read("{\"schemaVersion\": 1}"),
            Err(ManifestError::MediaType(_))
        ));
        let half = image(layer, 3);
        assert!(matches!(
            read(&half[..half.len() / 2]),
            Err(ManifestError::Json(_))
        ));
        assert!(matches!(read("<html>"), Err(ManifestError::Json(_))));
        let escape = image(layer, 3).replace("sha256:aa", "../aa");
        assert!(matches!(read(&escape), Err(ManifestError::Json(_))));
    }

    #[test]
    fn many_layers() {
        let text = image("application/vnd.oci.image.layer.v1.tar", 3);
        let Ok(Parsed::Image(mut image)) = parse(text.as_bytes()) else {
            unreachable!("an image");
        };
        let layer = image.layers()[0].clone();
        image.set_layers(vec![layer; MAX_LAYERS + 1]);
        assert_eq!(content(&image), Err(ManifestError::Layers(MAX_LAYERS + 1)));
    }
}
