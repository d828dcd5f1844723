//! Images in the shapes of Docker's API.

use std::collections::BTreeMap;

use jiff::Timestamp;
use weft_images::{Digest, Image, StoreError};
use weft_model::api::{ImageConfig, ImageDetail, ImageRemoved, ImageSummary, RootFs};

use crate::api::ApiError;

/// In a list. `holds` says which task uses which image.
pub(super) fn summary(image: &Image, holds: &BTreeMap<String, Digest>) -> ImageSummary {
    let (repo_tags, repo_digests) = names(image);
    let users = holds
        .values()
        .filter(|manifest| **manifest == image.manifest);
    ImageSummary {
        id: image.id.to_string(),
        repo_tags,
        repo_digests,
        created: created(image),
        size: image.size,
        labels: config(image).labels,
        containers: users.count() as u64,
    }
}

/// All of it.
pub(super) fn detail(image: &Image) -> ImageDetail {
    let (repo_tags, repo_digests) = names(image);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let said = &image.config;
    ImageDetail {
        id: image.id.to_string(),
        repo_tags,
        repo_digests,
        manifest: image.manifest.to_string(),
        created: text(said.created()),
        author: text(said.author()),
        config: config(image),
        architecture: said.architecture().to_string(),
        variant: text(said.variant()),
        os: said.os().to_string(),
        size: image.size,
        root_fs: RootFs {
            kind: "layers".to_owned(),
            layers: image.diff_ids.iter().map(Digest::to_string).collect(),
        },
    }
}

/// Names with a tag, and those with a digest, each once.
fn names(image: &Image) -> (Vec<String>, Vec<String>) {
    let (mut tags, mut digests) = (Vec::new(), Vec::new());
    for name in &image.names {
        match name.digest() {
            Some(digest) => digests.push(format!("{}@{digest}", name.repository())),
            None => tags.push(name.familiar()),
        }
    }
    for list in [&mut tags, &mut digests] {
        list.sort();
        list.dedup();
    }
    (tags, digests)
}

/// When it was built, in Unix seconds; 0 where it does not say.
fn created(image: &Image) -> i64 {
    let text = image.config.created().as_deref();
    let stamp = text.and_then(|text| text.parse::<Timestamp>().ok());
    stamp.map_or(0, Timestamp::as_second)
}

fn config(image: &Image) -> ImageConfig {
    let Some(said) = image.config.config() else {
        return ImageConfig::default();
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let sorted = |unsorted: &Option<Vec<String>>| {
        let mut sorted = list(unsorted);
        sorted.sort();
        sorted
    };
    let labels = said.labels().iter().flatten();
    ImageConfig {
        user: text(said.user()),
        exposed_ports: sorted(said.exposed_ports()),
        env: list(said.env()),
        entrypoint: list(said.entrypoint()),
        cmd: list(said.cmd()),
        volumes: sorted(said.volumes()),
        working_dir: text(said.working_dir()),
        labels: labels.map(|(k, v)| (k.clone(), v.clone())).collect(),
        stop_signal: text(said.stop_signal()),
    }
}

/// What was done to remove something, one after the other.
pub(super) fn steps(untagged: Vec<String>, deleted: &[Digest]) -> Vec<ImageRemoved> {
    let untagged = untagged.into_iter().map(|name| ImageRemoved {
        untagged: Some(name),
        deleted: None,
    });
    let deleted = deleted.iter().map(|id| ImageRemoved {
        untagged: None,
        deleted: Some(id.to_string()),
    });
    untagged.chain(deleted).collect()
}

/// Why the store refuses something, as the API says it.
pub(super) fn refused(error: StoreError) -> ApiError {
    let text = error.to_string();
    match error {
        StoreError::NoSuchImage(_) | StoreError::Missing(_) => ApiError::not_found(text),
        StoreError::Ambiguous { .. } => ApiError::bad_request(text),
        StoreError::ManyNames { .. } | StoreError::InUse { .. } | StoreError::Busy => {
            ApiError::conflict(text)
        }
        StoreError::Full { .. } => ApiError::unavailable(text),
        _ => ApiError::internal(text),
    }
}
