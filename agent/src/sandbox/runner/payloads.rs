//! Secrets and configs of a task: files in memory, and gone with it.
//!
//! ```text
//!   DIR/TASK-ID    in the run directory: memory of this task alone, for root's eyes, read-only once
//!                  it is filled; swapped out by no kernel since Linux 6.4
//!     0, 1, …      one file for each reference, in the order of the spec: no name from outside
//!                  becomes a path here
//! ```
//!
//! The task sees each file bound to its place ([`TaskMount::File`], [`Spec::payloads`]). No agent
//! has to remember them: where they are follows from the task's id, and [`Runner::known`] lists whose
//! are there, so that an agent which did not see the end of a task clears them too. The machine's
//! end takes all of them.
//!
//! [`Spec::payloads`]: weft_shim::spec::Spec::payloads

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use weft_cluster::{PayloadLookups, expand_payload};
use weft_model::assignment::Payloads;
use weft_model::id::TaskId;
use weft_model::objects::{PayloadBytes, PayloadKind, PayloadUse, Task};
use weft_runtime::mounts::TaskMount;
use weft_shim::spec::{Bind, SECRETS};
use weft_sys::mounts::{self, NewFlags};
use weft_sys::private_folder::make_private;

use super::{RunError, Runner, is_id};

/// Room that the bytes of a file are rounded up to: the largest page of a machine.
const PAGE_BYTES: u64 = 64 << 10;
/// A file of the file system may be open in a child that some thread is about to make a program of.
const SEAL_TRIES: usize = 20;
/// Between two of them.
const SEAL_PAUSE: Duration = Duration::from_millis(10);
/// The option of tmpfs for memory that no kernel swaps out, since Linux 6.4.
const NO_SWAP: &str = "noswap";
/// Mounts over each other that are taken away: there is one.
const MOST_MOUNTS: usize = 8;

/// The first secret or config of a task whose bytes are not there.
pub(crate) fn missing<'a>(task: &'a Task, payloads: &Payloads) -> Option<PayloadUse<'a>> {
    let mut used = task.spec.container.payloads();
    used.find(|used| !payloads.contains_key(used.id))
}

/// What can be known of them before their bytes are here.
pub(super) fn check(task: &Task) -> Result<(), RunError> {
    let mut used = task.spec.container.payloads();
    used.try_for_each(|used| place(&used).and(owner(&used)).map(drop))
}

impl Runner {
    /// Makes the files of the task's secrets and configs, of `payloads`; those of an earlier attempt
    /// are replaced. [`Runner::finish`] takes them away. A task that uses none costs nothing.
    ///
    /// # Errors
    /// See [`RunError`]; there are no files then.
    pub fn keep_payloads(&self, task: &Task, payloads: &Payloads) -> Result<(), RunError> {
        let used: Vec<PayloadUse<'_>> = task.spec.container.payloads().collect();
        if used.is_empty() {
            return Ok(());
        }
        let contents = self.contents(task, &used, payloads)?;
        let owners = used.iter().map(owner);
        let owners = owners.collect::<Result<Vec<Owner>, RunError>>()?;
        self.clear_payloads(&task.id)?;
        let folder = self.memory_of(&task.id)?;
        let made = mount(&folder, &contents).and_then(|()| {
            let files = owners.iter().zip(&contents).enumerate();
            for (number, (owner, content)) in files {
                write(&folder.join(number.to_string()), *owner, content)?;
            }
            seal(&folder)
        });
        made.map_err(|source| {
            if let Err(error) = self.clear_payloads(&task.id) {
                tracing::warn!(task = %task.id, %error, "memory of a task stays");
            }
            RunError::Memory {
                path: folder,
                source,
            }
        })
    }

