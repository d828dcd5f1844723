//! `weftd`: one agent per node. Wires the pure cores to sockets, namespaces and disks.

#![forbid(unsafe_code)]

pub mod api;
mod blocking;
pub mod capture;
mod compile;
pub mod config;
mod daemon;
mod disk_thread;
pub mod dns;
mod door;
pub mod gossip;
pub mod kept;
pub mod manager;
mod membership;
pub mod metrics;
pub mod node;
pub mod notify;
mod observe;
mod parts;
pub mod published;
mod reconcile;
pub mod sandbox;
pub mod session;
mod state_file;

pub use daemon::main;
