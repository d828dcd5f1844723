//! The node API: JSON over HTTP/1 on a unix socket.
//!
//! ```text
//!  weft ──http/1──► ApiSocket ──► router ──► NodeService (agent/src/node)
//!                   │ SO_PEERCRED: uid 0, or the uid weftd runs as
//!                   │ bodies up to 1 MiB     ▲
//!                   │ (secrets, configs: 2), │
//!                   │ archives of images as  │
//!                   │ they come              │
//!                   ▼                        │ answer()
//!          calls about the swarm ──gRPC──► the manager that leads
//! ```
//!
//! The routes and their types are those of [`weft_model::api`]. This module knows HTTP and the
//! status of each refusal; what a call does is up to the [`NodeService`].

mod error;
mod extract;
mod images;
mod leading;
mod payloads;
mod remote;
mod reply;
mod routes;
mod service;
mod socket;

pub(crate) use error::{ApiError, ErrorKind};
pub(crate) use images::ImageCalls;
pub(crate) use payloads::PayloadCalls;
pub(crate) use remote::{answer, not_led};
pub(crate) use service::{Answer, NodeService, SwarmCalls};
pub(crate) use socket::ApiSocket;

#[cfg(test)]
mod tests;
