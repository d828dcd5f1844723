//! The store on a real disk, with layers that the tests make.

use super::*;

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

/// A folder for several nodes, and one store in it.
struct Lab {
    dir: TempDir,
}

impl Lab {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("a folder"),
        }
    }

    fn shared(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    fn node(&self, name: &str) -> Store {
        Store::open(&self.shared(), &self.dir.path().join(name)).expect("opened")
    }
}

fn name(text: &str) -> ImageName {
    text.parse().expect("a name")
}

/// A layer of one file.
fn layer(file: &str, text: &str) -> (Vec<u8>, Digest) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, file, text.as_bytes())
        .expect("appended");
    let tar = builder.into_inner().expect("an archive");
    let diff_id = Digest::of(&tar);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("compressed");
    (gzip.finish().expect("compressed"), diff_id)
}

/// Puts an image of these layers into a store; the digest of its manifest.
fn image(store: &Store, layers: &[(Vec<u8>, Digest)]) -> Digest {
    let diff_ids: Vec<String> = layers.iter().map(|(_, id)| format!("\"{id}\"")).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    );
    let config_digest = store.put(config.as_bytes()).expect("written");
    let layers: Vec<String> = layers
        .iter()
        .map(|(bytes, _)| {
            let digest = store.put(bytes).expect("written");
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{digest}","size":{}}}"#,
                bytes.len()
            )
        })
        .collect();
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{}]}}"#,
        config.len(),
        layers.join(",")
    );
    store.put(manifest.as_bytes()).expect("written")
}

fn unpack(store: &Store, manifest: &Digest) -> Vec<PathBuf> {
    store.unpack(manifest, &|_| {}).expect("unpacked")
}

fn blob(bytes: &[u8]) -> Blob {
    Blob {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    }
}

fn writer(store: &Store, blob: &Blob) -> BlobWriter {
    match store.ingest(blob).expect("begun") {
        Ingest::Writer(writer) => writer,
        other => panic!("no writer but {other:?}"),
    }
}

#[test]
fn content_comes_in_pieces_and_goes_on_after_a_break() {
    let lab = Lab::new();
    let (store, other) = (lab.node("a"), lab.node("b"));
    let bytes: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let blob = blob(&bytes);
    let mut first = writer(&store, &blob);
    first.write(&bytes[..500_000]).expect("written");
    for busy in [&store, &other] {
        assert!(matches!(busy.ingest(&blob), Ok(Ingest::Busy)));
    }
    assert!(!store.has(&blob.digest));
    drop(first);
    let mut second = writer(&other, &blob);
    assert_eq!(second.offset(), 500_000);
    second.write(&bytes[500_000..]).expect("written");
    second.commit().expect("right");
    assert!(matches!(store.ingest(&blob), Ok(Ingest::Present)));
    let (file, size) = store.open_blob(&blob.digest).expect("there");
    assert_eq!(
        (size, file.metadata().expect("open").len()),
        (blob.size, blob.size)
    );
    assert!(std::fs::read(store.places.blob(&blob.digest)).expect("there") == bytes);
    assert_eq!(
        std::fs::read_dir(store.places.partials())
            .expect("a folder")
            .count(),
        0
    );
}

#[test]
fn wrong_content_is_thrown_away() {
    let lab = Lab::new();
    let store = lab.node("a");
    let blob = blob(b"right");
    let mut wrong = writer(&store, &blob);
    wrong.write(b"wrong").expect("written");
    let error = wrong.commit().expect_err("not what it should be");
    assert!(matches!(error, StoreError::WrongDigest { .. }), "{error}");
    let mut long = writer(&store, &blob);
    assert_eq!(long.offset(), 0, "nothing of the wrong one stays");
    long.write(b"rig").expect("written");
    let error = long.write(b"htly").expect_err("too long");
    assert!(
        error
            .to_string()
            .contains("5 bytes by its manifest, and 7 came"),
        "{error}"
    );
    assert_eq!(long.offset(), 0);
    long.write(b"ri").expect("written");
    let error = long.commit().expect_err("too short");
    assert!(matches!(error, StoreError::WrongSize { .. }), "{error}");
    let mut rest = writer(&store, &blob);
    assert_eq!(rest.offset(), 2);
    rest.restart().expect("restarted");
    rest.write(b"right").expect("written");
    rest.commit().expect("right");
    assert_eq!(store.read(&blob.digest).expect("read"), b"right");
}

