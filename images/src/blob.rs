//! What a descriptor says of content that may not be here yet.

use crate::digest::Digest;

/// Some content of a registry: a manifest, a configuration or a layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Blob {
    /// What it is named by.
    pub digest: Digest,
    /// Bytes, as they are transferred.
    pub size: u64,
}
