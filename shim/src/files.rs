//! Files of a task's folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) const SPEC: &str = "spec.json";
pub(crate) const INIT: &str = "init.json";
pub(crate) const EXIT: &str = "exit.json";
/// The id of a container's process 1, by its runtime program.
pub(crate) const PID: &str = "container.pid";
/// The socket through which a container's terminal comes.
pub(crate) const CONSOLE: &str = "console.sock";
/// What the shim itself has to say.
pub(crate) const LOG: &str = "shim.log";

/// Room that is kept for the end of a task on a disk that fills up meanwhile, in bytes.
const RESERVED: u64 = 4096;

/// `None` when there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
    }
}

/// In one step, so that a reader never sees half of it; for root's eyes only.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let temporary = fresh(path);
    let mut file = create(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    std::fs::rename(&temporary, path)
}

pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file that can be written later, whatever became of the disk meanwhile.
#[derive(Debug)]
pub(crate) struct Reserved {
    path: PathBuf,
    file: File,
}

impl Reserved {
    /// Takes the room now.
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        let file = create(&fresh(&path))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED) {
            // Not every file system can; it is written as it comes then.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(Self { path, file }),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts it in place.
    pub(crate) fn write(self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(value)?;
        self.file.write_all_at(&text, 0)?;
        self.file.set_len(text.len() as u64)?;
        std::fs::rename(fresh(&self.path), &self.path)
    }
}

fn fresh(path: &Path) -> PathBuf {
    path.with_extension("json.new")
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reserved_is_seen_once_it_is_written() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("exit.json");
        let reserved = Reserved::new(path.clone()).expect("room");
        assert_eq!(read::<Vec<u8>>(&path).expect("read"), None);
        reserved.write(&vec![1, 2]).expect("write");
        assert_eq!(read::<Vec<u8>>(&path).expect("read"), Some(vec![1, 2]));
        write(&path, &[3]).expect("again");
        assert_eq!(read::<Vec<u8>>(&path).expect("read"), Some(vec![3]));
        remove(&path).expect("remove");
        remove(&path).expect("twice");
        assert_eq!(std::fs::read_dir(dir.path()).expect("list").count(), 0);
    }
}
