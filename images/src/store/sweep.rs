//! Removal: of names, of images, and of content that no node needs any more.

use std::collections::BTreeSet;
use std::fs::DirEntry;
use std::io;
use std::path::Path;

use super::find::Match;
use super::lock::Lock;
use super::names::Roots;
use super::{Digest, Image, ImageName, Store, StoreError, layers};
use crate::image::Parts;
use crate::layer::remove_path;

/// Digits of an id that people see.
const SHORT: usize = 12;

/// What became of an image, as docker lists it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that were taken away, as people write them.
    pub untagged: Vec<String>,
    /// The image's id where it is gone, and the chain ids of layers that went with it.
    pub deleted: Vec<Digest>,
    /// Bytes on disk that are free now.
    pub freed_bytes: u64,
    /// True when content stays for now, as something was being pulled: `prune` removes it.
    pub postponed: bool,
}

/// What was removed as nothing used it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// Ids of images and chain ids of layers.
    pub deleted: Vec<Digest>,
    /// Bytes on disk that are free now.
    pub freed_bytes: u64,
}

/// What images take on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images of this node.
    pub images: u64,
    /// … that a task uses.
    pub active: u64,
    /// Bytes of content as it was transferred, in the whole folder.
    pub blob_bytes: u64,
    /// Bytes of the files of unpacked layers.
    pub layer_bytes: u64,
    /// Bytes of content that is on its way.
    pub partial_bytes: u64,
}

/// True for a name that may come to stand for another image: one with a digest is this image's for
/// ever, and no sign that somebody wants it.
fn is_tag(name: &ImageName) -> bool {
    name.digest().is_none()
}

/// What is needed of the shared folder.
#[derive(Default)]
struct Needed {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
}

/// What was removed of it.
#[derive(Default)]
struct Swept {
    layers: Vec<Digest>,
    bytes: u64,
}

impl Store {
    /// Takes a name away, and with the last one the image; or an image by its id, which may have one
    /// name only unless `force` is set. An image that a task uses stays; `force` takes its names.
    ///
    /// # Errors
    /// [`StoreError::NoSuchImage`], [`StoreError::Ambiguous`], [`StoreError::ManyNames`],
    /// [`StoreError::InUse`]: nothing was changed. [`StoreError::Io`].
    pub fn remove(&self, word: &str, force: bool) -> Result<Removed, StoreError> {
        let found = self.matching(word)?;
        let found = found.ok_or_else(|| StoreError::NoSuchImage(word.to_owned()))?;
        let mut removed = Removed::default();
        match found {
            Match::Names(manifest, names) => {
                self.remove_names(word, &manifest, &names, force, &mut removed)?;
            }
            Match::Id(manifests) => self.remove_id(word, &manifests, force, &mut removed)?,
        }
        match self.sweep(false) {
            Ok(swept) => {
                removed.deleted.extend(swept.layers);
                removed.freed_bytes = swept.bytes;
            }
            Err(StoreError::Busy) => removed.postponed = true,
            Err(error) => return Err(error),
        }
        Ok(removed)
    }

    fn remove_names(
        &self,
        word: &str,
        manifest: &Digest,
        names: &[ImageName],
        force: bool,
        removed: &mut Removed,
    ) -> Result<(), StoreError> {
        // Damaged ones can be removed as well.
        let id = self
            .image(manifest)
            .map_or_else(|_| manifest.clone(), |image| image.id);
        let mut own = self.lock();
        let is_last = own
            .names_of(manifest)
            .iter()
            .all(|name| names.contains(name));
        let holder = own.holder(manifest).map(str::to_owned);
        if let Some(owner) = holder.clone().filter(|_| is_last && !force) {
            return Err(in_use(word, "must force", owner, &id));
        }
        let forget = is_last && holder.is_none();
        own.unset(names, forget.then_some(manifest))?;
        removed
            .untagged
            .extend(names.iter().map(ImageName::familiar));
        removed.deleted.extend(forget.then_some(id));
        Ok(())
    }

    fn remove_id(
        &self,
        word: &str,
        manifests: &BTreeSet<Digest>,
        force: bool,
        removed: &mut Removed,
    ) -> Result<(), StoreError> {
        let mut id = None;
        for manifest in manifests {
            id = Some(self.image(manifest)?.id);
        }
        let id = id.ok_or_else(|| StoreError::NoSuchImage(word.to_owned()))?;
        let mut own = self.lock();
        let holder = manifests.iter().find_map(|manifest| own.holder(manifest));
        if let Some(owner) = holder {
            return Err(in_use(word, "cannot be forced", owner.to_owned(), &id));
        }
        let names: Vec<ImageName> = manifests.iter().flat_map(|m| own.names_of(m)).collect();
        let references: BTreeSet<(&str, &str, Option<&str>)> = names
            .iter()
            .map(|name| (name.domain(), name.path(), name.tag()))
            .collect();
        if references.len() > 1 && !force {
            return Err(StoreError::ManyNames { id: short(&id) });
        }
        for manifest in manifests {
            own.unset(&names, Some(manifest))?;
        }
        removed
            .untagged
            .extend(names.iter().map(ImageName::familiar));
        removed.deleted.push(id);
        Ok(())
    }

