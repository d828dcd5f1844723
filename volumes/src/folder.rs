//! The folder of one volume: what is kept of it, and how it comes and goes as a whole.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weft_model::id::TaskId;
use weft_sys::replace_file::{Outlives, PRIVATE, replace_file};
use weft_sys::state_file::{self, Found};

use crate::error::{VolumeError, failed};
use crate::mounted;
use crate::options::Options;

/// Who may look into the folder around the data: its path can be walked, and no more.
const AROUND: u32 = 0o701;
/// Of the data, until an image says otherwise.
const DATA: u32 = 0o755;

/// How names of volumes begin that are being made.
const MAKING: &str = ".making-";
/// The same of those that are being removed.
const REMOVING: &str = ".removing-";
/// Tells apart what this process makes and removes.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn aside_name(start: &str) -> String {
    format!("{start}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Whether it is the name of a volume that was half made or half removed when its process ended.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.starts_with(MAKING) || name.starts_with(REMOVING)
}

/// What is kept of a volume besides its options. What is not known here is left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Kept {
    /// When it was made, in Unix milliseconds.
    pub(crate) created_at: u64,
    /// What people note at it.
    pub(crate) labels: BTreeMap<String, String>,
}

/// One place of a task at which it sees the volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct User {
    /// Whose.
    pub(crate) task: TaskId,
    /// Where in the task.
    pub(crate) target: String,
    /// The task gave it no name: it is its own, and goes with it.
    #[serde(default)]
    pub(crate) own: bool,
}

/// The folder of a volume.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// That of a name below the folder of all volumes; nothing has to be there.
    pub(crate) fn of(root: &Path, name: &str) -> Self {
        Self(root.join(name))
    }

    /// What tasks see.
    pub(crate) fn data(&self) -> PathBuf {
        self.0.join("_data")
    }

    /// Where folders of it are mounted for tasks.
    pub(crate) fn subpaths(&self) -> PathBuf {
        self.0.join("subpaths")
    }

    /// There while it is filled.
    pub(crate) fn filling(&self) -> PathBuf {
        self.0.join("filling")
    }

    fn kept_file(&self) -> PathBuf {
        self.0.join("volume.json")
    }

    fn options_file(&self) -> PathBuf {
        self.0.join("opts.json")
    }

    fn users_file(&self) -> PathBuf {
        self.0.join("users.json")
    }

    /// Makes a volume: there as a whole, or not at all.
    pub(crate) fn make(
        root: &Path,
        name: &str,
        kept: &Kept,
        options: &Options,
        outlives: Outlives,
    ) -> Result<Self, VolumeError> {
        let making = Self(root.join(aside_name(MAKING)));
        remove_all(&making.0)?;
        new_folder(&making.0, AROUND)?;
        new_folder(&making.data(), DATA)?;
        write(&making.kept_file(), kept, outlives)?;
        if !options.is_plain() {
            write(&making.options_file(), options, outlives)?;
        }
        let made = Self::of(root, name);
        std::fs::rename(&making.0, &made.0).map_err(failed("cannot make", &made.0))?;
        if outlives == Outlives::Power {
            weft_sys::replace_file::sync_folder_of(&made.0).map_err(failed("cannot sync", root))?;
        }
        Ok(made)
    }

    /// Takes the whole volume out of the way, with nothing mounted in it; what is returned is to be
    /// removed.
    pub(crate) fn set_aside(&self, root: &Path) -> Result<PathBuf, VolumeError> {
        mounted::take_away_below(&self.0).map_err(failed("cannot unmount", &self.0))?;
        let aside = root.join(aside_name(REMOVING));
        remove_all(&aside)?;
        std::fs::rename(&self.0, &aside).map_err(failed("cannot remove", &self.0))?;
        Ok(aside)
    }

    /// What is kept of it. Of a folder that somebody else put there, such as one of Docker's, its age
    /// is known alone.
    pub(crate) fn read(&self) -> Result<(Kept, Options, Vec<User>), VolumeError> {
        let kept = match read(&self.kept_file())? {
            Some(kept) => kept,
            None => Kept {
                created_at: self.age()?,
                ..Kept::default()
            },
        };
        let options = read(&self.options_file())?.unwrap_or_default();
        let users = read(&self.users_file())?.unwrap_or_default();
        Ok((kept, options, users))
    }

    fn age(&self) -> Result<u64, VolumeError> {
        let found = std::fs::metadata(self.data()).map_err(failed("cannot read", &self.0))?;
        Ok(u64::try_from(found.mtime()).unwrap_or(0) * 1000)
    }

    /// Notes who uses it. What is lost with the power is no loss: the tasks are, too.
    pub(crate) fn write_users(&self, users: &[User]) -> Result<(), VolumeError> {
        write(&self.users_file(), &users, Outlives::Process)
    }
}

