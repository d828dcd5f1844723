//! Clusters on one machine: each node is a process in network, mount and PID namespaces of its
//! own, joined to the others by a bridge that lives in a namespace of its own too.
//!
//! ```text
//!   node1 (weftd)     node2 (weftd)     node3 (weftd)      outside
//!    eth0 .1           eth0 .2           eth0 .3            eth0 .254
//!      └──────┬──────────┴────────┬────────┴──────────────────┘
//!             │  bridge "underlay", MTU 1500, 10.77.0.0/24     │
//!             └──────────────── switch ────────────────────────┘
//! ```
//!
//! Nothing is ever made in the host's network namespace. Every namespace is held by a process
//! alone, so that killing the process of a node is what pulling its plug is: the agent, the tasks
//! and the link vanish at once.
//!
//! The processes are this library again, reached through a multi-call program: the program named
//! in [`LabConfig::program`] calls [`main`] when [`is_called`] says so, and is the agent when it is
//! called `weftd`.

#![forbid(unsafe_code)]

mod bed;
mod birth;
mod config;
mod crowd;
mod cut;
mod enter;
mod folder;
mod groups;
pub mod image;
mod init;
mod lab;
mod list;
mod machine;
mod node;
mod output;
mod patience;
mod privileges;
mod process;
mod program;
mod screen;
mod state;
mod stop;
mod swarm;
pub mod tools;
mod typed;
mod wiring;

pub use bed::Bed;
pub use config::{FAR_ADDRESS, FAR_ADDRESS_V6, LabConfig, OUTSIDE, SWITCH, default_dir};
pub use crowd::{Crowd, Failure};
pub use lab::Lab;
pub use list::{LabSummary, list};
pub use machine::NodeStatus;
pub use patience::Patience;
pub use privileges::gain_privileges;
pub use program::{is_called, main};
pub use stop::Stop;
pub use swarm::{Attached, MANAGER, Member, Swarm, Task};
pub use typed::{Typed, WIDE, run_typed};
pub use weft_client::Client;
