//! The root file system of a container: the layers of its image, which nothing changes, below a folder
//! of its own.
//!
//! Of a container's folder this has `upper` (what it writes), `work` (the kernel's) and `rootfs`
//! (where all of it is seen). Where the kernel refuses an overlay there, as above another overlay,
//! layers are copied into `rootfs` instead: slower, and as large as the image.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use crate::mountinfo;
use crate::node;

mod copy;
mod overlay;

/// Why there is no root file system, or why it stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootfsError {
    /// Local: something in the container's folder, or in a layer.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Of what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Local: the kernel's overlay, for no reason that copying would mend.
    #[error("cannot mount the layers of the image at {path}: {source}")]
    Overlay {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Local: a layer could not be copied.
    #[error("cannot copy the layers of the image: {path}: {source}")]
    Copy {
        /// A file of a layer, or what was made of it.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Remote: an image of nothing.
    #[error("the image has no layers")]
    NoLayers,
    /// Local: it stays, so that nothing of the node is removed with it.
    #[error("{path} is still mounted: end what uses it, and `umount` it")]
    StillMounted {
        /// What is.
        path: PathBuf,
    },
}

impl RootfsError {
    fn file(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// How a root file system was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Layers are shared by all who use them.
    Overlay,
    /// This container has its own copy.
    Copied,
}

/// How root file systems are made in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// By the kernel's overlay.
    Overlay,
    /// By copying.
    Copy,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Copy => "copy",
        })
    }
}

struct Places {
    upper: PathBuf,
    work: PathBuf,
    rootfs: PathBuf,
    copying: PathBuf,
}

impl Places {
    fn of(dir: &Path) -> Self {
        Self {
            upper: dir.join("upper"),
            work: dir.join("work"),
            rootfs: dir.join("rootfs"),
            copying: dir.join("copying"),
        }
    }
}

/// Shows the layers, bottom first, at `dir/rootfs`. What was shown there already stays, and so does
/// what was written to it.
///
/// # Errors
/// See [`RootfsError`].
pub fn mount(layers: &[PathBuf], dir: &Path) -> Result<Kind, RootfsError> {
    let places = Places::of(dir);
    if layers.is_empty() {
        return Err(RootfsError::NoLayers);
    }
    if is_mounted(&places.rootfs)? {
        return Ok(Kind::Overlay);
    }
    if is_filled(&places.rootfs) {
        return Ok(Kind::Copied);
    }
    for folder in [&places.upper, &places.work, &places.rootfs] {
        make(folder)?;
    }
    match over(layers, &places) {
        Ok(()) => Ok(Kind::Overlay),
        Err(error) if overlay::is_refused(&error) => {
            tracing::warn!(
                path = %dir.display(),
                %error,
                "no overlay here: layers are copied for each container; put the data directory on ext4, xfs or tmpfs"
            );
            copy(layers, &places)?;
            Ok(Kind::Copied)
        }
        Err(source) => Err(RootfsError::Overlay {
            path: places.rootfs,
            source,
        }),
    }
}

fn over(layers: &[PathBuf], places: &Places) -> io::Result<()> {
    let user_marks = !node::is_root_of_machine();
    let Places {
        upper,
        work,
        rootfs,
        ..
    } = places;
    overlay::mount(layers, upper, work, rootfs, user_marks)
}

/// Whole, or not at all: a copy that was not finished has another name.
fn copy(layers: &[PathBuf], places: &Places) -> Result<(), RootfsError> {
    remove(&places.copying)?;
    make(&places.copying)?;
    for layer in layers {
        copy::layer(layer, &places.copying)?;
    }
    remove(&places.rootfs)?;
    std::fs::rename(&places.copying, &places.rootfs)
        .map_err(|source| RootfsError::file("rename", &places.copying, source))
}

/// Takes all of it away, with what the container wrote. Nothing there is success.
///
/// # Errors
/// Something stays: nothing is removed through a mount.
pub fn unmount(dir: &Path) -> Result<(), RootfsError> {
    let places = Places::of(dir);
    let folders = [&places.rootfs, &places.copying, &places.upper, &places.work];
    for folder in folders {
        take_away(folder)?;
    }
    for folder in folders {
        remove(folder)?;
    }
    Ok(())
}

/// How root file systems are made in `dir`, which has to be there: it is tried.
#[must_use]
pub fn driver(dir: &Path) -> Driver {
    let trial = dir.join(format!(".overlay-{}", std::process::id()));
    let layer = trial.join("layer");
    let tried = make(&trial).and_then(|()| make(&layer)).and_then(|()| {
        let places = Places::of(&trial);
        for folder in [&places.upper, &places.work, &places.rootfs] {
            make(folder)?;
        }
        over(&[layer], &places).map_err(|source| RootfsError::Overlay {
            path: places.rootfs,
            source,
        })
    });
    if let Err(error) = unmount(&trial).and_then(|()| remove(&trial)) {
        tracing::warn!(%error, "left behind");
    }
    match tried {
        Ok(()) => Driver::Overlay,
        Err(error) => {
            tracing::debug!(%error, "no overlay");
            Driver::Copy
        }
    }
}

/// Mode 0755 whatever the umask is: who is in the container may be anybody.
fn make(folder: &Path) -> Result<(), RootfsError> {
    match std::fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(RootfsError::file("make", folder, error)),
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))
        .map_err(|source| RootfsError::file("set the mode of", folder, source))
}

fn remove(folder: &Path) -> Result<(), RootfsError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RootfsError::file("remove", folder, error))
        }
        _ => Ok(()),
    }
}

fn is_filled(folder: &Path) -> bool {
    let mut entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.next().is_some()
}

/// Places of mounts at or below it, as the kernel tells them: without links.
fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>, RootfsError> {
    let real = match folder.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RootfsError::file("look at", folder, error)),
    };
    let mounts = mountinfo::read()
        .map_err(|source| RootfsError::file("read", Path::new("/proc/self/mountinfo"), source))?;
    let points = mounts.into_iter().map(|mounted| mounted.point);
    Ok(points.filter(|point| point.starts_with(&real)).collect())
}

fn is_mounted(folder: &Path) -> Result<bool, RootfsError> {
    let real = folder.canonicalize().unwrap_or_default();
    Ok(mounts_below(folder)?.contains(&real))
}

/// The last mount first. Who still uses one goes on.
fn take_away(folder: &Path) -> Result<(), RootfsError> {
    for point in mounts_below(folder)?.iter().rev() {
        let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(point, flags).map_err(io::Error::from) {
            // Gone with one that it was below.
            Err(error)
                if error.kind() != io::ErrorKind::InvalidInput
                    && error.kind() != io::ErrorKind::NotFound =>
            {
                return Err(RootfsError::file("unmount", point, error));
            }
            _ => {}
        }
    }
    match mounts_below(folder)?.into_iter().next() {
        None => Ok(()),
        Some(path) => Err(RootfsError::StillMounted { path }),
    }
}

#[cfg(test)]
mod tests;
