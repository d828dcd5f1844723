//! Copies a tree of files by descriptors: no link is followed on either side.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, lgetxattr,
    linkat, llistxattr, lsetxattr, mkdirat, mknodat, openat, readlinkat, statat, symlinkat,
    utimensat,
};
use rustix::io::Errno;

/// Folders inside one another at most: each is two open files.
const MAX_DEPTH: usize = 128;
/// What the kernel has of names of attributes of a file, and of one value, at most.
const MAX_ATTRIBUTES: usize = 64 << 10;
/// Attributes that belong to where a file lies, and not to the file.
const NOT_COPIED: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"security.selinux"];

/// A copy that is being made.
pub(crate) struct Copying<'a> {
    root: BorrowedFd<'a>,
    /// Where a file of several names was copied to.
    links: BTreeMap<(u64, u64), PathBuf>,
    names: Vec<u8>,
    value: Vec<u8>,
    entries: u64,
}

/// Whether an attribute stays behind.
fn stays(name: &[u8]) -> bool {
    NOT_COPIED.iter().any(|start| name.starts_with(start))
}

/// Whether the other file system has no such attributes, or gives none to this user.
fn not_there(errno: Errno) -> bool {
    matches!(errno, Errno::NOTSUP | Errno::PERM)
}

fn times(of: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: of.st_atime,
            tv_nsec: i64::try_from(of.st_atime_nsec).unwrap_or(0),
        },
        last_modification: Timespec {
            tv_sec: of.st_mtime,
            tv_nsec: i64::try_from(of.st_mtime_nsec).unwrap_or(0),
        },
    }
}

fn names_in(folder: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn open_folder(at: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

impl<'a> Copying<'a> {
    /// To this folder.
    pub(crate) fn into(root: &'a impl AsFd) -> Self {
        Self {
            root: root.as_fd(),
            links: BTreeMap::new(),
            names: vec![0; MAX_ATTRIBUTES],
            value: vec![0; MAX_ATTRIBUTES],
            entries: 0,
        }
    }

    /// What was copied so far, the first folder not counted.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// All that is in a folder, then what the folder itself is.
    pub(crate) fn folder(&mut self, from: &impl AsFd, to: &impl AsFd) -> io::Result<()> {
        self.inside(from.as_fd(), to.as_fd(), Path::new(""), 0)
    }

    fn inside(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        at: &Path,
        depth: usize,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!(
                "{} is in more than {MAX_DEPTH} folders",
                at.display()
            )));
        }
        for name in names_in(from)? {
            let path = at.join(OsStr::from_bytes(name.to_bytes()));
            self.entry(from, to, &name, &path, depth).map_err(|error| {
                // One that is not the kernel's names a path already.
                if error.get_ref().is_some() {
                    return error;
                }
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
        }
        self.dress(from, to, &fstat(from)?)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        at: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let key = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&key) {
            linkat(self.root, first, to, name, AtFlags::empty())?;
            self.entries += 1;
            return Ok(());
        }
        let made = match kind {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let (below, above) = (open_folder(from, name)?, open_folder(to, name)?);
                self.inside(below.as_fd(), above.as_fd(), at, depth + 1)?;
                true
            }
            FileType::RegularFile => {
                self.file(from, to, name)?;
                true
            }
            FileType::Symlink => {
                let target = readlinkat(from, name, Vec::new())?;
                symlinkat(target.as_c_str(), to, name)?;
                self.dress_at(from, to, name, &stat)?;
                true
            }
            FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
                self.special(from, to, name, &stat)?
            }
            // A socket without its process is nothing.
            _ => false,
        };
        if made {
            self.entries += 1;
            if kind != FileType::Directory && stat.st_nlink > 1 {
                self.links.insert(key, at.to_owned());
            }
        }
        Ok(())
    }

    fn file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        // NONBLOCK: where it was exchanged for a pipe meanwhile, nobody waits for a writer.
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let source = File::from(openat(from, name, read, Mode::empty())?);
        let write =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = File::from(openat(to, name, write, Mode::RUSR | Mode::WUSR)?);
        // By copy_file_range(2) where both sides can.
        io::copy(&mut &source, &mut &copy)?;
        let stat = fstat(&source)?;
        self.dress(source.as_fd(), copy.as_fd(), &stat)
    }

    /// A pipe or a device; false where this user may make none.
    fn special(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<bool> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = Mode::from_raw_mode(stat.st_mode);
        match mknodat(to, name, kind, mode, stat.st_rdev) {
            Ok(()) => {}
            Err(Errno::PERM) if kind != FileType::Fifo => {
                tracing::debug!(?name, "a device of an image is not copied: not permitted");
                return Ok(false);
            }
            Err(errno) => return Err(errno.into()),
        }
        self.dress_at(from, to, name, stat)?;
        Ok(true)
    }

    /// Owner, mode, attributes and times of something that is open. In this order: a new owner takes
    /// set-id bits and capabilities away, and everything changes the times.
    fn dress(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        let is = fstat(to)?;
        if (is.st_uid, is.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            fchown(to, Some(uid), Some(gid))?;
        }
        fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
        let Self { names, value, .. } = self;
        let length = match flistxattr(from, &mut names[..]) {
            Ok(length) => length,
            Err(errno) if not_there(errno) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for name in attributes(&names[..length]) {
            let length = fgetxattr(from, name, &mut value[..])?;
            match fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
                Err(errno) if not_there(errno) => told(name),
                other => other?,
            }
        }
        Ok(futimens(to, &times(stat))?)
    }

    /// The same of something that cannot be opened: a link, a pipe, a device.
    fn dress_at(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let is = statat(to, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (is.st_uid, is.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // Nobody else is in the copy: it is what was made a moment ago.
            chmodat(
                to,
                name,
                Mode::from_raw_mode(stat.st_mode),
                AtFlags::empty(),
            )?;
        }
        let path = |folder: BorrowedFd<'_>| {
            let folder = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
            folder.join(OsStr::from_bytes(name.to_bytes()))
        };
        let (source, copy) = (path(from), path(to));
        let Self { names, value, .. } = self;
        let length = match llistxattr(&source, &mut names[..]) {
            Ok(length) => length,
            Err(errno) if not_there(errno) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for name in attributes(&names[..length]) {
            let length = lgetxattr(&source, name, &mut value[..])?;
            match lsetxattr(&copy, name, &value[..length], XattrFlags::empty()) {
                Err(errno) if not_there(errno) => told(name),
                other => other?,
            }
        }
        Ok(utimensat(
            to,
            name,
            &times(stat),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

/// Names of attributes that are copied, of a list as the kernel writes it.
fn attributes(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let names = list.split(|byte| *byte == 0);
    names.filter(|name| !name.is_empty() && !stays(name))
}

fn told(name: &[u8]) {
    let name = String::from_utf8_lossy(name);
    tracing::debug!(%name, "an attribute of an image is not copied: the volume cannot have it");
}
