//! Control plane cores: what should be (cluster objects, allocator, scheduler, orchestrator)
//! and what is (gossip membership and the versioned tables beside it).
//!
//! Everything here is pure: time and seeds are arguments, no socket, no clock, no file.
//! `weft-agent` owns the shells: raft or redb storage, gRPC sessions, gossip sockets, the node API.

#![forbid(unsafe_code)]

pub mod api;
pub mod assignment;
pub mod capability;
pub mod cluster;
pub mod gossip;
pub mod id;
pub mod names;
pub mod objects;
pub mod records;
pub mod text;
