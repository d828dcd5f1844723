//! Elements of the kernel's sets that follow what the node wants, in the background.

use std::collections::BTreeSet;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Brings the kernel to some elements, all or nothing.
type Load<E> = dyn Fn(&BTreeSet<E>) -> Result<(), String> + Send + Sync;

/// Keeps elements in the kernel as they should be. No method waits. Clones are the same one.
pub(super) struct RuleSet<E> {
    load: Arc<Load<E>>,
    state: Arc<Mutex<State<E>>>,
}

struct State<E> {
    wanted: BTreeSet<E>,
    applied: Option<BTreeSet<E>>,
    /// Somebody is bringing the kernel up to date, and looks at `wanted` again before he goes.
    working: bool,
    error: Option<String>,
}

impl<E: Ord + Clone + Debug + Send + 'static> RuleSet<E> {
    /// Nothing wanted, nothing known of the kernel.
    pub(super) fn new(
        load: impl Fn(&BTreeSet<E>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            load: Arc::new(load),
            state: Arc::new(Mutex::new(State {
                wanted: BTreeSet::new(),
                applied: None,
                working: false,
                error: None,
            })),
        }
    }

    /// Takes in what is wanted, and tries again what failed before. Inside the runtime.
    pub(super) fn update(&self, wanted: BTreeSet<E>) {
        let mut state = self.lock();
        state.wanted = wanted;
        if state.working || state.applied.as_ref() == Some(&state.wanted) {
            return;
        }
        state.working = true;
        drop(state);
        let this = self.clone();
        tokio::task::spawn_blocking(move || this.apply());
    }

    /// Why the kernel has not what was wanted last.
    pub(super) fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    fn apply(&self) {
        loop {
            let wanted = self.lock().wanted.clone();
            let result = (self.load)(&wanted);
            let mut state = self.lock();
            match result {
                Ok(()) => {
                    state.error = None;
                    state.applied = Some(wanted);
                }
                Err(error) => {
                    state.error = Some(error);
                    state.applied = None;
                }
            }
            if state.error.is_some() || state.applied.as_ref() == Some(&state.wanted) {
                state.working = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        // Nothing under this lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E> Clone for RuleSet<E> {
    fn clone(&self) -> Self {
        Self {
            load: Arc::clone(&self.load),
            state: Arc::clone(&self.state),
        }
    }
}

impl<E: Debug> Debug for RuleSet<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("RuleSet")
            .field("wanted", &state.wanted)
            .field("applied", &state.applied)
            .field("error", &state.error)
            .finish_non_exhaustive()
    }
}
