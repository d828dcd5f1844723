//! Volumes of this node, as Docker's driver `local` has them.

#![forbid(unsafe_code)]
