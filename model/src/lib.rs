//! What everybody speaks of: ids and names, cluster objects, the orders of a node, the records of
//! gossip, the types of the node API.
//!
//! Values, how they are written, and the rules that hold for one alone. Nothing here decides
//! anything, and nothing here knows who does: a program that only talks to a node needs this crate
//! and no other.

#![forbid(unsafe_code)]

pub mod api;
pub mod assignment;
pub mod backup;
pub mod capability;
pub mod exec;
pub mod id;
pub mod names;
pub mod objects;
pub mod records;
pub mod stop_signal;
pub mod talk;
pub mod text;
mod time;
