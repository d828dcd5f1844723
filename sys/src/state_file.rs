//! How a file of state is read: what cannot be read is set aside under a name of its own, and the
//! node goes on with what it can learn again. [`crate::replace_file`] writes them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;

use crate::replace_file::{remove_unfinished, sync_folder_of};

/// Damaged files that are kept of each name.
const KEPT: usize = 3;

/// What a file holds.
#[derive(Debug)]
pub enum Found<T> {
    /// There is none.
    Nothing,
    /// This.
    Value(T),
    /// Nothing that can be read, and it is there no more.
    Damaged(Damage),
}

/// A file that was set aside. Its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    path: PathBuf,
    aside: PathBuf,
    why: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, aside) = (self.path.display(), self.aside.display());
        write!(
            f,
            "{path} was damaged ({}) and is kept as {aside}",
            self.why
        )
    }
}

/// Reads a file of JSON. A damaged one is renamed, and told in the log. What a killed writer left
/// beside it is removed: nobody may be writing it.
///
/// # Errors
/// The file cannot be read now, and may well be later; or it cannot be set aside.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Found<T>> {
    read_as(path, |text| serde_json::from_slice(text))
}

/// The same of a file that is not one value of JSON, but for `parse` to read.
///
/// # Errors
/// As [`read`].
pub fn read_as<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
) -> io::Result<Found<T>> {
    if let Err(error) = remove_unfinished(path) {
        tracing::warn!(path = %path.display(), %error, "what a killed writer left stays");
    }
    let why = match std::fs::read(path) {
        Ok(text) => match parse(&text) {
            Ok(value) => return Ok(Found::Value(value)),
            Err(_) if text.is_empty() => "it is empty".to_owned(),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) if is_damage(&error) => error.to_string(),
        Err(error) => return Err(error),
    };
    set_aside(path, why).map(Found::Damaged)
}

/// Renames a damaged file, and tells it in the log.
///
/// # Errors
/// The disk's; the file is where it was.
pub fn set_aside(path: &Path, why: String) -> io::Result<Damage> {
    let aside = name_aside(path);
    std::fs::rename(path, &aside)?;
    if let Err(error) = sync_folder_of(path) {
        tracing::warn!(path = %path.display(), %error, "its new name may not outlive a loss of power");
    }
    let damage = Damage {
        path: path.to_owned(),
        aside,
        why,
    };
    tracing::warn!("{damage}");
    Ok(damage)
}

/// Errors that are still there at the next attempt: the disk's, or something else has the name.
fn is_damage(error: &io::Error) -> bool {
    let of_the_disk = Some(rustix::io::Errno::IO.raw_os_error());
    error.kind() == io::ErrorKind::IsADirectory || error.raw_os_error() == of_the_disk
}

/// Removes a file with all that was set aside or not finished of it; none is success.
///
/// # Errors
/// The first file that cannot be removed; the others are removed all the same.
pub fn remove(path: &Path) -> io::Result<()> {
    let gone = |path: &Path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let mut result = gone(path).and(remove_unfinished(path));
    for aside in set_aside_of(path) {
        result = result.and(gone(&aside));
    }
    result
}

/// How the names of damaged files begin that were `path`.
fn start_of_aside(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}.damaged-")
}

fn set_aside_of(path: &Path) -> Vec<PathBuf> {
    let start = start_of_aside(path);
    std::fs::read_dir(path.parent().unwrap_or(Path::new(".")))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&start))
        .map(|entry| entry.path())
        .collect()
}

/// A free name for a damaged file, beside it. Of earlier ones the newest stay.
pub fn name_aside(path: &Path) -> PathBuf {
    let (start, folder) = (
        start_of_aside(path),
        path.parent().unwrap_or(Path::new(".")),
    );
    let mut earlier = set_aside_of(path);
    earlier.sort_by_key(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok());
    let surplus = (earlier.len() + 1).saturating_sub(KEPT);
    for old in earlier.drain(..surplus) {
        if let Err(error) = std::fs::remove_file(&old) {
            tracing::warn!(path = %old.display(), %error, "an old damaged file stays");
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.unwrap_or_default().as_secs();
    let mut aside = folder.join(format!("{start}{seconds}"));
    for number in 2_u32.. {
        if !aside.exists() {
            break;
        }
        aside = folder.join(format!("{start}{seconds}-{number}"));
    }
    aside
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aside(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(path.parent().expect("a folder"))
            .expect("a folder")
            .map(|e| {
                e.expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .filter(|name| name.contains(".damaged-"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_cannot_be_read_is_set_aside_and_a_few_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("state.json");
        let read = || read::<Vec<u8>>(&path).expect("readable or set aside");
        assert!(matches!(read(), Found::Nothing));
        std::fs::write(&path, "[1,2]").expect("written");
        assert!(matches!(read(), Found::Value(v) if v == [1, 2]));
        assert!(aside(&path).is_empty());
        let mut last = Vec::new();
        for text in ["", "[1,", "[1,2,3,\"x\"]", "null", "\0\0\0\0"] {
            std::fs::write(&path, text).expect("written");
            let Found::Damaged(damage) = read() else {
                panic!("{text:?} was read");
            };
            let said = damage.to_string();
            assert!(said.contains("state.json was damaged ("), "{said}");
            assert!(said.contains("kept as"), "{said}");
            assert!(!path.exists());
            assert_eq!(std::fs::read_to_string(&damage.aside).expect("kept"), text);
            last.push(damage.aside);
            assert!(matches!(read(), Found::Nothing));
        }
        assert_eq!(aside(&path).len(), KEPT);
        assert!(last.last().expect("one").exists());
        std::fs::write(&path, "[]").expect("written");
        std::fs::write(dir.path().join("other.damaged-1"), "").expect("written");
        remove(&path).expect("removed with what was set aside");
        remove(&path).expect("nothing there");
        assert_eq!(aside(&path), ["other.damaged-1"]);
        std::fs::create_dir(&path).expect("a folder of that name");
        assert!(matches!(read(), Found::Damaged(_)));
    }

    #[test]
    fn what_a_killed_writer_left_does_not_count() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("state.json");
        let left = dir.path().join(".state.json.1-2.unfinished");
        std::fs::write(&left, "[1,").expect("written");
        assert!(matches!(read::<Vec<u8>>(&path), Ok(Found::Nothing)));
        assert!(!left.exists());
    }
}
