//! Content that is here.

use std::fs::File;
use std::io::{self, Read as _};

use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};

use super::{Digest, MANIFEST_LIMIT, Store, StoreError, written};

impl Store {
    /// True when all of it is here.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.places.blob(digest).is_file()
    }

    /// A manifest or configuration, its digest checked.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::TooLarge`], [`StoreError::Damaged`],
    /// [`StoreError::Io`].
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let (file, size) = self.open_blob(digest)?;
        if size > MANIFEST_LIMIT {
            return Err(StoreError::TooLarge {
                digest: digest.clone(),
                size,
                limit: MANIFEST_LIMIT,
            });
        }
        let path = self.places.blob(digest);
        let mut bytes = Vec::new();
        file.take(MANIFEST_LIMIT)
            .read_to_end(&mut bytes)
            .map_err(StoreError::io(&path))?;
        if Digest::of(&bytes) != *digest {
            self.throw_away(digest);
            return Err(StoreError::Damaged(digest.clone()));
        }
        Ok(bytes)
    }

    /// Opens content, and says how many bytes it has. Its digest was checked when it came.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    pub fn open_blob(&self, digest: &Digest) -> Result<(File, u64), StoreError> {
        let path = self.places.blob(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(digest.clone()));
            }
            file => file.map_err(StoreError::io(&path))?,
        };
        let size = file.metadata().map_err(StoreError::io(&path))?.len();
        Ok((file, size))
    }

    /// Writes content that is whole, such as a manifest.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if !self.has(&digest) {
            let path = self.places.blob(&digest);
            replace_file(&path, bytes, PRIVATE, Outlives::Process)
                .map_err(|error| written(&self.places.shared, bytes.len() as u64, error, &path))?;
        }
        Ok(digest)
    }

    /// Removes content that is not what it was, so that it is pulled again.
    pub(super) fn throw_away(&self, digest: &Digest) {
        let path = self.places.blob(digest);
        tracing::warn!(%digest, "content was damaged on disk and is removed");
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "damaged content stays");
        }
    }
}
