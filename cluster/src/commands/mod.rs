//! What people and nodes may ask for. Every command reads a state and returns changes, or says
//! why not and changes nothing.

mod authority;
mod autolock;
mod container;
mod endpoint;
mod health;
mod mounts;
mod network;
mod node;
mod node_spec;
mod payload;
mod placement;
mod rebalance;
mod references;
mod restore;
mod service;
mod swarm;
mod task;
mod update;

pub use authority::rotate_root;
pub use autolock::rotate_unlock_key;
pub use endpoint::{Attach, Detacher, add_peer, attach_endpoint, detach_endpoint, remove_peer};
pub use health::MAX_ATTEMPTS;
pub use network::{create_network, remove_network};
pub use node::{
    NodeDescription, go_on_alone, join, join_as, leave_node, note_certificate, remove_node,
    set_advertise_addr, set_impaired, set_node_state, set_role, still_a_manager, update_node,
};
pub use node_spec::{change_node, check_version};
pub use payload::{create_payload, remove_payload, update_payload};
pub use rebalance::{MAX_MOVES, plan_rebalance, rebalance_service};
pub use restore::restore;
pub use service::{MAX_DELAY, MAX_REPLICAS, create_service, remove_service, scale_service};
pub use swarm::{
    DEFAULT_DATA_PATH_PORT, InitCluster, init_cluster, role_of_secret, rotate_token, update_swarm,
};
pub use task::update_task_status;
pub use update::{plan_update, update_service};
