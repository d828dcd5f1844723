//! Sources in memory, a store on disk.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::source::{BlobStream, Manifest, SourceFuture};

/// How a source behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Good,
    /// Has nothing.
    Empty,
    /// Other bytes than it was asked for.
    Lies,
    /// Ends each stream after so many bytes.
    Cuts(usize),
    /// The same, and never begins in the middle.
    CutsOnce(usize),
    /// Has damaged copies of what has so many bytes or more, and nothing after them.
    Damaged(usize),
}

struct Memory {
    manner: Manner,
    tags: BTreeMap<String, Digest>,
    content: BTreeMap<Digest, Vec<u8>>,
    asked: AtomicUsize,
}

fn missing() -> SourceError {
    SourceError::new(SourceErrorKind::Missing, "No such image: not in memory")
}

impl Source for Memory {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn manifest<'a>(&'a self, name: &'a ImageName) -> SourceFuture<'a, Manifest> {
        Box::pin(async move {
            let digest = name
                .digest()
                .or_else(|| self.tags.get(name.tag()?))
                .filter(|_| self.manner != Manner::Empty)
                .ok_or_else(missing)?;
            let bytes = self.content.get(digest).ok_or_else(missing)?.clone();
            Ok(Manifest {
                digest: digest.clone(),
                bytes,
            })
        })
    }

    fn blob<'a>(
        &'a self,
        _name: &'a ImageName,
        blob: &'a Blob,
        offset: u64,
    ) -> SourceFuture<'a, BlobStream> {
        Box::pin(async move {
            let nth = self.asked.fetch_add(1, Ordering::SeqCst);
            let mut bytes = self.content.get(&blob.digest).ok_or_else(missing)?.clone();
            let mut from = offset as usize;
            let mut cut = None;
            match self.manner {
                Manner::Good => {}
                Manner::Empty => return Err(missing()),
                Manner::Lies => bytes[0] ^= 1,
                Manner::Cuts(after) => cut = Some(after),
                Manner::Damaged(len) if bytes.len() >= len => {
                    bytes[0] ^= 1;
                    bytes.truncate(len);
                    if from >= len {
                        return Err(missing());
                    }
                }
                Manner::Damaged(_) => {}
                Manner::CutsOnce(after) => {
                    from = 0;
                    cut = (nth == 0).then_some(after);
                }
            }
            let mut parts: Vec<Result<Bytes, SourceError>> = Vec::new();
            let rest = &bytes[from..];
            match cut.filter(|after| *after < rest.len()) {
                Some(after) => {
                    parts.push(Ok(Bytes::copy_from_slice(&rest[..after])));
                    let error = SourceError::new(SourceErrorKind::Unreachable, "cut");
                    parts.push(Err(error));
                }
                None => parts.extend(
                    rest.chunks(1000)
                        .map(|part| Ok(Bytes::copy_from_slice(part))),
                ),
            }
            Ok(BlobStream::new(from as u64, tokio_stream::iter(parts)))
        })
    }
}

struct World {
    tags: BTreeMap<String, Digest>,
    content: BTreeMap<Digest, Vec<u8>>,
    image: Digest,
    layer: Digest,
}