fn write<T: Serialize>(path: &Path, value: &T, outlives: Outlives) -> Result<(), VolumeError> {
    let bytes = serde_json::to_vec(value).map_err(io::Error::other);
    bytes
        .and_then(|bytes| replace_file(path, &bytes, PRIVATE, outlives))
        .map_err(failed("cannot write", path))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, VolumeError> {
    match state_file::read(path).map_err(failed("cannot read", path))? {
        Found::Value(value) => Ok(Some(value)),
        // A damaged file is told in the log and set aside.
        Found::Nothing | Found::Damaged(_) => Ok(None),
    }
}

/// A new folder with this mode, whatever the umask is.
pub(crate) fn new_folder(path: &Path, mode: u32) -> Result<(), VolumeError> {
    let made = DirBuilder::new().mode(mode).create(path);
    made.and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(failed("cannot make", path))
}

/// Removes a folder with all that is in it; none is success. Links are not followed.
pub(crate) fn remove_all(path: &Path) -> Result<(), VolumeError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes all that is in a folder, and leaves it.
pub(crate) fn empty(path: &Path) -> Result<(), VolumeError> {
    let failed = || failed("cannot empty", path);
    for entry in std::fs::read_dir(path).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        if entry.file_type().map_err(failed())?.is_dir() {
            remove_all(&entry.path())?;
        } else {
            std::fs::remove_file(entry.path()).map_err(failed())?;
        }
    }
    Ok(())
}

/// Whether nothing is in a folder.
pub(crate) fn is_empty(path: &Path) -> Result<bool, VolumeError> {
    let mut entries = std::fs::read_dir(path).map_err(failed("cannot read", path))?;
    Ok(entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_comes_and_goes_as_a_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().canonicalize().expect("there");
        // A process that was killed left this.
        for number in 0..20 {
            let left = root.join(format!("{MAKING}{number}/_data/old"));
            std::fs::create_dir_all(left).expect("made");
        }
        let kept = Kept {
            created_at: 7,
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        };
        let plain = Options::default();
        let folder =
            Folder::make(&root, "data", &kept, &plain, Outlives::Process).expect("a volume");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").mode() & 0o7777;
        assert_eq!((mode(&folder.0), mode(&folder.data())), (0o701, 0o755));
        assert!(is_empty(&folder.data()).expect("readable"));
        let user = User {
            task: TaskId::from("t1"),
            target: "/data".into(),
            own: false,
        };
        folder
            .write_users(std::slice::from_ref(&user))
            .expect("written");
        let (read, options, users) = folder.read().expect("readable");
        assert_eq!((read, users), (kept, vec![user]));
        assert!(options.is_plain() && !folder.options_file().exists());
        std::fs::write(folder.data().join("x"), "y").expect("written");
        let aside = folder.set_aside(&root).expect("out of the way");
        assert!(is_unfinished(
            &aside.file_name().expect("a name").to_string_lossy()
        ));
        remove_all(&aside).expect("removed");
        assert!(!folder.0.exists());
    }

    #[test]
    fn a_folder_of_dockers_is_a_volume() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::of(dir.path(), "data");
        std::fs::create_dir_all(folder.data()).expect("made");
        let text = r#"{"MountType":"tmpfs","MountOpts":"size=1m","MountDevice":"tmpfs","Quota":{"Size":0}}"#;
        std::fs::write(folder.options_file(), text).expect("written");
        let (kept, options, users) = folder.read().expect("readable");
        assert!(kept.created_at > 0 && kept.labels.is_empty() && users.is_empty());
        assert_eq!(options.mount_opts, "size=1m");
    }
}
