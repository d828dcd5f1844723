//! A layer of a stranger: blocks of a tar archive, whose checksums are made right, unpacked into a
//! folder of tmpfs. Nothing beside that folder may be other than before, and unpacking the same bytes
//! again comes to the same. Input: the archive, plain.

#![no_main]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use weft_images::{Limits, unpack_layer};

const BLOCK: usize = 512;

/// What lies beside the folder of the layer.
const PRECIOUS: &[u8] = b"nobody writes here";

fuzz_target!(|data: &[u8]| {
    let archive = with_checksums(data);
    let limits = Limits {
        entries: 100,
        bytes: 1 << 20,
        ratio: 100,
        ratio_from: 1 << 18,
        name: 4096,
        depth: 20,
        extended: 1 << 16,
        folders: 1 << 12,
    };
    let before = outside();
    let first = unpack(&archive, &limits);
    assert_eq!(outside(), before, "something outside was touched");
    let second = unpack(&archive, &limits);
    assert_eq!(first, second);
});

/// What came of it, as text; and the names in the root.
fn unpack(archive: &[u8], limits: &Limits) -> (String, Vec<PathBuf>) {
    let root = folder().join("root");
    fs::create_dir(&root).expect("a new folder");
    let result = match unpack_layer(archive, &root, limits) {
        Ok(unpacked) => {
            assert!(unpacked.entries <= limits.entries);
            assert!(unpacked.file_bytes <= limits.bytes);
            assert!(unpacked.archive_bytes <= limits.bytes);
            format!("{unpacked:?}")
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 2000, "a message of {} bytes", text.len());
            text
        }
    };
    let mut names: Vec<PathBuf> = fs::read_dir(&root)
        .expect("the folder is there")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    names.sort();
    // Whoever is not root may have been given folders that cannot be read.
    fs::remove_dir_all(&root).expect("removed");
    (result, names)
}

/// Every file beside the layer's folder: name, size, mode, owner, links, times of changes, content.
fn outside() -> Vec<(PathBuf, u64, u32, u32, u64, i64, Vec<u8>)> {
    let mut found = Vec::new();
    for place in [folder().to_owned(), folder().join("outside")] {
        for entry in fs::read_dir(&place).expect("a folder") {
            let path = entry.expect("an entry").path();
            let stat = fs::symlink_metadata(&path).expect("there");
            let content = if stat.is_file() {
                fs::read(&path).expect("readable")
            } else {
                Vec::new()
            };
            found.push((
                path,
                stat.size(),
                stat.mode(),
                stat.uid(),
                stat.nlink(),
                stat.ctime_nsec(),
                content,
            ));
        }
    }
    found.sort();
    found
}

/// A folder of this process in memory, left to whoever looks at a finding.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let base = Path::new("/dev/shm");
        let base = if base.is_dir() {
            base.to_owned()
        } else {
            std::env::temp_dir()
        };
        let folder = base.join(format!("weft-fuzz-layer-{}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder).expect("an old one");
        }
        fs::create_dir_all(folder.join("outside")).expect("made");
        fs::write(folder.join("outside/precious"), PRECIOUS).expect("written");
        folder
    })
}

/// Gives every block that stands where a header is its checksum: a fuzzer would not find it.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    let mut at = 0;
    while let Some(block) = archive.get_mut(at..at + BLOCK) {
        at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let kind = block[156];
        if !(b'1'..=b'6').contains(&kind) {
            let text = String::from_utf8_lossy(&block[124..136]).into_owned();
            let size = usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).unwrap_or(0);
            at = at.saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
        }
        if at > archive.len() {
            break;
        }
    }
    archive
}
