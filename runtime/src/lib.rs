//! OCI containers on this node: the bundle of one, its root file system, and the runtime program (`runc`, `crun`).
//!
//! Everything blocks. Nothing here starts a container: that is the shim's, by the bundle that is made
//! here ([`bundle()`], [`write()`]) from what image and service come to ([`merge()`]), on a root file
//! system made of the image's layers ([`rootfs`]). Nothing here knows a registry, a volume by
//! name or a network: paths come in.

#![forbid(unsafe_code)]

mod apparmor;
pub mod bundle;
pub mod cgroups;
mod image_files;
pub mod merged;
mod mountinfo;
pub mod mounts;
mod node;
pub mod program;
pub mod rootfs;
mod seccomp;
mod users;

#[doc(inline)]
pub use bundle::{Container, bundle, write};
#[doc(inline)]
pub use merged::{Merged, merge};
#[doc(inline)]
pub use mounts::TaskMount;
