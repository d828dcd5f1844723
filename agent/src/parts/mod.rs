//! What a member is made of. Every other room of the agent uses these, they use none of them.

pub(crate) mod data_path;
pub(crate) mod gateway;
pub(crate) mod local;
pub(crate) mod probe_stats;
pub(crate) mod questions;
pub(crate) mod underlay;
pub(crate) mod warnings;