#[test]
fn damage_on_disk_is_found_and_what_is_damaged_is_removed() {
    let lab = Lab::new();
    let store = lab.node("a");
    let manifest = image(&store, &[layer("a", "text")]);
    let parts = store.image(&manifest).expect("an image");
    std::fs::write(store.places.blob(&parts.id), "{}").expect("damaged");
    let error = store.image(&manifest).expect_err("damaged");
    assert!(
        error.to_string().contains("pull or load the image again"),
        "{error}"
    );
    assert!(!store.has(&parts.id) && store.has(&manifest));
    let error = store.image(&manifest).expect_err("gone");
    assert!(matches!(error, StoreError::Missing(_)), "{error}");

    let manifest = image(&store, &[layer("a", "text")]);
    let layer = store.image(&manifest).expect("an image").layers[0].clone();
    let path = store.places.blob(&layer.digest);
    let mut bytes = std::fs::read(&path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&path, &bytes).expect("damaged");
    let error = store.unpack(&manifest, &|_| {}).expect_err("damaged");
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    assert!(!store.has(&layer.digest));
    assert_eq!(
        std::fs::read_dir(store.places.layers())
            .expect("a folder")
            .count(),
        0
    );
}

#[test]
fn an_image_has_its_layers_unpacked_or_as_they_came() {
    let lab = Lab::new();
    let store = lab.node("a");
    let manifest = image(&store, &[layer("a", "1"), layer("b", "2")]);
    let image = store.image(&manifest).expect("an image");
    assert!(store.has_layers(&image));
    let blob = |n: usize| store.places.blob(&image.layers[n].digest);
    let kept = std::fs::read(blob(0)).expect("there");
    std::fs::remove_file(blob(0)).expect("removed");
    assert!(!store.has_layers(&image));
    std::fs::write(blob(0), kept).expect("written");
    unpack(&store, &manifest);
    for n in 0..2 {
        std::fs::remove_file(blob(n)).expect("removed");
    }
    assert!(store.has_layers(&image), "they are unpacked");
}

#[test]
fn layers_are_unpacked_once_by_what_is_below_them() {
    let lab = Lab::new();
    let (store, other) = (lab.node("a"), lab.node("b"));
    let (base, top) = (layer("base", "1"), layer("top", "22"));
    let both = image(&store, &[base.clone(), top.clone()]);
    let upside_down = image(&store, &[top.clone(), base.clone()]);
    let read = AtomicU64::new(0);
    let count = |bytes: u64| {
        read.fetch_add(bytes, Ordering::Relaxed);
    };
    let folders = store.unpack(&both, &count).expect("unpacked");
    let total = (base.0.len() + top.0.len()) as u64;
    assert_eq!(read.load(Ordering::Relaxed), total);
    assert_eq!(
        std::fs::read_to_string(folders[0].join("base")).expect("there"),
        "1"
    );
    assert_eq!(
        std::fs::read_to_string(folders[1].join("top")).expect("there"),
        "22"
    );
    let inode = |path: &Path| {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(path).expect("there").ino()
    };
    let first = inode(&folders[0]);
    assert_eq!(other.unpack(&both, &count).expect("there"), folders);
    assert_eq!(read.load(Ordering::Relaxed), 2 * total, "told all the same");
    assert_eq!(inode(&folders[0]), first);
    let turned = unpack(&store, &upside_down);
    assert!(!turned.contains(&folders[0]) && !turned.contains(&folders[1]));
    assert_eq!(store.image(&both).expect("an image").size, 3);
    // Whoever holds a layer's lock unpacks it, and others wait for that.
    std::thread::scope(|scope| {
        let again = image(&store, &[layer("c", "3"), layer("d", "4"), layer("e", "5")]);
        let threads: Vec<_> = [&store, &other, &store]
            .map(|store| {
                scope.spawn({
                    let again = again.clone();
                    move || unpack(store, &again)
                })
            })
            .into();
        let mut results = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        let first = results.next().expect("one");
        assert!(results.all(|result| result == first));
    });
}

