//! Layers as they should be, and as an attacker makes them, unpacked onto a real disk.

use super::*;
use crate::layer::Refusal;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use tar::{EntryType, Header};
use tempfile::TempDir;

/// An archive in the making, of headers that need not be right.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn header(kind: EntryType, name: &str, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        // `set_path` would refuse what an attacker writes.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header
    }

    fn push(&mut self, mut header: Header, data: &[u8]) -> &mut Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(&mut self, name: &str, data: &str) -> &mut Self {
        let header = Self::header(EntryType::Regular, name, data.len() as u64);
        self.push(header, data.as_bytes())
    }

    fn folder(&mut self, name: &str, mode: u32) -> &mut Self {
        let mut header = Self::header(EntryType::Directory, name, 0);
        header.set_mode(mode);
        self.push(header, b"")
    }

    fn link(&mut self, kind: EntryType, name: &str, to: &str) -> &mut Self {
        let mut header = Self::header(kind, name, 0);
        header.as_mut_bytes()[157..157 + to.len()].copy_from_slice(to.as_bytes());
        self.push(header, b"")
    }

    fn symlink(&mut self, name: &str, to: &str) -> &mut Self {
        self.link(EntryType::Symlink, name, to)
    }

    fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let mut builder = tar::Builder::new(Vec::new());
        let records = records.iter().map(|(key, value)| (*key, *value));
        builder.append_pax_extensions(records).expect("a header");
        let mut bytes = builder.into_inner().expect("an archive");
        bytes.truncate(bytes.len() - 1024);
        self.0.append(&mut bytes);
        self
    }

    fn long(&mut self, kind: EntryType, text: &[u8]) -> &mut Self {
        let header = Self::header(kind, "././@LongLink", text.len() as u64);
        self.push(header, text)
    }

    fn end(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.0);
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    /// Unpacks it into a folder beside one that nothing may touch.
    fn unpack(&mut self) -> (Place, Result<Unpacked, LayerError>) {
        let bytes = self.end();
        let place = Place::new();
        let result = unpack_layer(&bytes[..], &place.root(), &Limits::default());
        place.check_outside();
        (place, result)
    }

    /// … where it works.
    fn good(&mut self) -> Place {
        let (place, result) = self.unpack();
        result.expect("unpacked");
        place
    }

    /// … where it is refused: why, and of which entry.
    fn refused(&mut self) -> (Refusal, String) {
        let (_place, result) = self.unpack();
        match result.expect_err("refused") {
            LayerError::Refused { why, name, .. } => (why, name),
            other => panic!("refused otherwise: {other}"),
        }
    }
}

/// A folder for a layer, and beside it what an attacker would like to change.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("root")).expect("made");
        std::fs::create_dir(dir.path().join("outside")).expect("made");
        let precious = dir.path().join("outside/precious");
        std::fs::write(&precious, "precious").expect("written");
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&precious, mode).expect("a mode");
        Self(dir)
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn outside(&self) -> PathBuf {
        self.0.path().join("outside")
    }

    fn check_outside(&self) {
        let names = |path: PathBuf| -> Vec<String> {
            let entries = std::fs::read_dir(path).expect("a folder");
            let mut names: Vec<String> = entries
                .map(|e| {
                    e.expect("an entry")
                        .file_name()
                        .into_string()
                        .expect("text")
                })
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(self.0.path().to_owned()), ["outside", "root"]);
        assert_eq!(names(self.outside()), ["precious"]);
        let precious = self.outside().join("precious");
        let found = std::fs::metadata(&precious).expect("there");
        assert_eq!((found.nlink(), found.mode() & 0o777), (1, 0o644));
        assert_eq!(std::fs::read(&precious).expect("there"), b"precious");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.root().join(name)).expect(name)
    }

    fn stat(&self, name: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.root().join(name)).expect(name)
    }

    fn is_whiteout(&self, name: &str) -> bool {
        let found = self.stat(name);
        found.file_type().is_char_device() && found.rdev() == 0
    }

    fn attribute(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        let mut buffer = [0; 64];
        let path = self.root().join(name);
        let size = rustix::fs::lgetxattr(&path, key, &mut buffer[..]).ok()?;
        Some(buffer[..size].to_vec())
    }

    fn is_opaque(&self, name: &str) -> bool {
        self.attribute(name, opaque_attribute()).as_deref() == Some(b"y")
    }
}

