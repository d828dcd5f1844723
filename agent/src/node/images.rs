//! Calls of the node API about images.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use weft_images::{Digest, Image, ImageName, RegistryError, archive};
use weft_model::api::{
    ImageDetail, ImageProgress, ImagePruneQuery, ImageRemoveQuery, ImageRemoved, ImageSummary,
    ImagesPruned, ProgressDetail, PullQuery, ResolveQuery, ResolvedImage, SaveQuery,
};
use weft_model::objects::Platform;
use zeroize::Zeroizing;

use super::Node;
use super::image_shapes::{detail, refused, steps, summary};
use super::pipe::{PipeReader, PipeWriter};
use crate::api::{Answer, ApiError, ImageCalls};
use crate::blocking::blocking;
use crate::images::Occasion;

/// Lines that wait for the client.
const LINES: usize = 16;
/// How long it may take to find out which image a name stands for, by a registry and by others.
const RESOLVE: Duration = Duration::from_secs(30);

impl ImageCalls for Node {
    async fn images(&self) -> Answer<Vec<ImageSummary>> {
        let store = self.images.store().clone();
        let images = blocking(move || store.images()).await?.map_err(refused)?;
        let holds = self.images.store().holds();
        let rows = images.iter().map(|image| summary(image, &holds));
        let mut rows: Vec<ImageSummary> = rows.collect();
        // The newest first, as docker has them.
        rows.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(rows)
    }

    async fn image(&self, reference: String) -> Answer<ImageDetail> {
        let store = self.images.store().clone();
        let word = reference.clone();
        let found = blocking(move || store.find(&word))
            .await?
            .map_err(refused)?;
        found
            .as_ref()
            .map(detail)
            .ok_or_else(|| no_image(&reference))
    }

    async fn image_remove(
        &self,
        reference: String,
        query: ImageRemoveQuery,
    ) -> Answer<Vec<ImageRemoved>> {
        let store = self.images.store().clone();
        let removed = blocking(move || store.remove(&reference, query.force)).await?;
        self.images.changed();
        let removed = removed.map_err(refused)?;
        Ok(steps(removed.untagged, &removed.deleted))
    }

    async fn image_pull(&self, query: PullQuery, asker: String) -> Answer<mpsc::Receiver<Bytes>> {
        let name = name_of(&query)?;
        let (sender, receiver) = mpsc::channel(LINES);
        let (images, asker) = (self.images.clone(), Zeroizing::new(asker));
        let before = images.find(&name.to_string()).await?;
        tokio::spawn(async move {
            let reference = name.reference();
            let path = name.path();
            let mut first = ImageProgress::status(format!("Pulling from {path}"));
            first.id.clone_from(&reference);
            say(&sender, &first).await;
            let told = |current, total| {
                let line = ImageProgress {
                    status: "Downloading".to_owned(),
                    id: reference.clone(),
                    progress_detail: Some(ProgressDetail { current, total }),
                    ..ImageProgress::default()
                };
                // What a slow client does not see is told by the next one.
                drop(sender.try_send(line_of(&line)));
            };
            match images.pull(&name, asker, Occasion::Command, &told).await {
                Ok(manifest) => {
                    for line in pulled(&name, before.as_ref(), &manifest) {
                        say(&sender, &ImageProgress::status(line)).await;
                    }
                }
                Err(error) => say(&sender, &ImageProgress::error(format!("{error:#}"))).await,
            }
        });
        Ok(receiver)
    }

