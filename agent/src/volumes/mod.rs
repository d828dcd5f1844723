//! Volumes of this node, for users and for managers that ask: a shell around `weft_volumes`, which the
//! runner asks itself for those of tasks.

mod answer;

pub(crate) use answer::{ask, reply};
