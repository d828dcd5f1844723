//! Brings an image into the store: manifest, configuration, layers, each from the first source that has it.
//!
//! Three layers come at once, as in Docker. What breaks off goes on where it was; what is wrong is thrown
//! away, and the next source is asked. The disk is written to outside of the async threads.

mod attempts;
mod error;
mod origin;
mod progress;

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

pub use error::PullError;
pub use progress::Progress;

use self::attempts::Attempts;
use self::origin::Origin;
use self::progress::Part;
use crate::blob::Blob;
use crate::digest::Digest;
use crate::manifest::{self, Parsed};
use crate::name::ImageName;
use crate::platform::{Platform, PlatformError, choose};
use crate::source::{Source, SourceError, SourceErrorKind};
use crate::store::{BlobWriter, Ingest, Store, StoreError};

/// Indexes in indexes.
const MAX_DEPTH: usize = 3;
/// Bytes that are written at once.
const BATCH: usize = 512 * 1024;
/// Between two looks at a blob that somebody else is fetching.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Brings the image of `platform` into the store and gives it its name there. Each piece of content is
/// asked from `sources` in their order; the last one, a registry as a rule, knows best what does not exist.
/// Returns the digest of the image's manifest, which is not that of the index where there is one.
///
/// Dropped, it stops; what came is kept for the next time.
///
/// # Errors
/// No source has it or gives it, nothing in it is for the platform, its content is damaged or of an unknown
/// kind, the disk is full.
pub async fn pull(
    store: &Store,
    name: &ImageName,
    platform: &Platform,
    sources: &[Arc<dyn Source>],
    progress: &Progress,
) -> Result<Digest, PullError> {
    let lease = {
        let store = store.clone();
        blocking(move || store.lease()).await?
    };
    let pull = Pull {
        store,
        name,
        sources,
        progress,
    };
    let manifest = pull.image(platform).await?;
    let (kept, named, digest) = (store.clone(), name.clone(), manifest.clone());
    blocking(move || kept.set_name(&named, &digest)).await?;
    drop(lease);
    Ok(manifest)
}

struct Pull<'a> {
    store: &'a Store,
    name: &'a ImageName,
    sources: &'a [Arc<dyn Source>],
    progress: &'a Progress,
}

/// What became of one attempt at a blob.
enum Outcome {
    Here,
    /// What came so far stays.
    Failed(SourceError),
    /// The source sent all that it has, and that is not the blob.
    Bad(Fault, SourceError),
}

/// What was wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It ended early; what came stays.
    Short,
    /// There was more; all of it was thrown away.
    Long,
    /// It has another digest; all of it was thrown away.
    Wrong,
}

/// One attempt at a blob.
struct Attempt {
    outcome: Outcome,
    /// The source's bytes are from here …
    from: u64,
    /// … to here.
    to: u64,
}

