//! Kinds of content: what a registry or an archive may hand over, and what is refused.

use oci_spec::image::MediaType;

/// Docker's list of manifests for several platforms.
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest, version 2, schema 2.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's configuration.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layers, but for those that may not be handed on.
const DOCKER_LAYERS: [&str; 3] = [
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// What a registry is asked for.
pub(crate) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Content that weft can do nothing with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaTypeError {
    /// Neither index nor manifest.
    #[error(
        "unsupported media type {0}: neither an image nor an index of images; an older format than \
         schema 2 has to be pushed again by a current docker"
    )]
    Manifest(String),
    /// The configuration is that of something else: a chart, a signature.
    #[error("unsupported media type {0}: this is no image that runs as a container")]
    Config(String),
    /// A layer that is no tar archive, plain or by gzip or zstd.
    #[error(
        "unsupported media type {0} of a layer: push the image with layers of tar, gzip or zstd"
    )]
    Layer(String),
    /// A layer that registries do not hand out.
    #[error(
        "layer of type {0} may not be distributed and is in no registry: images of Windows have such"
    )]
    Foreign(String),
    /// A layer that needs a key.
    #[error("layer of type {0} is encrypted: push the image without encryption")]
    Encrypted(String),
}

/// What the bytes of a manifest are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ManifestKind {
    /// Several images, one for each platform.
    Index,
    /// One image.
    Image,
}

/// What `type_given` says, or, where a manifest has none, what it has inside.
///
/// # Errors
/// [`MediaTypeError::Manifest`].
pub(crate) fn manifest_kind(
    type_given: Option<&MediaType>,
    has_manifests: bool,
) -> Result<ManifestKind, MediaTypeError> {
    match type_given {
        Some(MediaType::ImageIndex) => Ok(ManifestKind::Index),
        Some(MediaType::ImageManifest) => Ok(ManifestKind::Image),
        Some(MediaType::Other(name)) if name == DOCKER_LIST => Ok(ManifestKind::Index),
        Some(MediaType::Other(name)) if name == DOCKER_MANIFEST => Ok(ManifestKind::Image),
        Some(other) => Err(MediaTypeError::Manifest(shown(other))),
        None if has_manifests => Ok(ManifestKind::Index),
        None => Ok(ManifestKind::Image),
    }
}

/// # Errors
/// [`MediaTypeError::Config`].
pub(crate) fn check_config(given: &MediaType) -> Result<(), MediaTypeError> {
    match given {
        MediaType::ImageConfig => Ok(()),
        MediaType::Other(name) if name == DOCKER_CONFIG => Ok(()),
        other => Err(MediaTypeError::Config(shown(other))),
    }
}

/// # Errors
/// [`MediaTypeError::Layer`], [`MediaTypeError::Foreign`], [`MediaTypeError::Encrypted`].
pub(crate) fn check_layer(given: &MediaType) -> Result<(), MediaTypeError> {
    match given {
        MediaType::ImageLayer | MediaType::ImageLayerGzip | MediaType::ImageLayerZstd => Ok(()),
        MediaType::Other(name) if DOCKER_LAYERS.contains(&name.as_str()) => Ok(()),
        MediaType::ImageLayerNonDistributable
        | MediaType::ImageLayerNonDistributableGzip
        | MediaType::ImageLayerNonDistributableZstd => Err(MediaTypeError::Foreign(shown(given))),
        MediaType::Other(name) if name.contains(".foreign.") => {
            Err(MediaTypeError::Foreign(shown(given)))
        }
        MediaType::Other(name) if name.ends_with("+encrypted") => {
            Err(MediaTypeError::Encrypted(shown(given)))
        }
        other => Err(MediaTypeError::Layer(shown(other))),
    }
}

/// A stranger's word, short and without what moves a terminal's cursor.
fn shown(media_type: &MediaType) -> String {
    media_type
        .as_ref()
        .chars()
        .filter(|letter| !letter.is_control())
        .take(100)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_manifests() {
        let kind = |name: &str| manifest_kind(Some(&MediaType::from(name)), false);
        assert_eq!(kind(DOCKER_LIST), Ok(ManifestKind::Index));
        assert_eq!(kind(DOCKER_MANIFEST), Ok(ManifestKind::Image));
        assert_eq!(
            kind("application/vnd.oci.image.index.v1+json"),
            Ok(ManifestKind::Index)
        );
        assert_eq!(manifest_kind(None, true), Ok(ManifestKind::Index));
        assert_eq!(manifest_kind(None, false), Ok(ManifestKind::Image));
        let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert_eq!(kind(old), Err(MediaTypeError::Manifest(old.to_owned())));
    }

    #[test]
    fn layers_that_are_refused_have_their_reason() {
        let check = |name: &str| check_layer(&MediaType::from(name));
        for good in DOCKER_LAYERS {
            assert_eq!(check(good), Ok(()));
        }
        assert!(matches!(
            check("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            Err(MediaTypeError::Foreign(_))
        ));
        assert!(matches!(
            check("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
            Err(MediaTypeError::Encrypted(_))
        ));
        assert!(
            matches!(check("text/\u{1b}[2Jplain"), Err(MediaTypeError::Layer(name))
            if name == "text/[2Jplain")
        );
    }
}
