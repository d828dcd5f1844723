//! Shortcuts: established TCP flows and exchanges of datagrams that the kernel carries by itself, as
//! this process has decided about them (crate `weft-fastpath`).
//!
//! A worker sees the first packets of each flow, and notes those that are worth a shortcut
//! ([`candidates`]): bulk of TCP, or whoever is asked again and again, over TCP or UDP, whose price is
//! its wake-ups. Streams of datagrams are cheaper by the workers ([`exchange`], [`datagrams`]). At the
//! end of the round, after everything that was read has left, it enters both directions as its tables
//! have them. From then on it sees of the flow only what the kernel does not carry, and once a second
//! looks at what was carried ([`installed`]). Tables that change make entries stale at once
//! ([`epochs`]). Flows to virtual addresses and through published ports take shortcuts as well, with
//! their rewrites ([`balanced`]).

mod balanced;
mod cache;
mod candidates;
mod datagrams;
mod epochs;
mod exchange;
mod installed;
mod kernel;
mod round;
mod sandbox;
mod shortcuts;
#[cfg(test)]
mod walk;
mod worker;

pub use epochs::FlowEpochs;
pub use kernel::FastPathError;
pub(crate) use kernel::Kernel;
pub(crate) use round::acknowledged;
pub use sandbox::{Shortcut, UnderlayRoute};
pub(crate) use shortcuts::Shortcuts;
