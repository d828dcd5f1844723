//! All volumes of a node, and who uses them.
//!
//! Level-triggered: what is mounted is looked up, not remembered, so a task that is attached again after
//! a restart of the agent or of the machine finds its volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use weft_model::api::{ANONYMOUS_VOLUME, Volume, VolumePrune, VolumeRequest};
use weft_model::id::TaskId;
use weft_model::objects::{Mount, MountType, VolumeOptions};
use weft_sys::replace_file::Outlives;

use crate::entry::{Entry, State, locked};
use crate::error::{Fault, VolumeError, failed};
use crate::folder::{self, Folder, Kept, User};
use crate::options::{self, Options, differs};
use crate::{mounted, name, subpath, usage};

/// The volumes of a node. Clones are the same volumes.
///
/// Locks: `all` is held for look-ups and for the making of a folder; of a volume, `work` while it is
/// mounted, filled or removed, and `state` for a moment. Taken in the order `work`, `all`, `state`.
#[derive(Clone)]
pub struct Volumes(Arc<Inner>);

struct Inner {
    /// Without links in it, as the kernel tells of mounts.
    root: PathBuf,
    all: Mutex<BTreeMap<String, Arc<Entry>>>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names.
    pub removed: Vec<String>,
    /// Bytes of their files.
    pub bytes: u64,
}

impl fmt::Debug for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = &self.0.root;
        f.debug_struct("Volumes")
            .field("root", root)
            .finish_non_exhaustive()
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // Whole seconds, as Docker's.
    now.map_or(0, |now| now.as_secs().saturating_mul(1000))
}

impl Volumes {
    /// Opens the folder of all volumes, makes it where it is missing, and removes what was half made or
    /// half removed when the last process ended. One process at a time has it.
    ///
    /// # Errors
    /// The disk's. A volume that cannot be read is left out, and told in the log.
    pub fn open(root: &Path) -> Result<Self, VolumeError> {
        std::fs::create_dir_all(root).map_err(failed("cannot make", root))?;
        let root = root.canonicalize().map_err(failed("cannot use", root))?;
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir(&root).map_err(failed("cannot read", &root))? {
            let entry = entry.map_err(failed("cannot read", &root))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if folder::is_unfinished(&name) {
                let cleared = mounted::take_away_below(&entry.path())
                    .map_err(failed("cannot unmount", entry.path()))
                    .and_then(|()| folder::remove_all(&entry.path()));
                if let Err(error) = cleared {
                    tracing::warn!(%error, "a volume that was to be removed is still on the disk");
                }
                continue;
            }
            let folder = Folder::of(&root, &name);
            if name::check(&name).is_err() || !folder.data().is_dir() {
                continue;
            }
            match folder.read() {
                Ok((kept, options, users)) => {
                    let state = State {
                        users,
                        removed: false,
                    };
                    let entry = Entry::new(&name, folder, kept, options, state);
                    all.insert(name, Arc::new(entry));
                }
                Err(error) => tracing::warn!(volume = %name, %error, "a volume is left out"),
            }
        }
        Ok(Self(Arc::new(Inner {
            root,
            all: Mutex::new(all),
        })))
    }

    fn find(&self, name: &str) -> Option<Arc<Entry>> {
        locked(&self.0.all).get(name).map(Arc::clone)
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        locked(&self.0.all).values().map(Arc::clone).collect()
    }

    /// Makes a volume; one of that name that is there already is found, whatever was asked for, as in
    /// Docker. [`differs`] says whether it is another one. Without a name it gets one of 64 digits.
    ///
    /// # Errors
    /// The name or an option cannot be, or the disk fails.
    pub fn create(&self, request: &VolumeRequest) -> Result<Volume, VolumeError> {
        Ok(self.find_or_make(request)?.volume(-1))
    }

    fn find_or_make(&self, request: &VolumeRequest) -> Result<Arc<Entry>, VolumeError> {
        let refused = |fault: Fault| VolumeError::Invalid {
            name: request.name.chars().take(128).collect(),
            fault,
        };
        options::check_driver(&request.driver).map_err(refused)?;
        let options = Options::check(&request.options).map_err(refused)?;
        let mut labels = request.labels.clone();
        let name = if request.name.is_empty() {
            labels.insert(ANONYMOUS_VOLUME.to_owned(), String::new());
            name::anonymous().map_err(failed("cannot read", "/dev/urandom"))?
        } else {
            name::check(&request.name).map_err(refused)?;
            request.name.clone()
        };
        let mut all = locked(&self.0.all);
        if let Some(there) = all.get(&name) {
            return Ok(Arc::clone(there));
        }
        let kept = Kept {
            created_at: now_ms(),
            labels,
        };
        // One that nobody named is gone with its task, which does not outlive the power either.
        let outlives = if request.name.is_empty() {
            Outlives::Process
        } else {
            Outlives::Power
        };
        let folder = Folder::make(&self.0.root, &name, &kept, &options, outlives)?;
        let entry = Entry::new(&name, folder, kept, options, State::default());
        let entry = Arc::new(entry);
        all.insert(name, Arc::clone(&entry));
        Ok(entry)
    }

