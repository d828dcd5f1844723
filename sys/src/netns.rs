//! Network namespaces as owned descriptors.
//!
//! `setns(2)` moves one thread for good, so nothing here ever moves the caller: work inside a
//! namespace runs on a fresh thread that ends with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Why a namespace could not be made, opened or removed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// Config: nothing is at that path.
    #[error(
        "network namespace {path} does not exist: list them with `ip netns list`, or give a process id"
    )]
    NotFound {
        /// As given.
        path: PathBuf,
    },
    /// Config: no process with that id runs.
    #[error("no process {pid} to take the network namespace of")]
    NoProcess {
        /// As given.
        pid: u32,
    },
    /// Config: the file is something else.
    #[error(
        "{path} is not a network namespace: give a path such as /run/netns/NAME or /proc/PID/ns/net"
    )]
    NotANamespace {
        /// As given.
        path: PathBuf,
    },
    /// Config: there is a file already.
    #[error(
        "cannot create network namespace {path}: it exists; remove it with `ip netns del` or choose another name"
    )]
    Exists {
        /// As given.
        path: PathBuf,
    },
    /// Local: the kernel refused.
    #[error("cannot {action} network namespace {path}: {source}{}", privilege_hint(.source))]
    Kernel {
        /// `open`, `create` or `remove`.
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn privilege_hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied {
        "; run as root, or inside a user namespace (`unshare -Urmn`)"
    } else {
        ""
    }
}

/// A network namespace, kept alive by this value.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
    path: Option<PathBuf>,
}

