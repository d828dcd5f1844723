//! The task's `/dev`: what every user of the node may use, and nothing that leads to its disks.
//!
//! Root opens any device of the node, so permissions are no wall. Devices cannot be opened on any
//! mount that the task sees ([`crate::view`]) but on the ones made here, one for each device; and
//! `CAP_MKNOD`, which is among Docker's capabilities, makes none (`weft_sys::seccomp`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use weft_sys::mounts::{self, Attributes, NewFlags, Reach};
use weft_sys::namespaces;

/// Folders of `/dev` that are file systems of their own.
const OWN: [&str; 4] = ["pts", "shm", "mqueue", "hugepages"];
/// Devices at most, and how deep they may lie.
const MAX_DEVICES: usize = 256;
const MAX_DEPTH: usize = 4;

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What was mounted, each of which may be opened.
#[derive(Debug, Default)]
pub(crate) struct Devices(Vec<PathBuf>);

/// Shows a new `/dev`.
///
/// # Errors
/// What the kernel said; `/dev` is the node's then.
pub(crate) fn show() -> io::Result<Devices> {
    let dev = Path::new("/dev");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let node = rustix::fs::open(dev, flags, Mode::empty())?;
    let mut found = Found::default();
    found.look(dev, Path::new(""), 0)?;
    mounts::mount_new("tmpfs", dev, NewFlags::default(), "mode=755,size=64k")?;
    fill(dev, &node, &found).inspect_err(|_| {
        // Without it the node's own comes to light again. Should that fail, the error of `fill`
        // tells what was wrong.
        drop(mounts::take_away(dev));
    })
}

impl Devices {
    /// Lets them be opened: afterwards, as the mounts that they were cloned from may not.
    pub(crate) fn open(&self) -> io::Result<()> {
        self.0
            .iter()
            .try_for_each(|path| mounts::clear(path, Attributes::NO_DEVICES, Reach::One))
    }
}

/// What of the node's `/dev` is shown, by path below it.
#[derive(Debug, Default)]
struct Found {
    devices: Vec<PathBuf>,
    links: Vec<(PathBuf, PathBuf)>,
}

impl Found {
    fn look(&mut self, dir: &Path, below: &Path, depth: usize) -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let path = below.join(&name);
            if kind.is_dir() {
                let own = depth == 0 && OWN.iter().any(|own| name == *own);
                if !own && depth < MAX_DEPTH {
                    self.look(&entry.path(), &path, depth + 1)?;
                }
            } else if kind.is_symlink() && depth == 0 {
                self.links.push((path, std::fs::read_link(entry.path())?));
            } else if kind.is_char_device()
                && name != "ptmx"
                && entry.metadata()?.permissions().mode() & 0o006 == 0o006
                && self.devices.len() < MAX_DEVICES
            {
                self.devices.push(path);
            }
        }
        Ok(())
    }
}

fn fill(dev: &Path, node: &OwnedFd, found: &Found) -> io::Result<Devices> {
    let mut devices = Devices::default();
    for device in &found.devices {
        let target = dev.join(device);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, "")?;
        let source = Path::new("/proc/self/fd").join(node.as_raw_fd().to_string());
        namespaces::bind(&source.join(device), &target, false)?;
        devices.0.push(target);
    }
    let ours = LINKS.map(|(link, to)| (PathBuf::from(link), PathBuf::from(to)));
    let theirs = found.links.iter().cloned();
    for (link, to) in ours.into_iter().chain(theirs) {
        match symlink(to, dev.join(link)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let (pts, shm) = (dev.join("pts"), dev.join("shm"));
    std::fs::create_dir(&pts)?;
    std::fs::create_dir(&shm)?;
    let flags = NewFlags {
        devices: true,
        ..NewFlags::default()
    };
    let options = "newinstance,ptmxmode=0666,mode=0620";
    // Group 5 is `tty` wherever there is one; a user namespace may not know it.
    mounts::mount_new("devpts", &pts, flags, &format!("{options},gid=5"))
        .or_else(|_| mounts::mount_new("devpts", &pts, flags, options))?;
    devices.0.push(pts);
    mounts::mount_new("tmpfs", &shm, NewFlags::default(), "mode=1777")?;
    Ok(devices)
}
