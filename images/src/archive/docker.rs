//! Docker's own archives: `manifest.json` names configurations, layers and tags.

use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Loaded;
use super::entries::Entries;
use super::error::{ArchiveError, shown};
use super::intake::{MAX_IMAGES, bring, check_platform, digest, parse_name};
use crate::blob::Blob;
use crate::digest::Digest;
use crate::manifest::MAX_BYTES;
use crate::name::ImageName;
use crate::platform::Platform;
use crate::store::Store;

/// The file that names what is in an archive of docker.
pub(super) const LIST: &str = "manifest.json";

/// One image in it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DockerImage {
    /// Name of the configuration's file.
    #[serde(rename = "Config")]
    pub(super) config: String,
    /// Names with tags, as people write them.
    #[serde(rename = "RepoTags", default)]
    pub(super) tags: Option<Vec<String>>,
    /// Names of the layers' files, bottom first.
    #[serde(rename = "Layers", default)]
    pub(super) layers: Vec<String>,
}

#[derive(Deserialize)]
struct ConfigLayers {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

impl DockerImage {
    /// All of an archive's list; nothing where there is none.
    ///
    /// # Errors
    /// The list is damaged.
    pub(super) fn list(entries: &Entries) -> Result<Vec<Self>, ArchiveError> {
        if !entries.has(LIST) {
            return Ok(Vec::new());
        }
        let bytes = entries.small(LIST, MAX_BYTES)?;
        let mut list: Vec<Self> =
            serde_json::from_slice(&bytes).map_err(|error| ArchiveError::Entry {
                entry: LIST.to_owned(),
                reason: error.to_string(),
            })?;
        list.truncate(MAX_IMAGES);
        Ok(list)
    }

    /// # Errors
    /// A tag that is none.
    pub(super) fn names(&self) -> Result<Vec<ImageName>, ArchiveError> {
        let tags = self.tags.iter().flatten();
        tags.map(|text| parse_name(text)).collect()
    }

    /// True where its configuration has this digest by its name: `HEX.json`, `blobs/sha256/HEX`.
    pub(super) fn is_config(&self, id: &Digest) -> bool {
        let name = self.config.rsplit('/').next().unwrap_or_default();
        name.strip_suffix(".json").unwrap_or(name) == id.hex()
    }
}

/// Brings all images of a list, with manifests of our own making, as such archives have none.
///
/// # Errors
/// The archive is damaged or incomplete, or its images are for other machines.
pub(super) fn load(
    store: &Store,
    entries: &Entries,
    list: &[DockerImage],
    platform: &Platform,
) -> Result<Vec<Loaded>, ArchiveError> {
    let mut loaded = Vec::new();
    for image in list {
        let config = entries.small(&image.config, MAX_BYTES)?;
        let id = Digest::of(&config);
        check_platform(&config, &id, platform)?;
        let layers = layers(store, entries, image, &config)?;
        store.put(&config)?;
        let manifest = store.put(&manifest(&id, config.len(), &layers))?;
        let names = image.names()?;
        let one = |name| Loaded {
            name,
            id: id.clone(),
            manifest: manifest.clone(),
        };
        if names.is_empty() {
            loaded.push(one(None));
        }
        loaded.extend(names.into_iter().map(Some).map(one));
    }
    Ok(loaded)
}

/// A layer and how it is compressed.
struct Layer {
    blob: Blob,
    media_type: &'static str,
}

/// Brings the layers of an image.
fn layers(
    store: &Store,
    entries: &Entries,
    image: &DockerImage,
    config: &[u8],
) -> Result<Vec<Layer>, ArchiveError> {
    let damaged = |reason: String| ArchiveError::Entry {
        entry: shown(&image.config),
        reason,
    };
    let parsed: ConfigLayers =
        serde_json::from_slice(config).map_err(|error| damaged(error.to_string()))?;
    let diff_ids = parsed.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() {
        return Err(damaged(format!(
            "it has {} layers, {LIST} names {}",
            diff_ids.len(),
            image.layers.len()
        )));
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (entry, diff_id) in image.layers.iter().zip(diff_ids) {
        let missing = || ArchiveError::Missing(shown(entry));
        let (mut region, size) = entries.open(entry).ok_or_else(missing)?;
        let media_type = kind(&mut region)?;
        // A plain layer is its own diff id: the store looks, so it need not be read twice.
        let digest = if media_type == PLAIN {
            diff_id
        } else {
            let (region, _) = entries.open(entry).ok_or_else(missing)?;
            digest(region)?
        };
        let blob = Blob { digest, size };
        bring(store, entries, entry, &blob)?;
        layers.push(Layer { blob, media_type });
    }
    Ok(layers)
}

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// By its first bytes: docker writes plain layers, others what they have.
fn kind(region: &mut impl Read) -> Result<&'static str, ArchiveError> {
    let mut head = Vec::with_capacity(4);
    region
        .take(4)
        .read_to_end(&mut head)
        .map_err(ArchiveError::Read)?;
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => PLAIN,
    })
}

/// A manifest of what the archive has: always the same bytes for the same image.
fn manifest(id: &Digest, config_size: usize, layers: &[Layer]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            json!({
                "mediaType": layer.media_type,
                "digest": layer.blob.digest.as_str(),
                "size": layer.blob.size,
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": id.as_str(),
            "size": config_size,
        },
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}