    /// One volume, with the size of what is in it.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn get(&self, name: &str) -> Result<Volume, VolumeError> {
        let entry = self.find(name).ok_or_else(|| not_found(name))?;
        // A share that does not answer costs its size, not the answer.
        let bytes = if entry.options.is_plain() {
            usage::bytes(&entry.folder.data()).ok()
        } else {
            None
        };
        let size = bytes.and_then(|bytes| i64::try_from(bytes).ok());
        Ok(entry.volume(size.unwrap_or(-1)))
    }

    /// Ids of the tasks that use a volume; none where there is no such volume.
    #[must_use]
    pub fn users(&self, name: &str) -> Vec<TaskId> {
        let entry = self.find(name);
        entry.map_or_else(Vec::new, |entry| entry.tasks().into_iter().collect())
    }

    /// All volumes by name, without sizes.
    #[must_use]
    pub fn list(&self) -> Vec<Volume> {
        self.entries()
            .iter()
            .map(|entry| entry.volume(-1))
            .collect()
    }

    /// Removes a volume with all that is in it; with `force`, that there is none is no error.
    ///
    /// # Errors
    /// Tasks use it, there is none, or the disk fails.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), VolumeError> {
        match self.find(name) {
            Some(entry) => self.remove_entry(&entry),
            None if force => Ok(()),
            None => Err(not_found(name)),
        }
    }

    fn remove_entry(&self, entry: &Entry) -> Result<(), VolumeError> {
        let in_use = || {
            let tasks = entry.tasks();
            let tasks: Vec<String> = tasks.into_iter().map(|task| task.0).collect();
            VolumeError::InUse {
                name: entry.name.clone(),
                tasks,
            }
        };
        // Before `work`, for which one would wait as long as it is filled for a user.
        if !locked(&entry.state).users.is_empty() {
            return Err(in_use());
        }
        let _work = locked(&entry.work);
        if !locked(&entry.state).users.is_empty() {
            return Err(in_use());
        }
        // Nobody begins to use it while `work` is held.
        let mut all = locked(&self.0.all);
        if locked(&entry.state).removed {
            return Ok(());
        }
        let aside = entry.folder.set_aside(&self.0.root)?;
        locked(&entry.state).removed = true;
        all.remove(&entry.name);
        drop(all);
        folder::remove_all(&aside)
    }

    /// Removes volumes that no task uses: those that nobody has named, or all.
    ///
    /// # Errors
    /// The first one that cannot be removed; the others are.
    pub fn prune(&self, which: &VolumePrune) -> Result<Pruned, VolumeError> {
        let (mut pruned, mut result) = (Pruned::default(), Ok(()));
        for entry in self.entries() {
            let labels = &entry.kept.labels;
            let has = |asked: &String| match asked.split_once('=') {
                Some((key, value)) => labels.get(key).is_some_and(|is| is == value),
                None => labels.contains_key(asked),
            };
            if !(which.all || entry.is_anonymous())
                || !which.labels.iter().all(has)
                || which.without_labels.iter().any(has)
                || !locked(&entry.state).users.is_empty()
            {
                continue;
            }
            let bytes = if entry.options.is_plain() {
                usage::bytes(&entry.folder.data()).unwrap_or(0)
            } else {
                0
            };
            match self.remove_entry(&entry) {
                Ok(()) => {
                    pruned.bytes += bytes;
                    pruned.removed.push(entry.name.clone());
                }
                // Somebody began to use it.
                Err(VolumeError::InUse { .. }) => {}
                Err(error) => {
                    tracing::warn!(volume = %entry.name, %error, "a volume is not removed");
                    result = result.and(Err(error));
                }
            }
        }
        if pruned.removed.is_empty() {
            result?;
        }
        Ok(pruned)
    }

    /// The folder for one mount of a task: finds or makes its volume, mounts what that has, and fills it
    /// with what the image has at the mount's target where it is new and empty. A volume without a name
    /// is the task's own. The same call again finds the same.
    ///
    /// `mount` has its templates expanded; `rootfs` is where the image is mounted. Until
    /// [`Volumes::release`] the volume stays.
    ///
    /// # Errors
    /// The volume cannot be made, mounted or filled. The task does not use it then.
    pub fn attach(
        &self,
        task: &TaskId,
        mount: &Mount,
        rootfs: &Path,
    ) -> Result<PathBuf, VolumeError> {
        if mount.kind != MountType::Volume {
            return Err(VolumeError::NoVolume(mount.target.clone()));
        }
        let said = mount.volume_options.clone().unwrap_or_default();
        let user = User {
            task: task.clone(),
            target: mount.target.clone(),
            own: mount.source.is_empty(),
        };
        loop {
            let entry = self.of_mount(mount, &said, &user)?;
            let known = locked(&entry.state).users.contains(&user);
            let ready = {
                let _work = locked(&entry.work);
                if !entry.add_user(&user)? {
                    // Removed between the two.
                    continue;
                }
                entry.ready(&user, &said, rootfs)
            };
            if ready.is_err()
                && !known
                && let Err(error) = self.release_one(&entry, &|other: &User| *other == user)
            {
                tracing::warn!(volume = %entry.name, %error, "a volume is not released");
            }
            return ready;
        }
    }

    fn of_mount(
        &self,
        mount: &Mount,
        said: &VolumeOptions,
        user: &User,
    ) -> Result<Arc<Entry>, VolumeError> {
        if mount.source.is_empty() {
            let own = self
                .entries()
                .into_iter()
                .find(|entry| entry.is_anonymous() && locked(&entry.state).users.contains(user));
            if let Some(own) = own {
                return Ok(own);
            }
        }
        let driver = said.driver_config.clone().unwrap_or_default();
        let request = VolumeRequest {
            name: mount.source.clone(),
            driver: driver.name,
            options: driver.options,
            labels: said.labels.clone(),
        };
        let entry = self.find_or_make(&request)?;
        if let Some(told) = differs(&entry.volume(-1), &request) {
            tracing::warn!("{told}");
        }
        Ok(entry)
    }

    /// A task is over: what was mounted for it alone is not any more, and volumes that nobody has named
    /// are removed with it. A task that uses none is success.
    ///
    /// # Errors
    /// The first volume that cannot be released; the others are.
    pub fn release(&self, task: &TaskId) -> Result<(), VolumeError> {
        self.release_where(|user| user.task == *task)
    }

    /// Releases what is held for any other task than these: to be called when an agent has found which
    /// of its tasks are still there.
    ///
    /// # Errors
    /// As [`Volumes::release`].
    pub fn keep(&self, tasks: &BTreeSet<TaskId>) -> Result<(), VolumeError> {
        self.release_where(|user| !tasks.contains(&user.task))
    }

    fn release_where(&self, gone: impl Fn(&User) -> bool) -> Result<(), VolumeError> {
        let mut result = Ok(());
        for entry in self.entries() {
            if locked(&entry.state).users.iter().any(&gone) {
                result = result.and(self.release_one(&entry, &gone));
            }
        }
        result
    }

    fn release_one(&self, entry: &Entry, gone: &impl Fn(&User) -> bool) -> Result<(), VolumeError> {
        let gone = {
            let _work = locked(&entry.work);
            let users = locked(&entry.state).users.clone();
            for user in users.iter().filter(|user| gone(user)) {
                let folder = &entry.folder;
                subpath::unmount_for(folder, user)
                    .map_err(failed("cannot unmount", folder.subpaths()))?;
            }
            // Taken away while it is still noted who used it: who is killed here does it again.
            if users.iter().all(gone) {
                entry.unmount()?;
            }
            entry.drop_users(gone)?
        };
        // One that was made without a name by a person, and is asked for by its name, stays.
        let goes = entry.is_anonymous() && gone.iter().any(|user| user.own);
        if !goes || !locked(&entry.state).users.is_empty() {
            return Ok(());
        }
        match self.remove_entry(entry) {
            // Another task names it.
            Err(VolumeError::InUse { .. }) => Ok(()),
            other => other,
        }
    }
}

fn not_found(name: &str) -> VolumeError {
    VolumeError::NotFound(name.chars().take(128).collect())
}

#[cfg(test)]
mod tests;
