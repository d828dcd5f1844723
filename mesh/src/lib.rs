//! The routing mesh and service VIPs, as logic alone: which replica a new connection goes to,
//! how its frames are rewritten on the way there and back, and when the connection has ended.
//!
//! ```text
//!            Services (immutable, one per snapshot)     ReplicaLoad (shared counts)
//!                 │                                          ▲ +1 / -1
//!  client ──► FlowTable::forward ── new SYN: Balancer::pick ─┘──► replica
//!  client ◄── FlowTable::reverse ◄──────────────────────────────── replica
//! ```
//!
//! One [`FlowTable`] belongs to one worker; nothing in it is shared but the [`ReplicaLoad`]
//! counters and [`Claims`]. Two kinds of client bring frames ([`Origin`]): a sandbox on an overlay
//! network that talks to a VIP, and the node's own `weft0` (routing mesh), whose frames are also
//! given the node's ingress address as source. Both use the same balancer and the same flows.
//!
//! Files know only those further in:
//!
//! ```text
//! key, state, pressure, load     words of the crate, and counters that workers share
//! replica, balancer, services    what can be reached, and who is chosen
//! flow, store, packet            an entry, where entries are, a frame with what is known of it
//! tenants, clients, waiting, …   what a table is made of; none of them knows the table
//! table                          the flows of one worker: begin, change, end
//! choose, forward, gap, …        what becomes of a frame, kind by kind
//! ```
//!
//! No clock, no random number, no socket: `now` comes with every call, the seed with the table.
//! Every frame is hostile until proven otherwise; nothing here panics on one.

#![forbid(unsafe_code)]

mod balancer;
mod carriage;
mod choose;
mod claims;
mod clients;
mod context;
mod ejection;
mod errors;
mod evict;
mod flow;
mod forward;
mod fragments;
mod gap;
mod install;
mod journal;
mod key;
mod listing;
mod load;
mod outcome;
mod packet;
mod pressure;
mod probe;
mod replica;
mod restore;
mod returns;
mod reverse;
mod rewrite;
mod services;
mod shortcut;
mod state;
mod store;
mod sweep;
mod syn_ring;
mod table;
mod tenants;
mod traffic;
mod verdict;
mod waiting;
mod wheel;

pub use balancer::{Affinity, Balancer, Choice, Policy, Rng};
pub use carriage::{Carriage, CarriageKind};
pub use claims::Claims;
pub use context::Context;
pub use ejection::{Ejection, Failure, Health};
pub use evict::Evictions;
pub use flow::{FlowConfig, Origin, Target};
pub use gap::Admission;
pub use install::{Install, Removal};
pub use journal::{Journal, RECORD_VERSION, RECORD_WORDS, Record, SavedOrigin};
pub use listing::FlowRow;
pub use load::{OpenFlow, PortLoad, ReplicaLoad, ServiceLoad};
pub use pressure::NodePressure;
pub use probe::{NodeAddress, PROBE_PORTS, ProbeCounters, ProbeTarget, Prober};
pub use replica::Replica;
pub use services::{Limits, Protocol, Published, Service, ServiceIndex, Services, ServicesBuilder};
pub use shortcut::Carried;
pub use state::FlowState;
pub use sweep::{Reset, ResetTo};
pub use table::{FlowCounters, FlowTable};
pub use traffic::{ConnectTime, Tally};
pub use verdict::{Forward, Refusal, Reverse};
