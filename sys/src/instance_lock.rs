//! One process per data directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::replace_file::PRIVATE;

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Local: another process holds it.
    #[error("another weftd{} uses {path}: stop it, or give this one its own --data-dir, --run-dir and -H", holder(.pid))]
    Held {
        /// Of the lock file.
        path: PathBuf,
        /// Who, when it could be read.
        pid: Option<u32>,
    },
    /// Local: the file cannot be made or locked.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// Of the lock file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (process {pid})"))
        .unwrap_or_default()
}

/// Held until dropped, or until the process ends in whatever way. The file stays.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock, making the file (not its folder) when needed, and writes this process's id
    /// into it where there is room. Nobody else may read the file, as that is enough to lock it.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn acquire(path: impl AsRef<Path>) -> Result<Self, LockError> {
        let path = path.as_ref();
        let failed = |source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed)?;
        // flock(2) asks for no right to write: whoever may read the file could keep everybody out.
        file.set_permissions(std::fs::Permissions::from_mode(PRIVATE))
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held {
                    path: path.to_owned(),
                    pid,
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            // A full disk: the lock holds all the same, it only cannot say whose it is.
            tracing::warn!(path = %path.display(), %error, "the lock does not name its holder");
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_reason_not_to_start() {
        use std::os::fd::AsRawFd;
        let disk = crate::namespaces::unmounted_tmpfs(64 << 10).expect("a small disk");
        let dir = PathBuf::from(format!("/proc/self/fd/{}", disk.as_raw_fd()));
        std::fs::write(dir.join("filler"), vec![0; 1 << 20]).expect_err("it does not fit");
        let path = dir.join("weftd.lock");
        let lock = InstanceLock::acquire(&path).expect("first");
        let error = InstanceLock::acquire(&path).expect_err("second");
        assert!(
            matches!(error, LockError::Held { pid: None, .. }),
            "{error}"
        );
        drop(lock);
    }

    #[test]
    fn the_second_instance_learns_who_is_first() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("weftd.lock");
        // Of an earlier version, for everybody to read and so to lock.
        std::fs::write(&path, "").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a mode");
        let lock = InstanceLock::acquire(&path).expect("first");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, PRIVATE);
        let error = InstanceLock::acquire(&path).expect_err("second");
        let text = error.to_string();
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains("--data-dir"), "{text}");
        drop(lock);
        InstanceLock::acquire(&path).expect("after the first ended");
        assert!(matches!(
            InstanceLock::acquire(dir.path().join("no/dir/lock")),
            Err(LockError::Io { .. })
        ));
    }
}
