//! Does what was planned, in one folder, and touches nothing outside of it.
//!
//! Every folder on the way to an entry is opened by the kernel below the layer's own (openat2 with
//! `RESOLVE_BENEATH|RESOLVE_NO_MAGICLINKS`); the entry itself is made new by its name in that folder:
//! what had the name is removed first, and never written to or followed. Nobody else writes there
//! meanwhile.
//!
//! As Docker does it: devices and set-id files are unpacked as they are, since images of whole
//! distributions have them. They do nothing where they lie, as nobody but the node's owner may enter
//! the store; in a container the control group says which devices open.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, ftruncate, futimens, linkat, makedev,
    mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::entry::{Chunk, Entry, Time};
use super::error::{Fault, Refusal, shown};
use super::limits::Limits;
use super::plan::{Action, Device, Owner, Place, owner};
use super::tree;

/// Bytes that are copied at once.
const BUFFER: usize = 128 << 10;

/// A folder, to work in and to set attributes of.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Out of the folder leads no link and no name.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// How often a way is tried again that the kernel could not follow safely, as something was renamed
/// meanwhile. It may be anywhere on the machine.
const ATTEMPTS: u32 = 100;

/// Mode of folders that no entry is about, as Docker makes them.
const IMPLIED: Mode = Mode::from_raw_mode(0o755);

/// Who may own files here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owners {
    /// Whoever the archive says.
    Any,
    /// Nobody but this process: everything belongs to it, whatever the archive says.
    Own,
}

/// A folder whose time is set at the end, as each entry in it changes that.
struct Modified {
    path: Vec<u8>,
    time: Time,
}

/// Unpacks entries into one folder.
pub(crate) struct Extractor<'a> {
    root: OwnedFd,
    limits: &'a Limits,
    owners: Owners,
    /// What makes a folder opaque to overlay here.
    opaque: &'static str,
    /// The folder of the last entry: most entries are in the same one.
    last: Option<(Vec<u8>, OwnedFd)>,
    folders: Vec<Modified>,
    folder_bytes: u64,
    file_bytes: u64,
    /// Entries so far …
    entries: u64,
    /// … and folders that no entry is about: they take as much of the disk as those with one.
    implied: u64,
    buffer: Vec<u8>,
}

impl<'a> Extractor<'a> {
    /// Into the folder `into`, which has to be there, and empty.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn open(into: &Path, limits: &'a Limits) -> Result<Self, Fault> {
        let root = openat(CWD, into, FOLDER | OFlags::NOFOLLOW, Mode::empty())
            .map_err(Fault::io("open the layer's folder"))?;
        Ok(Self {
            root,
            limits,
            owners: owners(),
            opaque: opaque_attribute(),
            last: None,
            folders: Vec::new(),
            folder_bytes: 0,
            file_bytes: 0,
            entries: 0,
            implied: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Bytes of the files that were unpacked.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Does what `action` says of `entry`, whose content is read from `data`.
    ///
    /// # Errors
    /// Why it is refused, or what the disk or the reader said.
    pub(crate) fn apply(
        &mut self,
        entry: &Entry,
        action: &Action,
        data: &mut impl Read,
    ) -> Result<(), Fault> {
        self.entries = entry.number;
        match action {
            Action::Skip => Ok(()),
            Action::Opaque { folder } => {
                self.enter(folder)?;
                let (_, folder) = self.last.as_ref().expect("it was just entered");
                self.make_opaque(folder)
            }
            Action::Whiteout(place) => self.whiteout(place),
            Action::Root => {
                let root = reopen(&self.root)?;
                self.describe(&root, entry, FileType::Directory)?;
                self.remember(Vec::new(), entry.modified)
            }
            Action::Folder(place) => self.folder(place, entry),
            Action::File(place) => self.file(place, entry, data),
            Action::Symlink { place, to } => {
                let make = |parent: &OwnedFd, name: &[u8]| symlinkat(&to[..], parent, name);
                self.make(place, "make the link", make)?;
                self.describe_by_name(place, entry, None)
            }
            Action::HardLink { place, to } => self.hard_link(place, to),
            Action::Device {
                place,
                kind,
                major,
                minor,
            } => {
                let kind = match kind {
                    Device::Char => FileType::CharacterDevice,
                    Device::Block => FileType::BlockDevice,
                };
                let number = makedev(*major, *minor);
                let made = self.make(place, "make the device", |parent, name| {
                    mknodat(parent, name, kind, Mode::empty(), number)
                });
                made.map_err(|fault| forbidden(fault, Refusal::Device))?;
                self.describe_by_name(place, entry, Some(mode(entry)))
            }
            Action::Fifo(place) => {
                self.make(place, "make the fifo", |parent, name| {
                    mknodat(parent, name, FileType::Fifo, Mode::empty(), 0)
                })?;
                self.describe_by_name(place, entry, Some(mode(entry)))
            }
        }
    }

    /// Sets the times of folders.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn finish(self) -> Result<(), Fault> {
        for folder in &self.folders {
            match beneath(&self.root, &folder.path) {
                Ok(opened) => futimens(&opened, &times(folder.time))
                    .map_err(Fault::io("set the time of a folder"))?,
                // Another entry took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(errno) => return Err(Fault::io("set the time of a folder")(errno)),
            }
        }
        Ok(())
    }

    /// Opens a folder of the layer, and makes what of it is missing.
    fn enter(&mut self, path: &[u8]) -> Result<(), Fault> {
        if self.last.as_ref().is_some_and(|(last, _)| last == path) {
            return Ok(());
        }
        let folder = match beneath(&self.root, path) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_way(path)?,
            folder => folder.map_err(way_fault)?,
        };
        self.last = Some((path.to_vec(), folder));
        Ok(())
    }

