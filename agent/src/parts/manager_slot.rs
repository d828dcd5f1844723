//! The manager of a node that is one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use weft_swarm::Manager;

use crate::api::ApiError;

/// Empty on a worker. After a restart the ports come first and the manager later: traffic waits for
/// nobody. It comes and goes with the node's role.
#[derive(Debug)]
pub(crate) struct ManagerSlot {
    manager: ArcSwapOption<Manager>,
    /// Why it is absent on a manager.
    off: Mutex<Option<String>>,
}

impl ManagerSlot {
    /// With the one that was just made, or empty.
    pub(crate) fn new(manager: Option<Manager>) -> Self {
        Self {
            manager: ArcSwapOption::new(manager.map(Arc::new)),
            off: Mutex::default(),
        }
    }

    /// The manager, once it is there.
    pub(crate) fn get(&self) -> Option<Arc<Manager>> {
        self.manager.load_full()
    }

    /// Takes it up; it is on from now on.
    pub(crate) fn fill(&self, manager: Manager) -> Arc<Manager> {
        let manager = Arc::new(manager);
        self.manager.store(Some(Arc::clone(&manager)));
        *self.off() = None;
        manager
    }

    /// Lets go of it, for whoever ends it. The node is none, or about to have another one.
    pub(crate) fn take(&self) -> Option<Arc<Manager>> {
        *self.off() = None;
        self.manager.swap(None)
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