#[test]
fn a_layer_of_an_earlier_boot_counts_once_it_is_on_the_disk() {
    let lab = Lab::new();
    let store = lab.node("a");
    let manifest = image(&store, &[layer("a", "text")]);
    let folder = unpack(&store, &manifest).remove(0);
    let record = folder.with_extension("json");
    let of_another_boot = || {
        let text = std::fs::read_to_string(&record).expect("a record");
        let mut value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        if !value["boot"].is_null() {
            value["boot"] = "another".into();
        }
        std::fs::write(&record, value.to_string()).expect("written");
    };
    of_another_boot();
    // As an empty file is what the loss of power leaves.
    std::fs::write(folder.join("a"), "").expect("damaged");
    unpack(&store, &manifest);
    assert_eq!(
        std::fs::read_to_string(folder.join("a")).expect("there"),
        "text"
    );
    store.settle().expect("on the disk");
    of_another_boot();
    std::fs::write(folder.join("mark"), "").expect("written");
    unpack(&store, &manifest);
    assert!(folder.join("mark").exists(), "it is the same one");
}

#[test]
fn a_bad_layer_is_named_and_nothing_of_it_stays() {
    let lab = Lab::new();
    let store = lab.node("a");
    let (bytes, _) = layer("a", "text");
    let wrong = image(&store, &[(bytes.clone(), Digest::of(b"other"))]);
    let error = store.unpack(&wrong, &|_| {}).expect_err("another diff_id");
    assert!(matches!(error, StoreError::WrongLayer { .. }), "{error}");
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..6].copy_from_slice(b"../pwn");
    header.set_size(0);
    header.set_cksum();
    let evil = [&header.as_bytes()[..], &[0; 1024]].concat();
    let manifest = image(&store, &[(evil.clone(), Digest::of(&evil))]);
    let error = store
        .unpack(&manifest, &|_| {})
        .expect_err("evil")
        .to_string();
    let layer = Digest::of(&evil);
    assert!(
        error.starts_with(&format!("layer {layer}: entry 1 \"../pwn\"")),
        "{error}"
    );
    assert_eq!(
        std::fs::read_dir(store.places.layers())
            .expect("a folder")
            .count(),
        0
    );
    assert!(store.has(&layer), "it is what its digest says");
}

