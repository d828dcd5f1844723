//! What objects have in common.

use serde::{Deserialize, Serialize};

/// Counts the changes of one object, from 1.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// How many there were.
    pub index: u64,
}

/// What every object carries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Meta {
    /// Changes of this object.
    pub version: Version,
    /// When it was made: Unix milliseconds, written as RFC 3339.
    #[serde(with = "crate::time::rfc3339")]
    pub created_at: u64,
    /// When it was changed last, likewise.
    #[serde(with = "crate::time::rfc3339")]
    pub updated_at: u64,
}
