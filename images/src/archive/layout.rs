//! OCI image layouts: `index.json` names manifests, `blobs/` has them and their content.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex};

use super::Loaded;
use super::docker::DockerImage;
use super::entries::Entries;
use super::error::ArchiveError;
use super::intake::{MAX_IMAGES, blob_entry, check_platform, layout_blob, parse_name, unusable};
use crate::digest::Digest;
use crate::manifest::{self, MAX_BYTES, Parsed};
use crate::name::ImageName;
use crate::platform::{Platform, PlatformError, choose, is_image, platforms};
use crate::store::Store;

/// The file that names what is in a layout.
pub(super) const INDEX: &str = "index.json";
/// Annotation with the tag, or the whole name: skopeo, podman.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with the whole name: docker, containerd.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// Indexes in indexes.
const MAX_DEPTH: usize = 3;

/// Brings all images of a layout. Names are those of its index, and those of docker's own list for what
/// has none there.
///
/// # Errors
/// The layout is damaged or incomplete, or has nothing for this machine.
pub(super) fn load(
    store: &Store,
    entries: &Entries,
    listed: &[DockerImage],
    platform: &Platform,
) -> Result<Vec<Loaded>, ArchiveError> {
    let bytes = entries.small(INDEX, MAX_BYTES)?;
    let index: ImageIndex =
        serde_json::from_slice(&bytes).map_err(|error| ArchiveError::Entry {
            entry: INDEX.to_owned(),
            reason: error.to_string(),
        })?;
    let mut loaded = Vec::new();
    // One image may be there under several names.
    let mut known: BTreeMap<Digest, (Digest, Digest)> = BTreeMap::new();
    for descriptor in index.manifests().iter().take(MAX_IMAGES) {
        if !is_image(descriptor) || !runs(descriptor, platform) {
            continue;
        }
        let root = manifest::small_blob(descriptor, "the manifest")
            .map_err(|source| unusable(INDEX, source))?;
        let (manifest, id) = match known.get(&root.digest) {
            Some(there) => there.clone(),
            None => {
                let found = image(store, entries, descriptor, platform, 0)?;
                known.insert(root.digest, found.clone());
                found
            }
        };
        let mut names = Vec::from_iter(named(descriptor)?);
        if names.is_empty() {
            for image in listed.iter().filter(|image| image.is_config(&id)) {
                names.extend(image.names()?);
            }
        }
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
    if loaded.is_empty() && !index.manifests().is_empty() {
        return Err(PlatformError::NoMatch {
            wanted: Box::new(platform.clone()),
            found: platforms(&index),
        }
        .into());
    }
    Ok(loaded)
}

/// What says that it is for other machines is left out.
fn runs(descriptor: &Descriptor, platform: &Platform) -> bool {
    descriptor
        .platform()
        .as_ref()
        .is_none_or(|its| platform.runs(&Platform::of_spec(its)))
}

/// The image's manifest and configuration, with all content in the store.
fn image(
    store: &Store,
    entries: &Entries,
    descriptor: &Descriptor,
    platform: &Platform,
    depth: usize,
) -> Result<(Digest, Digest), ArchiveError> {
    let blob = manifest::small_blob(descriptor, "the manifest")
        .map_err(|source| unusable(INDEX, source))?;
    let entry = blob_entry(&blob.digest);
    let bytes = if entries.has(&entry) {
        entries.small(&entry, MAX_BYTES)?
    } else if store.has(&blob.digest) {
        store.read(&blob.digest)?
    } else {
        return Err(ArchiveError::Missing(entry));
    };
    let got = Digest::of(&bytes);
    if got != blob.digest {
        return Err(ArchiveError::WrongDigest { entry, got });
    }
    match manifest::parse(&bytes).map_err(|source| unusable(&entry, source))? {
        Parsed::Index(_) if depth >= MAX_DEPTH => Err(ArchiveError::Entry {
            entry,
            reason: "an index that names other indexes, over and over".to_owned(),
        }),
        Parsed::Index(index) => {
            let chosen = choose(&index, platform)?;
            let found = image(store, entries, &chosen, platform, depth + 1)?;
            // So that other nodes can be told what the name was pinned to.
            store.put(&bytes)?;
            Ok(found)
        }
        Parsed::Image(image) => {
            let (config, layers) =
                manifest::content(&image).map_err(|source| unusable(&entry, source))?;
            layout_blob(store, entries, &config)?;
            check_platform(&store.read(&config.digest)?, &config.digest, platform)?;
            for layer in &layers {
                layout_blob(store, entries, layer)?;
            }
            let manifest = store.put(&bytes)?;
            Ok((manifest, config.digest))
        }
    }
}

/// The name in the annotations; a tag alone names nothing.
fn named(descriptor: &Descriptor) -> Result<Option<ImageName>, ArchiveError> {
    let Some(annotations) = descriptor.annotations() else {
        return Ok(None);
    };
    let whole = annotations.get(IMAGE_NAME).or_else(|| {
        annotations
            .get(REF_NAME)
            .filter(|text| text.contains(['/', ':']))
    });
    whole.map(|text| parse_name(text)).transpose()
}