#[test]
fn images_are_found_as_docker_finds_them() {
    let lab = Lab::new();
    let store = lab.node("a");
    let one = image(&store, &[layer("a", "1")]);
    let two = image(&store, &[layer("a", "2")]);
    let three = image(&store, &[layer("a", "3")]);
    store.set_name(&name("nginx"), &one).expect("named");
    store.set_name(&name("nginx:1.22"), &one).expect("named");
    store
        .set_name(&name("registry.example:5000/nginx"), &two)
        .expect("named");
    store
        .set_name(&name("redis:7").with_digest(three.clone()), &three)
        .expect("named");
    let found = |word: &str| store.find(word).expect(word).map(|image| image.manifest);
    let by = |image: &Digest| Some(image.clone());
    for word in [
        "nginx",
        "nginx:latest",
        "docker.io/library/nginx",
        "nginx:1.22",
    ] {
        assert_eq!(found(word), by(&one), "{word}");
    }
    assert_eq!(found("registry.example:5000/nginx"), by(&two));
    assert_eq!(found(&format!("nginx@{one}")), by(&one));
    assert_eq!(
        found(&format!("nginx:wrong@{one}")),
        by(&one),
        "the digest counts"
    );
    assert_eq!(found(&format!("nginx@{two}")), None);
    assert_eq!(found("redis:7"), by(&three), "of a pinned service");
    assert_eq!(found("redis"), None);
    let id = store.image(&two).expect("an image").id;
    for digits in [4, 12, 64] {
        let word = &id.hex()[..digits];
        // Four digits may be another one's as well.
        if let Ok(image) = store.find(word) {
            assert_eq!(image.map(|image| image.id), Some(id.clone()), "{word}");
        }
    }
    assert_eq!(found(id.as_str()), by(&two));
    assert_eq!(found(&id.hex()[..3]), None);
    for nothing in ["", "NGINX", "nope", "ffffffffffffffff"] {
        assert_eq!(found(nothing), None, "{nothing:?}");
    }
    store.set_name(&name("nginx"), &two).expect("moved");
    assert_eq!(found("nginx"), by(&two));
    assert_eq!(
        store.image(&one).expect("there").names,
        [name("nginx:1.22")]
    );
    let again = lab.node("a");
    assert_eq!(
        again
            .find("nginx")
            .expect("found")
            .map(|image| image.manifest),
        by(&two)
    );
    assert_eq!(again.images().expect("read").len(), 3);
    let elsewhere = lab.node("b");
    assert_eq!(
        elsewhere.images().expect("read").len(),
        0,
        "names are a node's own"
    );
}

#[test]
fn what_a_task_uses_stays() {
    let lab = Lab::new();
    let store = lab.node("a");
    let manifest = image(&store, &[layer("a", "1")]);
    store.set_name(&name("web"), &manifest).expect("named");
    store.hold("task-1", &manifest).expect("held");
    let folders = unpack(&store, &manifest);
    let id = store.image(&manifest).expect("an image").id;
    let error = store.remove("web", false).expect_err("in use");
    assert!(error.to_string().contains("task-1 is using"), "{error}");
    let error = store.remove(id.hex(), true).expect_err("in use");
    assert!(error.to_string().contains("cannot be forced"), "{error}");
    let forced = store.remove("web", true).expect("untagged");
    assert_eq!(
        (forced.untagged, forced.deleted),
        (vec!["web:latest".to_owned()], vec![])
    );
    let store = lab.node("a");
    assert_eq!(store.prune(true).expect("pruned"), Pruned::default());
    assert!(folders[0].exists());
    store.release("task-1").expect("released");
    store.release("task-1").expect("none");
    let pruned = store.prune(false).expect("pruned");
    assert_eq!(pruned.deleted[0], id);
    assert!(pruned.freed_bytes > 0);
    assert!(!folders[0].exists());
    assert_eq!(store.usage().expect("usage"), Usage::default());
    assert!(matches!(
        store.remove("web", false),
        Err(StoreError::NoSuchImage(_))
    ));
}

