//! Conditions that a person should see in `weft info` and the log: set while they last.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Warnings by subject.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<BTreeMap<String, String>>);

impl Warnings {
    /// Sets or replaces the warning about `subject`; logged when it is new.
    pub(crate) fn set(&self, subject: &str, text: String) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.get(subject) != Some(&text) {
            tracing::warn!(subject, "{text}");
            map.insert(subject.to_owned(), text);
        }
    }

    /// Takes the warning about `subject` back.
    pub(crate) fn clear(&self, subject: &str) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.remove(subject).is_some() {
            tracing::info!(subject, "no longer a problem");
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.values().cloned().collect()
    }
}
