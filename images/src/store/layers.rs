//! Unpacked layers: each once, for all images that have it above the same others.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};

use super::lock::Lock;
use super::{Blob, Digest, Places, Store, StoreError, free, written};
use crate::image::Image;
use crate::layer::{LayerError, remove_path};
use crate::unpack::unpack_layer;

/// Layers that are unpacked at the same time at most.
const AT_ONCE: usize = 3;

/// Ends the name of a layer's record.
const RECORD: &str = ".json";

/// Ends the name of a folder that is being unpacked into.
const UNFINISHED: &str = ".unfinished";

/// What is said of an unpacked layer, beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) diff_id: Digest,
    /// Bytes of its files.
    pub(super) file_bytes: u64,
    pub(super) entries: u64,
    /// Which boot of the machine it was unpacked in, until it is known to be on the disk.
    boot: Option<String>,
}

/// What is here of a layer, if it is whole: unpacked in this boot, or known to be on the disk.
pub(super) fn record(places: &Places, chain: &Digest) -> Option<Record> {
    let bytes = std::fs::read(record_path(places, chain)).ok()?;
    let record: Record = serde_json::from_slice(&bytes).ok()?;
    let is_whole = record.boot.is_none() || record.boot == boot();
    (is_whole && places.layer(chain).is_dir()).then_some(record)
}

fn record_path(places: &Places, chain: &Digest) -> PathBuf {
    places.layers().join(format!("{}{RECORD}", chain.hex()))
}

/// Of this machine.
fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// One layer that is to be there.
struct Wanted {
    blob: Blob,
    diff_id: Digest,
    chain: Digest,
}

impl Store {
    /// True when every layer of an image is here: unpacked, or as it came.
    #[must_use]
    pub fn has_layers(&self, image: &Image) -> bool {
        let chain = image.chain_ids();
        let mut layers = image.layers.iter().zip(&chain);
        layers.all(|(blob, chain)| record(&self.places, chain).is_some() || self.has(&blob.digest))
    }

