//! The tests of `namespaces` once more, with established flows left to the kernel where they can be:
//! whoever carries a packet, the same arrives.

#![expect(
    clippy::duplicate_mod,
    reason = "the suite is that of another test program"
)]

#[path = "../namespaces/main.rs"]
mod namespaces;

pub(crate) use namespaces::common;
