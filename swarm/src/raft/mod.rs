//! The log that managers share: openraft over a file of redb, and the desired state that it makes.
//!
//! ```text
//! propose ──► Pipeline ──► openraft ──► LogStore ──► RaftFile ──► Medium (disk)
//!              (head)         │  ▲          ▲            ▲
//!                             ▼  │          │            │ snapshots
//!                     other managers     committed ──► Machine ──► state, for everybody
//! ```
//!
//! [`RaftStore`] is the [`crate::desired_store::DesiredStore`] of every manager. One that is alone has
//! a log of one member: the same code, a quorum of one. `life` runs openraft, again after the disk
//! failed, and tells who leads; `view` judges that.
//!
//! What is proposed while an entry is on its way to the disks goes together into the next one. Entries
//! carry the version that they were planned on, and a stale one is a reply (`weft_cluster::Entry`).
//! Nothing here knows what the changes mean.

mod arrival;
mod dialer;
mod file;
mod known;
mod life;
mod links;
mod log;
mod machine;
mod medium;
mod members;
mod pipeline;
mod presence;
mod read_index;
mod recover;
mod seal;
mod serve;
mod shared;
mod snapshot;
mod store;
mod tables;
mod types;
mod view;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use dialer::Dialer;
pub(crate) use links::Links;
pub(crate) use medium::{OnDisk, StoreError};
pub use members::MemberSight;
pub(crate) use recover::lay_down;
pub(crate) use serve::{Part, Unserved};
pub(crate) use snapshot::{NoSnapshot, decode as decode_state, encode as encode_state};
pub(crate) use store::{RaftStore, Setup, Start};
pub(crate) use types::Member;
pub(crate) use wire::SnapshotOf;