#[test]
fn removal_leaves_what_others_need() {
    let lab = Lab::new();
    let (store, other) = (lab.node("a"), lab.node("b"));
    let base = layer("base", "1");
    let one = image(&store, &[base.clone(), layer("one", "1")]);
    let two = image(&store, &[base.clone(), layer("two", "2")]);
    store.set_name(&name("one"), &one).expect("named");
    store.set_name(&name("one:tag"), &one).expect("named");
    store.set_name(&name("two"), &two).expect("named");
    other.set_name(&name("shared"), &one).expect("named");
    let (of_one, of_two) = (unpack(&store, &one), unpack(&store, &two));
    let id = store.image(&one).expect("an image").id;
    let error = store.remove(id.hex(), false).expect_err("two names");
    assert!(
        error.to_string().contains("multiple repositories"),
        "{error}"
    );
    let removed = store.remove("one:tag", false).expect("untagged");
    assert_eq!(removed.untagged, ["one:tag"]);
    assert!(removed.deleted.is_empty(), "it has another name");
    let removed = store.remove("one", false).expect("removed");
    assert_eq!(
        removed.deleted,
        std::slice::from_ref(&id),
        "its layers are another node's"
    );
    assert!(of_one[1].exists());
    let lease = other.lease().expect("a pull");
    let removed = other.remove("shared", false).expect("removed");
    assert!(removed.postponed && of_one[1].exists());
    assert!(matches!(other.prune(false), Err(StoreError::Busy)));
    drop(lease);
    std::fs::write(store.places.partial(&id), "half").expect("written");
    let pruned = store.prune(false).expect("pruned");
    assert!(pruned.freed_bytes > 4);
    assert!(!of_one[1].exists() && of_two.iter().all(|folder| folder.exists()));
    assert!(!store.places.partial(&id).exists());
    let usage = store.usage().expect("usage");
    assert_eq!((usage.images, usage.active, usage.layer_bytes), (1, 0, 2));
    assert_eq!(store.prune(true).expect("pruned").untagged, ["two:latest"]);
    assert_eq!(store.usage().expect("usage"), Usage::default());
}

#[test]
fn the_folder_is_for_nobody_else_and_a_full_disk_is_said() {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::PermissionsExt as _;
    let disk = weft_sys::namespaces::unmounted_tmpfs(1 << 20).expect("a small disk");
    let dir = PathBuf::from(format!("/proc/self/fd/{}", disk.as_raw_fd()));
    let store = Store::open(&dir.join("shared"), &dir.join("own")).expect("opened");
    let mode = std::fs::metadata(dir.join("shared"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    let large = Blob {
        digest: Digest::of(b"large"),
        size: 100 << 20,
    };
    let error = store.ingest(&large).expect_err("no room");
    assert!(error.is_full(), "{error}");
    assert!(
        error.to_string().contains("104857600 bytes are needed"),
        "{error}"
    );
    let text = "x".repeat(3 << 20);
    let manifest = image(&store, &[layer("large", &text)]);
    store.set_name(&name("large"), &manifest).expect("named");
    let error = store.unpack(&manifest, &|_| {}).expect_err("no room");
    assert!(error.is_full(), "{error}");
    assert_eq!(
        std::fs::read_dir(store.places.layers())
            .expect("a folder")
            .count(),
        0
    );
    store.remove("large", false).expect("removed");
    let small = image(&store, &[layer("small", "x")]);
    unpack(&store, &small);
}

#[test]
fn what_an_earlier_writer_left_whole_is_content_at_once() {
    let lab = Lab::new();
    let store = lab.node("a");
    let blob = blob(b"right");
    let mut whole = writer(&store, &blob);
    whole.write(b"right").expect("written");
    drop(whole);
    assert!(matches!(store.ingest(&blob), Ok(Ingest::Present)));
    assert_eq!(store.read(&blob.digest).expect("read"), b"right");

    let other = Blob {
        digest: Digest::of(b"other"),
        size: 5,
    };
    let mut wrong = writer(&store, &other);
    wrong.write(b"wrong").expect("written");
    drop(wrong);
    assert_eq!(writer(&store, &other).offset(), 0, "it is thrown away");
}

#[test]
fn images_whose_tag_another_one_has_are_pruned() {
    let lab = Lab::new();
    let store = lab.node("a");
    let (old, new) = (
        image(&store, &[layer("a", "1")]),
        image(&store, &[layer("a", "2")]),
    );
    for manifest in [&old, &new] {
        store.set_name(&name("web"), manifest).expect("named");
        let pinned: ImageName = format!("web@{manifest}").parse().expect("a name");
        store.set_name(&pinned, manifest).expect("named");
    }
    let pruned = store.prune(false).expect("pruned");
    assert_eq!(pruned.untagged, [format!("web@{old}")]);
    let left = store.images().expect("read");
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].manifest, new);
}