#[test]
fn files_folders_and_links_are_as_the_archive_says() {
    let mut su = Layer::header(EntryType::Regular, "bin/su", 2);
    su.set_mode(0o104_755);
    su.set_uid(12);
    su.set_gid(34);
    let mut layer = Layer::default();
    layer
        .folder("./", 0o711)
        .folder("bin/", 0o2755)
        .push(su, b"su")
        .file("/etc/passwd", "root")
        .symlink("lib", "/usr/lib")
        .link(EntryType::Link, "bin/sudo", "bin/su")
        .push(Layer::header(EntryType::Fifo, "pipe", 0), b"")
        .file("bin/empty", "");
    let (place, result) = layer.unpack();
    let unpacked = result.expect("unpacked");
    assert_eq!((unpacked.entries, unpacked.file_bytes), (8, 6));
    let su = place.stat("bin/su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 12, 34));
    assert_eq!(su.mtime(), 1_000_000_000);
    assert_eq!(su.ino(), place.stat("bin/sudo").ino());
    let bin = place.stat("bin");
    // The time of a folder is set after what is in it.
    assert_eq!((bin.mode() & 0o7777, bin.mtime()), (0o2755, 1_000_000_000));
    assert_eq!(place.stat(".").mode() & 0o7777, 0o711);
    assert_eq!(place.read("etc/passwd"), "root");
    assert_eq!(place.stat("etc").mode() & 0o7777, 0o755, "nobody said");
    let to = std::fs::read_link(place.root().join("lib")).expect("a link");
    assert_eq!(to, Path::new("/usr/lib"));
    assert_eq!(place.stat("lib").mtime(), 1_000_000_000);
    assert!(place.stat("pipe").file_type().is_fifo());
}

#[test]
fn the_digest_is_that_of_all_uncompressed_bytes() {
    let mut bytes = Layer::default().file("a", "x").end();
    bytes.extend([7; 300]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).expect("compressed");
    let gzip = gzip.finish().expect("compressed");
    let zstd = zstd::stream::encode_all(&bytes[..], 1).expect("compressed");
    for archive in [&bytes, &gzip, &zstd] {
        let place = Place::new();
        let unpacked = unpack_layer(&archive[..], &place.root(), &Limits::default());
        let unpacked = unpacked.expect("unpacked");
        assert_eq!(unpacked.diff_id, Digest::of(&bytes));
        assert_eq!(unpacked.archive_bytes, bytes.len() as u64);
        assert_eq!(place.read("a"), "x");
    }
}

#[test]
fn names_lead_nowhere_else() {
    for name in [
        "../outside/new",
        "a/../../outside/new",
        "/../outside/new",
        "..",
    ] {
        let (why, entry) = Layer::default()
            .file("ok", "x")
            .file(name, "evil")
            .refused();
        assert_eq!((why, &entry[..]), (Refusal::Parent, name));
    }
    let place = Layer::default().file("/absolute", "x").good();
    assert_eq!(place.read("absolute"), "x");
    let (why, _) = Layer::default()
        .link(EntryType::Link, "a", "../outside/precious")
        .refused();
    assert_eq!(why, Refusal::Parent);
    let (why, _) = Layer::default()
        .link(EntryType::Link, "a", "/etc/passwd")
        .refused();
    assert_eq!(why, Refusal::Target("etc/passwd".into()));
}

#[test]
fn links_are_not_followed_out_of_the_layer() {
    for to in ["/", "..", "../outside", "/etc", "a/../../outside"] {
        let (why, entry) = Layer::default()
            .symlink("link", to)
            .file("link/new", "evil")
            .refused();
        assert!(matches!(why, Refusal::Link), "{to}: {why}");
        assert_eq!(entry, "link/new");
        let (why, _) = Layer::default()
            .symlink("link", to)
            .folder("link/new/", 0o777)
            .refused();
        assert!(matches!(why, Refusal::Link), "{to}: {why}");
        let (why, _) = Layer::default()
            .symlink("link", to)
            .link(EntryType::Link, "copy", "link/precious")
            .refused();
        assert!(
            matches!(why, Refusal::Link | Refusal::Target(_)),
            "{to}: {why}"
        );
    }
    // To itself, and of the kernel's own kind.
    for to in ["link", "/proc/self/root", "/proc/self/cwd"] {
        let (why, _) = Layer::default()
            .symlink("link", to)
            .file("link/x", "")
            .refused();
        assert_eq!(why, Refusal::Link, "{to}");
    }
    // Those that stay inside are.
    let place = Layer::default()
        .folder("usr/lib/", 0o755)
        .symlink("lib", "usr/lib")
        .symlink("usr/back", "../lib")
        .file("usr/back/libc", "x")
        .good();
    assert_eq!(place.read("usr/lib/libc"), "x");
}

#[test]
fn what_had_the_name_is_replaced_and_not_written_through() {
    let place = Layer::default()
        .symlink("a", "../outside/precious")
        .file("a", "new")
        .symlink("b", "../outside")
        .folder("b/", 0o700)
        .file("b/c", "new")
        .file("d/e/f", "old")
        .symlink("d", "b")
        .file("d/g", "through")
        .file("h", "first")
        .link(EntryType::Link, "i", "h")
        .file("h", "second")
        .good();
    assert!(place.stat("a").is_file());
    assert!(place.stat("b").is_dir());
    assert_eq!(place.read("b/c"), "new");
    assert_eq!(place.read("b/g"), "through");
    assert_eq!(
        (place.read("h"), place.read("i")),
        ("second".into(), "first".into())
    );
    let (why, _) = Layer::default().file("a", "x").file("a/b", "y").refused();
    assert_eq!(why, Refusal::NotFolder);
    // A hard link whose folder it replaces.
    let (why, _) = Layer::default()
        .file("a/b", "x")
        .link(EntryType::Link, "a", "a/b")
        .refused();
    assert_eq!(why, Refusal::Target("a/b".into()));
}

#[test]
fn whiteouts_are_overlays() {
    let place = Layer::default()
        .file("a/.wh.gone", "")
        .file("b/.wh..wh..opq", "")
        .file("b/own", "x")
        .file(".wh.c", "")
        .folder("c/", 0o755)
        .file(".wh.d", "")
        .file("d/e", "x")
        .file("f", "x")
        .file(".wh.f", "")
        .folder("g/", 0o755)
        .file(".wh.g", "")
        .file(".wh..wh.plnk/1", "")
        .good();
    assert!(place.is_whiteout("a/gone"));
    assert!(place.is_opaque("b") && place.is_opaque("c") && place.is_opaque("d"));
    assert!(place.is_opaque("g") && !place.is_opaque("a"));
    assert_eq!(place.read("b/own"), "x");
    assert_eq!(place.read("d/e"), "x");
    assert_eq!(place.read("f"), "x", "whiteouts are about lower layers");
    assert!(!place.root().join(".wh..wh.plnk").exists());
    let (why, _) = Layer::default().file("a/.wh...", "").refused();
    assert_eq!(why, Refusal::Whiteout);
}

#[test]
fn devices_are_made_by_root() {
    let mut null = Layer::header(EntryType::Char, "dev/null", 0);
    null.set_device_major(1).expect("a device");
    null.set_device_minor(3).expect("a device");
    null.set_mode(0o666);
    let place = Layer::default().push(null, b"").good();
    let found = place.stat("dev/null");
    assert!(found.file_type().is_char_device());
    assert_eq!(found.rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(found.mode() & 0o777, 0o666);
}

#[test]
fn attributes_are_kept_but_for_those_that_overlay_follows() {
    // VFS_CAP_REVISION_2, effective; bits that are newlines.
    let capability = b"\x01\0\0\x02\x0a\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let place = Layer::default()
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"hello"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.metacopy", b""),
        ])
        .file("ping", "x")
        .file("next", "x")
        .good();
    let found = place.attribute("ping", "security.capability");
    assert_eq!(found.as_deref(), Some(&capability[..]));
    assert_eq!(
        place.attribute("ping", "user.note").as_deref(),
        Some(&b"hello"[..])
    );
    assert_eq!(place.attribute("ping", "trusted.overlay.redirect"), None);
    assert_eq!(place.attribute("ping", "user.overlay.metacopy"), None);
    assert_eq!(place.attribute("next", "user.note"), None);
}