    /// What the files hold: templates expanded.
    fn contents(
        &self,
        task: &Task,
        used: &[PayloadUse<'_>],
        payloads: &Payloads,
    ) -> Result<Vec<PayloadBytes>, RunError> {
        let fields = self.template_fields(task);
        let lookups = Lookups {
            used,
            payloads,
            env: self.expanded_env(task)?,
        };
        let contents = used.iter().map(|used| -> Result<PayloadBytes, RunError> {
            let content = payloads.get(used.id);
            let content = content.ok_or_else(|| RunError::NoPayload {
                kind: used.kind,
                name: used.name.to_owned(),
            })?;
            if !content.template {
                return Ok(content.data.clone());
            }
            let expanded = expand_payload(
                content.data.expose(),
                &fields,
                &lookups,
                used.kind.max_bytes(),
            );
            let expanded = expanded.map_err(|error| RunError::PayloadTemplate {
                kind: used.kind,
                name: used.name.to_owned(),
                why: error.to_string(),
            })?;
            Ok(PayloadBytes::from(expanded))
        });
        contents.collect()
    }

    /// The same as a container sees them.
    pub(super) fn payload_mounts(&self, task: &Task) -> Result<Vec<TaskMount>, RunError> {
        let files = self.payload_files(task)?.into_iter();
        let mounts = files.map(|(source, target)| TaskMount::File { source, target });
        Ok(mounts.collect())
    }

    /// … and as a program of the node does.
    pub(super) fn payload_binds(&self, task: &Task) -> Result<Vec<Bind>, RunError> {
        let files = self.payload_files(task)?.into_iter();
        let binds = files.map(|(source, target)| Bind { source, target });
        Ok(binds.collect())
    }

    /// Each file, and where the task sees it.
    fn payload_files(&self, task: &Task) -> Result<Vec<(PathBuf, PathBuf)>, RunError> {
        let folder = self.memory_of(&task.id)?;
        // The shim is elsewhere, and so is the runtime program.
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let used = task.spec.container.payloads().enumerate();
        let files = used.map(|(number, used)| -> Result<(PathBuf, PathBuf), RunError> {
            Ok((folder.join(number.to_string()), place(&used)?))
        });
        files.collect()
    }

    /// Of a program of the node also whether it can see them at their places: on the node's disks
    /// nothing is made.
    pub(super) fn check_host_payloads(&self, task: &Task) -> Result<(), RunError> {
        check(task)?;
        for used in task.spec.container.payloads() {
            let target = place(&used)?;
            let own = target.starts_with(SECRETS) && target != Path::new(SECRETS);
            if !own && !target.is_file() {
                return Err(RunError::PayloadTarget {
                    kind: used.kind,
                    name: used.name.to_owned(),
                    target,
                    node: self.node_name.clone(),
                });
            }
        }
        Ok(())
    }

    /// Takes the files away; none is success. Nothing of the task runs any more.
    pub(super) fn clear_payloads(&self, task: &TaskId) -> Result<(), RunError> {
        let path = self.memory_of(task)?;
        clear(&path).map_err(|source| RunError::Memory { path, source })
    }

    /// Whether a task may have files.
    pub(super) fn has_payloads(&self, task: &TaskId) -> bool {
        self.memory_of(task).is_ok_and(|folder| folder.exists())
    }

    fn memory_of(&self, task: &TaskId) -> Result<PathBuf, RunError> {
        if is_id(task.as_str()) {
            Ok(self.memory.join(task.as_str()))
        } else {
            Err(RunError::BadId(task.0.clone()))
        }
    }
}

/// What templates can ask for besides their fields.
struct Lookups<'a> {
    used: &'a [PayloadUse<'a>],
    payloads: &'a Payloads,
    /// `KEY=value`
    env: Vec<String>,
}

impl Lookups<'_> {
    /// By the name of the file, as in swarmkit (`template/context.go`); only what the task uses.
    fn bytes(&self, kind: PayloadKind, target: &str) -> Option<&[u8]> {
        let mut used = self.used.iter().filter(|used| used.kind == kind);
        let found = used.find(|used| match used.file.name.as_str() {
            "" => used.name == target,
            name => name == target,
        })?;
        Some(self.payloads.get(found.id)?.data.expose())
    }
}

impl PayloadLookups for Lookups<'_> {
    fn secret(&self, target: &str) -> Option<&[u8]> {
        self.bytes(PayloadKind::Secret, target)
    }

    fn config(&self, target: &str) -> Option<&[u8]> {
        self.bytes(PayloadKind::Config, target)
    }

    fn env(&self, key: &str) -> Option<String> {
        // The last one counts, as for whoever looks for `PATH`.
        let mut pairs = self
            .env
            .iter()
            .rev()
            .filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == key)?;
        Some(value.to_owned())
    }
}

