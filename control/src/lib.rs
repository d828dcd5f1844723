//! What should be: state, allocator, scheduler, orchestrator. What they speak of is `weft-model`.
//!
//! Everything here is pure: time and seeds are arguments, no socket, no clock, no file.
//! `weft-agent` owns the shells: raft or redb storage, gRPC sessions, the node API.

#![forbid(unsafe_code)]

pub mod cluster;