#[test]
fn long_names_and_pax_headers_are_about_the_next_entry() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let place = Layer::default()
        .long(EntryType::GNULongName, format!("{long}\0").as_bytes())
        .file("cut", "gnu")
        .pax(&[
            ("path", "ü/pax".as_bytes()),
            ("mtime", b"1000000001.5"),
            ("uid", b"3000000"),
            ("size", b"3"),
        ])
        .push(Layer::header(EntryType::Regular, "cut", 0), b"pax")
        .long(EntryType::GNULongLink, &[b't'; 150])
        .symlink("link", "cut")
        .good();
    assert_eq!(place.read(&long), "gnu");
    assert_eq!(place.read("ü/pax"), "pax");
    let found = place.stat("ü/pax");
    assert_eq!(
        (found.mtime(), found.mtime_nsec()),
        (1_000_000_001, 500_000_000)
    );
    assert_eq!(found.uid(), 3_000_000);
    let to = std::fs::read_link(place.root().join("link")).expect("a link");
    assert_eq!(to.as_os_str().len(), 150);
}

#[test]
fn sparse_files_have_holes() {
    let mut old = Layer::header(EntryType::GNUSparse, "old", 3);
    let gnu = old.as_gnu_mut().expect("of GNU tar");
    gnu.set_real_size(1 << 20);
    gnu.sparse[0].set_offset(1000);
    gnu.sparse[0].set_length(3);
    gnu.sparse[1].set_offset(1 << 20);
    gnu.sparse[1].set_length(0);
    let mut map = b"1\n1000\n3\n".to_vec();
    map.resize(512, 0);
    map.extend(b"new");
    let place = Layer::default()
        .push(old, b"old")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"new"),
            ("GNU.sparse.realsize", b"1048576"),
        ])
        .push(
            Layer::header(EntryType::Regular, "GNUSparseFile.0/new", 515),
            &map,
        )
        .pax(&[
            ("GNU.sparse.map", b"1000,3"),
            ("GNU.sparse.size", b"1048576"),
        ])
        .file("mid", "mid")
        .file("after", "x")
        .good();
    for name in ["old", "new", "mid"] {
        let text = std::fs::read(place.root().join(name)).expect(name);
        assert_eq!(text.len(), 1 << 20, "{name}");
        assert_eq!(&text[1000..1003], name.as_bytes());
        assert!(text[..1000].iter().chain(&text[1003..]).all(|b| *b == 0));
        assert!(place.stat(name).blocks() < 100, "{name} has no hole");
    }
    assert_eq!(place.read("after"), "x");
    let mut huge = Layer::header(EntryType::GNUSparse, "huge", 0);
    huge.as_gnu_mut()
        .expect("of GNU tar")
        .set_real_size(u64::MAX >> 1);
    let (why, _) = Layer::default().push(huge, b"").refused();
    assert!(matches!(why, Refusal::Bytes(_)), "{why}");
}

