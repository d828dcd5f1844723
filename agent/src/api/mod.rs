//! The node API: JSON over HTTP/1 on a unix socket.
//!
//! ```text
//!  weft ──http/1──► ApiSocket ──► router ──► NodeService (agent/src/node)
//!                   │ SO_PEERCRED: uid 0, or the uid weftd runs as
//!                   │ bodies up to 1 MiB
//! ```
//!
//! The routes and their types are those of [`weft_model::api`]. This module knows HTTP and the
//! status of each refusal; what a call does is up to the [`NodeService`].

mod error;
mod extract;
mod routes;
mod service;
mod socket;

pub(crate) use error::ApiError;
pub(crate) use service::{Answer, NodeService};
pub(crate) use socket::ApiSocket;

#[cfg(test)]
mod tests;
