//! One volume of the node: who uses it, what is mounted there, what is in it at the beginning.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weft_model::api::{ANONYMOUS_VOLUME, Volume, VolumeUsage};
use weft_model::id::TaskId;
use weft_model::objects::VolumeOptions;

use crate::error::{VolumeError, failed};
use crate::folder::{self, Folder, Kept, User};
use crate::options::{DRIVER, Options};
use crate::{copy_up, device, mounted, subpath};

/// One volume. Its locks are taken in the order that [`crate::Volumes`] says.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) folder: Folder,
    pub(crate) kept: Kept,
    pub(crate) options: Options,
    pub(crate) work: Mutex<()>,
    pub(crate) state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) users: Vec<User>,
    /// It is not in the list any more.
    pub(crate) removed: bool,
}

/// Locks, whoever panicked meanwhile.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is a single step, so what is in them stays whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    pub(crate) fn new(
        name: &str,
        folder: Folder,
        kept: Kept,
        options: Options,
        state: State,
    ) -> Self {
        Self {
            name: name.to_owned(),
            folder,
            kept,
            options,
            work: Mutex::new(()),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.kept.labels.contains_key(ANONYMOUS_VOLUME)
    }

    pub(crate) fn volume(&self, size: i64) -> Volume {
        let users = locked(&self.state).users.len();
        Volume {
            created_at: self.kept.created_at,
            driver: DRIVER.to_owned(),
            labels: self.kept.labels.clone(),
            mountpoint: self.folder.data().display().to_string(),
            name: self.name.clone(),
            node: String::new(),
            options: self.options.to_map(),
            scope: "local".to_owned(),
            usage_data: Some(VolumeUsage {
                size,
                ref_count: i64::try_from(users).unwrap_or(i64::MAX),
            }),
        }
    }

    pub(crate) fn tasks(&self) -> BTreeSet<TaskId> {
        let state = locked(&self.state);
        state.users.iter().map(|user| user.task.clone()).collect()
    }

    /// Notes a user, if it is not noted yet; false where the volume is gone.
    pub(crate) fn add_user(&self, user: &User) -> Result<bool, VolumeError> {
        let mut state = locked(&self.state);
        if state.removed {
            return Ok(false);
        }
        if !state.users.contains(user) {
            let mut users = state.users.clone();
            users.push(user.clone());
            self.folder.write_users(&users)?;
            state.users = users;
        }
        Ok(true)
    }

    /// Forgets users; those that it had of them.
    pub(crate) fn drop_users(
        &self,
        gone: impl Fn(&User) -> bool,
    ) -> Result<Vec<User>, VolumeError> {
        let mut state = locked(&self.state);
        let (gone, stay): (Vec<User>, Vec<User>) = state.users.iter().cloned().partition(&gone);
        if !gone.is_empty() && !state.removed {
            self.folder.write_users(&stay)?;
        }
        state.users = stay;
        Ok(gone)
    }

    /// Mounts and fills it for a user; where that sees it. `work` is held.
    pub(crate) fn ready(
        &self,
        user: &User,
        said: &VolumeOptions,
        rootfs: &Path,
    ) -> Result<PathBuf, VolumeError> {
        self.mount()?;
        self.settle()?;
        if !said.subpath.is_empty() {
            return subpath::mount_for(&self.folder, &self.name, user, &said.subpath);
        }
        if !said.no_copy {
            self.fill(rootfs, user)?;
        }
        Ok(self.folder.data())
    }

    /// Mounts what the volume has, if it is not there. `work` is held.
    fn mount(&self) -> Result<(), VolumeError> {
        let data = self.folder.data();
        if self.options.is_plain()
            || mounted::is_at(&data).map_err(failed("cannot look at", &data))?
        {
            return Ok(());
        }
        device::mount_at(&self.options, &data).map_err(|why| VolumeError::Mount {
            name: self.name.clone(),
            why,
        })
    }

    /// Takes away what is mounted for nobody. `work` is held.
    pub(crate) fn unmount(&self) -> Result<(), VolumeError> {
        if self.options.is_plain() {
            return Ok(());
        }
        let data = self.folder.data();
        mounted::take_away_below(&data).map_err(failed("cannot unmount", &data))
    }

    /// Whether no other task has it. Places of one task are readied before the task runs.
    fn is_alone(&self, user: &User) -> bool {
        let state = locked(&self.state);
        state.users.iter().all(|other| other.task == user.task)
    }

    /// Ends what a killed or failed filling left, before anybody is given the volume: from then on what
    /// is in it is somebody's data. `work` is held.
    ///
    /// Whoever finds the mark can be sure that nobody was given the volume since it was set, as it is
    /// filled for tasks that have it alone. On a share other nodes may have written: that is left.
    fn settle(&self) -> Result<(), VolumeError> {
        let filling = self.folder.filling();
        if !filling.exists() {
            return Ok(());
        }
        if self.options.is_plain() {
            folder::empty(&self.folder.data())?;
        }
        std::fs::remove_file(&filling).map_err(failed("cannot remove", &filling))
    }

    /// Copies what the image has at the user's place, where the volume is empty and no other task has
    /// it, who could change what is copied. `work` is held.
    fn fill(&self, rootfs: &Path, user: &User) -> Result<(), VolumeError> {
        let (data, filling) = (self.folder.data(), self.folder.filling());
        let target = &user.target;
        if !self.is_alone(user) || !folder::is_empty(&data)? {
            return Ok(());
        }
        std::fs::write(&filling, "").map_err(failed("cannot write", &filling))?;
        let filled = copy_up::fill(rootfs, Path::new(target), &data);
        let filled = filled.map_err(|source| {
            // Where that fails the mark stays, and the next attempt does it.
            if let Err(error) = self.settle() {
                tracing::warn!(volume = %self.name, %error, "a part of an image stays in it until the next attempt");
            }
            VolumeError::Fill {
                name: self.name.clone(),
                target: target.clone(),
                source,
            }
        })?;
        if filled.entries > 0 && !self.is_anonymous() {
            let on_disk = std::fs::File::open(&data)
                .and_then(|data| rustix::fs::syncfs(&data).map_err(std::io::Error::from));
            on_disk.map_err(failed("cannot sync", &data))?;
        }
        std::fs::remove_file(&filling).map_err(failed("cannot remove", &filling))
    }
}
