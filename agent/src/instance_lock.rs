//! One `weftd` for each data directory.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const FILE_NAME: &str = "weftd.lock";

/// Holds the data directory while it lives. The kernel frees it when the process ends, however
/// it ends; the file itself stays, because removing it would let two processes lock two files.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    _file: File,
}

/// The data directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another process holds it.
    #[error(
        "{data_dir} is in use by another weftd{}: stop that one, or give this one its own \
         --data-dir and -H",
        match pid { Some(pid) => format!(" (pid {pid})"), None => String::new() }
    )]
    Held {
        /// The directory.
        data_dir: PathBuf,
        /// Its pid as it wrote it.
        pid: Option<u32>,
    },
    /// The file cannot be opened, locked or written.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl InstanceLock {
    /// Locks `data_dir`, which must exist, and leaves the own pid in the lock file.
    ///
    /// # Errors
    /// See [`LockError`].
    pub(crate) fn take(data_dir: &Path) -> Result<Self, LockError> {
        let path = data_dir.join(FILE_NAME);
        let io_error = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid = match file.read_to_string(&mut text) {
                    Ok(_) => text.trim().parse().ok(),
                    Err(_) => None,
                };
                return Err(LockError::Held {
                    data_dir: data_dir.to_owned(),
                    pid,
                });
            }
            Err(errno) => return Err(io_error(errno.into())),
        }
        file.set_len(0).map_err(io_error)?;
        file.rewind().map_err(io_error)?;
        writeln!(file, "{}", std::process::id()).map_err(io_error)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = InstanceLock::take(dir.path()).unwrap();
        let error = InstanceLock::take(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("(pid {})", std::process::id())),
            "{error}"
        );
        assert!(error.contains("--data-dir"), "{error}");
        drop(first);
        InstanceLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = InstanceLock::take(&dir.path().join("no")).unwrap_err();
        assert!(error.to_string().contains("no/weftd.lock"), "{error}");
    }
}
