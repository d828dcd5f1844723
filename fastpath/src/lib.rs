//! The kernel flow cache: established TCP flows, and exchanges of datagrams, that the workers have
//! decided about are carried by small programs in the kernel (`bpf/weft.bpf.c`), without a wake-up of
//! a worker and without a copy.
//!
//! ```text
//!   sandbox eth0, egress   leave   known flow? -> out by the sandbox's second device
//!   host's end of it       push    VXLAN headers on, to the underlay; or to another sandbox
//!   underlay, ingress      pop     VXLAN headers off, into the sandbox by its second device
//!   weft0, egress          enter   what leave and push do, for clients of published ports
//!   merging device         sink    answers to such clients, into the host by weft0
//! ```
//!
//! User space keeps every decision and remains the whole truth: a flow that is not in the cache, or
//! whose entry is stale, goes to the worker as if there were no cache. Entries hold as long as the
//! epoch of their network ([`Epochs`]) and the agent's heartbeat ([`Heartbeat`]) say so. A flow to a
//! virtual address has that of its replica written in its place on the way, and back ([`Rewrite`]).
//!
//! What the kernel does with packets that programs have changed is tried first ([`selftest`]).
//!
//! The division is Open vSwitch's (a flow cache in the kernel, decisions in user space); that a cache
//! of headers beats the kernel's own overlay was shown by ONCache (NSDI 2025).

#![forbid(unsafe_code)]

mod cache;
mod counters;
mod entry;
mod installer;
mod record;
pub mod selftest;

pub use cache::{FlowCache, LoadError};
pub use counters::{Event, EventCounts};
pub use entry::{FlowKey, Hardware, InEntry, MESH_NUMBER, OutEntry, Rewrite, Scope, Way};
pub use installer::{InstallError, Installer};
pub use record::{
    Epochs, Heartbeat, Record, RecordId, RecordPool, Records, SecondPort, Sent, Traffic,
};

/// For `tests/streams.rs`, which sends its streams where the self-test sends its own.
#[doc(hidden)]
pub mod testing {
    pub use crate::selftest::bed::Bed;
    pub use crate::selftest::connection::Connection;
    pub use crate::selftest::stream::{Patience, exchange, pattern, receive, send};
}
