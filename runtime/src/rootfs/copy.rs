//! Layers as the kernel's overlay would show them, by copying: whiteouts and opaque folders are
//! carried out. Nobody else changes layers or the copy meanwhile, so paths are enough.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, lgetxattr,
    llistxattr, lsetxattr, mknodat, utimensat,
};
use rustix::io::Errno;

use super::RootfsError;

/// What the kernel has of names of attributes of a file, and of one value, at most.
const MAX_ATTRIBUTES: usize = 64 << 10;
/// Attributes that belong to where a file lies, and not to the file.
const NOT_COPIED: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"security.selinux"];
/// What says that nothing below shines through.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// Puts a layer over what is in `into`.
///
/// # Errors
/// [`RootfsError::Copy`] with the path.
pub(super) fn layer(layer: &Path, into: &Path) -> Result<(), RootfsError> {
    let mut copying = Copying::default();
    let mut folders = Vec::new();
    let mut todo = vec![(layer.to_owned(), into.to_owned())];
    while let Some((from, to)) = todo.pop() {
        let entries = fs::read_dir(&from).map_err(at(&from))?;
        for entry in entries {
            let name = entry.map_err(at(&from))?.file_name();
            let (from, to) = (from.join(&name), to.join(&name));
            let is_folder = copying.entry(&from, &to).map_err(at(&to))?;
            if is_folder {
                todo.push((from, to));
            }
        }
        folders.push((from, to));
    }
    // Those inside first: what is made in a folder changes its time.
    for (from, to) in folders.iter().rev() {
        let metadata = fs::symlink_metadata(from).map_err(at(from))?;
        copying.dress(from, to, &metadata).map_err(at(to))?;
    }
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RootfsError + use<> {
    let path = path.to_owned();
    move |source| RootfsError::Copy { path, source }
}

/// One layer that is being copied.
#[derive(Debug)]
struct Copying {
    /// Where a file of several names was copied to.
    links: HashMap<(u64, u64), PathBuf>,
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Copying {
    fn default() -> Self {
        Self {
            links: HashMap::new(),
            names: vec![0; MAX_ATTRIBUTES],
            value: vec![0; MAX_ATTRIBUTES],
        }
    }
}

impl Copying {
    /// One entry, without what is in it; true for a folder.
    fn entry(&mut self, from: &Path, to: &Path) -> io::Result<bool> {
        let metadata = fs::symlink_metadata(from)?;
        let there = match fs::symlink_metadata(to) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let stays = metadata.is_dir()
            && there.as_ref().is_some_and(Metadata::is_dir)
            && !self.is_opaque(from)?;
        if stays {
            return Ok(true);
        }
        match there {
            Some(there) if there.is_dir() => fs::remove_dir_all(to)?,
            Some(_) => fs::remove_file(to)?,
            None => {}
        }
        if is_whiteout(&metadata) {
            return Ok(false);
        }
        if metadata.is_dir() {
            fs::create_dir(to)?;
            return Ok(true);
        }
        let key = (metadata.dev(), metadata.ino());
        if let Some(first) = self.links.get(&key) {
            fs::hard_link(first, to)?;
            return Ok(false);
        }
        if make(from, to, &metadata)? {
            self.dress(from, to, &metadata)?;
            if metadata.nlink() > 1 {
                self.links.insert(key, to.to_owned());
            }
        }
        Ok(false)
    }

    fn is_opaque(&mut self, folder: &Path) -> io::Result<bool> {
        for name in OPAQUE {
            match lgetxattr(folder, name, &mut self.value[..]) {
                Ok(length) if self.value[..length] == *b"y" => return Ok(true),
                Ok(_) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(false)
    }

    /// Owner, mode, attributes and times. In this order: a new owner takes set-id bits and
    /// capabilities away, and everything changes the times.
    fn dress(&mut self, from: &Path, to: &Path, of: &Metadata) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(of.uid()), Gid::from_raw(of.gid()));
        chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if !of.is_symlink() {
            fs::set_permissions(to, of.permissions())?;
        }
        self.attributes(from, to)?;
        let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let times = Timestamps {
            last_access: time(of.atime(), of.atime_nsec()),
            last_modification: time(of.mtime(), of.mtime_nsec()),
        };
        Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn attributes(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let length = match llistxattr(from, &mut self.names[..]) {
            Ok(length) => length,
            Err(Errno::NOTSUP | Errno::PERM) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        for name in self.names[..length].split(|byte| *byte == 0) {
            if name.is_empty() || NOT_COPIED.iter().any(|start| name.starts_with(start)) {
                continue;
            }
            let value = match lgetxattr(from, name, &mut self.value[..]) {
                Ok(length) => &self.value[..length],
                Err(Errno::NODATA | Errno::PERM) => continue,
                Err(errno) => return Err(errno.into()),
            };
            match lsetxattr(to, name, value, XattrFlags::empty()) {
                // The other file system has no such attributes, or gives none to this user.
                Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// Something that was there below, and is gone: the kernel's mark.
fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Anything but a folder; false where it is left out.
fn make(from: &Path, to: &Path, metadata: &Metadata) -> io::Result<bool> {
    let kind = metadata.file_type();
    if kind.is_file() {
        // By copy_file_range(2): file systems that can share the blocks.
        fs::copy(from, to)?;
        return Ok(true);
    }
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
        return Ok(true);
    }
    let special = if kind.is_fifo() {
        FileType::Fifo
    } else if kind.is_char_device() {
        FileType::CharacterDevice
    } else if kind.is_block_device() {
        FileType::BlockDevice
    } else {
        // A socket without its process is nothing.
        return Ok(false);
    };
    match mknodat(CWD, to, special, Mode::RUSR | Mode::WUSR, metadata.rdev()) {
        Ok(()) => Ok(true),
        Err(Errno::PERM) => {
            let name = to.file_name().unwrap_or_default().as_bytes();
            tracing::debug!(
                name = %String::from_utf8_lossy(name),
                "a device of an image is not copied: not permitted"
            );
            Ok(false)
        }
        Err(errno) => Err(errno.into()),
    }
}
