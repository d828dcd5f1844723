//! Shortcuts: established TCP flows that the kernel carries by itself, as this process has decided
//! about them (crate `weft-fastpath`).
//!
//! A worker sees the first packets of each flow, and notes those that are worth a shortcut
//! ([`candidates`]): bulk, or a connection that is kept and asked again and again, whose price is its
//! wake-ups. At the end of the round, after everything that was read has left, it enters both
//! directions as its tables have them. From then on it sees of the flow only what the kernel does not
//! carry, and once a second looks at what was carried ([`installed`]). Tables that change make entries
//! stale at once ([`epochs`]). Flows to virtual addresses take shortcuts as well, with their rewrites
//! ([`balanced`]); those that come by published ports do not.

mod balanced;
mod cache;
mod candidates;
mod epochs;
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
pub use sandbox::{Shortcut, UnderlayRoute};
pub(crate) use shortcuts::Shortcuts;
pub(crate) use worker::acknowledged;
