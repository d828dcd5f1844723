//! What is seen of this node and of the others: for people, for `/metrics`, for managers. Nothing that
//! runs is changed here.

pub(crate) mod conns;
pub(crate) mod counters;
pub(crate) mod doctor;
pub(crate) mod events;
mod index;
pub(crate) mod liars;
pub(crate) mod logs;
pub(crate) mod ping;
pub(crate) mod ports;
pub(crate) mod pressure;
pub(crate) mod replicas;
pub(crate) mod trouble;
pub(crate) mod vitals;
pub(crate) mod ways;
pub(crate) mod why;
