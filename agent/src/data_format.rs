//! The format of a data directory: who may read what lies in it.
//!
//! One number stands for all of it: the manager's state, the last orders, the ends of tasks. It is
//! looked at before anything else is touched, so a directory of another version is left exactly as
//! it is. docs/compatibility.md says when the number grows, and what to do then.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};

/// What this version reads and writes.
pub(crate) const FORMAT: u32 = 2;

/// In the data directory: its format, as a number.
pub(crate) const FILE: &str = "format";

/// Format 1 had no file of that name. What a member of a swarm left there all the same.
const OF_FORMAT_1: [&str; 3] = ["swarm.json", "assignment.json", "manager.redb"];

/// A data directory of another version. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the data directory {} has {found}, this weftd reads format {FORMAT}; nothing in it was changed. \
     Start the version of weftd that wrote it, or leave the swarm with that version (`weft swarm \
     leave`) and join again with this one; where the node is no member any more, empty the directory",
    .dir.display()
)]
pub(crate) struct OtherFormat {
    dir: PathBuf,
    /// In words.
    found: String,
}

/// Looks whether this version can read the directory. Writes nothing.
///
/// # Errors
/// [`OtherFormat`], or what the disk says.
pub(crate) fn check(dir: &Path) -> anyhow::Result<()> {
    let found = match noted(dir)? {
        Some(text) => match text.parse::<u32>() {
            Ok(FORMAT) => return Ok(()),
            Ok(number) => format!("format {number}"),
            Err(_) => format!("{text:?} for a format in its file {FILE:?}"),
        },
        None if OF_FORMAT_1.iter().any(|name| dir.join(name).exists()) => "format 1".to_owned(),
        None => return Ok(()),
    };
    let dir = dir.to_owned();
    Err(OtherFormat { dir, found }.into())
}

/// Notes the format in a directory that [`check`] found nothing of another version in, before the
/// files of a member come into it; the node that leaves removes it with them.
///
/// # Errors
/// The disk's.
pub(crate) fn note(dir: &Path) -> anyhow::Result<()> {
    if noted(dir)?.is_some() {
        return Ok(());
    }
    let path = dir.join(FILE);
    let text = format!("{FORMAT}\n");
    replace_file(&path, text.as_bytes(), PRIVATE, Outlives::Power)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn noted(dir: &Path) -> anyhow::Result<Option<String>> {
    let path = dir.join(FILE);
    match std::fs::read(&path) {
        Ok(text) => Ok(Some(String::from_utf8_lossy(&text).trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Every file with its bytes.
    fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = std::fs::read_dir(dir).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths
            .map(|path| (path.clone(), std::fs::read(path).expect("a file")))
            .collect()
    }

    #[test]
    fn a_new_directory_is_noted_once_and_read_again() {
        let dir = tempfile::tempdir().expect("a folder");
        check(dir.path()).expect("nobody has used it");
        check(&dir.path().join("none")).expect("it is not there yet");
        std::fs::write(dir.path().join("weftd.lock"), "7").expect("written");
        check(dir.path()).expect("nothing of a member");
        note(dir.path()).expect("noted");
        let noted = content(dir.path());
        assert_eq!(noted[&dir.path().join(FILE)], b"2\n");
        std::fs::write(dir.path().join("swarm.json"), "{}").expect("written");
        check(dir.path()).expect("its own");
        note(dir.path()).expect("noted before");
    }

    #[test]
    fn a_directory_of_another_version_is_refused_and_left_as_it_is() {
        for (files, found) in [
            (vec![("swarm.json", "{}")], "has format 1, this weftd"),
            (vec![("manager.redb", "x")], "has format 1, this weftd"),
            (
                vec![("format", "3\n"), ("swarm.json", "{}")],
                "has format 3, this weftd reads format 2; nothing in it was changed",
            ),
            (
                vec![("format", ""), ("swarm.json", "{}")],
                "has \"\" for a format in its file \"format\"",
            ),
        ] {
            let dir = tempfile::tempdir().expect("a folder");
            for (name, text) in files {
                std::fs::write(dir.path().join(name), text).expect("written");
            }
            let before = content(dir.path());
            let error = check(dir.path()).expect_err("of another version");
            assert!(error.is::<OtherFormat>(), "{error:#}");
            let text = error.to_string();
            assert!(
                text.contains(found) && text.contains("leave the swarm with that version"),
                "{text}"
            );
            assert_eq!(content(dir.path()), before);
        }
    }
}
