//! How large a volume is.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of all files below a folder, each counted once. Links are not followed, and what vanishes
/// meanwhile is not counted: tasks go on using it.
pub(crate) fn bytes(folder: &Path) -> io::Result<u64> {
    let (mut sum, mut seen) = (0_u64, BTreeSet::new());
    let mut rest: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = rest.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            // Of the entry itself, not of what a link leads to.
            let found = match entry.and_then(|entry| Ok((entry.metadata()?, entry.path()))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found?,
            };
            let (meta, path) = found;
            if meta.is_dir() {
                rest.push(path);
            } else if meta.nlink() == 1 || seen.insert((meta.dev(), meta.ino())) {
                sum += meta.len();
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_file_counts_once_and_links_do_not_lead_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let outside = tempfile::tempdir().expect("a folder");
        std::fs::write(outside.path().join("large"), vec![0; 100_000]).expect("written");
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(&below).expect("made");
        std::fs::write(below.join("x"), vec![0; 1000]).expect("written");
        std::fs::hard_link(below.join("x"), dir.path().join("y")).expect("a link");
        let link = dir.path().join("out");
        symlink(outside.path(), &link).expect("a link");
        let length = std::fs::symlink_metadata(&link).expect("there").len();
        assert_eq!(bytes(dir.path()).expect("counted"), 1000 + length);
        assert_eq!(bytes(&dir.path().join("none")).expect("counted"), 0);
    }
}