    /// Folders of the layers of an image, bottom first, unpacked where they are not yet; several at
    /// once. `progress` hears of bytes of compressed layers that were read since it was called last,
    /// and of all of a layer that is here already. Who calls has a hold on the image.
    ///
    /// # Errors
    /// [`StoreError::Missing`] and [`StoreError::Damaged`]: pull again. [`StoreError::Layer`],
    /// [`StoreError::WrongLayer`]: nothing of that layer stays, others do. [`StoreError::Full`],
    /// [`StoreError::Io`].
    pub fn unpack(
        &self,
        manifest: &Digest,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<PathBuf>, StoreError> {
        let _lease = self.lease()?;
        let image = self.image(manifest)?;
        let chain = image.chain_ids();
        let folders = chain.iter().map(|id| self.places.layer(id)).collect();
        let mut wanted = Vec::new();
        for ((blob, diff_id), chain) in image.layers.into_iter().zip(image.diff_ids).zip(chain) {
            if record(&self.places, &chain).is_some() {
                progress(blob.size);
                continue;
            }
            wanted.push(Wanted {
                blob,
                diff_id,
                chain,
            });
        }
        let next = AtomicUsize::new(0);
        let failed = AtomicBool::new(false);
        let error = Mutex::new(None);
        let work = || {
            while let Some(layer) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                if failed.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(why) = self.unpack_one(layer, progress) {
                    failed.store(true, Ordering::Relaxed);
                    let mut error = error.lock().expect("nobody panics with it");
                    error.get_or_insert(why);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(AT_ONCE).min(wanted.len());
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        match error.into_inner().expect("nobody panics with it") {
            Some(error) => Err(error),
            None => Ok(folders),
        }
    }

    fn unpack_one(
        &self,
        wanted: &Wanted,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StoreError> {
        let places = &self.places;
        let lock = places.locks().join(wanted.chain.hex());
        let _lock = Lock::wait(&lock).map_err(StoreError::io(&lock))?;
        if record(places, &wanted.chain).is_some() {
            // Another task, or another node, was quicker.
            progress(wanted.blob.size);
            return Ok(());
        }
        let place = places.layer(&wanted.chain);
        let beside = places
            .layers()
            .join(format!("{}{UNFINISHED}", wanted.chain.hex()));
        // Of a process that was killed, or of a boot that ended.
        let record_path = record_path(places, &wanted.chain);
        for old in [&record_path, &place, &beside] {
            remove_path(old).map_err(StoreError::io(old))?;
        }
        let unpacked = self.unpack_into(&beside, wanted, progress);
        let renamed = unpacked.and_then(|record| {
            std::fs::rename(&beside, &place).map_err(StoreError::io(&place))?;
            write_record(places, &record_path, &record)
        });
        if renamed.is_err()
            && let Err(error) = remove_path(&beside)
        {
            tracing::warn!(path = %beside.display(), %error, "half of a layer stays");
        }
        renamed
    }

    fn unpack_into(
        &self,
        folder: &Path,
        wanted: &Wanted,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Record, StoreError> {
        let layer = &wanted.blob.digest;
        let (file, size) = self.open_blob(layer)?;
        if size != wanted.blob.size {
            self.throw_away(layer);
            return Err(StoreError::Damaged(layer.clone()));
        }
        std::fs::create_dir(folder)
            .and_then(|()| {
                use std::os::unix::fs::PermissionsExt as _;
                // Of the root of a container whose image says nothing of it.
                std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
            })
            .map_err(|error| written(&self.places.shared, size, error, folder))?;
        let counted = Counted { file, progress };
        let unpacked = match unpack_layer(counted, folder, &self.limits) {
            Ok(unpacked) => unpacked,
            Err(error) => return Err(self.layer_error(layer, size, error)),
        };
        if unpacked.diff_id != wanted.diff_id {
            // The disk's fault, or that of whoever made the image.
            if self.is_damaged(layer) {
                self.throw_away(layer);
                return Err(StoreError::Damaged(layer.clone()));
            }
            return Err(StoreError::WrongLayer {
                layer: layer.clone(),
                expected: wanted.diff_id.clone(),
                found: unpacked.diff_id,
            });
        }
        Ok(Record {
            diff_id: unpacked.diff_id,
            file_bytes: unpacked.file_bytes,
            entries: unpacked.entries,
            boot: boot(),
        })
    }

    /// What is wrong: the disk is full, the blob was damaged here, or the layer is bad.
    fn layer_error(&self, layer: &Digest, size: u64, source: LayerError) -> StoreError {
        let is_of_bytes = !matches!(source, LayerError::Io { .. });
        let error = StoreError::Layer {
            layer: layer.clone(),
            source: Box::new(source),
        };
        if error.is_full() {
            return StoreError::Full {
                path: self.places.shared.clone(),
                // How much more is known only once it is unpacked.
                needed: size,
                free: free(&self.places.shared).unwrap_or(0),
            };
        }
        if is_of_bytes && self.is_damaged(layer) {
            self.throw_away(layer);
            return StoreError::Damaged(layer.clone());
        }
        error
    }

    /// True where the blob is not what its digest says any more.
    fn is_damaged(&self, digest: &Digest) -> bool {
        let Ok((mut file, _)) = self.open_blob(digest) else {
            return false;
        };
        let mut hasher = crate::digest::Hasher::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return hasher.finish() != *digest,
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }

    /// Waits until everything that was unpacked is on the disk, and remembers that: what is not by
    /// then is unpacked again after the machine has started anew. To be called now and then, while
    /// nobody waits.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn settle(&self) -> Result<(), StoreError> {
        let folder = self.places.layers();
        let mut unsettled = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(StoreError::io(&folder))? {
            let name = entry.map_err(StoreError::io(&folder))?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(RECORD));
            let Some(chain) = hex.and_then(Digest::from_hex) else {
                continue;
            };
            if let Some(record) = record(&self.places, &chain).filter(|r| r.boot.is_some()) {
                unsettled.push((chain, record));
            }
        }
        if unsettled.is_empty() {
            return Ok(());
        }
        let disk = File::open(&folder).map_err(StoreError::io(&folder))?;
        rustix::fs::syncfs(&disk).map_err(|errno| StoreError::io(&folder)(errno.into()))?;
        let _lease = self.lease()?;
        for (chain, settled) in unsettled {
            // It may have been removed meanwhile.
            if record(&self.places, &chain).as_ref() == Some(&settled) {
                let path = record_path(&self.places, &chain);
                let settled = Record {
                    boot: None,
                    ..settled
                };
                write_record(&self.places, &path, &settled)?;
            }
        }
        Ok(())
    }
}

fn write_record(places: &Places, path: &Path, record: &Record) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(record).map_err(|error| StoreError::io(path)(error.into()))?;
    replace_file(path, &bytes, PRIVATE, Outlives::Process)
        .map_err(|error| written(&places.shared, bytes.len() as u64, error, path))
}

/// The digest in the name of a layer, of its record or of an unfinished one.
pub(super) fn chain_of(name: &str) -> Option<Digest> {
    let hex = name.split_once('.').map_or(name, |(hex, _)| hex);
    Digest::from_hex(hex)
}

/// Tells of what is read.
struct Counted<'a> {
    file: File,
    progress: &'a (dyn Fn(u64) + Sync),
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        (self.progress)(read as u64);
        Ok(read)
    }
}
