//! Images: names of repositories and digests, clients of registries, the node's store of blobs and unpacked layers.

#![forbid(unsafe_code)]

pub mod archive;
pub mod credentials;
mod manifest;
mod media;
pub mod name;
pub mod platform;
pub mod pull;
pub mod registry;
pub mod source;

pub use manifest::ManifestError;
pub use media::MediaTypeError;
