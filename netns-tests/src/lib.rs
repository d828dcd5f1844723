//! Clusters for tests: real `weftd` processes in namespaces, real sockets, the command line as a
//! person would type it.
//!
//! Everything here panics where a test cannot go on, and says what it saw.

#![forbid(unsafe_code)]
#![expect(clippy::panic, reason = "a test that cannot go on has failed")]

mod cluster;
mod http;
mod moment;
mod said;
mod stream;
mod wait;

pub use cluster::{Cluster, FAST_PATH, Settings, beside_others, machine_alone};
pub use http::{Held, ask, ask_from, ask_on, connect, get, hold, hold_from};
pub use said::Said;
pub use stream::{receive_pattern, send_pattern, transfer};

pub use wait::{LIMIT, eventually, figure, within};

pub use weft_lab::Task;
