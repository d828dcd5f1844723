//! Locks that processes have of each other: a file for each thing that is made once.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use weft_sys::replace_file::PRIVATE;

/// A locked file, until it is dropped or the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) file: File,
}

impl Lock {
    /// Waits until nobody else has it.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn wait(path: &Path) -> io::Result<Self> {
        let locked = take(path, FlockOperation::LockExclusive)?;
        locked.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    /// Nothing when somebody else has it.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn try_now(path: &Path) -> io::Result<Option<Self>> {
        take(path, FlockOperation::NonBlockingLockExclusive)
    }

    /// With others who share it; waits while somebody has it alone.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn shared(path: &Path) -> io::Result<Self> {
        let locked = take(path, FlockOperation::LockShared)?;
        locked.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

fn take(path: &Path, operation: FlockOperation) -> io::Result<Option<Lock>> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        match rustix::io::retry_on_intr(|| flock(&file, operation)) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        // Whoever had it may have renamed or removed the file meanwhile: then this is another one.
        let ours = file.metadata()?;
        match std::fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                return Ok(Some(Lock { file }));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_or_several_share_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        let first = Lock::try_now(&path).expect("no error").expect("free");
        assert!(Lock::try_now(&path).expect("no error").is_none());
        drop(first);
        let (one, two) = (Lock::shared(&path), Lock::shared(&path));
        let (one, two) = (one.expect("shared"), two.expect("shared"));
        assert!(Lock::try_now(&path).expect("no error").is_none());
        drop((one, two));
        Lock::wait(&path).expect("free");
    }

    #[test]
    fn a_file_that_was_replaced_is_locked_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        let first = Lock::try_now(&path).expect("no error").expect("free");
        let second = std::thread::spawn({
            let path = path.clone();
            move || Lock::wait(&path).expect("in the end")
        });
        std::fs::remove_file(&path).expect("removed");
        drop(first);
        let second = second.join().expect("no panic");
        let there = std::fs::metadata(&path).expect("made again").ino();
        assert_eq!(second.file.metadata().expect("open").ino(), there);
        assert!(Lock::try_now(&path).expect("no error").is_none());
    }
}
