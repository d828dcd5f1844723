//! The shim of tasks (`weft-shim`) once more, as a small static program that `weft` and `weftd` carry:
//! `build.rs` makes it.

#![forbid(unsafe_code)]

/// Its file; empty where it could not be made, as the C library is not there as an archive.
pub const PROGRAM: &[u8] = include_bytes!(env!("WEFT_SHIM_PROGRAM"));
