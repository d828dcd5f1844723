//! Being part of a swarm. [`slot::Slot`] is the place for a membership: init, join, starting again,
//! leaving. [`swarm_node::SwarmNode`] is the member, with the loops that make it work.

mod address;
mod answers;
mod guest;
mod known_managers;
mod machine;
mod manager_part;
mod neighbours;
mod new_address;
pub(crate) mod self_tests;
pub(crate) mod slot;
pub(crate) mod swarm_node;
