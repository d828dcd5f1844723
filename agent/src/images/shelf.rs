//! What of the store may be handed to other nodes: contents of images that are here, or that are being
//! fetched. The store may be shared with others, and have more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use weft_images::{Digest, Store, StoreError};

/// Contents, and how many bytes each has by its descriptor where that is at hand.
type Contents = BTreeMap<Digest, Option<u64>>;

/// Contents of images that are here, as of the last change.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    changes: AtomicU64,
    seen: Mutex<Option<(u64, Arc<Contents>)>>,
}

impl Shelf {
    /// Images have come or gone.
    pub(super) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Contents of images that are here. Blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn contents(&self, store: &Store) -> Result<Arc<Contents>, StoreError> {
        let changes = self.changes.load(Ordering::Acquire);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, contents)) = &*seen
            && *at == changes
        {
            return Ok(Arc::clone(contents));
        }
        drop(seen);
        let mut contents = Contents::new();
        for image in store.images()? {
            let lists = image.names.iter().filter_map(|name| name.digest().cloned());
            contents.extend(lists.map(|digest| (digest, None)));
            contents.extend([(image.id, None), (image.manifest, None)]);
            let layers = image.layers.into_iter();
            contents.extend(layers.map(|layer| (layer.digest, Some(layer.size))));
        }
        let contents = Arc::new(contents);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some((changes, Arc::clone(&contents)));
        Ok(contents)
    }
}

/// True where a content is part of an image, of which the store has the manifest, or the list of
/// manifests, perhaps and nothing else. Blocks.
pub(super) fn is_part(store: &Store, image: &Digest, content: &Digest) -> bool {
    if image == content {
        return true;
    }
    let named = named(store, image);
    named.contains(content)
        || named
            .iter()
            .filter(|manifest| store.has(manifest))
            .any(|manifest| names_more(store, image, manifest).contains(content))
}

/// What a manifest of a list names; contents that are no manifests name nothing.
fn names_more(store: &Store, image: &Digest, manifest: &Digest) -> BTreeSet<Digest> {
    let is_list = store.read(image).is_ok_and(|bytes| {
        serde_json::from_slice::<Value>(&bytes).is_ok_and(|value| value.get("manifests").is_some())
    });
    if is_list {
        named(store, manifest)
    } else {
        BTreeSet::new()
    }
}

/// Digests that a manifest, or a list of manifests, names.
fn named(store: &Store, manifest: &Digest) -> BTreeSet<Digest> {
    if !store.has(manifest) {
        return BTreeSet::new();
    }
    let read = store.read(manifest).ok();
    let value = read.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let Some(value) = value else {
        return BTreeSet::new();
    };
    let lists = ["layers", "manifests"].into_iter();
    let lists = lists.filter_map(|key| value.get(key)?.as_array());
    let all = lists.flatten().chain(value.get("config"));
    let digests = all.filter_map(|descriptor| descriptor.get("digest")?.as_str());
    digests.filter_map(|digest| digest.parse().ok()).collect()
}
