//! The one way in which a file of state is written: as a whole, or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a file that was replaced outlives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlives {
    /// The loss of power: the disk is waited for, twice.
    Power,
    /// The process alone: nobody waits for the disk. For what is rebuilt after the loss of power.
    Process,
}

/// Mode of a file that nobody but its owner reads.
pub const PRIVATE: u32 = 0o600;

/// Ends the name of every file that [`replace_file`] has not finished.
const UNFINISHED: &str = ".unfinished";

/// How many names are tried: each that is taken was left by a process that was killed.
const ATTEMPTS: u32 = 1000;

/// Tells apart what the threads of this process write at the same time.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Replaces the file at `path` by `bytes`, with this `mode` whatever the umask and the old file's
/// was: readers see the old bytes or the new ones, and two writers never each other's. The folder
/// has to be there; a symbolic link at `path` is replaced, not followed.
///
/// # Errors
/// The disk's: the old file is as it was then, and nothing is left beside it. Only when it is the
/// folder that cannot be synced the new bytes are there, and may not outlive the loss of power.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32, outlives: Outlives) -> io::Result<()> {
    let (mut file, temporary) = create_beside(path, mode)?;
    let written = file
        .set_permissions(std::fs::Permissions::from_mode(mode))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| match outlives {
            Outlives::Power => file.sync_all(),
            Outlives::Process => Ok(()),
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        if let Err(left) = std::fs::remove_file(&temporary) {
            tracing::warn!(path = %temporary.display(), error = %left, "left behind");
        }
        return Err(error);
    }
    match outlives {
        Outlives::Power => sync_folder_of(path),
        Outlives::Process => Ok(()),
    }
}

/// Makes a rename or a new file in the folder of `path` outlive the loss of power.
///
/// # Errors
/// The disk's.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// Removes what writers of `path` left beside it that were killed at their work. To be called when
/// nobody else writes it: by the process that holds the folder, as it starts.
///
/// # Errors
/// The first file that cannot be removed; the others are removed all the same.
pub fn remove_unfinished(path: &Path) -> io::Result<()> {
    let start = format!(".{}.", file_name(path)?);
    let entries = match std::fs::read_dir(folder_of(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut result = Ok(());
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(&start) && name.ends_with(UNFINISHED) {
            result = result.and(std::fs::remove_file(entry.path()));
        }
    }
    result
}

/// A new file of a name that no other file and no other writer has.
fn create_beside(path: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    let name = file_name(path)?;
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let own = format!(".{name}.{}-{number}{UNFINISHED}", std::process::id());
        let temporary = folder_of(path).join(own);
        // Exclusive: whatever has that name already, a link too, is nobody's to write through.
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary);
        match made {
            Ok(file) => return Ok((file, temporary)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no name is free")))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn file_name(path: &Path) -> io::Result<&str> {
    path.file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|e| {
                e.expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("text")
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_no_link_is_followed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("state.json");
        let mode = || std::fs::metadata(&path).expect("there").mode() & 0o7777;
        for outlives in [Outlives::Power, Outlives::Process] {
            replace_file(&path, b"one", 0o644, outlives).expect("written");
            assert_eq!(
                (std::fs::read(&path).expect("read"), mode()),
                (b"one".to_vec(), 0o644)
            );
            replace_file(&path, b"two", PRIVATE, outlives).expect("written");
            assert_eq!(
                (std::fs::read(&path).expect("read"), mode()),
                (b"two".to_vec(), PRIVATE)
            );
        }
        let precious = dir.path().join("precious");
        std::fs::write(&precious, "x").expect("written");
        std::fs::remove_file(&path).expect("removed");
        symlink(&precious, &path).expect("a link");
        replace_file(&path, b"three", PRIVATE, Outlives::Power).expect("written");
        assert_eq!(std::fs::read(&precious).expect("read"), b"x");
        assert_eq!(names(dir.path()), ["precious", "state.json"]);
        assert!(replace_file(Path::new("/"), b"", PRIVATE, Outlives::Process).is_err());
        let nowhere = dir.path().join("no/folder");
        assert!(replace_file(&nowhere, b"", PRIVATE, Outlives::Power).is_err());
    }

    #[test]
    fn writers_at_the_same_time_leave_one_whole_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("state");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..100 {
                        let text = vec![b'a' + writer; 10_000];
                        replace_file(path, &text, PRIVATE, Outlives::Process).expect("written");
                        let seen = std::fs::read(path).expect("read");
                        assert!(seen.len() == 10_000 && seen.iter().all(|b| *b == seen[0]));
                    }
                });
            }
        });
        assert_eq!(names(dir.path()), ["state"]);
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_nothing_else() {
        let disk = namespaces::unmounted_tmpfs(256 << 10).expect("a small disk");
        let dir = PathBuf::from(format!("/proc/self/fd/{}", disk.as_raw_fd()));
        let path = dir.join("state");
        replace_file(&path, b"old", PRIVATE, Outlives::Power).expect("written");
        let full = replace_file(&path, &vec![0; 1 << 20], PRIVATE, Outlives::Power);
        let error = full.expect_err("it does not fit");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert_eq!(std::fs::read(&path).expect("read"), b"old");
        assert_eq!(names(&dir), ["state"]);
        replace_file(&path, b"new", PRIVATE, Outlives::Power).expect("there is room again");
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("state");
        let (file, left) = create_beside(&path, PRIVATE).expect("begun");
        drop(file);
        let others = [".state.other", "state.unfinished", ".other.1-2.unfinished"];
        for other in others {
            std::fs::write(dir.path().join(other), "").expect("written");
        }
        remove_unfinished(&path).expect("removed");
        assert!(!left.exists());
        assert_eq!(
            names(dir.path()),
            [".other.1-2.unfinished", ".state.other", "state.unfinished"]
        );
        remove_unfinished(&dir.path().join("no/such")).expect("nothing there");
    }
}