impl Netns {
    /// Opens the namespace bound at `path` (`/run/netns/NAME`, `/proc/PID/ns/net`).
    ///
    /// # Errors
    /// [`NetnsError::NotFound`], [`NetnsError::NotANamespace`], [`NetnsError::Kernel`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetnsError> {
        let path = path.as_ref();
        // NONBLOCK: a path of a user may name a FIFO, whose opening would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let fd = opened
            .map_err(io::Error::from)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => NetnsError::NotFound {
                    path: path.to_owned(),
                },
                _ => NetnsError::Kernel {
                    action: "open",
                    path: path.to_owned(),
                    source,
                },
            })?;
        if !is_network_namespace(&fd) {
            return Err(NetnsError::NotANamespace {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            fd,
            path: Some(path.to_owned()),
        })
    }

    /// Opens the namespace that process `pid` is in.
    ///
    /// # Errors
    /// [`NetnsError::NoProcess`], [`NetnsError::Kernel`].
    pub fn of_pid(pid: u32) -> Result<Self, NetnsError> {
        Self::open(format!("/proc/{pid}/ns/net")).map_err(|error| match error {
            NetnsError::NotFound { .. } => NetnsError::NoProcess { pid },
            other => other,
        })
    }

    /// The namespace that a descriptor of the kernel's names.
    pub(crate) fn from_descriptor(fd: OwnedFd) -> Self {
        Self { fd, path: None }
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// [`NetnsError::Kernel`] when `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        let mut netns = Self::open("/proc/thread-self/ns/net")?;
        netns.path = None;
        Ok(netns)
    }

    /// A new namespace without a name; it ends with the last descriptor or process in it.
    ///
    /// # Errors
    /// [`NetnsError::Kernel`], usually for lack of privilege.
    pub fn create_anonymous() -> Result<Self, NetnsError> {
        on_fresh_thread(|| {
            unshare_network()?;
            Self::current().map_err(io::Error::other)
        })
        .map_err(|source| NetnsError::Kernel {
            action: "create",
            path: PathBuf::from("(anonymous)"),
            source,
        })
    }

    /// A new namespace bound at `path`, as `ip netns add` does it; missing parent folders are made.
    /// Names under `/run/netns` are seen by `ip netns`.
    ///
    /// # Errors
    /// [`NetnsError::Exists`], [`NetnsError::Kernel`]; no file is left behind.
    pub fn create_at(path: impl AsRef<Path>) -> Result<Self, NetnsError> {
        let path = path.as_ref();
        let failed = |source| NetnsError::Kernel {
            action: "create",
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        File::create_new(path).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => NetnsError::Exists {
                path: path.to_owned(),
            },
            _ => failed(source),
        })?;
        let made = on_fresh_thread(|| {
            unshare_network()?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?;
            Ok(())
        });
        match made.map_err(failed).and_then(|()| Self::open(path)) {
            Ok(netns) => Ok(netns),
            Err(error) => {
                if let Err(left) = Self::remove(path) {
                    tracing::warn!(error = %left, "namespace file left behind");
                }
                Err(error)
            }
        }
    }

    /// Unbinds and deletes the file at `path`. The namespace ends when the last descriptor and
    /// process in it are gone. A path that does not exist is success.
    ///
    /// # Errors
    /// [`NetnsError::Kernel`].
    pub fn remove(path: impl AsRef<Path>) -> Result<(), NetnsError> {
        let path = path.as_ref();
        let failed = |source| NetnsError::Kernel {
            action: "remove",
            path: path.to_owned(),
            source,
        };
        match rustix::mount::unmount(path, UnmountFlags::DETACH) {
            // EINVAL: a plain file, for instance after a reboot without cleaning of /run.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Where it is bound, or the path it was opened by.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Another owner of the same namespace.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            path: self.path.clone(),
        })
    }

    /// Runs `f` on a fresh thread inside this namespace and returns what it returned. The calling
    /// thread stays where it is and waits. A panic of `f` continues in the caller.
    ///
    /// # Errors
    /// When no thread can be started or the namespace may not be entered.
    pub fn run_in<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_fresh_thread(|| {
            self.enter_thread()?;
            Ok(f())
        })
    }

    /// Moves the *calling thread* into this namespace for good.
    pub(crate) fn enter_thread(&self) -> io::Result<()> {
        rustix::thread::move_into_link_name_space(
            self.fd.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?;
        Ok(())
    }

    /// Inode of the namespace: what `ip netns identify` compares.
    ///
    /// # Errors
    /// As `fstat(2)`; not seen in practice.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.fd)?.st_ino)
    }

    /// True when both values name one namespace.
    ///
    /// # Errors
    /// As `fstat(2)`; not seen in practice.
    pub fn same_as(&self, other: &Self) -> io::Result<bool> {
        let (a, b) = (rustix::fs::fstat(&self.fd)?, rustix::fs::fstat(&other.fd)?);
        Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Network namespaces that are bound to a path in this mount namespace, by inode; a path that is
/// covered by another mount is left out.
#[must_use]
pub fn bound_namespaces() -> Vec<(u64, PathBuf)> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let mut bound = bound_in(&text);
    bound.retain(|(inode, path)| {
        let netns = Netns::open(path).map(|netns| netns.inode().unwrap_or_default());
        netns.is_ok_and(|found| found == *inode)
    });
    bound
}

