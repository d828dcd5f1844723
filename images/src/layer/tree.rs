//! Removal of a tree that a stranger made: of any depth, with one descriptor more than its own folder's.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, fchmod, openat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;

/// A folder itself, not what a link of its name leads to.
const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes the file, link or whole folder `name` in `parent`; none is success.
///
/// # Errors
/// The disk's. A part of it may be gone.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        stat => stat?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return unlinkat(parent, name, AtFlags::empty());
    }
    let folder = open(parent, name)?;
    flatten(folder.as_fd())?;
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// The same of a path of our own.
///
/// # Errors
/// See [`remove`].
pub(crate) fn remove_path(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    Ok(remove(CWD, &path)?)
}

/// Empties a folder. Folders two levels below are moved up to the first one, so that nothing is ever
/// deeper than that, however deep it was.
fn flatten(top: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut unused = 0_u64;
    loop {
        let names = entries(top)?;
        if names.is_empty() {
            return Ok(());
        }
        for (name, is_folder) in names {
            if !is_folder {
                unlinkat(top, &*name, AtFlags::empty())?;
                continue;
            }
            let folder = open(top, &name)?;
            for (inner, is_folder) in entries(folder.as_fd())? {
                if is_folder {
                    move_up(folder.as_fd(), &inner, top, &mut unused)?;
                } else {
                    unlinkat(&folder, &*inner, AtFlags::empty())?;
                }
            }
            unlinkat(top, &*name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Gives a folder a name in `top` that nothing has there.
fn move_up(
    from: BorrowedFd<'_>,
    name: &CStr,
    top: BorrowedFd<'_>,
    unused: &mut u64,
) -> rustix::io::Result<()> {
    loop {
        let new = format!("removed-{unused}");
        *unused += 1;
        match renameat_with(from, name, top, new, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
}

/// Opens a folder with all rights of its owner, whatever the archive said.
fn open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let folder = match openat(parent, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // Not root, and a folder that its owner may not read: it is no link, as nobody else
            // writes here.
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            openat(parent, name, FOLDER, Mode::empty())
        }
        folder => folder,
    }?;
    fchmod(&folder, Mode::RWXU)?;
    Ok(folder)
}

/// Names in a folder, and whether each is a folder.
fn entries(folder: BorrowedFd<'_>) -> rustix::io::Result<Vec<(CString, bool)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            kind => kind,
        };
        names.push((name.to_owned(), kind == FileType::Directory));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().join("top");
        std::fs::create_dir(&top).expect("made");
        let mut here = openat(CWD, &top, FOLDER, Mode::empty()).expect("opened");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "removed-0", Mode::RWXU).expect("made");
            rustix::fs::symlinkat("/etc/passwd", &here, "link").expect("made");
            here = openat(&here, "removed-0", FOLDER, Mode::empty()).expect("opened");
        }
        remove_path(&top).expect("removed");
        assert!(!top.exists());
        remove_path(&top).expect("nothing there");
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn links_are_removed_and_not_what_they_lead_to() {
        let dir = tempfile::tempdir().expect("a folder");
        let precious = dir.path().join("precious");
        std::fs::create_dir(&precious).expect("made");
        std::fs::write(precious.join("file"), "x").expect("written");
        let top = dir.path().join("top");
        std::fs::create_dir_all(top.join("a/b/c")).expect("made");
        symlink(&precious, top.join("link")).expect("made");
        symlink(&precious, top.join("a/b/link")).expect("made");
        let closed = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(top.join("a/b"), closed).expect("closed");
        remove_path(&top).expect("removed");
        assert!(!top.exists());
        let link = dir.path().join("link");
        symlink(&precious, &link).expect("made");
        remove_path(&link).expect("removed");
        assert_eq!(std::fs::read(precious.join("file")).expect("there"), b"x");
    }
}
