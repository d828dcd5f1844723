//! Being part of a swarm: the addresses that a node is reached at, joining it, the member that
//! follows, starting again after a restart, leaving.

mod address;
mod manager_part;
pub(crate) mod self_tests;
pub(crate) mod slot;
pub(crate) mod swarm_node;
