//! Images: names of repositories and digests, clients of registries, the node's store of blobs and unpacked layers.
//!
//! From the outside in: a [`name`] and a [`platform`] say what is wanted, a [`source`] (a
//! [`registry`], another node) or an [`archive`] has it, [`pull`](mod@pull) brings it into the
//! [`store`], which unpacks its layers. Everything blocks but registries and pulls.

#![forbid(unsafe_code)]

pub mod archive;
pub mod blob;
pub mod credentials;
pub mod digest;
pub mod image;
pub mod layer;
mod manifest;
mod media;
pub mod name;
pub mod platform;
pub mod pull;
pub mod registry;
pub mod source;
pub mod store;
pub mod unpack;

pub use archive::{ArchiveError, Loaded, load, save};
pub use blob::Blob;
pub use credentials::{
    Credentials, CredentialsError, DockerConfig, DockerConfigError, ProgramError,
};
pub use digest::{Digest, Hasher, ParseDigestError};
pub use image::{Image, ImageHealth, NoImage};
pub use layer::{LayerError, Limits, Refusal};
pub use manifest::ManifestError;
pub use media::MediaTypeError;
pub use name::{ImageName, NameError};
pub use platform::{Platform, PlatformError, choose, platforms};
pub use pull::{Progress, PullError, pull};
pub use registry::{
    Manner, Registries, RegistryConfig, RegistryError, RegistrySource, Resolved, TimeOuts,
};
pub use source::{BlobStream, Manifest, Source, SourceError, SourceErrorKind, SourceFuture};
pub use store::{BlobWriter, Ingest, Lease, Pruned, Removed, Store, StoreError, Usage};
pub use unpack::{Unpacked, opaque_attribute, unpack_layer};
