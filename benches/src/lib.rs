//! What benches and allocation tests share: frames, a switch of a given size, and an allocator
//! that counts.

pub mod allocations;
pub mod frames;
pub mod network;