/// Where the task sees the file: a full path without `.` and `..`.
fn place(used: &PayloadUse<'_>) -> Result<PathBuf, RunError> {
    let target = used.target();
    let mut place = PathBuf::from("/");
    for part in Path::new(&target).components() {
        match part {
            Component::Normal(name) => place.push(name),
            Component::ParentDir => drop(place.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if place == Path::new("/") || target.contains('\0') {
        return Err(RunError::PayloadFile {
            kind: used.kind,
            name: used.name.to_owned(),
            what: "target",
            given: target,
        });
    }
    Ok(place)
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

fn owner(used: &PayloadUse<'_>) -> Result<Owner, RunError> {
    let number = |what: &'static str, given: &str| -> Result<u32, RunError> {
        // Docker's client leaves out what is root's.
        if given.is_empty() {
            return Ok(0);
        }
        // All ones is nobody's number, and would leave the owner as it is (chown(2)).
        let number = given
            .parse::<u32>()
            .ok()
            .filter(|&number| number != u32::MAX);
        number.ok_or_else(|| RunError::PayloadFile {
            kind: used.kind,
            name: used.name.to_owned(),
            what,
            given: given.to_owned(),
        })
    };
    Ok(Owner {
        uid: number("uid", &used.file.uid)?,
        gid: number("gid", &used.file.gid)?,
        mode: used.file.mode & 0o7777,
    })
}

/// An empty file system in memory with room for so much and no more.
fn mount(folder: &Path, contents: &[PayloadBytes]) -> io::Result<()> {
    make_private(folder).map_err(io::Error::other)?;
    let rooms = contents.iter().map(|content| room(content.len()));
    let bytes = rooms.sum::<u64>() + PAGE_BYTES;
    // Its root is one as well.
    let inodes = contents.len() + 2;
    let options = format!("mode=700,size={bytes},nr_inodes={inodes}");
    let mounted = |options: &str| mounts::mount_new("tmpfs", folder, NewFlags::default(), options);
    match mounted(&format!("{options},{NO_SWAP}")) {
        // Before Linux 6.4, and where this process is not root of the machine.
        Err(error) if is(&error, Errno::INVAL) || is(&error, Errno::PERM) => mounted(&options),
        other => other,
    }
}

fn room(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(PAGE_BYTES)
}

fn write(path: &Path, owner: Owner, content: &PayloadBytes) -> io::Result<()> {
    let Owner { uid, gid, mode } = owner;
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content.expose())?;
    fchown(&file, Some(uid), Some(gid)).map_err(|error| {
        // A node without root has one user alone.
        io::Error::new(error.kind(), format!("its owner {uid}:{gid}: {error}"))
    })?;
    file.set_permissions(Permissions::from_mode(mode))
}

/// From here on nobody writes there, root of the task included.
fn seal(folder: &Path) -> io::Result<()> {
    let read_only = NewFlags {
        read_only: true,
        ..NewFlags::default()
    };
    for _ in 0..SEAL_TRIES {
        match remount(folder, read_only) {
            Err(error) if is(&error, Errno::BUSY) => std::thread::sleep(SEAL_PAUSE),
            other => return other,
        }
    }
    remount(folder, read_only)
}

/// Memory that is not swapped out has to be told so again: without the word Linux takes a remount for the
/// wish to swap, and refuses it, from 6.4 to a fix of November 2025. With it, it refuses what was mounted
/// without.
fn remount(folder: &Path, flags: NewFlags) -> io::Result<()> {
    match mounts::remount(folder, flags, NO_SWAP) {
        Err(error) if is(&error, Errno::INVAL) || is(&error, Errno::PERM) => {
            mounts::remount(folder, flags, "")
        }
        other => other,
    }
}

/// What is mounted there goes, and then the folder.
fn clear(folder: &Path) -> io::Result<()> {
    if let Err(error) = folder.symlink_metadata() {
        let gone = error.kind() == io::ErrorKind::NotFound;
        return if gone { Ok(()) } else { Err(error) };
    }
    for _ in 0..MOST_MOUNTS {
        let wiped = wipe(folder);
        match mounts::take_away(folder) {
            // None, or none any more.
            Err(error) if is(&error, Errno::INVAL) => break,
            Err(error) => return Err(error),
            Ok(()) => {
                if let Err(error) = wiped {
                    tracing::debug!(path = %folder.display(), %error, "taken away as it was");
                }
            }
        }
    }
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the files: other namespaces may have a copy of the mount for as long as they live, as those
/// of tasks that were started meanwhile have where mounts do not travel.
fn wipe(folder: &Path) -> io::Result<()> {
    // Refused where nothing is mounted.
    remount(folder, NewFlags::default())?;
    for entry in std::fs::read_dir(folder)? {
        std::fs::remove_file(entry?.path())?;
    }
    Ok(())
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests;
