//! Messages and stubs that `weft-protocol` makes from `proto/weft.proto`; they are kept beside it.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::pedantic,
    clippy::use_self,
    clippy::clone_on_ref_ptr,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    unused_qualifications,
    unreachable_pub,
    reason = "generated code; the proto file holds the documentation"
)]

include!("../proto/weft.v1.rs");
