//! Cluster objects: the desired state that a manager stores and every node receives a part of.
//!
//! Times are Unix milliseconds, given by the caller. `version` counts changes of one object.

mod cluster;
mod endpoint;
mod mac;
mod meta;
mod network;
mod node;
mod port;
mod service;
mod task;

pub use cluster::Cluster;
pub use endpoint::{Attachment, Endpoint};
pub use mac::{Mac, ParseMacError};
pub use meta::Meta;
pub use network::{Network, NetworkSpec, StaticPeer, Subnet};
pub(crate) use node::ips_on;
pub use node::{Availability, Impairment, Node, NodeState, Role};
pub use port::{ClientAddress, PortSpec, Protocol, PublishMode};
pub use service::{
    Affinity, ConnectionPolicy, EndingService, EndpointMode, Service, ServiceMode, ServiceSpec, Vip,
};
pub use task::{NetworkAttachmentSpec, Privileges, RestartCondition, Task, TaskState, TaskStatus};
