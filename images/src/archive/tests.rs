//! Archives made here, as others make them.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::*;

const LAYER: &[u8] = b"a layer, which is not looked into here";

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store =
        Store::open(&folder.path().join("shared"), &folder.path().join("own")).expect("a store");
    (folder, store)
}

fn amd64() -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: "amd64".to_owned(),
        variant: None,
    }
}

fn loaded(store: &Store, archive: &[u8]) -> Result<Vec<Loaded>, ArchiveError> {
    load_for(store, archive, &amd64(), 1 << 20)
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, *bytes)
            .expect("an entry");
    }
    builder.into_inner().expect("an archive")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn config(architecture: &str) -> Vec<u8> {
    let config = json!({
        "os": "linux",
        "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(LAYER).as_str()]},
    });
    config.to_string().into_bytes()
}

/// As `docker save` before Engine 25: the list comes last.
fn old(config: &[u8], layer: &[u8], tags: serde_json::Value) -> Vec<u8> {
    let id = Digest::of(config);
    let name = format!("{}.json", id.hex());
    let list = json!([{"Config": name, "RepoTags": tags, "Layers": ["abc/layer.tar"]}]);
    let list = list.to_string();
    tar(&[
        ("abc/VERSION", b"1.0"),
        ("abc/layer.tar", layer),
        (&name, config),
        ("manifest.json", list.as_bytes()),
    ])
}

/// An OCI layout with one image.
fn layout(config: &[u8], layer: &[u8], annotations: serde_json::Value) -> Vec<u8> {
    let id = Digest::of(config);
    let digest = Digest::of(LAYER);
    let manifest = json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": id.as_str(), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest.as_str(), "size": LAYER.len(),
        }],
    })
    .to_string();
    let manifest_digest = Digest::of(manifest.as_bytes());
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": manifest_digest.as_str(), "size": manifest.len(),
            "annotations": annotations,
        }],
    })
    .to_string();
    let blob = |digest: &Digest| format!("./blobs/sha256/{}", digest.hex());
    tar(&[
        ("./index.json", index.as_bytes()),
        ("./oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        (&blob(&id), config),
        (&blob(&manifest_digest), manifest.as_bytes()),
        (&blob(&digest), layer),
        ("./blobs/sha256/junk", b"nobody names this"),
    ])
}

#[test]
fn archives_of_old_docker() {
    let (_folder, store) = store();
    let config = config("amd64");
    let archive = old(
        &config,
        LAYER,
        json!(["nginx:1.25", "registry.example:5000/x:y"]),
    );
    let images = loaded(&store, &archive).expect("two names");
    let names: Vec<String> = images
        .iter()
        .flat_map(|one| &one.name)
        .map(ImageName::familiar)
        .collect();
    assert_eq!(names, ["nginx:1.25", "registry.example:5000/x:y"]);
    assert!(images.iter().all(|one| one.id == Digest::of(&config)));
    assert!(store.has(&Digest::of(LAYER)));
    // The same again makes the same manifest, also where the archive is compressed.
    let again = loaded(&store, &gzip(&archive)).expect("the same");
    assert_eq!(again, images);
    let (_other, store) = self::store();
    assert_eq!(loaded(&store, &archive).expect("the same"), images);
}

#[test]
fn compressed_layers_and_no_tags() {
    let (_folder, store) = store();
    let layer = gzip(LAYER);
    let archive = old(&config("amd64"), &layer, json!(null));
    let images = loaded(&store, &archive).expect("an image");
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].name, None);
    assert!(store.has(&Digest::of(&layer)));
    let image = store.image(&images[0].manifest).expect("an image");
    assert_eq!(image.layers[0].size, layer.len() as u64);
}

#[test]
fn layouts_by_name_tag_and_nothing() {
    let config = config("amd64");
    for (annotations, name) in [
        (
            json!({"io.containerd.image.name": "docker.io/library/nginx:1"}),
            Some("nginx:1"),
        ),
        (
            json!({"org.opencontainers.image.ref.name": "localhost/x:2"}),
            Some("localhost/x:2"),
        ),
        (json!({"org.opencontainers.image.ref.name": "2"}), None),
        (json!({}), None),
    ] {
        let (_folder, store) = store();
        let images = loaded(&store, &layout(&config, LAYER, annotations)).expect("an image");
        assert_eq!(images.len(), 1);
        let found = images[0].name.as_ref().map(ImageName::familiar);
        assert_eq!(found.as_deref(), name);
        // What no manifest names is not taken.
        assert!(!store.has(&Digest::of(b"nobody names this")));
    }
}