/// An index with one image of two layers; bytes that do not repeat.
fn world(architecture: &str, layer_size: usize) -> World {
    let mut content = BTreeMap::new();
    let mut keep = |bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        let size = bytes.len();
        content.insert(digest.clone(), bytes);
        (digest, size)
    };
    let layer: Vec<u8> = (0..layer_size).map(|n| (n * 31 % 251) as u8).collect();
    let (layer, size) = keep(layer);
    let (small, small_size) = keep(b"a small layer".to_vec());
    let config = format!(
        r#"{{"os":"linux","architecture":"{architecture}","rootfs":{{"type":"layers",
        "diff_ids":["{layer}","{small}"]}}}}"#
    );
    let (config, config_size) = keep(config.into_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
        "config":{{"mediaType":"application/vnd.oci.image.config.v1+json",
        "digest":"{config}","size":{config_size}}},"layers":[
        {{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{size}}},
        {{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{small}","size":{small_size}}}]}}"#
    );
    let (image, image_size) = keep(manifest.into_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
        {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{image}",
        "size":{image_size},"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#
    );
    let (index, _) = keep(index.into_bytes());
    World {
        tags: [
            ("latest".to_owned(), index),
            ("one".to_owned(), image.clone()),
        ]
        .into(),
        content,
        image,
        layer,
    }
}

impl World {
    fn source(&self, manner: Manner) -> Arc<Memory> {
        Arc::new(Memory {
            manner,
            tags: self.tags.clone(),
            content: self.content.clone(),
            asked: AtomicUsize::new(0),
        })
    }
}

fn amd64() -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        variant: None,
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        Store::open(&folder.path().join("shared"), &folder.path().join("own")).expect("a store");
    (folder, store)
}

async fn pulled(
    store: &Store,
    tag: &str,
    sources: &[Arc<Memory>],
) -> (Result<Digest, PullError>, Progress) {
    let progress = Progress::new();
    let name = format!("registry.example/x:{tag}").parse().expect("a name");
    let sources: Vec<Arc<dyn Source>> = sources
        .iter()
        .map(|one| Arc::clone(one) as Arc<dyn Source>)
        .collect();
    let result = pull(store, &name, &amd64(), &sources, &progress).await;
    (result, progress)
}

#[tokio::test]
async fn an_image_of_an_index_has_all_its_content_and_its_name() {
    let world = world("amd64", 5000);
    let (_folder, store) = store();
    let source = world.source(Manner::Good);
    let (result, progress) = pulled(&store, "latest", &[Arc::clone(&source)]).await;
    assert_eq!(result.expect("an image"), world.image);
    for digest in world.content.keys() {
        assert!(store.has(digest), "{digest}");
    }
    assert_eq!(progress.percent(), Some(100));
    assert_eq!(progress.done(), progress.total());
    assert!(store.find("registry.example/x").expect("a store").is_some());

    // Again: nothing is fetched.
    let before = source.asked.load(Ordering::SeqCst);
    let (result, progress) = pulled(&store, "latest", &[Arc::clone(&source)]).await;
    assert_eq!(result.expect("an image"), world.image);
    assert_eq!(source.asked.load(Ordering::SeqCst), before);
    assert_eq!(progress.percent(), Some(100));
}

#[tokio::test(start_paused = true)]
async fn the_first_source_that_has_it_gives_it() {
    let world = world("amd64", 5000);
    let (_folder, store) = store();
    let sources = [
        world.source(Manner::Empty),
        world.source(Manner::Lies),
        world.source(Manner::Good),
    ];
    let (result, progress) = pulled(&store, "latest", &sources).await;
    assert_eq!(result.expect("an image"), world.image);
    assert_eq!(progress.percent(), Some(100));
    assert!(sources[1].asked.load(Ordering::SeqCst) > 0);
}

#[tokio::test(start_paused = true)]
async fn what_breaks_off_goes_on_where_it_was() {
    let world = world("amd64", 1_000_000);
    let (_folder, store) = store();
    let source = world.source(Manner::Cuts(100_000));
    let (result, progress) = pulled(&store, "latest", &[Arc::clone(&source)]).await;
    assert_eq!(result.expect("an image"), world.image);
    // Ten parts, and two other blobs.
    assert_eq!(source.asked.load(Ordering::SeqCst), 12);
    assert_eq!(progress.done(), progress.total());
}

#[tokio::test(start_paused = true)]
async fn a_source_without_ranges_begins_again() {
    let world = world("amd64", 300_000);
    let (_folder, store) = store();
    // The first blob that it is asked for is the configuration, which it cuts.
    let source = world.source(Manner::CutsOnce(10));
    let (result, progress) = pulled(&store, "one", &[source]).await;
    assert_eq!(result.expect("an image"), world.image);
    assert_eq!(progress.done(), progress.total());
}

#[tokio::test(start_paused = true)]
async fn lies_are_not_kept() {
    let world = world("amd64", 5000);
    let (_folder, store) = store();
    let (result, _) = pulled(&store, "latest", &[world.source(Manner::Lies)]).await;
    let error = result.expect_err("lies");
    assert!(
        error.to_string().starts_with("wrong digest: memory"),
        "{error}"
    );
    assert!(!error.is_transient());
    assert!(!store.has(&world.layer));
    assert!(store.find("registry.example/x").expect("a store").is_none());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_has() {
    let world = world("amd64", 10);
    let (_folder, store) = store();
    let (result, _) = pulled(&store, "other", &[world.source(Manner::Good)]).await;
    let error = result.expect_err("no tag");
    assert!(error.is_missing(), "{error}");
    let (result, _) = pulled(&store, "latest", &[]).await;
    assert!(matches!(result, Err(PullError::NoSource(_))));
}

#[tokio::test(start_paused = true)]
async fn another_machines_image_is_refused_before_its_layers_come() {
    let world = world("s390x", 5000);
    let (_folder, store) = store();
    let (result, _) = pulled(&store, "one", &[world.source(Manner::Good)]).await;
    let error = result.expect_err("another machine");
    assert!(error.to_string().contains("actual: linux/s390x"), "{error}");
    assert!(!store.has(&world.layer));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_part_of_one_source_does_not_spoil_another_one() {
    let world = world("amd64", 1_000_000);
    let (_folder, store) = store();
    let sources = [
        world.source(Manner::Damaged(300_000)),
        world.source(Manner::Good),
    ];
    let (result, progress) = pulled(&store, "latest", &sources).await;
    assert_eq!(result.expect("an image"), world.image);
    assert_eq!(progress.done(), progress.total());
    // The large layer alone: what was missing of it, and then all of it.
    assert_eq!(sources[1].asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_come_to_an_end() {
    let world = world("amd64", 1_000_000);
    for other in [Manner::Damaged(1_000_000), Manner::Damaged(700_000)] {
        let (_folder, store) = store();
        let sources = [world.source(Manner::Damaged(300_000)), world.source(other)];
        let (result, _) = pulled(&store, "latest", &sources).await;
        result.expect_err("nobody has it");
        let asked: usize = sources
            .iter()
            .map(|source| source.asked.load(Ordering::SeqCst))
            .sum();
        assert!(asked < 60, "{asked}");
    }
}
