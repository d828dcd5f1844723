//! The manager of a node that is one.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use weft_swarm::Manager;

use crate::api::ApiError;

/// Empty on a worker. After a restart the ports come first and the manager later: traffic waits for
/// nobody.
#[derive(Debug)]
pub(crate) struct ManagerSlot {
    manager: OnceLock<Arc<Manager>>,
    /// Why it is absent on a manager.
    off: Mutex<Option<String>>,
}

impl ManagerSlot {
    /// With the one that was just made, or empty.
    pub(crate) fn new(manager: Option<Manager>) -> Self {
        Self {
            manager: manager.map_or_else(OnceLock::new, |m| Arc::new(m).into()),
            off: Mutex::default(),
        }
    }

    /// The manager, once it is there.
    pub(crate) fn get(&self) -> Option<&Arc<Manager>> {
        self.manager.get()
    }

    /// Takes it up, unless there is one; it is on from now on.
    pub(crate) fn fill(&self, manager: Manager) -> &Arc<Manager> {
        let manager = self.manager.get_or_init(|| Arc::new(manager));
        *self.off() = None;
        manager
    }

    /// It could not be opened, and why.
    pub(crate) fn set_off(&self, why: String) {
        *self.off() = Some(why);
    }

    /// Refuses what only a manager can do while this node's own is off.
    ///
    /// # Errors
    /// It is off: the text says why and what to do.
    pub(crate) fn is_on(&self) -> Result<(), ApiError> {
        match &*self.off() {
            Some(why) => Err(ApiError::unavailable(why.clone())),
            None => Ok(()),
        }
    }

    fn off(&self) -> MutexGuard<'_, Option<String>> {
        self.off.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
