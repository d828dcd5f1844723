//! What benches and allocation tests share: frames, a switch and services of a given size,
//! and an allocator that counts.

pub mod allocations;
pub mod balancers;
pub mod frames;
pub mod network;
pub mod services;
