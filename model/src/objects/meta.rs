//! What objects have in common.

use serde::{Deserialize, Serialize};

/// What every object carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Counts changes of this object, from 1.
    pub version: u64,
    /// Unix milliseconds.
    pub created_at: u64,
    /// Unix milliseconds.
    pub updated_at: u64,
}