    /// Removes images that no task uses and that have no name, or none but such as have a digest alone:
    /// those that a newer image took the tag of. With `all` those with a name, too; and content that no
    /// image has.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while something is pulled or unpacked: nothing was changed.
    /// [`StoreError::Io`].
    pub fn prune(&self, all: bool) -> Result<Pruned, StoreError> {
        // Not to take away names, and then find that nothing is removed.
        let lock = self.sweep_lock()?;
        let mut pruned = Pruned::default();
        let manifests = self.lock().manifests();
        for manifest in manifests {
            let id = self
                .image(&manifest)
                .map_or_else(|_| manifest.clone(), |image| image.id);
            let mut own = self.lock();
            let names = own.names_of(&manifest);
            if own.holder(&manifest).is_some() || (!all && names.iter().any(is_tag)) {
                continue;
            }
            own.unset(&names, Some(&manifest))?;
            pruned
                .untagged
                .extend(names.iter().map(ImageName::familiar));
            pruned.deleted.push(id);
        }
        let swept = self.sweep_locked(&lock, true)?;
        pruned.deleted.extend(swept.layers);
        pruned.freed_bytes = swept.bytes;
        Ok(pruned)
    }

    /// What is on disk.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let mut usage = Usage::default();
        {
            let own = self.lock();
            let manifests = own.manifests();
            usage.images = manifests.len() as u64;
            let active = manifests.iter().filter(|m| own.holder(m).is_some());
            usage.active = active.count() as u64;
        }
        let bytes = |folder: &Path| -> Result<u64, StoreError> {
            let mut sum = 0_u64;
            for entry in list(folder)? {
                // It may be gone by now.
                sum += entry.metadata().map_or(0, |found| found.len());
            }
            Ok(sum)
        };
        usage.blob_bytes = bytes(&self.places.blobs())?;
        usage.partial_bytes = bytes(&self.places.partials())?;
        for entry in list(&self.places.layers())? {
            let name = entry.file_name();
            if let Some(chain) = name.to_str().and_then(Digest::from_hex) {
                let record = layers::record(&self.places, &chain);
                usage.layer_bytes += record.map_or(0, |record| record.file_bytes);
            }
        }
        Ok(usage)
    }

    fn sweep_lock(&self) -> Result<Lock, StoreError> {
        let path = self.places.sweep_lock();
        Lock::try_now(&path)
            .map_err(StoreError::io(&path))?
            .ok_or(StoreError::Busy)
    }

    fn sweep(&self, partials: bool) -> Result<Swept, StoreError> {
        let lock = self.sweep_lock()?;
        self.sweep_locked(&lock, partials)
    }

    /// Removes content that no node needs: nobody brings any while `_lock` is held.
    fn sweep_locked(&self, _lock: &Lock, partials: bool) -> Result<Swept, StoreError> {
        let needed = self.needed()?;
        let mut swept = Swept::default();
        for entry in list(&self.places.blobs())? {
            let name = entry.file_name();
            let digest = name.to_str().and_then(Digest::from_hex);
            // What has no digest as its name is what a killed writer left.
            if digest.is_none_or(|digest| !needed.blobs.contains(&digest)) {
                swept.bytes += entry.metadata().map_or(0, |found| found.len());
                remove_file(&entry.path())?;
            }
        }
        for entry in list(&self.places.layers())? {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_str().unwrap_or_default();
            let chain = layers::chain_of(name);
            if chain
                .as_ref()
                .is_some_and(|chain| needed.layers.contains(chain))
                && !name.ends_with(".unfinished")
            {
                continue;
            }
            if let Some(chain) = Digest::from_hex(name) {
                let record = layers::record(&self.places, &chain);
                swept.bytes += record.map_or(0, |record| record.file_bytes);
                remove_file(&self.places.locks().join(chain.hex()))?;
                swept.layers.push(chain);
            }
            remove_path(&path).map_err(StoreError::io(&path))?;
        }
        if partials {
            for entry in list(&self.places.partials())? {
                swept.bytes += entry.metadata().map_or(0, |found| found.len());
                remove_file(&entry.path())?;
            }
        }
        swept.layers.sort();
        Ok(swept)
    }

    /// What all nodes need that share the folder.
    fn needed(&self) -> Result<Needed, StoreError> {
        let mut needed = Needed::default();
        for entry in list(&self.places.roots())? {
            let path = entry.path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let bytes = std::fs::read(&path).map_err(StoreError::io(&path))?;
            // Damaged: nothing is removed until that node has written it anew.
            let roots: Roots = serde_json::from_slice(&bytes)
                .map_err(|error| StoreError::io(&path)(error.into()))?;
            for root in roots {
                self.mark(&root, &mut needed)?;
            }
        }
        Ok(needed)
    }

    /// An image, or an index, of which nothing but itself is known here.
    fn mark(&self, root: &Digest, needed: &mut Needed) -> Result<(), StoreError> {
        let read = |digest: &Digest| match self.read(digest) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error @ StoreError::Io { .. }) => Err(error),
            Err(_) => Ok(None),
        };
        needed.blobs.insert(root.clone());
        let Some(parts) = read(root)?.and_then(|bytes| Parts::of(&bytes).ok()) else {
            return Ok(());
        };
        let config = parts.config.digest.clone();
        needed.blobs.insert(config.clone());
        let layers = parts.layers.iter().map(|layer| layer.digest.clone());
        needed.blobs.extend(layers);
        let image = read(&config)?.and_then(|bytes| Image::of(root, parts, &bytes).ok());
        needed
            .layers
            .extend(image.iter().flat_map(Image::chain_ids));
        Ok(())
    }
}

fn in_use(word: &str, hint: &'static str, owner: String, id: &Digest) -> StoreError {
    StoreError::InUse {
        word: word.to_owned(),
        hint,
        owner,
        id: short(id),
    }
}

fn short(id: &Digest) -> String {
    id.hex().chars().take(SHORT).collect()
}

/// In the order of names: a layer comes before its record.
fn list(folder: &Path) -> Result<Vec<DirEntry>, StoreError> {
    let mut entries: Vec<DirEntry> = std::fs::read_dir(folder)
        .and_then(Iterator::collect)
        .map_err(StoreError::io(folder))?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

fn remove_file(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path)(error)),
        _ => Ok(()),
    }
}
