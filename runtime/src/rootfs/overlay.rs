//! Mounts an overlay of any number of layers.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

const OVERLAY: &str = "overlay";
/// fsconfig(2): of one string, with its end.
const MAX_STRING: usize = 256;
/// overlayfs: marks of folders are `user.overlay.…`, as in a user namespace nobody may set others.
const USER_MARKS: &str = "userxattr";
/// mount(2): one page of options, with its end.
const MAX_OPTIONS: usize = 4096;

/// Names of folders as the kernel is told them: as they are, or by a descriptor that is open. Those
/// are short, and hold none of what separates options.
struct Names {
    names: Vec<PathBuf>,
    _open: Vec<OwnedFd>,
}

impl Names {
    fn plain(folders: &[&Path]) -> Self {
        Self {
            names: folders.iter().map(|folder| (*folder).to_owned()).collect(),
            _open: Vec::new(),
        }
    }

    fn short(folders: &[&Path]) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |folder: &&Path| openat(CWD, *folder, flags, Mode::empty());
        let open: Vec<OwnedFd> = folders.iter().map(open).collect::<Result<_, _>>()?;
        let name = |fd: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        Ok(Self {
            names: open.iter().map(name).collect(),
            _open: open,
        })
    }
}

/// Mounts `layers` (bottom first) and `upper` at `target`; `user_marks` where layers were unpacked by
/// who is not root of the machine.
///
/// # Errors
/// The kernel's; see [`is_refused`].
pub(super) fn mount(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    user_marks: bool,
) -> io::Result<()> {
    // As the kernel wants them: top first.
    let mut folders: Vec<&Path> = layers.iter().rev().map(PathBuf::as_path).collect();
    folders.extend([upper, work]);
    let is_plain = |folder: &&Path| {
        let bytes = folder.as_os_str().as_bytes();
        bytes.len() < MAX_STRING && !bytes.iter().any(|byte| b":,\\".contains(byte))
    };
    let names = if folders.iter().all(is_plain) {
        Names::plain(&folders)
    } else {
        Names::short(&folders)?
    };
    match one_by_one(&names.names, target, user_marks) {
        // Linux before 6.7 knows no `lowerdir+`, before 5.2 none of these calls.
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => {}
        other => return Ok(other?),
    }
    let options = options(&names.names, user_marks);
    if options.len() < MAX_OPTIONS {
        return at_once(options, target);
    }
    let names = Names::short(&folders)?;
    at_once(self::options(&names.names, user_marks), target)
}

/// Whether an error says that there can be no overlay there, whatever is tried again.
pub(super) fn is_refused(error: &io::Error) -> bool {
    let refusals = [
        Errno::INVAL,
        Errno::PERM,
        Errno::NODEV,
        Errno::NOSYS,
        Errno::OPNOTSUPP,
    ];
    let errno = error.raw_os_error();
    refusals
        .iter()
        .any(|known| Some(known.raw_os_error()) == errno)
}

/// By fsconfig(2): nothing limits how many.
fn one_by_one(names: &[PathBuf], target: &Path, user_marks: bool) -> Result<(), Errno> {
    let (work, rest) = names.split_last().ok_or(Errno::INVAL)?;
    let (upper, layers) = rest.split_last().ok_or(Errno::INVAL)?;
    let context = fsopen(OVERLAY, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", OVERLAY)?;
    for layer in layers {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    if user_marks {
        fsconfig_set_flag(&context, USER_MARKS)?;
    }
    fsconfig_create(&context)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mounted = fsmount(&context, flags, MountAttrFlags::empty())?;
    let from_it = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mounted, "", CWD, target, from_it)
}

fn options(names: &[PathBuf], user_marks: bool) -> Vec<u8> {
    let mut options = b"lowerdir=".to_vec();
    let last = names.len().saturating_sub(2);
    for (at, name) in names.iter().enumerate() {
        let before: &[u8] = match at {
            0 => b"",
            at if at < last => b":",
            at if at == last => b",upperdir=",
            _ => b",workdir=",
        };
        options.extend_from_slice(before);
        options.extend_from_slice(name.as_os_str().as_bytes());
    }
    if user_marks {
        options.push(b',');
        options.extend_from_slice(USER_MARKS.as_bytes());
    }
    options
}

/// By mount(2).
fn at_once(options: Vec<u8>, target: &Path) -> io::Result<()> {
    if options.len() >= MAX_OPTIONS {
        return Err(io::Error::other("it has too many layers for this kernel"));
    }
    let options = CString::new(options)?;
    let flags = MountFlags::empty();
    Ok(rustix::mount::mount(
        OVERLAY,
        target,
        OVERLAY,
        flags,
        Some(options.as_c_str()),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_kernel() {
        let names = ["/l/top", "/l/bottom", "/t/upper", "/t/work"].map(PathBuf::from);
        let expected = "lowerdir=/l/top:/l/bottom,upperdir=/t/upper,workdir=/t/work";
        assert_eq!(options(&names, false), expected.as_bytes());
        let one = ["/l", "/u", "/w"].map(PathBuf::from);
        let expected = b"lowerdir=/l,upperdir=/u,workdir=/w,userxattr";
        assert_eq!(options(&one, true), expected);
    }

    /// Both ways show the same: whoever has an older kernel gets the second one.
    #[test]
    fn layers_are_shown_by_either_call_with_any_names() {
        let dir = tempfile::tempdir().expect("dir");
        let odd = dir.path().join("a:b,c\\d");
        let folders = ["top", "bottom", "upper", "work", "at"].map(|name| odd.join(name));
        for folder in &folders {
            std::fs::create_dir_all(folder).expect("made");
        }
        let [top, bottom, upper, work, at] = &folders;
        std::fs::write(bottom.join("both"), "bottom").expect("written");
        std::fs::write(bottom.join("below"), "").expect("written");
        std::fs::write(top.join("both"), "top").expect("written");
        let paths: Vec<&Path> = [top, bottom, upper, work].map(PathBuf::as_path).to_vec();
        let short = Names::short(&paths).expect("opened");
        let seen = || {
            let both = std::fs::read_to_string(at.join("both")).expect("read");
            let below = at.join("below").exists();
            rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
            (both, below)
        };
        at_once(options(&short.names, false), at).expect("mounted");
        assert_eq!(seen(), ("top".to_owned(), true));
        mount(&[bottom.clone(), top.clone()], upper, work, at, false).expect("mounted");
        assert_eq!(seen(), ("top".to_owned(), true));
    }
}
