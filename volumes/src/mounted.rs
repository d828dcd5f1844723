//! What is mounted, as proc_pid_mountinfo(5) tells.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use weft_sys::mounts;

/// Octal escapes of a path, such as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 4);
        let escaped = digits
            .filter(|_| *byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(escaped.unwrap_or(*byte));
        at += if escaped.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(out))
}

/// Places of mounts at or below a path, in the order in which they were mounted.
fn below_in(mountinfo: &str, path: &Path) -> Vec<PathBuf> {
    let places = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let places = places.map(unescaped);
    places.filter(|place| place.starts_with(path)).collect()
}

/// Places of mounts at or below `path`, which has no links in it.
pub(crate) fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(below_in(&text, path))
}

/// Whether something is mounted at `path`, which has no links in it.
pub(crate) fn is_at(path: &Path) -> io::Result<bool> {
    Ok(below(path)?.iter().any(|place| place == path))
}

/// Takes away what is mounted at or below `path`, the last one first; nothing is success.
pub(crate) fn take_away_below(path: &Path) -> io::Result<()> {
    for place in below(path)?.iter().rev() {
        match mounts::take_away(place) {
            // Gone with one that it was below.
            Err(error)
                if error.kind() == io::ErrorKind::InvalidInput
                    || error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    match below(path)?.first() {
        None => Ok(()),
        Some(place) => Err(io::Error::other(format!(
            "{} is still mounted",
            place.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_with_their_escapes() {
        let text = "\
22 1 0:20 / / rw - ext4 /dev/sda rw\n\
30 22 0:21 / /v/a/_data rw shared:1 - tmpfs tmpfs rw\n\
31 30 0:22 / /v/a/_data/x\\040y\\134 rw - tmpfs tmpfs rw\n\
32 22 0:23 / /v/ab rw - tmpfs tmpfs rw\n";
        let below = |path: &str| below_in(text, Path::new(path));
        assert_eq!(
            below("/v/a"),
            [
                Path::new("/v/a/_data").to_owned(),
                PathBuf::from("/v/a/_data/x y\\")
            ]
        );
        assert_eq!(below("/v/ab"), [Path::new("/v/ab").to_owned()]);
        assert!(below("/w").is_empty());
        assert_eq!(unescaped("\\04"), Path::new("\\04"));
        assert_eq!(unescaped("\\999x"), Path::new("\\999x"));
    }

    #[test]
    fn the_root_is_mounted_and_a_new_folder_is_not() {
        assert!(is_at(Path::new("/")).expect("readable"));
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().canonicalize().expect("there");
        assert!(!is_at(&path).expect("readable"));
        take_away_below(&path).expect("nothing there");
    }
}
