//! Control plane cores: what should be (state, allocator, scheduler, orchestrator) and what is
//! (gossip membership and the versioned tables beside it). What they speak of is `weft-model`.
//!
//! Everything here is pure: time and seeds are arguments, no socket, no clock, no file.
//! `weft-agent` owns the shells: raft or redb storage, gRPC sessions, gossip sockets, the node API.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod gossip;
