//! The flow table as a worker uses it: whole frames in, whole frames out.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod backends;
mod bench;
mod claims;
mod errors;
mod fairness;
mod fragments;
mod gap;
mod health;
mod journal;
mod lifetime;
mod limits;
mod listing;
mod nat;
mod properties;
mod retry;
mod returns;
mod router_errors;
mod shortcut;
mod workers;