    /// Makes the folders of a path that are missing.
    fn make_way(&mut self, path: &[u8]) -> Result<OwnedFd, Fault> {
        let mut here = reopen(&self.root)?;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends = ends.map(|(at, _)| at).chain([path.len()]);
        let mut start = 0;
        for end in ends {
            let name = &path[start..end];
            start = end + 1;
            here = match beneath(&self.root, &path[..end]) {
                Ok(folder) => folder,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let was_whiteout = match look(&here, name)? {
                        None => false,
                        Some(stat) if is_whiteout(&stat) => {
                            unlinkat(&here, name, AtFlags::empty())
                                .map_err(Fault::io("replace a whiteout"))?;
                            true
                        }
                        Some(stat) if is(&stat, FileType::Symlink) => {
                            return Err(Refusal::Link.into());
                        }
                        Some(_) => return Err(Refusal::NotFolder.into()),
                    };
                    self.implied += 1;
                    if self.entries.saturating_add(self.implied) > self.limits.entries {
                        return Err(Refusal::Entries(self.limits.entries).into());
                    }
                    let made = self.new_folder(&here, name)?;
                    fchmod(&made, IMPLIED).map_err(Fault::io("make a folder"))?;
                    if was_whiteout {
                        self.make_opaque(&made)?;
                    }
                    made
                }
                Err(errno) => return Err(way_fault(errno)),
            };
        }
        Ok(here)
    }

    fn new_folder(&self, parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Fault> {
        mkdirat(parent, name, Mode::RWXU).map_err(Fault::io("make a folder"))?;
        openat(parent, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())
            .map_err(Fault::io("open a new folder"))
    }

    /// Makes something at `place`, in place of what there is.
    fn make<T>(
        &mut self,
        place: &Place,
        what: &'static str,
        mut make: impl FnMut(&OwnedFd, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T, Fault> {
        self.enter(&place.folder)?;
        let (_, parent) = self.last.as_ref().expect("it was just entered");
        match make(parent, &place.name) {
            Err(Errno::EXIST) => {
                self.clear(place)?;
                // What was removed may have been a folder on the way.
                self.enter(&place.folder)?;
                let (_, parent) = self.last.as_ref().expect("it was just entered");
                make(parent, &place.name).map_err(Fault::io(what))
            }
            made => made.map_err(Fault::io(what)),
        }
    }

    /// Removes what is at `place`.
    fn clear(&mut self, place: &Place) -> Result<(), Fault> {
        self.enter(&place.folder)?;
        let (_, parent) = self.last.take().expect("it was just entered");
        let name = CString::new(&place.name[..]).expect("names have no zero bytes");
        tree::remove(parent.as_fd(), &name).map_err(Fault::io("remove what had its name"))
    }

    fn folder(&mut self, place: &Place, entry: &Entry) -> Result<(), Fault> {
        self.enter(&place.folder)?;
        let (_, parent) = self.last.as_ref().expect("it was just entered");
        let found = look(parent, &place.name)?;
        let was_whiteout = found.as_ref().is_some_and(is_whiteout);
        match found {
            Some(stat) if is(&stat, FileType::Directory) => {}
            Some(_) => {
                self.clear(place)?;
                self.enter(&place.folder)?;
            }
            None => {}
        }
        let (_, parent) = self.last.as_ref().expect("it was just entered");
        match mkdirat(parent, &place.name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Fault::io("make the folder")(errno)),
        }
        let flags = FOLDER | OFlags::NOFOLLOW;
        let folder = openat(parent, &place.name, flags, Mode::empty())
            .map_err(Fault::io("open the folder"))?;
        if was_whiteout {
            // What the whiteout hid stays hidden.
            self.make_opaque(&folder)?;
        }
        self.describe(&folder, entry, FileType::Directory)?;
        let path = place.path();
        self.remember(path.clone(), entry.modified)?;
        self.last = Some((path, folder));
        Ok(())
    }

    fn remember(&mut self, path: Vec<u8>, time: Time) -> Result<(), Fault> {
        self.folder_bytes += path.len() as u64;
        if self.folder_bytes > self.limits.folders {
            return Err(Refusal::Folders(self.limits.folders).into());
        }
        self.folders.push(Modified { path, time });
        Ok(())
    }

    fn file(&mut self, place: &Place, entry: &Entry, data: &mut impl Read) -> Result<(), Fault> {
        self.file_bytes = self.file_bytes.saturating_add(entry.size);
        if self.file_bytes > self.limits.bytes {
            return Err(Refusal::Bytes(self.limits.bytes).into());
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.make(place, "make the file", |parent, name| {
            openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let file = File::from(file);
        match &entry.sparse {
            None => {
                let all = Chunk {
                    offset: 0,
                    len: entry.size,
                };
                self.copy(&file, all, data)?;
            }
            Some(chunks) => {
                for chunk in chunks {
                    self.copy(&file, *chunk, data)?;
                }
                ftruncate(&file, entry.size).map_err(Fault::io("size the file"))?;
            }
        }
        self.describe(&file, entry, FileType::RegularFile)?;
        futimens(&file, &times(entry.modified)).map_err(Fault::io("set its time"))
    }

    fn copy(&mut self, file: &File, chunk: Chunk, data: &mut impl Read) -> Result<(), Fault> {
        let (mut at, end) = (chunk.offset, chunk.offset + chunk.len);
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(usize::MAX);
            let most = most.min(self.buffer.len());
            let read = match data.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(Fault::Cut),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Fault::Cut);
                }
                Err(error) => return Err(Fault::Read(error)),
            };
            file.write_all_at(&self.buffer[..read], at)
                .map_err(|error| Fault::Io("write the file", error))?;
            at += read as u64;
        }
        Ok(())
    }

    fn hard_link(&mut self, place: &Place, to: &Place) -> Result<(), Fault> {
        let missing = || Refusal::Target(shown(&to.path()));
        let folder = match beneath(&self.root, &to.folder) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing().into()),
            folder => folder.map_err(way_fault)?,
        };
        match look(&folder, &to.name)? {
            Some(stat) if !is(&stat, FileType::Directory) => {}
            _ => return Err(missing().into()),
        }
        let made = self.make(place, "make the hard link", |parent, name| {
            linkat(&folder, &to.name, parent, name, AtFlags::empty())
        });
        match made {
            // It was below what had to go.
            Err(Fault::Io(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(missing().into())
            }
            made => made,
        }
    }

    fn whiteout(&mut self, place: &Place) -> Result<(), Fault> {
        self.enter(&place.folder)?;
        let (_, parent) = self.last.as_ref().expect("it was just entered");
        match look(parent, &place.name)? {
            None => mknodat(
                parent,
                &place.name,
                FileType::CharacterDevice,
                Mode::empty(),
                makedev(0, 0),
            )
            .map_err(|errno| {
                let fault = Fault::io("make a whiteout")(errno);
                forbidden(fault, Refusal::WhiteoutDevice)
            }),
            // OCI: whiteouts are about lower layers only. This layer's folder stays, and hides theirs.
            Some(stat) if is(&stat, FileType::Directory) => {
                let flags = FOLDER | OFlags::NOFOLLOW;
                let folder = openat(parent, &place.name, flags, Mode::empty())
                    .map_err(Fault::io("open the folder"))?;
                self.make_opaque(&folder)
            }
            Some(_) => Ok(()),
        }
    }

    fn make_opaque(&self, folder: &OwnedFd) -> Result<(), Fault> {
        fsetxattr(folder, self.opaque, b"y", XattrFlags::empty())
            .map_err(Fault::io("hide what lower layers have there"))
    }

    /// Owner, permissions and attributes of what is open, in this order: a change of the owner takes
    /// away set-id bits and capabilities.
    fn describe(&self, what: &impl AsFd, entry: &Entry, kind: FileType) -> Result<(), Fault> {
        let owner = owner(entry)?;
        if self.owners == Owners::Any {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            fchown(what, Some(uid), Some(gid)).map_err(|errno| owner_fault(errno, owner))?;
        }
        let mut mode = mode(entry);
        if kind == FileType::Directory && !rustix::process::geteuid().is_root() {
            // Else the entries in it could not be made, nor removed later.
            mode |= Mode::RWXU;
        }
        fchmod(what, mode).map_err(Fault::io("set its permissions"))?;
        for (name, value) in &entry.attributes {
            match fsetxattr(what, name, value, XattrFlags::empty()) {
                // As Docker: what the file system does not have, it does not have.
                Ok(()) | Err(Errno::NOTSUP) => {}
                Err(Errno::PERM) if self.owners == Owners::Own => {}
                Err(errno) => return Err(Fault::io("set an attribute")(errno)),
            }
        }
        Ok(())
    }

    /// The same of what cannot be opened without effects. Links have no permissions of their own.
    fn describe_by_name(
        &self,
        place: &Place,
        entry: &Entry,
        mode: Option<Mode>,
    ) -> Result<(), Fault> {
        let (_, parent) = self.last.as_ref().expect("it was made there");
        let (name, nofollow) = (&place.name, AtFlags::SYMLINK_NOFOLLOW);
        let owner = owner(entry)?;
        if self.owners == Owners::Any {
            let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
            chownat(parent, name, Some(uid), Some(gid), nofollow)
                .map_err(|errno| owner_fault(errno, owner))?;
        }
        if let Some(mode) = mode {
            // Follows links, but this is none.
            chmodat(parent, name, mode, AtFlags::empty())
                .map_err(Fault::io("set its permissions"))?;
        }
        utimensat(parent, name, &times(entry.modified), nofollow).map_err(Fault::io("set its time"))
    }
}