impl Pull<'_> {
    async fn image(&self, platform: &Platform) -> Result<Digest, PullError> {
        let damaged = |source| PullError::Manifest {
            image: self.name.familiar(),
            source,
        };
        let mut name = self.name.clone();
        let mut depth = 0;
        let (digest, image) = loop {
            let (digest, bytes) = self.manifest(&name).await?;
            match manifest::parse(&bytes).map_err(damaged)? {
                Parsed::Image(image) => break (digest, image),
                Parsed::Index(index) => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return Err(PullError::Nested(self.name.familiar()));
                    }
                    let chosen = choose(&index, platform)?;
                    let blob = manifest::small_blob(&chosen, "the manifest").map_err(damaged)?;
                    name = self.name.with_digest(blob.digest);
                }
            }
        };
        let (config, layers) = manifest::content(&image).map_err(damaged)?;
        let total = layers
            .iter()
            .fold(config.size, |sum, layer| sum.saturating_add(layer.size));
        self.progress.begin(total);
        self.blob(&config).await?;
        let read = {
            let (store, digest) = (self.store.clone(), config.digest.clone());
            blocking(move || store.read(&digest)).await?
        };
        let found = manifest::platform(&read).map_err(damaged)?;
        if !platform.runs(&found) {
            let wanted = platform.clone();
            return Err(PlatformError::Other {
                wanted: Box::new(wanted),
                found: Box::new(found),
            }
            .into());
        }
        self.layers(&layers).await?;
        Ok(digest)
    }

    /// The manifest or index of a name, which is in the store afterwards.
    async fn manifest(&self, name: &ImageName) -> Result<(Digest, Vec<u8>), PullError> {
        if let Some(digest) = name.digest()
            && self.store.has(digest)
        {
            let (store, wanted) = (self.store.clone(), digest.clone());
            match blocking(move || store.read(&wanted)).await {
                Ok(bytes) => return Ok((digest.clone(), bytes)),
                Err(error) => tracing::debug!(%error, "a manifest of the store is fetched again"),
            }
        }
        let mut attempts = Attempts::new(self.sources.len(), true);
        loop {
            for n in attempts.open() {
                let source = &self.sources[n];
                let bytes = match source.manifest(name).await {
                    Ok(manifest) => manifest.bytes,
                    Err(error) => {
                        attempts.failed(n, error);
                        continue;
                    }
                };
                let got = Digest::of(&bytes);
                match name.digest() {
                    Some(wanted) if *wanted != got => {
                        attempts.failed(n, wrong_digest(source.as_ref(), wanted, &got));
                    }
                    _ if bytes.len() > manifest::MAX_BYTES => {
                        let message =
                            format!("{} sent a manifest of {} bytes", source.name(), bytes.len());
                        attempts.failed(n, SourceError::new(SourceErrorKind::Unusable, message));
                    }
                    _ => {
                        // Damage is found before it is kept.
                        if let Err(source) = manifest::parse(&bytes) {
                            let image = self.name.familiar();
                            return Err(PullError::Manifest { image, source });
                        }
                        let store = self.store.clone();
                        return blocking(move || Ok((store.put(&bytes)?, bytes))).await;
                    }
                }
            }
            self.pause(&mut attempts).await?;
        }
    }

    /// All layers, several at once; what is there twice comes once.
    async fn layers(&self, layers: &[Blob]) -> Result<(), PullError> {
        let mut seen = BTreeSet::new();
        let distinct: VecDeque<&Blob> = layers
            .iter()
            .filter(|layer| {
                let first = seen.insert(&layer.digest);
                if !first {
                    Part::new(self.progress).reached(layer.size);
                }
                first
            })
            .collect();
        let queue = Mutex::new(distinct);
        let worker = || async {
            loop {
                let next = queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                let Some(layer) = next else {
                    return Ok::<(), PullError>(());
                };
                self.blob(layer).await?;
            }
        };
        tokio::try_join!(worker(), worker(), worker())?;
        Ok(())
    }

    /// One blob, which is in the store afterwards.
    async fn blob(&self, blob: &Blob) -> Result<(), PullError> {
        let mut part = Part::new(self.progress);
        let mut attempts = Attempts::new(self.sources.len(), false);
        let mut origin = Origin::new(self.sources.len());
        'rounds: loop {
            for n in origin.order(attempts.open()) {
                let Some(mut writer) = self.begin(blob).await? else {
                    part.reached(blob.size);
                    return Ok(());
                };
                if origin.begins_anew(n, writer.offset()) {
                    writer = restarted(writer).await?;
                }
                part.reached(writer.offset());
                let source = self.sources[n].as_ref();
                let attempt = self.transfer(source, blob, writer, &mut part).await?;
                let gained = origin.came(n, attempt.from, attempt.to);
                let (fault, mut error) = match attempt.outcome {
                    Outcome::Here => return Ok(()),
                    Outcome::Failed(error) => (None, error),
                    Outcome::Bad(fault, error) => (Some(fault), error),
                };
                tracing::debug!(%error, digest = %blob.digest, ?fault, "a blob did not come");
                match fault {
                    None => {}
                    Some(Fault::Short) => {
                        source.blame(blob);
                    }
                    Some(Fault::Long) => {
                        let again = source.blame(blob) && origin.may_err_again(n);
                        error.kind = kind_of_wrong(again);
                    }
                    Some(Fault::Wrong) => {
                        let wrong = origin.was_wrong(n);
                        let mut again = false;
                        for giver in wrong.parts {
                            again |= self.sources[giver].blame(blob);
                        }
                        if wrong.mixed {
                            // What was here before may have been the damage: once more from the
                            // beginning, and from one source alone.
                            error.kind = SourceErrorKind::Unreachable;
                            attempts.failed(n, error);
                            continue 'rounds;
                        }
                        error.kind = kind_of_wrong(again && origin.may_err_again(n));
                    }
                }
                // Wrong bytes are no gain, however many.
                if gained && !matches!(fault, Some(Fault::Long | Fault::Wrong)) {
                    attempts.gained();
                }
                attempts.failed(n, error);
            }
            // Somebody else may have brought it, also where nobody gives it to us.
            if self.store.has(&blob.digest) {
                part.reached(blob.size);
                return Ok(());
            }
            self.pause(&mut attempts).await?;
        }
    }

    /// Where to write; `None` when the blob is here, be it by another one's work.
    async fn begin(&self, blob: &Blob) -> Result<Option<BlobWriter>, PullError> {
        loop {
            let (store, wanted) = (self.store.clone(), blob.clone());
            match blocking(move || store.ingest(&wanted)).await? {
                Ingest::Present => return Ok(None),
                Ingest::Writer(writer) => return Ok(Some(writer)),
                Ingest::Busy => sleep(BUSY_PAUSE).await,
            }
        }
    }

    /// What one source sends.
    async fn transfer(
        &self,
        source: &dyn Source,
        blob: &Blob,
        mut writer: BlobWriter,
        part: &mut Part<'_>,
    ) -> Result<Attempt, PullError> {
        let mut from = writer.offset();
        let ended = |outcome, from, to| Ok(Attempt { outcome, from, to });
        let mut stream = match source.blob(self.name, blob, from).await {
            Ok(stream) => stream,
            Err(error) => return ended(Outcome::Failed(error), from, from),
        };
        if stream.starts_at() == 0 && from > 0 {
            writer = restarted(writer).await?;
            from = 0;
            part.reached(0);
        } else if stream.starts_at() != from {
            let message = format!(
                "{} was asked for a blob from byte {from} on and begins at {}",
                source.name(),
                stream.starts_at()
            );
            let error = SourceError::new(SourceErrorKind::Unusable, message);
            return ended(Outcome::Failed(error), from, from);
        }
        let mut reached = from;
        let mut batch = Vec::new();
        let mut size = 0;
        let broken = loop {
            match stream.chunk().await {
                Ok(Some(chunk)) => {
                    size += chunk.len();
                    batch.push(chunk);
                    if size < BATCH {
                        continue;
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            writer = match write(writer, mem::take(&mut batch)).await {
                Ok(writer) => writer,
                Err(error) => return ended(their_fault(source, blob, error)?, from, reached),
            };
            reached += size as u64;
            size = 0;
            part.reached(reached);
        };
        let written = match write(writer, batch).await {
            Ok(writer) => {
                reached += size as u64;
                part.reached(reached);
                match broken {
                    Some(error) => return ended(Outcome::Failed(error), from, reached),
                    None => blocking(move || writer.commit()).await,
                }
            }
            Err(error) => Err(error),
        };
        let outcome = match written {
            Ok(()) => Outcome::Here,
            Err(error) => their_fault(source, blob, error)?,
        };
        ended(outcome, from, reached)
    }

    /// Waits until the next round.
    async fn pause(&self, attempts: &mut Attempts) -> Result<(), PullError> {
        match attempts.next_pause() {
            Ok(pause) => {
                sleep(pause).await;
                Ok(())
            }
            Err(Some(error)) => Err(PullError::Source(error)),
            Err(None) => Err(PullError::NoSource(self.name.familiar())),
        }
    }
}

async fn write(mut writer: BlobWriter, batch: Vec<Bytes>) -> Result<BlobWriter, PullError> {
    if batch.is_empty() {
        return Ok(writer);
    }
    blocking(move || {
        for chunk in batch {
            writer.write(&chunk)?;
        }
        Ok(writer)
    })
    .await
}

async fn restarted(mut writer: BlobWriter) -> Result<BlobWriter, PullError> {
    blocking(move || {
        writer.restart()?;
        Ok(writer)
    })
    .await
}

/// Of a source that sent wrong bytes, and has another place to ask, or none.
fn kind_of_wrong(again: bool) -> SourceErrorKind {
    if again {
        SourceErrorKind::Unreachable
    } else {
        SourceErrorKind::Unusable
    }
}

/// What is wrong with content is its source's error; what is wrong with the disk is ours.
fn their_fault(source: &dyn Source, blob: &Blob, error: PullError) -> Result<Outcome, PullError> {
    match error {
        PullError::Store(StoreError::WrongDigest { found, .. }) => {
            let wrong = wrong_digest(source, &blob.digest, &found);
            Ok(Outcome::Bad(Fault::Wrong, wrong))
        }
        PullError::Store(StoreError::WrongSize { size, found, .. }) => {
            let (fault, kind) = if found < size {
                (Fault::Short, SourceErrorKind::Unreachable)
            } else {
                (Fault::Long, SourceErrorKind::Unusable)
            };
            let message = format!(
                "{} sent {found} bytes of {}, which has {size}",
                source.name(),
                blob.digest
            );
            Ok(Outcome::Bad(fault, SourceError::new(kind, message)))
        }
        other => Err(other),
    }
}

fn wrong_digest(source: &dyn Source, wanted: &Digest, got: &Digest) -> SourceError {
    let name = source.name();
    let message = format!("wrong digest: {name} was asked for {wanted} and sent {got}");
    SourceError::new(SourceErrorKind::Unusable, message)
}

/// Work of the disk, on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, PullError> {
    match spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(PullError::Interrupted),
    }
}

#[cfg(test)]
mod tests;
