//! What people and nodes may ask for. Every command reads a state and returns changes, or says
//! why not and changes nothing.

mod authority;
mod endpoint;
mod network;
mod node;
mod service;
mod swarm;
mod task;

pub use authority::rotate_root;
pub use endpoint::{Attach, Detacher, add_peer, attach_endpoint, detach_endpoint, remove_peer};
pub use network::{create_network, remove_network};
pub use node::{
    NodeDescription, join, leave_node, note_certificate, remove_node, set_availability,
    set_impaired, set_node_state, update_node,
};
pub use service::{
    MAX_DELAY, MAX_REPLICAS, create_service, remove_service, scale_service, update_service,
};
pub use swarm::{
    DEFAULT_DATA_PATH_PORT, InitCluster, init_cluster, role_of_secret, rotate_token, update_swarm,
};
pub use task::update_task_status;
