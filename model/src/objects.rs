//! Cluster objects: the desired state that a manager stores and every node receives a part of.
//!
//! Written as JSON, they have one form for the node API, the managers' store and the wire: the names
//! and shapes of Docker's API where Docker has the thing, our own in the same manner where not. What
//! a user asks for (`…Spec`) refuses fields that it does not know, wherever it is read: a setting
//! that nobody carries out is told, not dropped.

mod cluster;
mod container_spec;
mod endpoint;
mod health;
mod mac;
mod meta;
mod mount;
mod network;
mod node;
mod payload;
mod placement;
mod port;
mod service;
mod task;
mod task_spec;
mod update;

#[cfg(test)]
mod tests;

pub use cluster::{CaConfig, Cluster, ClusterSpec, Dispatcher, Orchestration};
pub use container_spec::{ContainerSpec, DnsConfig, Privileges, PullOptions, Runtime, Ulimit};
pub use endpoint::{Attachment, Endpoint};
pub use health::{HealthConfig, ParseReadyError, ReadyCheck};
pub use mac::{Mac, ParseMacError};
pub use meta::{Meta, Version};
pub use mount::{
    BindOptions, Mount, MountType, Propagation, TmpfsOptions, VolumeDriver, VolumeOptions,
};
pub use network::{Driver, GatewayError, Ipam, Network, NetworkSpec, Scope, StaticPeer, Subnet};
pub(crate) use node::ips_on;
pub use node::{
    Availability, Description, Engine, Impairment, ManagerStatus, Node, NodeSpec, NodeState,
    NodeStatus, Reachability, Role,
};
pub use payload::{
    ConfigReference, Payload, PayloadBytes, PayloadFile, PayloadKind, PayloadSpec, PayloadUse,
    SecretReference, Templating,
};
pub use placement::{
    Placement, PlacementPreference, Platform, ResourceLimits, ResourceRequirements, Resources,
    SpreadOver, architecture,
};
pub use port::{ClientAddress, PortSpec, Protocol, PublishMode};
pub use service::{
    Affinity, ConnectionPolicy, EndingService, EndpointMode, EndpointSpec, Home, JobStatus,
    Rebalancing, STACK_IMAGE_LABEL, STACK_LABEL, Service, ServiceEndpoint, ServiceMode,
    ServiceSpec, Vip,
};
pub use task::{ContainerStatus, Task, TaskState, TaskStatus};
pub use task_spec::{NetworkAttachmentSpec, RestartCondition, RestartPolicy, TaskSpec};
pub use update::{FailureAction, Ratio, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus};
