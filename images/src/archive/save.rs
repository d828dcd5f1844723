//! Writes images as docker does since Engine 25: an OCI layout that also has docker's own list.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};

use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::docker::{DockerImage, LIST};
use super::error::ArchiveError;
use super::intake::blob_entry;
use super::layout::INDEX;
use crate::image::Image;
use crate::name::ImageName;
use crate::store::{Store, StoreError};

/// Writes images by name or id: [`super::save`].
pub(super) fn save(store: &Store, words: &[String], to: impl Write) -> Result<(), ArchiveError> {
    let lease = store.lease()?;
    let mut chosen: Vec<(Image, BTreeSet<ImageName>)> = Vec::new();
    for word in words {
        let image = store
            .find(word)?
            .ok_or_else(|| StoreError::NoSuchImage(word.clone()))?;
        let name = name_meant(word, &image);
        match chosen
            .iter_mut()
            .find(|(one, _)| one.manifest == image.manifest)
        {
            Some((_, names)) => names.extend(name),
            None => chosen.push((image, name.into_iter().collect())),
        }
    }
    let mut archive = Builder::new(to);
    let mut written = BTreeSet::new();
    let mut descriptors = Vec::new();
    let mut list = Vec::new();
    folder(&mut archive, "blobs/")?;
    folder(&mut archive, "blobs/sha256/")?;
    for (image, names) in &chosen {
        let manifest = store.read(&image.manifest)?;
        let config = store.read(&image.id)?;
        for (digest, bytes) in [(&image.manifest, &manifest), (&image.id, &config)] {
            if written.insert(digest.clone()) {
                small(&mut archive, &blob_entry(digest), bytes)?;
            }
        }
        for layer in &image.layers {
            if written.insert(layer.digest.clone()) {
                let (file, size) = store.open_blob(&layer.digest)?;
                entry(&mut archive, &blob_entry(&layer.digest), size, file)?;
            }
        }
        descriptors.extend(entries_of(image, &manifest, names));
        list.push(DockerImage {
            config: blob_entry(&image.id),
            tags: Some(names.iter().map(ImageName::familiar_short).collect()),
            layers: image
                .layers
                .iter()
                .map(|layer| blob_entry(&layer.digest))
                .collect(),
        });
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": descriptors,
    });
    small(&mut archive, INDEX, index.to_string().as_bytes())?;
    let list = serde_json::to_vec(&list).expect("strings in lists are always JSON");
    small(&mut archive, LIST, &list)?;
    small(
        &mut archive,
        "oci-layout",
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    let mut to = archive.into_inner().map_err(ArchiveError::Write)?;
    to.flush().map_err(ArchiveError::Write)?;
    drop(lease);
    Ok(())
}

/// The name by which the image was asked for; an id asks for none, as in docker.
fn name_meant(word: &str, image: &Image) -> Option<ImageName> {
    let name: ImageName = word.parse().ok()?;
    let by_digest = |one: &ImageName| name.digest().is_some() && one.digest() == name.digest();
    image
        .names
        .iter()
        .find(|one| one.without_digest() == name || by_digest(one))
        .filter(|one| one.tag().is_some())
        .map(ImageName::without_digest)
}

/// Entries of the index: one for each name, as containerd reads them.
fn entries_of(
    image: &Image,
    manifest: &[u8],
    names: &BTreeSet<ImageName>,
) -> Vec<serde_json::Value> {
    let media_type = serde_json::from_slice::<serde_json::Value>(manifest)
        .ok()
        .and_then(|json| json.get("mediaType")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned());
    let mut platform = json!({
        "architecture": image.config.architecture().to_string(),
        "os": image.config.os().to_string(),
    });
    if let Some(variant) = image.config.variant() {
        platform["variant"] = json!(variant);
    }
    let descriptor = json!({
        "mediaType": media_type,
        "digest": image.manifest.as_str(),
        "size": manifest.len(),
        "platform": platform,
    });
    if names.is_empty() {
        return vec![descriptor];
    }
    names
        .iter()
        .map(|name| {
            let mut named = descriptor.clone();
            named["annotations"] = json!({
                "io.containerd.image.name": name.to_string(),
                "org.opencontainers.image.ref.name": name.tag().unwrap_or_default(),
            });
            named
        })
        .collect()
}

fn small(archive: &mut Builder<impl Write>, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
    entry(archive, name, bytes.len() as u64, bytes)
}

/// Nothing of when and by whom: the same images are the same bytes.
fn entry(
    archive: &mut Builder<impl Write>,
    name: &str,
    size: u64,
    content: impl Read,
) -> Result<(), ArchiveError> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive
        .append_data(&mut header, name, content)
        .map_err(ArchiveError::Write)
}

fn folder(archive: &mut Builder<impl Write>, name: &str) -> Result<(), ArchiveError> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive
        .append_data(&mut header, name, io::empty())
        .map_err(ArchiveError::Write)
}
