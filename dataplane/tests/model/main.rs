//! The packet path against a reference model: slow, simple, written from the rules and not from the
//! code, with etherparse for every byte. Random tables, random changes of them, random frames; the
//! same verdicts and the same bytes, whatever super-frames the packets travel in.
//!
//! No device and no namespace: what a worker does between two system calls.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod fast;
mod offloads;
mod packet;
mod properties;
mod reference;
mod world;
