//! The node's images on disk: blobs by digest, layers by chain id, names and who uses what.
//!
//! ```text
//! SHARED/blobs/sha256/HEX     content, whole, its digest checked when it was written
//!        partial/HEX          content that is on its way; its lock is held by who writes it
//!        layers/HEX/          one unpacked layer, by chain id; HEX.json beside it says what it is
//!        locks/HEX            held by who unpacks that layer
//!        roots/NODE.json      what each node that uses this folder needs
//!        sweep.lock           shared by who brings content, held by who removes it
//! OWN/images.json             the images of this node and their names
//!     holds.json              which task uses which image
//!     node                    the name in SHARED/roots
//! ```
//!
//! Several nodes of one machine (a lab) may share the first folder. Content is made beside its place
//! and renamed, so that whoever sees it sees all of it. It is not waited for the disk: after a loss of
//! power a blob is found damaged by its digest, and a layer that was not yet on the disk is unpacked
//! again ([`Store::settle`]).

mod blobs;
mod error;
mod find;
mod ingest;
mod layers;
mod lock;
mod names;
mod sweep;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weft_sys::private_folder::make_private;

pub use error::StoreError;
pub use ingest::{BlobWriter, Ingest};
pub use sweep::{Pruned, Removed, Usage};

use crate::blob::Blob;
use crate::digest::Digest;
use crate::image::{Image, Parts};
use crate::layer::Limits;
use crate::name::ImageName;
use lock::Lock;
use names::Names;

/// The largest manifest or configuration that is read: registries take no larger ones.
pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;

/// Where everything is.
#[derive(Debug)]
struct Places {
    shared: PathBuf,
    own: PathBuf,
}

impl Places {
    fn blobs(&self) -> PathBuf {
        self.shared.join("blobs/sha256")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn partials(&self) -> PathBuf {
        self.shared.join("partial")
    }

    fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(digest.hex())
    }

    fn layers(&self) -> PathBuf {
        self.shared.join("layers")
    }

    fn layer(&self, chain: &Digest) -> PathBuf {
        self.layers().join(chain.hex())
    }

    fn locks(&self) -> PathBuf {
        self.shared.join("locks")
    }

    fn roots(&self) -> PathBuf {
        self.shared.join("roots")
    }

    fn sweep_lock(&self) -> PathBuf {
        self.shared.join("sweep.lock")
    }
}

/// The images of a node. Copies are the same store. One lock, held for no longer than a small file is
/// written.
#[derive(Clone)]
pub struct Store {
    places: Arc<Places>,
    names: Arc<Mutex<Names>>,
    limits: Arc<Limits>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// Content may come and be used; nothing is removed meanwhile. Held by whoever brings an image, until
/// it has a name or a hold.
#[derive(Debug)]
pub struct Lease {
    _lock: Lock,
}

impl Store {
    /// Opens the store, and makes its folders, for this user alone. `shared` has blobs, layers and
    /// what is on its way, and may be used by several nodes of one machine; `own` has names and holds
    /// of this node, and is used by one process.
    ///
    /// # Errors
    /// [`StoreError::Private`], [`StoreError::Io`].
    pub fn open(shared: &Path, own: &Path) -> Result<Self, StoreError> {
        Self::with_limits(shared, own, Limits::default())
    }

    /// The same with other limits for a layer.
    ///
    /// # Errors
    /// See [`Self::open`].
    pub fn with_limits(shared: &Path, own: &Path, limits: Limits) -> Result<Self, StoreError> {
        let places = Places {
            shared: shared.to_owned(),
            own: own.to_owned(),
        };
        // Set-id programs of images lie in there.
        make_private(shared)?;
        make_private(own)?;
        let folders = [
            places.blobs(),
            places.partials(),
            places.layers(),
            places.locks(),
            places.roots(),
        ];
        for folder in folders {
            std::fs::create_dir_all(&folder).map_err(StoreError::io(&folder))?;
        }
        let names = Names::open(&places)?;
        Ok(Self {
            places: Arc::new(places),
            names: Arc::new(Mutex::new(names)),
            limits: Arc::new(limits),
        })
    }

    /// Keeps everything that is brought from now on from being removed as unused. Waits while
    /// something is being removed.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn lease(&self) -> Result<Lease, StoreError> {
        let path = self.places.sweep_lock();
        let lock = Lock::shared(&path).map_err(StoreError::io(&path))?;
        Ok(Lease { _lock: lock })
    }

    /// Gives an image a name, which another one may have had: that one stays, without it.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub fn set_name(&self, name: &ImageName, manifest: &Digest) -> Result<(), StoreError> {
        self.lock().set(Some(name), manifest)
    }

    /// Keeps an image that has no name, until it is removed.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub fn keep(&self, manifest: &Digest) -> Result<(), StoreError> {
        self.lock().set(None, manifest)
    }

    /// A task uses an image: until it is released nothing of that is removed. A task uses one image;
    /// the newer hold counts. It outlives this process.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub fn hold(&self, owner: &str, manifest: &Digest) -> Result<(), StoreError> {
        self.lock().hold(owner, manifest)
    }

    /// A task has ended; it may have had no hold.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`].
    pub fn release(&self, owner: &str) -> Result<(), StoreError> {
        self.lock().release(owner)
    }

    /// Which task uses which image (its manifest).
    #[must_use]
    pub fn holds(&self) -> BTreeMap<String, Digest> {
        self.lock().holds().clone()
    }

    /// One image, by the digest of its manifest.
    ///
    /// # Errors
    /// [`StoreError::Missing`] and others of [`Self::read`]; [`StoreError::NoImage`].
    pub fn image(&self, manifest: &Digest) -> Result<Image, StoreError> {
        let names = self.lock().names_of(manifest);
        let no_image = |source| StoreError::NoImage {
            manifest: manifest.clone(),
            source,
        };
        let parts = Parts::of(&self.read(manifest)?).map_err(no_image)?;
        let config = self.read(&parts.config.digest)?;
        let mut image = Image::of(manifest, parts, &config).map_err(no_image)?;
        image.names = names;
        image.size = self.size_of(&image);
        Ok(image)
    }

    /// All images of this node, by their names. One that is damaged is left out, and told in the log.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn images(&self) -> Result<Vec<Image>, StoreError> {
        let manifests = self.lock().manifests();
        let mut images = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            match self.image(&manifest) {
                Ok(image) => images.push(image),
                Err(error @ StoreError::Io { .. }) => return Err(error),
                Err(error) => tracing::warn!(%manifest, %error, "an image is left out"),
            }
        }
        images.sort_by(|a, b| (&a.names, &a.manifest).cmp(&(&b.names, &b.manifest)));
        Ok(images)
    }

    /// Bytes as people see them: of the files of what is unpacked, else of the blob.
    fn size_of(&self, image: &Image) -> u64 {
        let chain = image.chain_ids();
        let sizes = image.layers.iter().zip(&chain).map(|(blob, chain)| {
            let unpacked = layers::record(&self.places, chain);
            unpacked.map_or(blob.size, |record| record.file_bytes)
        });
        sizes.fold(0, u64::saturating_add)
    }

    fn lock(&self) -> MutexGuard<'_, Names> {
        // What is in there was written before it was changed.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A full disk as an error that says what is needed.
fn written(shared: &Path, needed: u64, error: io::Error, path: &Path) -> StoreError {
    if matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) {
        return StoreError::Full {
            path: shared.to_owned(),
            needed,
            free: free(shared).unwrap_or(0),
        };
    }
    StoreError::io(path)(error)
}

/// Bytes that this user may still write there; nothing where the file system does not say.
fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests;
