//! `weftd`: one agent per node. Wires the pure cores to sockets, namespaces and disks.

#![forbid(unsafe_code)]

mod api;
mod blocking;
mod capture;
mod compile;
mod config;
mod daemon;
mod data_format;
mod dns;
mod gossip;
mod images;
mod kept;
mod membership;
mod metrics;
mod names;
mod node;
mod notify;
mod observe;
mod parts;
mod published;
mod reconcile;
mod sandbox;
mod shim_program;
mod volumes;

pub use daemon::main;

/// For `tests/runner.rs`: the runner starts the program that it is in as the shim of a task, so its
/// test is a program of its own and sees the crate from outside. And for `tests/unit_file.rs`, which
/// holds the unit of systemd against what the agent does.
#[doc(hidden)]
pub mod testing {
    pub use crate::config::EXIT_USAGE;
    pub use crate::sandbox::runner::{ContainerEngine, RunError, Runner, RunningTask, hidden};
    pub use crate::sandbox::{Sandbox, SandboxError};
}
