//! The tests of `namespaces` once more, with established flows left to the kernel where they can be:
//! whoever carries a packet, the same arrives.

#[path = "../namespaces/main.rs"]
mod namespaces;

pub(crate) use namespaces::common;
