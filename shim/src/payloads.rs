//! Secrets and configs of a program of the node: files in memory, at places where it alone sees them.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use anyhow::{Context, ensure};
use rustix::fs::Mode;
use rustix::process::umask;
use weft_sys::mounts::{self, Attributes, NewFlags, Reach};
use weft_sys::namespaces;

use crate::spec::{Bind, SECRETS};

/// Shows them in the calling process's mount namespace, which is the task's own.
///
/// Those below [`SECRETS`] lie in a folder of the task's own, over what the node has there; for
/// others the node has a file to show them in the place of. On the node nothing changes but that the
/// folder is there, as a mount needs one.
///
/// # Errors
/// One of them cannot be shown. The task is not to start without it.
pub(crate) fn show(files: &[Bind]) -> anyhow::Result<()> {
    let folder = Path::new(SECRETS);
    let inside = files.iter().filter(|file| file.target.starts_with(folder));
    let inside: Vec<&Path> = inside.map(|file| file.target.as_path()).collect();
    if !inside.is_empty() {
        make_places(folder, &inside)
            .with_context(|| format!("cannot make a {SECRETS} for the task alone"))?;
    }
    for Bind { source, target } in files {
        ensure!(
            !target.is_dir() && target.exists(),
            "cannot show a secret or config as {}: create an empty file there, or give it a place below {SECRETS}",
            target.display()
        );
        namespaces::bind(source, target, false)
            .and_then(|()| mounts::set(target, Attributes::READ_ONLY, Reach::One))
            .with_context(|| format!("cannot show a secret or config as {}", target.display()))?;
    }
    if !inside.is_empty() {
        mounts::set(folder, Attributes::READ_ONLY, Reach::One)
            .with_context(|| format!("cannot make {SECRETS} read-only"))?;
    }
    Ok(())
}

/// A folder in memory over `folder`, with an empty file for each of the targets below.
fn make_places(folder: &Path, targets: &[&Path]) -> io::Result<()> {
    // Whoever the task is may see what is there; each file says who may read it.
    let before = umask(Mode::from_raw_mode(0o022));
    let made = mount_places(folder, targets);
    umask(before);
    made
}

fn mount_places(folder: &Path, targets: &[&Path]) -> io::Result<()> {
    let make = |folder: &Path| DirBuilder::new().recursive(true).mode(0o755).create(folder);
    make(folder)?;
    let parts = targets.iter().map(|target| target.components().count());
    let options = format!("size=64k,nr_inodes={},mode=755", parts.sum::<usize>() + 2);
    mounts::mount_new("tmpfs", folder, NewFlags::default(), &options)?;
    for target in targets {
        if let Some(parent) = target.parent() {
            make(parent)?;
        }
        File::create_new(target)?;
    }
    Ok(())
}