#[test]
fn folders_that_are_only_implied_count() {
    let limits = Limits {
        entries: 3,
        ..Limits::default()
    };
    let dir = tempfile::tempdir().expect("a folder");
    let shallow = Layer::default().file("a/b/c", "").end();
    unpack_layer(&shallow[..], dir.path(), &limits).expect("one entry, and two folders");
    let dir = tempfile::tempdir().expect("a folder");
    let deep = Layer::default().file("a/b/c/d", "").end();
    let error = unpack_layer(&deep[..], dir.path(), &limits).expect_err("four in all");
    let error = error.to_string();
    assert!(
        error.contains("entry 1 \"a/b/c/d\" is refused: a layer of more than 3 entries"),
        "{error}"
    );
}

#[test]
fn limits_are_kept_before_anything_is_written() {
    let archive = |layer: &mut Layer, limits: &Limits| {
        let place = Place::new();
        let result = unpack_layer(&layer.end()[..], &place.root(), limits);
        place.check_outside();
        let found: u64 = std::fs::read_dir(place.root()).expect("a folder").count() as u64;
        (result.expect_err("refused").to_string(), found)
    };
    let limits = Limits {
        entries: 3,
        ..Limits::default()
    };
    let mut many = Layer::default();
    for number in 0..5 {
        many.file(&format!("f{number}"), "x");
    }
    let (error, found) = archive(&mut many, &limits);
    assert!(
        error.contains("entry 4 \"f3\" is refused: a layer of more than 3 entries"),
        "{error}"
    );
    assert_eq!(found, 3);
    let limits = Limits {
        bytes: 10 << 10,
        ..Limits::default()
    };
    let large = Layer::header(EntryType::Regular, "large", 100 << 30);
    let (error, found) = archive(Layer::default().push(large, b"x"), &limits);
    assert!(
        error.contains("\"large\" is refused: a layer of more than 10240 bytes"),
        "{error}"
    );
    assert_eq!(found, 0);
    let limits = Limits {
        folders: 100,
        ..Limits::default()
    };
    let mut folders = Layer::default();
    for number in 0..20 {
        folders.folder(&format!("folder-{number}"), 0o755);
    }
    let (error, _) = archive(&mut folders, &limits);
    assert!(error.contains("names of its folders"), "{error}");

    let mut long = Layer::default();
    long.long(EntryType::GNULongName, &[b'n'; 5000])
        .file("x", "");
    let (error, _) = archive(&mut long, &Limits::default());
    assert!(
        error.contains("a name of 5000 bytes; 4096 are allowed"),
        "{error}"
    );
    let mut pax = Layer::default();
    pax.pax(&[("path", &[b'n'; 5000])]).file("x", "");
    let (error, _) = archive(&mut pax, &Limits::default());
    assert!(
        error.contains("a name of 5000 bytes") && error.len() < 300,
        "{error}"
    );
    let huge = Layer::header(EntryType::XHeader, "pax", 100 << 30);
    let (error, _) = archive(Layer::default().push(huge, b"x"), &Limits::default());
    assert!(
        error.contains("an extended header of 107374182400 bytes"),
        "{error}"
    );
    let mut deep = Layer::default();
    deep.long(EntryType::GNULongName, "d/".repeat(1500).as_bytes())
        .folder("x", 0o755);
    let (error, _) = archive(&mut deep, &Limits::default());
    assert!(error.contains("below more than 255 folders"), "{error}");
}