/// Reads mounts of network namespaces from a text as proc_pid_mountinfo(5) has it.
fn bound_in(mountinfo: &str) -> Vec<(u64, PathBuf)> {
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let inode = namespace_inode(words.nth(3)?)?;
        Some((inode, unescape(words.next()?)))
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// Network namespaces of all processes that this one sees, by inode, with one process of each.
#[must_use]
pub fn namespaces_of_processes() -> Vec<(u64, u32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found = BTreeMap::new();
    for pid in pids {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap_or_default();
        if let Some(inode) = link.to_str().and_then(namespace_inode) {
            found.entry(inode).or_insert(pid);
        }
    }
    found.into_iter().collect()
}

/// The number in `net:[4026531840]`.
fn namespace_inode(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// Blanks and a few more characters of a path are `\` and three octal digits there.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

fn on_fresh_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("weft-netns".to_owned())
            .spawn_scoped(scope, f)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn unshare_network() -> io::Result<()> {
    // SAFETY: only CLONE_NEWNET: no descriptor table or memory is unshared, so no invariant of
    // safe code in other threads changes. The thread is fresh and ends after the namespace's setup.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
    Ok(())
}

/// `NS_GET_NSTYPE` (ioctl_nsfs(2)) answers CLONE_NEWNET for a network namespace.
fn is_network_namespace(fd: &OwnedFd) -> bool {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    use std::os::fd::AsRawFd;
    // SAFETY: the request takes no argument and touches no memory of ours; on other files it fails.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_found_by_path_and_by_process() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("a \\name");
        let netns = Netns::create_at(&path).expect("create");
        let inode = netns.inode().expect("inode");
        assert!(bound_namespaces().contains(&(inode, path.clone())));
        Netns::remove(&path).expect("remove");
        assert!(!bound_namespaces().iter().any(|(found, _)| *found == inode));
        let own = Netns::current().expect("own").inode().expect("inode");
        let found = namespaces_of_processes();
        assert!(found.iter().any(|(found, _)| *found == own));
        let text = "36 35 0:4 net:[4026532281] /run/netns/a\\040b rw shared:1 - nsfs nsfs rw\n\
                    37 35 0:5 / /run rw - tmpfs tmpfs rw\n36 35 0:4 net:[x] /y rw - nsfs\nodd\n";
        assert_eq!(
            bound_in(text),
            [(4_026_532_281, PathBuf::from("/run/netns/a b"))]
        );
    }

    #[test]
    fn named_namespace_is_made_entered_and_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("deep/er/ns");
        let netns = Netns::create_at(&path).expect("create");
        assert_eq!(netns.path(), Some(path.as_path()));
        assert!(matches!(
            Netns::create_at(&path),
            Err(NetnsError::Exists { .. })
        ));

        let here = Netns::current().expect("current");
        assert!(!here.same_as(&netns).expect("stat"));
        let inside = netns
            .run_in(|| Netns::current().expect("current"))
            .expect("run");
        assert!(inside.same_as(&netns).expect("stat"));
        let opened = Netns::open(&path).expect("open");
        assert!(opened.same_as(&netns).expect("stat"));
        // The caller was not moved.
        assert!(
            Netns::current()
                .expect("current")
                .same_as(&here)
                .expect("stat")
        );

        Netns::remove(&path).expect("remove");
        assert!(!path.exists());
        Netns::remove(&path).expect("removing twice is fine");
    }

    #[test]
    fn errors_name_the_path_and_the_next_step() {
        let missing = Netns::open("/run/netns/weft-no-such").expect_err("missing");
        assert!(
            missing
                .to_string()
                .contains("/run/netns/weft-no-such does not exist")
        );
        let file = tempfile::NamedTempFile::new().expect("file");
        assert!(matches!(
            Netns::open(file.path()),
            Err(NetnsError::NotANamespace { .. })
        ));
        assert!(matches!(
            Netns::open("/proc/self/ns/mnt"),
            Err(NetnsError::NotANamespace { .. })
        ));
        let dir = tempfile::tempdir().expect("dir");
        let fifo = dir.path().join("fifo");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, Mode::from_raw_mode(0o600), 0)
            .expect("mknod");
        assert!(matches!(
            Netns::open(&fifo),
            Err(NetnsError::NotANamespace { .. })
        ));
        assert!(matches!(
            Netns::of_pid(u32::MAX),
            Err(NetnsError::NoProcess { .. })
        ));
    }

    #[test]
    fn a_panic_inside_reaches_the_caller() {
        let netns = Netns::create_anonymous().expect("create");
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            netns.run_in(|| panic!("inside")).expect("run");
        }));
        assert_eq!(
            caught.expect_err("panicked").downcast_ref::<&str>(),
            Some(&"inside")
        );
    }
}