#[test]
fn what_is_saved_is_loaded_again() {
    let (_folder, store) = store();
    let images =
        loaded(&store, &old(&config("amd64"), LAYER, json!(["nginx:1.25"]))).expect("an image");
    let words = ["nginx:1.25".to_owned()];
    let mut archive = Vec::new();
    save(&store, &words, &mut archive).expect("an archive");
    let mut same = Vec::new();
    save(&store, &words, &mut same).expect("an archive");
    assert_eq!(archive, same);

    let (_other, store) = self::store();
    assert_eq!(loaded(&store, &archive).expect("an image"), images);
    // The name alone; by its id it has none.
    let id = images[0].id.hex()[..12].to_owned();
    let mut by_id = Vec::new();
    save(&store, &[id], &mut by_id).expect("an archive");
    let (_third, store) = self::store();
    assert_eq!(loaded(&store, &by_id).expect("an image")[0].name, None);

    let mut nothing = Vec::new();
    let error = save(&store, &["nope".to_owned()], &mut nothing).expect_err("not there");
    assert_eq!(error.to_string(), "No such image: nope");
}

#[test]
fn what_is_not_what_it_says() {
    let (_folder, store) = store();
    let other = b"other bytes, as many as the layer has.".as_slice();
    assert_eq!(other.len(), LAYER.len());
    let config = config("amd64");
    let error = loaded(&store, &layout(&config, other, json!({}))).expect_err("lies");
    assert!(matches!(error, ArchiveError::WrongDigest { .. }), "{error}");
    let error = loaded(&store, &old(&config, other, json!([]))).expect_err("lies");
    assert!(matches!(error, ArchiveError::WrongDigest { .. }), "{error}");
    let error = loaded(&store, &layout(&config, b"short", json!({}))).expect_err("short");
    assert!(matches!(error, ArchiveError::Entry { .. }), "{error}");
    assert!(!store.has(&Digest::of(LAYER)));
    let error = loaded(&store, &old(&config, LAYER, json!(["a b"]))).expect_err("a name");
    assert!(matches!(error, ArchiveError::Name { .. }), "{error}");
    let other = self::config("s390x");
    let error = loaded(&store, &old(&other, LAYER, json!([]))).expect_err("s390x");
    assert!(matches!(error, ArchiveError::Platform(_)), "{error}");
}

#[test]
fn what_is_no_archive_of_images() {
    let (_folder, store) = store();
    let refused = |bytes: &[u8]| loaded(&store, bytes).expect_err("refused").to_string();
    assert!(refused(b"").contains("no tar archive"));
    assert!(refused(b"hello").contains("no tar archive"));
    assert!(refused(&[1; 4096]).contains("no header"));
    assert!(refused(&tar(&[("etc/passwd", b"x")])).contains("holds no images"));
    assert!(refused(b"BZh91AY").contains("bzip2"));
    let list = br#"[{"Config":"../../etc/passwd","RepoTags":[],"Layers":[]}]"#;
    assert!(refused(&tar(&[("manifest.json", list)])).contains("is not in it"));
    let good = old(&config("amd64"), LAYER, json!([]));
    assert!(refused(&good[..1546]).contains("longer than the archive"));
    let mut cut = gzip(&good);
    cut.truncate(cut.len() / 2);
    assert!(refused(&cut).contains("cannot read the archive"));
}

#[test]
fn bombs_end_early() {
    let (_folder, store) = store();
    let bomb = gzip(&vec![0; 8 << 20]);
    assert!(bomb.len() < 100_000);
    let error = loaded(&store, &bomb).expect_err("a bomb");
    assert!(matches!(error, ArchiveError::TooLarge(_)), "{error}");
}

#[test]
fn names_of_entries_lead_nowhere() {
    let mut builder = Builder::new(Vec::new());
    let mut link = |name: &str, kind: EntryType, target: &str| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder
            .append_link(&mut header, name, target)
            .expect("an entry");
    };
    link("a/layer.tar", EntryType::Symlink, "../b/layer.tar");
    link("circle", EntryType::Symlink, "circle");
    link("out", EntryType::Symlink, "../../etc/passwd");
    link("hard", EntryType::Link, "b/layer.tar");
    let mut header = Header::new_gnu();
    header.set_size(3);
    builder
        .append_data(&mut header, "b/layer.tar", b"abc".as_slice())
        .expect("an entry");
    let archive = builder.into_inner().expect("an archive");
    let entries =
        Entries::read(spool::spool(archive.as_slice(), 1 << 20).expect("a file")).expect("entries");
    for name in ["a/layer.tar", "b/layer.tar", "./b//layer.tar", "hard"] {
        assert_eq!(entries.small(name, 10).expect(name), b"abc");
    }
    for name in ["circle", "out", "/b/layer.tar", "..", "etc/passwd"] {
        assert!(!entries.has(name), "{name}");
    }
    assert!(matches!(
        entries.small("b/layer.tar", 2),
        Err(ArchiveError::Entry { .. })
    ));
}