#[test]
fn a_bomb_ends_early() {
    let zeros = 64 << 20;
    let mut layer = Layer::default();
    layer.push(
        Layer::header(EntryType::Regular, "zeros", zeros),
        &vec![0; 64 << 20],
    );
    let bomb = zstd::stream::encode_all(&layer.end()[..], 1).expect("compressed");
    let limits = Limits {
        ratio_from: 1 << 20,
        ..Limits::default()
    };
    let place = Place::new();
    let error = unpack_layer(&bomb[..], &place.root(), &limits).expect_err("a bomb");
    let error = error.to_string();
    assert!(error.contains("entry 1 \"zeros\" is refused"), "{error}");
    assert!(error.contains("decompression bomb"), "{error}");
    assert!(place.stat("zeros").len() < 8 << 20);
}

#[test]
fn damaged_archives_are_errors_that_say_where() {
    let good = Layer::default().file("a", "x").file("b", "y").end();
    let unpack = |bytes: &[u8]| {
        let place = Place::new();
        unpack_layer(bytes, &place.root(), &Limits::default()).map_err(|error| error.to_string())
    };
    let error = unpack(b"hello, I am no archive").expect_err("too short");
    assert!(error.contains("in the middle of a header"), "{error}");
    let error = unpack(&[b'x'; 2048]).expect_err("no archive");
    assert!(error.contains("this is no tar archive"), "{error}");
    let mut wrong = good.clone();
    wrong[1024] ^= 1;
    let error = unpack(&wrong).expect_err("a checksum");
    assert!(
        error.contains("at entry 2") && error.contains("checksum"),
        "{error}"
    );
    let error = unpack(&good[..513]).expect_err("cut off");
    assert!(error.contains("at entry 1 \"a\""), "{error}");
    let mut hidden = good.clone();
    hidden.truncate(2048 + 512);
    hidden.extend(&good);
    let error = unpack(&hidden).expect_err("something hidden");
    assert!(error.contains("follows a block of zeros"), "{error}");
    // Without its end, as some programs write it.
    assert_eq!(unpack(&good[..2048]).expect("unpacked").entries, 2);
    assert_eq!(unpack(b"").expect("nothing").entries, 0);
    let mut twice = Layer::default();
    let twice = twice
        .pax(&[("path", b"a")])
        .pax(&[("path", b"b")])
        .file("c", "")
        .end();
    let error = unpack(&twice).expect_err("twice");
    assert!(error.contains("two headers of the same kind"), "{error}");
    let error = unpack(&Layer::default().pax(&[("path", b"a")]).end()).expect_err("none");
    assert!(error.contains("about a next entry"), "{error}");
    let kind = Layer::header(EntryType::new(b'V'), "volume", 0);
    let (why, _) = Layer::default().push(kind, b"").refused();
    assert_eq!(why, Refusal::Kind('V'));
}

