//! What a member is made of. Those who make it work (`reconcile`), tell of it (`observe`) and start
//! it (`membership`) hold [`handles::Handles`]; nothing here knows any of them.

pub(crate) mod data_path;
pub(crate) mod earlier;
pub(crate) mod gateway;
pub(crate) mod handles;
pub(crate) mod local;
pub(crate) mod manager_slot;
mod probe_stats;
pub(crate) mod questions;
pub(crate) mod second_ports;
pub(crate) mod shortcuts;
pub(crate) mod underlay;
pub(crate) mod warnings;
