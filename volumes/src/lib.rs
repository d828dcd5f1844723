//! Volumes of this node, as Docker's driver `local` has them: a folder for each, perhaps with a file
//! system mounted there while a task uses it, filled once with what the image has at its place.
//!
//! Everything blocks. What is kept, all of it below one folder:
//!
//! | path | what |
//! |---|---|
//! | `NAME/_data` | what tasks see |
//! | `NAME/volume.json` | when it was made, labels |
//! | `NAME/opts.json` | what is mounted there, in Docker's form; only where something is |
//! | `NAME/users.json` | tasks that use it |
//! | `NAME/filling` | there while it is filled: what is in it is not whole |
//! | `NAME/subpaths/` | places where folders of it are mounted for tasks |
//!
//! A name that begins with a dot is a volume that is being made or removed; the next start removes it.

#![forbid(unsafe_code)]

mod bind;
mod copy_up;
mod device;
mod entry;
mod error;
mod folder;
mod mounted;
mod name;
mod options;
mod subpath;
mod tree;
mod usage;
mod volumes;

pub use bind::check_bind;
pub use error::{Cause, Fault, VolumeError};
pub use options::differs;
pub use volumes::{Pruned, Volumes};
pub use weft_model::api::{Volume, VolumePrune, VolumeRequest};
