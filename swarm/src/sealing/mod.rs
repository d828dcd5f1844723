//! How a manager keeps secrets on its disk: sealed by a key of its own, which lies beside them or is
//! locked by the key of the swarm.
//!
//! ```text
//! unlock key (SWMKEY-1-…) ──locks──► certs/data.key ──seals──► raft.redb
//! of the swarm, in its state          of this manager           the key in certs/node.pem
//! ```
//!
//! Whenever another unlock key counts, a manager draws another data key as well ([`DataKeys`]): an old
//! copy of its disk opens nothing that is written from then on.
//!
//! What a worker of the swarm has too stays readable: certificates, the membership, the last orders.
//! By them a locked manager carries traffic on. The orders hold gossip keys, which change every few
//! hours and when a node goes; they open neither the state nor a session.

mod key_file;
mod ring;
mod sealer;

pub use key_file::KeyFileError;
pub(crate) use key_file::{KEY_FILE, KeyFile};
pub(crate) use ring::{DataKeys, KeyRing};
pub(crate) use sealer::{Sealer, SecretKey, Unopened};
