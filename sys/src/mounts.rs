//! What a mount namespace shows. Everything acts in the namespace of the calling thread.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};

/// Attributes of mounts (mount_setattr(2)), to be joined with `|`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    /// `MOUNT_ATTR_RDONLY`
    pub const READ_ONLY: Self = Self(1);
    /// `MOUNT_ATTR_NODEV`: devices of that file system cannot be opened.
    pub const NO_DEVICES: Self = Self(4);
}

/// Which mounts an attribute is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The one at the path.
    One,
    /// … and all below it.
    All,
}

/// Mounts of the parent namespace go on to appear here and to vanish here; none made here appears
/// anywhere else.
///
/// # Errors
/// `EPERM`.
pub fn follow_parent() -> io::Result<()> {
    let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change(c"/", downstream)?)
}

/// Sets attributes of the mount at `path`, which has to be one.
///
/// # Errors
/// `EINVAL` when it is none, `EPERM`.
pub fn set(path: &Path, attributes: Attributes, reach: Reach) -> io::Result<()> {
    set_attributes(path, attributes.0, 0, reach)
}

/// Takes attributes of the mount at `path` away.
///
/// # Errors
/// `EINVAL` when it is none; `EPERM`, also where a user namespace inherited the attribute.
pub fn clear(path: &Path, attributes: Attributes, reach: Reach) -> io::Result<()> {
    set_attributes(path, 0, attributes.0, reach)
}

fn set_attributes(path: &Path, set: u64, clear: u64, reach: Reach) -> io::Result<()> {
    /// `struct mount_attr` of linux/mount.h.
    #[repr(C)]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = MountAttr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = match reach {
        Reach::One => 0,
        Reach::All => libc::AT_RECURSIVE,
    };
    // SAFETY: path and structure live for the call, the size is the structure's own, and the kernel
    // only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Mounts a new file system of a kind that has no device (`tmpfs`, `devpts`, `sysfs`, `cgroup2`),
/// with its options as mount(8) has them after `-o`. Set-user-id bits count for nothing there.
///
/// # Errors
/// `ENOENT` when the folder does not exist, `EPERM`, `ENODEV` where the kernel has none.
pub fn mount_new(kind: &str, target: &Path, flags: NewFlags, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    let all = flags.of_mount();
    Ok(mount(kind, target, kind, all, Some(options.as_c_str()))?)
}

/// Changes what the file system at `path` is good for, wherever else it is seen (`MS_REMOUNT`). Of its
/// other options those that `options` does not say stay, but for what its driver wants said again.
///
/// # Errors
/// `EBUSY` when nothing is to be written any more and a file of it is open for that; `EINVAL` when
/// nothing is mounted at `path`, or of an option; `EPERM`.
pub fn remount(path: &Path, flags: NewFlags, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    Ok(mount_remount(path, flags.of_mount(), options.as_c_str())?)
}

/// Takes the mount at `path` away, and with it what is mounted below; programs that use it go on.
///
/// # Errors
/// `EINVAL` when it is none, `EPERM`.
pub fn take_away(path: &Path) -> io::Result<()> {
    Ok(unmount(path, UnmountFlags::DETACH)?)
}

/// What a new file system is good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewFlags {
    /// Its devices can be opened.
    pub devices: bool,
    /// Its files can be executed.
    pub programs: bool,
    /// Nothing can be written.
    pub read_only: bool,
}

impl NewFlags {
    fn of_mount(self) -> MountFlags {
        let mut all = MountFlags::NOSUID;
        all.set(MountFlags::NODEV, !self.devices);
        all.set(MountFlags::NOEXEC, !self.programs);
        all.set(MountFlags::RDONLY, self.read_only);
        all
    }
}
