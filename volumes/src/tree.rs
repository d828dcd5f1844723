//! Copies a tree of files by descriptors: no link is followed on either side. Whoever has the volume
//! already may exchange anything in it at any moment, so what was made is held before it is changed.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, chmod, chown, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens,
    lgetxattr, linkat, llistxattr, mkdirat, mknodat, openat, openat2, readlinkat, setxattr, statat,
    symlinkat, utimensat,
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

/// Opens something in the copy, as what it is: a link at the end is opened itself, and none is followed
/// before it; nothing is found on another file system or above.
fn hold(at: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(openat2(at, path, flags, Mode::empty(), resolve)?)
}

/// The name of something that is held, for calls that take names: it leads there and nowhere else, also
/// where it is a link.
fn name_of(held: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()))
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
            let first = hold(self.root, first)?;
            if FileType::from_raw_mode(fstat(&first)?.st_mode) != kind {
                return Err(exchanged());
            }
            linkat(CWD, name_of(&first), to, name, AtFlags::SYMLINK_FOLLOW)?;
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
        let held = hold(to, Path::new(OsStr::from_bytes(name.to_bytes())))?;
        let (is, kind) = (fstat(&held)?, FileType::from_raw_mode(stat.st_mode));
        if FileType::from_raw_mode(is.st_mode) != kind {
            return Err(exchanged());
        }
        let copy = name_of(&held);
        if (is.st_uid, is.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            chown(&copy, Some(uid), Some(gid))?;
        }
        if kind != FileType::Symlink {
            chmod(&copy, Mode::from_raw_mode(stat.st_mode))?;
        }
        let source = PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd()));
        let source = source.join(OsStr::from_bytes(name.to_bytes()));
        let Self { names, value, .. } = self;
        let length = match llistxattr(&source, &mut names[..]) {
            Ok(length) => length,
            Err(errno) if not_there(errno) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for name in attributes(&names[..length]) {
            let length = lgetxattr(&source, name, &mut value[..])?;
            match setxattr(&copy, name, &value[..length], XattrFlags::empty()) {
                Err(errno) if not_there(errno) => told(name),
                other => other?,
            }
        }
        Ok(utimensat(CWD, &copy, &times(stat), AtFlags::empty())?)
    }
}

fn exchanged() -> io::Error {
    io::Error::other("somebody else changes what is in the volume while it is filled")
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_was_made_is_held_and_no_link_is_followed_to_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let (data, secret) = (dir.path().join("data"), dir.path().join("secret"));
        fs::create_dir_all(data.join("real")).expect("made");
        fs::create_dir(&secret).expect("made");
        fs::write(secret.join("key"), "x").expect("written");
        fs::write(data.join("real/file"), "y").expect("written");
        symlink(&secret, data.join("folder")).expect("a link");
        symlink(secret.join("key"), data.join("link")).expect("a link");
        let root = File::open(&data).expect("a folder");
        // Through a link in the middle, and out of the volume: nothing.
        for path in ["folder/key", "../secret/key", "/etc/passwd"] {
            assert!(hold(root.as_fd(), Path::new(path)).is_err(), "{path}");
        }
        let held = hold(root.as_fd(), Path::new("real/file")).expect("held");
        let ino = fs::metadata(data.join("real/file")).expect("there").ino();
        assert_eq!(fstat(&held).expect("a file").st_ino, ino);
        // A link at the end is the link itself, by its name as well.
        let held = hold(root.as_fd(), Path::new("link")).expect("held");
        let kind = FileType::from_raw_mode(fstat(&held).expect("a link").st_mode);
        assert_eq!(kind, FileType::Symlink);
        linkat(CWD, name_of(&held), &root, "again", AtFlags::SYMLINK_FOLLOW).expect("linked");
        let again = fs::read_link(data.join("again")).expect("a link");
        assert_eq!(again, secret.join("key"));
    }

    #[test]
    fn a_pipe_that_was_exchanged_for_a_link_changes_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).expect("made");
        fs::create_dir(&to).expect("made");
        let key = dir.path().join("key");
        fs::write(&key, "x").expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
        let (source, copy) = (File::open(&from), File::open(&to));
        let (source, copy) = (source.expect("a folder"), copy.expect("a folder"));
        mknodat(
            &source,
            "pipe",
            FileType::Fifo,
            Mode::from_raw_mode(0o777),
            0,
        )
        .expect("a pipe");
        let stat = statat(&source, "pipe", AtFlags::SYMLINK_NOFOLLOW).expect("a pipe");
        symlink(&key, to.join("pipe")).expect("a link");
        let error = Copying::into(&copy)
            .dress_at(source.as_fd(), copy.as_fd(), c"pipe", &stat)
            .expect_err("it is another one");
        assert!(error.to_string().contains("somebody else"), "{error}");
        let mode = fs::metadata(&key).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
