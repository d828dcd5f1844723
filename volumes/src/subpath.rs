//! Folders inside volumes. Tasks that use the volume may exchange any part of its path at any time, so
//! what was looked up is bound by its descriptor, at a place where nobody can exchange it.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;
use rustix::mount::mount_bind;

use crate::error::VolumeError;
use crate::folder::{Folder, User, new_folder};
use crate::mounted;

/// Attempts where the kernel says that something moved meanwhile.
const ATTEMPTS: usize = 16;

/// Opens a path inside a folder: links are followed as if the folder were the root of everything, and
/// no step leads out of it.
pub(crate) fn open_in_root(root: &Path, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, folder, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut last = Errno::AGAIN;
    for _ in 0..ATTEMPTS {
        match openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => last = Errno::AGAIN,
            other => return other,
        }
    }
    Err(last)
}

/// True for a path that stays where it is by its words alone.
fn is_inside(subpath: &Path) -> bool {
    let mut parts = subpath.components();
    subpath.is_relative()
        && parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// The name of a place for one user: no other one has it.
fn place_name(user: &User) -> String {
    let target = user.target.as_bytes().iter();
    let target: String = target.map(|byte| format!("{byte:02x}")).collect();
    let mut name = format!("{}-{target}", user.task.as_str());
    // A file system takes 255; what is cut off is told apart by the sum of all.
    if name.len() > 200 {
        let sum = user
            .target
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        name.truncate(180);
        name.push_str(&format!("-{sum:016x}"));
    }
    name
}

/// Mounts a folder or file of a volume for one user, and says where.
pub(crate) fn mount_for(
    folder: &Folder,
    name: &str,
    user: &User,
    subpath: &str,
) -> Result<PathBuf, VolumeError> {
    let refused = |why: String| VolumeError::Subpath {
        name: name.to_owned(),
        subpath: subpath.to_owned(),
        why,
    };
    if !is_inside(Path::new(subpath)) {
        return Err(refused(
            "must be a relative path inside the volume, without \"..\"".to_owned(),
        ));
    }
    let opened = open_in_root(&folder.data(), Path::new(subpath), OFlags::PATH);
    let opened = opened.map_err(|errno| match errno {
        Errno::NOENT => refused("it is not there; make it in the volume first".to_owned()),
        other => refused(io::Error::from(other).to_string()),
    })?;
    let io = |error: io::Error| refused(error.to_string());
    let place = folder.subpaths().join(place_name(user));
    mounted::take_away_below(&place).map_err(io)?;
    if !folder.subpaths().exists() {
        new_folder(&folder.subpaths(), 0o700)?;
    }
    let kind = FileType::from_raw_mode(fstat(&opened).map_err(|e| io(e.into()))?.st_mode);
    let is_folder = kind == FileType::Directory;
    match std::fs::symlink_metadata(&place) {
        Ok(there) if there.is_dir() == is_folder => {}
        Ok(_) => remove_place(&place).map_err(io)?,
        Err(_) => {}
    }
    if !place.exists() {
        if is_folder {
            new_folder(&place, 0o700)?;
        } else {
            std::fs::write(&place, "").map_err(io)?;
        }
    }
    let source = format!("/proc/self/fd/{}", opened.as_raw_fd());
    mount_bind(source, &place).map_err(|errno| io(errno.into()))?;
    Ok(place)
}

/// Takes away what was mounted for one user; nothing is success.
pub(crate) fn unmount_for(folder: &Folder, user: &User) -> io::Result<()> {
    let place = folder.subpaths().join(place_name(user));
    if std::fs::symlink_metadata(&place).is_err() {
        return Ok(());
    }
    mounted::take_away_below(&place)?;
    remove_place(&place)
}

fn remove_place(place: &Path) -> io::Result<()> {
    let there = std::fs::symlink_metadata(place)?;
    if there.is_dir() {
        // Only an empty one: what is in it would be a volume's.
        std::fs::remove_dir(place)
    } else {
        std::fs::remove_file(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::id::TaskId;

    #[test]
    fn only_what_is_inside_is_a_subpath() {
        for inside in ["a", "a/b", "./a", ""] {
            assert!(is_inside(Path::new(inside)), "{inside}");
        }
        for outside in ["/a", "..", "a/../b", "a/../../etc"] {
            assert!(!is_inside(Path::new(outside)), "{outside}");
        }
    }

    #[test]
    fn places_of_users_differ() {
        let user = |target: &str| User {
            task: TaskId::from("t1"),
            target: target.to_owned(),
            own: false,
        };
        let long = "x".repeat(4000);
        let (one, other) = (format!("/{long}a"), format!("/{long}b"));
        let names = ["/a/b", "/a_b", one.as_str(), other.as_str()].map(|t| place_name(&user(t)));
        let set: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(set.len(), 4);
        assert!(names.iter().all(|name| name.len() < 255));
    }

    #[test]
    fn links_lead_nowhere_else() {
        let dir = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).expect("a link");
        std::os::unix::fs::symlink("../../../../etc", dir.path().join("up")).expect("a link");
        for link in ["out/passwd", "up/passwd", "../../etc/passwd"] {
            let opened = open_in_root(dir.path(), Path::new(link), OFlags::PATH);
            assert_eq!(opened.err(), Some(Errno::NOENT), "{link}");
        }
        std::fs::create_dir(dir.path().join("etc")).expect("made");
        std::fs::write(dir.path().join("etc/passwd"), "own").expect("written");
        let opened = open_in_root(dir.path(), Path::new("out/passwd"), OFlags::RDONLY);
        let mut file = std::fs::File::from(opened.expect("inside"));
        let text = io::read_to_string(&mut file).expect("read");
        assert_eq!(text, "own");
    }
}