#[test]
fn numbers_are_octal_or_binary_and_content_of_links_does_not_count() {
    let mut negative = Layer::header(EntryType::Regular, "old", 0);
    negative.as_mut_bytes()[136..148].fill(0xff);
    let mut binary = Layer::header(EntryType::Regular, "binary", 0);
    binary.as_mut_bytes()[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x02");
    let mut blank = Layer::header(EntryType::Regular, "blank", 1);
    blank.as_mut_bytes()[108..124].fill(b' ');
    // As some programs write it: a size, and no content.
    let mut link = Layer::header(EntryType::Symlink, "link", 4096);
    link.as_mut_bytes()[157] = b'x';
    let place = Layer::default()
        .push(negative, b"")
        .push(binary, b"hi")
        .push(blank, b"x")
        .push(link, b"")
        .file("folder/", "")
        .good();
    assert_eq!(place.stat("old").mtime(), -1);
    assert_eq!(place.read("binary"), "hi");
    assert_eq!(place.stat("blank").uid(), 0);
    assert!(
        place.stat("folder").is_dir(),
        "as before there was a kind for them"
    );
    let mut size = Layer::header(EntryType::Regular, "size", 0);
    size.as_mut_bytes()[124..136].fill(0xff);
    let (_, result) = Layer::default().push(size, b"").unpack();
    let error = result.expect_err("negative").to_string();
    assert!(error.contains("size in its header"), "{error}");
    let mut owner = Layer::header(EntryType::Regular, "owner", 0);
    owner.as_mut_bytes()[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff");
    let (why, _) = Layer::default().push(owner, b"").refused();
    assert_eq!(why, Refusal::Number("owner"));
}

#[test]
fn a_real_builders_archive_comes_out_as_it_went_in() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut files = BTreeMap::new();
    for number in 0..50_u32 {
        let name = format!("{}{number}", "sub/".repeat(number as usize % 40));
        let text = vec![b'a' + (number % 26) as u8; number as usize * 997];
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        builder
            .append_data(&mut header, &name, &text[..])
            .expect("appended");
        files.insert(name, text);
    }
    let bytes = builder.into_inner().expect("an archive");
    let place = Place::new();
    let unpacked = unpack_layer(&bytes[..], &place.root(), &Limits::default());
    assert_eq!(unpacked.expect("unpacked").entries, 50);
    for (name, text) in files {
        let found = std::fs::read(place.root().join(name)).expect("there");
        assert!(found == text);
    }
}