/// The name of the attribute that makes a folder opaque to overlay mounts of this process: in a user
/// namespace nobody may set the kernel's own, and mounts have to say `userxattr`.
#[must_use]
pub fn opaque_attribute() -> &'static str {
    if is_initial_user_namespace() {
        "trusted.overlay.opaque"
    } else {
        "user.overlay.opaque"
    }
}

fn is_initial_user_namespace() -> bool {
    // Everybody is mapped to himself: 0 0 4294967295. Without /proc nothing is known, and the
    // ordinary case is assumed.
    std::fs::read_to_string("/proc/self/uid_map").map_or(true, |map| {
        map.split_whitespace().eq(["0", "0", "4294967295"])
    }) && rustix::process::geteuid().is_root()
}

/// Nobody else's files can be made by an ordinary user, and none in a user namespace that has one
/// user only.
fn owners() -> Owners {
    if !rustix::process::geteuid().is_root() {
        return Owners::Own;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut ids = map.split_whitespace().skip(2).step_by(3);
    match (ids.next(), ids.next()) {
        (Some("1"), None) => Owners::Own,
        _ => Owners::Any,
    }
}

/// Opens a folder below `root` by its path there.
fn beneath(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { &b"."[..] } else { path };
    let mut result = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        result = openat2(root, path, FOLDER, Mode::empty(), BENEATH);
        if !matches!(result, Err(Errno::AGAIN)) {
            break;
        }
    }
    result
}

