//! The control plane of a swarm, with its sockets and files: what a node and a manager say to each
//! other, who they are, and the manager itself.
//!
//! A node's side: [`join()`] makes it a member, [`Membership`] is what it remembers of that, and a
//! [`Session`] brings the newest [`Assignment`] from a manager and takes statuses of tasks there. The
//! session owns the identity's files and the copy of the last orders, so that a node that restarts
//! without managers changes nothing.
//!
//! A manager's side: [`Manager`] keeps the desired state in a log on disk, which managers share,
//! certifies nodes and serves their sessions. What it decides by is `weft_cluster`, which is pure.
//!
//! Nothing here sees the data plane, sandboxes, gossip or DNS: what a manager wants to know of its
//! host comes in with [`ManagerConfig`].
//!
//! [`Assignment`]: weft_model::assignment::Assignment

#![forbid(unsafe_code)]

mod assignment_file;
pub mod clocks;
mod codec;
mod convert;
mod desired_store;
mod disk_thread;
pub mod door;
mod exchange;
mod identity;
mod join;
mod leader_hint;
mod manager;
mod membership;
mod node_tls;
mod orders;
mod proto;
mod raft;
mod roots;
mod sealing;
mod session;
mod tls;

pub use exchange::Exchange;
pub use identity::{Identity, IdentityError, LOCKED};
pub use join::{JoinParams, join};
pub use manager::{
    ApiCall, ApiReply, ApiServer, EventBatch, EventReader, HostRoutes, InitParams, KnownManagers,
    Manager, ManagerConfig, RestoreParams, Timing,
};
pub use membership::Membership;
pub use node_tls::{NodeStream, NodeTls};
pub use orders::RefusedOrders;
pub use raft::MemberSight;
pub use sealing::KeyFileError;
pub use session::{Answerer, Failure, Farewell, Session, SessionConfig};
