//! New namespaces for the calling process: how a lab makes a machine out of a process.
//!
//! The usual order, for a node whose init is this same executable:
//! 1. a helper process calls [`unshare`] with everything (and `user` when it is not root);
//! 2. it spawns init with `std::process::Command`: its first child is process 1 of the new PID
//!    namespace;
//! 3. init calls [`make_mounts_private`] and [`mount_proc`], sets up links, spawns what the node runs,
//!    and loops over [`wait_any`];
//! 4. later commands enter with [`enter_process`] and spawn.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount, mount_bind, mount_bind_recursive, mount_change,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use crate::process::Exit;

/// Which kinds of namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// User: lets an ordinary user be root inside the others.
    pub user: bool,
    /// Network.
    pub net: bool,
    /// Mount.
    pub mount: bool,
    /// Process ids, for children of the caller.
    pub pid: bool,
    /// Host name.
    pub uts: bool,
    /// Message queues and shared memory of System V and POSIX.
    pub ipc: bool,
    /// The calling process's control group looks like the root of the tree.
    pub cgroup: bool,
}

impl Kinds {
    /// What makes a machine: all but `user`, `ipc` and `cgroup`.
    #[must_use]
    pub fn machine() -> Self {
        Self {
            user: false,
            net: true,
            mount: true,
            pid: true,
            uts: true,
            ipc: false,
            cgroup: false,
        }
    }
}

/// Moves the calling process into new namespaces. With `user`, the caller becomes root (uid and gid
/// 0) inside, mapped to what it was outside, and needs no privilege for the others.
///
/// # Errors
/// When the process has several threads; `EPERM` without privilege, or where user namespaces are
/// switched off.
pub fn unshare(kinds: Kinds) -> io::Result<()> {
    single_threaded("unshare namespaces")?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWUSER, kinds.user);
    flags.set(UnshareFlags::NEWNET, kinds.net);
    flags.set(UnshareFlags::NEWNS, kinds.mount);
    flags.set(UnshareFlags::NEWPID, kinds.pid);
    flags.set(UnshareFlags::NEWUTS, kinds.uts);
    flags.set(UnshareFlags::NEWIPC, kinds.ipc);
    flags.set(UnshareFlags::NEWCGROUP, kinds.cgroup);
    // SAFETY: no descriptor table is unshared, and there is no other thread to be surprised.
    unsafe { rustix::thread::unshare_unsafe(flags)? };
    if kinds.user {
        // user_namespaces(7): without privilege outside, groups must be denied before gid_map.
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
        std::fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))?;
    }
    Ok(())
}

/// Moves the calling process into namespaces of process `pid`. The PID namespace holds for its next
/// children only; the caller is not seen in the `/proc` that it enters, so whatever needs `/proc/self`
/// (such as `std::env::current_exe`) comes before.
///
/// # Errors
/// When the process has several threads, `pid` does not run, or privilege is lacking.
pub fn enter_process(pid: u32, kinds: Kinds) -> io::Result<()> {
    let target = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("no process {pid}")))?;
    let pidfd = pidfd_open(target, PidfdFlags::empty())
        .map_err(|error| io::Error::new(error.kind(), format!("process {pid}: {error}")))?;
    enter(&pidfd, kinds)
}

/// The same by the descriptor of a process: a number may be somebody else's by now.
///
/// # Errors
/// When the process has several threads, the other one has ended, or privilege is lacking.
pub fn enter(process: &impl AsFd, kinds: Kinds) -> io::Result<()> {
    single_threaded("enter namespaces")?;
    let mut flags = ThreadNameSpaceType::empty();
    flags.set(ThreadNameSpaceType::USER, kinds.user);
    flags.set(ThreadNameSpaceType::NETWORK, kinds.net);
    flags.set(ThreadNameSpaceType::MOUNT, kinds.mount);
    flags.set(ThreadNameSpaceType::PROCESS_ID, kinds.pid);
    flags.set(
        ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
        kinds.uts,
    );
    flags.set(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, kinds.ipc);
    flags.set(ThreadNameSpaceType::CONTROL_GROUP, kinds.cgroup);
    move_into_thread_name_spaces(process.as_fd(), flags)?;
    Ok(())
}

/// Keeps every mount made from now on inside this mount namespace.
///
/// # Errors
/// `EPERM`.
pub fn make_mounts_private() -> io::Result<()> {
    Ok(mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?)
}

/// Mounts a fresh `/proc` that shows the PID namespace of the caller.
///
/// # Errors
/// `EPERM`, also where a container runtime hides parts of `/proc` from a user namespace.
pub fn mount_proc() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("proc", "/proc", "proc", flags, None)?)
}

/// Mounts a fresh `/sys` that shows the network namespace of the caller.
///
/// # Errors
/// `EPERM`.
pub fn mount_sys() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("sysfs", "/sys", "sysfs", flags, None)?)
}

/// Mounts an empty memory file system.
///
/// # Errors
/// `ENOENT` when the folder does not exist, `EPERM`.
pub fn mount_tmpfs(target: &Path) -> io::Result<()> {
    Ok(mount(
        "tmpfs",
        target,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        None,
    )?)
}

/// An empty memory file system of so many bytes that is mounted nowhere: it is reached by
/// `/proc/self/fd/N` alone, and goes with the descriptor. A disk that can be full without harm.
///
/// # Errors
/// `EPERM`.
pub fn unmounted_tmpfs(size_bytes: u64) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "size", size_bytes.to_string())?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Shows a file or folder at another place, which must exist and be of the same sort. With
/// `recursive`, mounts below the folder are shown too (a user namespace must take them along).
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `EPERM`.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> io::Result<()> {
    if recursive {
        mount_bind_recursive(source, target)?;
    } else {
        mount_bind(source, target)?;
    }
    Ok(())
}

/// Sets the host name of this UTS namespace, at most 64 bytes.
///
/// # Errors
/// `EINVAL` when it is too long, `EPERM`.
pub fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe live bytes, which the kernel copies.
    let result = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Has the kernel send `signal` to this process when the thread that spawned it ends. When that
/// happened before the call, it is too late: compare `getppid` afterwards.
///
/// # Errors
/// Not seen in practice.
pub fn set_parent_death_signal(signal: Signal) -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(
        signal,
    ))?)
}

/// Waits for the end of any child, as process 1 must; `None` when there is none.
///
/// # Errors
/// Not seen in practice.
pub fn wait_any() -> io::Result<Option<(u32, Exit)>> {
    loop {
        // The status of `waitid` does not tell the id: look first, reap by id then.
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // None when another thread was faster.
        if let Some(end) = reap()? {
            return Ok(Some(end));
        }
    }
}

/// The end of any child that has ended already; `None` when there is none.
///
/// # Errors
/// Not seen in practice.
pub fn reap() -> io::Result<Option<(u32, Exit)>> {
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                let exit = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Unknown,
                };
                return Ok(Some((pid.as_raw_nonzero().get().unsigned_abs(), exit)));
            }
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) fn single_threaded(action: &str) -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "cannot {action}: this process has {threads} threads, and the kernel moves single-threaded \
         processes only; do it before threads are started"
    )))
}
