//! `weftd`: one agent per node. Wires the pure cores to sockets, namespaces and disks.

#![forbid(unsafe_code)]

pub mod api;
pub mod config;
pub mod dns;
pub mod gossip;
pub mod manager;
pub mod mesh;
pub mod node;
pub mod sandbox;
pub mod session;
