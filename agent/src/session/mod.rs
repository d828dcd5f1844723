//! A node's side of the control plane: joining, identity, and the session with a manager.
//!
//! In: a join token, what the node says about itself, statuses of tasks. Out: [`Assignment`]s
//! (`weft_model::assignment`), the newest one only. The session owns the identity's files and
//! the copy of the last orders, so that a node that restarts without managers changes nothing.
//!
//! [`Assignment`]: weft_model::assignment::Assignment

mod assignment_file;
mod clocks;
pub(crate) mod codec;
pub(crate) mod convert;
mod identity;
mod join;
mod live;
mod membership;
mod orders;
pub(crate) mod proto;
mod renewal;
mod reports;
mod tls;
mod writes;

pub(crate) use clocks::local;
pub(crate) use identity::{
    MANAGER_UNIT, PeerIdentity, ROOT_FILE, ROOT_KEY_FILE, WORKER_UNIT, certificate_dir,
    certificate_from_pem, create_private_dir, damaged, validity_of, write_private,
};
pub(crate) use join::digest;
#[cfg(test)]
pub(crate) use join::request_certificate;
pub(crate) use membership::STORE_FILE;
#[cfg(test)]
pub(crate) use orders::RefusedOrders;
pub(crate) use tls::provider;
#[cfg(test)]
pub(crate) use tls::{connect, member_config, unverified_config};

pub(crate) use identity::{Identity, IdentityError};
pub(crate) use join::{JoinParams, join};
pub(crate) use live::{Farewell, Session, SessionConfig};
pub(crate) use membership::Membership;
