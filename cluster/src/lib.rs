//! What should be: cluster objects, allocation, orchestration, scheduling.
//!
//! In: commands, reports of nodes, the time, entropy. Out: [`Change`]s, which the caller proposes
//! as an [`Entry`]. What plans changes nothing in place, and what an entry does depends on the entry
//! and the state alone, so the same functions serve one manager with a file and several with a
//! replicated log. States share what is the same in them, and have an index: a command or a pass
//! costs what it is about, not what there is.
//!
//! ```text
//! command ──► fn(&ClusterState, now, entropy, …) ──► changes ──► Entry ──► file or log
//!                                                                              │ Entry::apply
//! reconcile(&ClusterState, since, now, waits, entropy) ◄─ every new state ◄────┤
//!                                                                              ▼
//!                              nodes' sessions ◄── OrderBook::update(&ClusterState)
//! ```

#![forbid(unsafe_code)]

mod allocator;
mod assign;
mod commands;
mod conditions;
mod constraint;
mod dirty;
mod draft;
mod ending;
mod enforcer;
mod error;
mod events;
mod filters;
mod homes;
mod image;
mod index;
mod ipam;
mod jobs;
mod keys;
mod lookup;
mod machine;
mod object;
mod orchestrator;
mod ports;
mod progress;
mod quorum;
mod rebalance;
mod recent;
mod respec;
mod rotation;
mod routes;
mod scheduler;
mod secrets;
mod service_status;
mod sizes;
mod spread;
mod state;
mod store;
mod subnets;
mod table;
mod template;
mod token;
mod unique;
mod unlock_key;
mod updater;
mod vitals;
mod waiting;
mod waits;

#[cfg(test)]
mod tests;

pub use assign::{OrderBook, SharedNews};
pub use commands::{
    Attach, DEFAULT_DATA_PATH_PORT, Detacher, InitCluster, MAX_ATTEMPTS, MAX_DELAY, MAX_MOVES,
    MAX_REPLICAS, NodeDescription, add_peer, attach_endpoint, change_node, check_version,
    create_network, create_payload, create_service, detach_endpoint, go_on_alone, init_cluster,
    join, join_as, leave_node, note_certificate, plan_rebalance, plan_update, rebalance_service,
    remove_network, remove_node, remove_payload, remove_peer, remove_service, restore,
    role_of_secret, rotate_root, rotate_token, rotate_unlock_key, scale_service,
    set_advertise_addr, set_impaired, set_node_state, set_role, still_a_manager, update_node,
    update_payload, update_service, update_swarm, update_task_status,
};
pub use draft::{Entropy, Planned};
pub use error::{CommandError, ErrorKind};
pub use events::{events, leader_events};
pub use ipam::{Exhausted, usage};
pub use keys::{GOSSIP_KEY_LIFE_MS, SPREAD_MS};
pub use machine::{Entry, Reply, Stale};
pub use object::{AddressCursor, Change, Counters, Object, ObjectId, RemovedNode};
pub use orchestrator::reconcile;
pub use ports::DYNAMIC_PORTS;
pub use quorum::Quorum;
pub use rebalance::Move;
pub use rotation::RootProgress;
pub use routes::{HostRoute, claim_on, first_free, shared_with};
pub use secrets::{RingState, RingStep, RootPair, Roots, Secrets, Successor};
pub use service_status::service_status;
pub use state::ClusterState;
pub use store::{Leadership, ProposeError};
pub use subnets::{DEFAULT_POOL, DEFAULT_SUBNET_PREFIX_LEN, FIRST_VNI, LAST_VNI};
pub use table::Table;
pub use template::{
    PayloadLookups, TemplateFields, expand, expand_hostname, expand_mount, expand_payload,
};
pub use token::{ParseTokenError, Token, encode as base36_bytes};
pub use unique::given_twice;
pub use unlock_key::{ParseUnlockKeyError, UnlockKey};
pub use vitals::{MAX_UNSEEN, Sight, Vitals, judge};
pub use waiting::waiting;
pub use waits::{IMPAIRED_GRACE_MS, ORPHAN_AFTER_MS, ROTATION_PATIENCE_MS, Waits};