    async fn images_load(
        &self,
        archive: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Answer<mpsc::Receiver<Bytes>> {
        let (sender, receiver) = mpsc::channel(LINES);
        let images = self.images.clone();
        tokio::spawn(async move {
            let store = images.store().clone();
            // It has a lease by itself, once all of the archive is here: a client that stalls keeps
            // nobody from removing images.
            let loaded = blocking(move || {
                let loaded = archive::load(&store, PipeReader::new(archive));
                loaded.map_err(|error| error.to_string())
            });
            let loaded = loaded.await;
            images.changed();
            let lines = match loaded {
                Ok(Ok(loaded)) => loaded
                    .iter()
                    .map(|loaded| ImageProgress {
                        stream: loaded_line(loaded.name.as_ref(), &loaded.id),
                        ..ImageProgress::default()
                    })
                    .collect(),
                Ok(Err(error)) => vec![ImageProgress::error(error)],
                Err(error) => vec![ImageProgress::error(format!("{error:#}"))],
            };
            for line in &lines {
                say(&sender, line).await;
            }
        });
        Ok(receiver)
    }

    async fn images_save(&self, query: SaveQuery) -> Answer<mpsc::Receiver<io::Result<Bytes>>> {
        let names: Vec<String> = query.names.split(',').map(str::to_owned).collect();
        let store = self.images.store().clone();
        let asked = names.clone();
        // Before the answer begins, as nothing can be said of it later.
        let missing = blocking(move || {
            for name in asked {
                if store.find(&name).map_err(refused)?.is_none() {
                    return Err(no_image(&name));
                }
            }
            Ok(())
        });
        missing.await??;
        let store = self.images.store().clone();
        let (writer, receiver) = PipeWriter::new();
        tokio::task::spawn_blocking(move || {
            let mut writer = writer;
            if let Err(error) = archive::save(&store, &names, &mut writer) {
                tracing::warn!(%error, "an archive of images was not written to its end");
                writer.fail(io::Error::other(error.to_string()));
            } else {
                writer.finish();
            }
        });
        Ok(receiver)
    }

    async fn images_prune(&self, query: ImagePruneQuery) -> Answer<ImagesPruned> {
        let store = self.images.store().clone();
        let pruned = blocking(move || store.prune(query.all)).await?;
        self.images.changed();
        let pruned = pruned.map_err(refused)?;
        Ok(ImagesPruned {
            space_reclaimed: pruned.freed_bytes,
            images_deleted: steps(pruned.untagged, &pruned.deleted),
        })
    }

    async fn image_resolve(&self, query: ResolveQuery, asker: String) -> Answer<ResolvedImage> {
        let name: ImageName = parse(&query.name)?;
        let resolved = tokio::time::timeout(RESOLVE, self.images.resolve(&name, asker)).await;
        let resolved = resolved.map_err(|_| {
            ApiError::unavailable(format!(
                "nobody says within {} seconds which image {} is",
                RESOLVE.as_secs(),
                name.familiar()
            ))
        })?;
        let meaning = resolved.map_err(|error| unresolved(&error))?;
        let resolved = meaning.resolved;
        let platforms = resolved.platforms.into_iter().map(|platform| Platform {
            architecture: platform.architecture,
            os: platform.os,
        });
        Ok(ResolvedImage {
            name: name.with_digest(resolved.digest.clone()).to_string(),
            digest: resolved.digest.to_string(),
            platforms: platforms.collect(),
            registry_error: meaning
                .registry_error
                .map(|error| error.to_string())
                .unwrap_or_default(),
        })
    }
}

/// Tells the client; one that has gone need not know.
async fn say(client: &mpsc::Sender<Bytes>, line: &ImageProgress) {
    drop(client.send(line_of(line)).await);
}

fn line_of(line: &ImageProgress) -> Bytes {
    // Texts and numbers: that does not fail.
    let mut bytes = serde_json::to_vec(line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

fn parse(name: &str) -> Result<ImageName, ApiError> {
    let parsed = name.parse::<ImageName>();
    parsed.map_err(|error| ApiError::bad_request(format!("{name:?}: {error}")))
}

/// The name that is asked for; a tag of its own does not go with one that has a tag.
fn name_of(query: &PullQuery) -> Result<ImageName, ApiError> {
    let image = &query.from_image;
    match query.tag.as_deref().filter(|tag| !tag.is_empty()) {
        None => parse(image),
        Some(digest) if digest.contains(':') => parse(&format!("{image}@{digest}")),
        Some(tag) => parse(&format!("{image}:{tag}")),
    }
}

/// What docker says of an image that was pulled.
fn pulled(name: &ImageName, before: Option<&Image>, manifest: &Digest) -> [String; 2] {
    let newer = before.is_none_or(|image| image.manifest != *manifest);
    let status = if newer {
        "Downloaded newer image for"
    } else {
        "Image is up to date for"
    };
    let digest = name.digest().unwrap_or(manifest);
    [
        format!("Digest: {digest}"),
        format!("Status: {status} {}", name.familiar()),
    ]
}

/// What docker says of an image that was loaded.
fn loaded_line(name: Option<&ImageName>, id: &Digest) -> String {
    match name {
        Some(name) => format!("Loaded image: {}\n", name.familiar()),
        None => format!("Loaded image ID: {id}\n"),
    }
}

/// In docker's words.
fn no_image(reference: &str) -> ApiError {
    ApiError::not_found(format!("No such image: {reference}"))
}

/// Why it is not known which image a name stands for.
fn unresolved(error: &anyhow::Error) -> ApiError {
    let text = format!("{error:#}");
    match error.downcast_ref::<RegistryError>() {
        Some(RegistryError::NoSuchImage { .. }) => ApiError::not_found(text),
        Some(RegistryError::AccessDenied { .. }) => ApiError::forbidden(text),
        _ => ApiError::unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(image: &str, tag: Option<&str>) -> Result<String, String> {
        let query = PullQuery {
            from_image: image.to_owned(),
            tag: tag.map(str::to_owned),
        };
        let name = name_of(&query).map(|name| name.to_string());
        name.map_err(|error| error.message)
    }

    #[test]
    fn what_to_pull_is_one_name() {
        let latest = Ok("docker.io/library/nginx:latest".to_owned());
        assert_eq!(asked("nginx", None), latest);
        assert_eq!(asked("nginx", Some("")), latest);
        let one = Ok("docker.io/library/nginx:1".to_owned());
        assert_eq!(asked("nginx", Some("1")), one);
        let digest = Digest::of(b"x").to_string();
        let pinned = Ok(format!("docker.io/library/nginx@{digest}"));
        assert_eq!(asked("nginx", Some(&digest)), pinned);
        for (image, tag) in [("", None), ("UPPER", None), ("nginx:1", Some("2"))] {
            let error = asked(image, tag).expect_err("it is no name");
            assert!(error.contains("invalid reference format"), "{error}");
        }
    }

    #[test]
    fn what_was_pulled_and_loaded_is_told_in_dockers_words() {
        let (name, digest) = (
            "nginx".parse::<ImageName>().expect("a name"),
            Digest::of(b"x"),
        );
        assert_eq!(
            pulled(&name, None, &digest),
            [
                format!("Digest: {digest}"),
                "Status: Downloaded newer image for nginx:latest".to_owned(),
            ]
        );
        assert_eq!(
            loaded_line(Some(&name), &digest),
            "Loaded image: nginx:latest\n"
        );
        let unnamed = format!("Loaded image ID: {digest}\n");
        assert_eq!(loaded_line(None, &digest), unnamed);
    }

    #[test]
    fn a_line_is_one_line() {
        let line = line_of(&ImageProgress::error("two\nlines"));
        assert_eq!(line, &b"{\"error\":\"two\\nlines\"}\n"[..]);
    }
}