fn reopen(folder: &OwnedFd) -> Result<OwnedFd, Fault> {
    folder
        .try_clone()
        .map_err(|error| Fault::Io("use the layer's folder", error))
}

/// What has this name, if anything.
fn look(parent: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, Fault> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Fault::io("look what has its name")(errno)),
    }
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// linux/Documentation/filesystems/overlayfs.rst: "whiteouts and opaque directories".
fn is_whiteout(stat: &Stat) -> bool {
    is(stat, FileType::CharacterDevice) && stat.st_rdev == makedev(0, 0)
}

/// openat2(2): `EXDEV` is the way out, `ELOOP` a link of `/proc` or one that leads to itself.
fn way_fault(errno: Errno) -> Fault {
    match errno {
        Errno::XDEV | Errno::LOOP => Refusal::Link.into(),
        errno => Fault::io("open its folder")(errno),
    }
}

fn owner_fault(errno: Errno, Owner { uid, gid }: Owner) -> Fault {
    match errno {
        // chown(2): no such id in the user namespace.
        Errno::INVAL => Refusal::Owner { uid, gid }.into(),
        errno => Fault::io("set its owner")(errno),
    }
}

/// What lacks a privilege is a refusal of its own.
fn forbidden(fault: Fault, refusal: Refusal) -> Fault {
    match fault {
        Fault::Io(_, error) if error.kind() == io::ErrorKind::PermissionDenied => refusal.into(),
        fault => fault,
    }
}

fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

fn times(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
