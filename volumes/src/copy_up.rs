//! A new volume gets what the image has at its place: once, where the volume is empty, with owners,
//! modes, times and attributes. The image is a stranger's: what it has there may be a link to anywhere.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::subpath::open_in_root;
use crate::tree::Copying;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    /// The image has a folder there; the volume's own has its owner and mode now.
    pub(crate) found: bool,
    /// Files and folders in it.
    pub(crate) entries: u64,
}

/// Copies what is at `target` below `rootfs` into the empty folder `data`. Where the image has nothing
/// there, or no folder, nothing is copied.
///
/// # Errors
/// The disk's; part of it may be copied then.
pub(crate) fn fill(rootfs: &Path, target: &Path, data: &Path) -> io::Result<Filled> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let from = match open_in_root(rootfs, target, flags) {
        Ok(from) => from,
        // Too many links, or a link to a file: the task will not start there, and says why.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Filled::default()),
        Err(errno) => return Err(errno.into()),
    };
    let to = open(data, flags | OFlags::CLOEXEC, Mode::empty())?;
    let mut copying = Copying::into(&to);
    copying.folder(&from, &to)?;
    Ok(Filled {
        found: true,
        entries: copying.entries(),
    })
}

#[cfg(test)]
mod tests;
