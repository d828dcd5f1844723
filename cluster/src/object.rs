//! Objects of the desired state, and the changes of them that a log can carry.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_model::id::{EndpointId, NetworkId, NodeId, PayloadId, PeerId, ServiceId, TaskId};
use weft_model::objects::{
    Cluster, EndingService, Endpoint, Meta, Network, Node, Payload, Service, StaticPeer, Task,
};

use super::secrets::Secrets;

/// Where serial allocation goes on, so that what was just freed is not handed out at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Last allocated VXLAN network identifier; 0 before the first.
    pub last_vni: u32,
    /// Last subnet that was cut from a pool.
    pub last_subnet: Option<IpNet>,
    /// Last dynamic port; 0 before the first.
    pub last_port: u16,
}

/// Last allocated address of each subnet of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressCursor {
    /// Which network.
    pub network: NetworkId,
    /// At most one address of each subnet.
    pub last: Vec<IpAddr>,
}

/// A node that was removed: no certificate of it counts. No part of what people see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedNode {
    /// Which one.
    pub id: NodeId,
    /// Until when there may be certificates of it, in Unix milliseconds. What is remembered after that
    /// is forgotten when another node is removed.
    pub until: u64,
}

/// Anything that the desired state holds. A copy of what there may be many of is a pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// Settings; there is one.
    Cluster(Box<Cluster>),
    /// Join secrets and gossip keys; there is one.
    Secrets(Box<Secrets>),
    /// Allocation counters; there is one.
    Counters(Counters),
    /// Address cursor of a network.
    Cursor(Arc<AddressCursor>),
    /// A member.
    Node(Arc<Node>),
    /// A network.
    Network(Arc<Network>),
    /// A service.
    Service(Arc<Service>),
    /// A removed service whose tasks have not ended.
    Ending(Arc<EndingService>),
    /// A task.
    Task(Arc<Task>),
    /// An endpoint.
    Endpoint(Arc<Endpoint>),
    /// A static peer.
    Peer(Arc<StaticPeer>),
    /// A node that was removed.
    Removed(Arc<RemovedNode>),
    /// A secret or a config.
    Payload(Arc<Payload>),
}

/// Names one object of the desired state.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectId {
    /// The cluster's settings.
    Cluster,
    /// The cluster's secrets.
    Secrets,
    /// The allocation counters.
    Counters,
    /// Address cursor of that network.
    Cursor(NetworkId),
    /// A member.
    Node(NodeId),
    /// A network.
    Network(NetworkId),
    /// A service.
    Service(ServiceId),
    /// A removed service whose tasks have not ended.
    Ending(ServiceId),
    /// A task.
    Task(TaskId),
    /// An endpoint.
    Endpoint(EndpointId),
    /// A static peer.
    Peer(PeerId),
    /// A node that was removed.
    Removed(NodeId),
    /// A secret or a config.
    Payload(PayloadId),
}

impl Object {
    /// Name of the object.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Cluster(_) => ObjectId::Cluster,
            Self::Secrets(_) => ObjectId::Secrets,
            Self::Counters(_) => ObjectId::Counters,
            Self::Cursor(c) => ObjectId::Cursor(c.network.clone()),
            Self::Node(n) => ObjectId::Node(n.id.clone()),
            Self::Network(n) => ObjectId::Network(n.id.clone()),
            Self::Service(s) => ObjectId::Service(s.id.clone()),
            Self::Ending(s) => ObjectId::Ending(s.id.clone()),
            Self::Task(t) => ObjectId::Task(t.id.clone()),
            Self::Endpoint(e) => ObjectId::Endpoint(e.attachment.endpoint.clone()),
            Self::Peer(p) => ObjectId::Peer(p.id.clone()),
            Self::Removed(r) => ObjectId::Removed(r.id.clone()),
            Self::Payload(p) => ObjectId::Payload(p.id.clone()),
        }
    }

    /// Versions and times, of those objects that have them.
    pub(super) fn meta(&self) -> Option<&Meta> {
        match self {
            Self::Cluster(o) => Some(&o.meta),
            Self::Node(o) => Some(&o.meta),
            Self::Network(o) => Some(&o.meta),
            Self::Service(o) => Some(&o.meta),
            Self::Task(o) => Some(&o.meta),
            Self::Payload(o) => Some(&o.meta),
            Self::Secrets(_)
            | Self::Counters(_)
            | Self::Cursor(_)
            | Self::Ending(_)
            | Self::Endpoint(_)
            | Self::Peer(_)
            | Self::Removed(_) => None,
        }
    }

    /// The same, to be changed; an object that others have too is copied for it.
    pub(super) fn meta_mut(&mut self) -> Option<&mut Meta> {
        match self {
            Self::Cluster(o) => Some(&mut o.meta),
            Self::Node(o) => Some(&mut Arc::make_mut(o).meta),
            Self::Network(o) => Some(&mut Arc::make_mut(o).meta),
            Self::Service(o) => Some(&mut Arc::make_mut(o).meta),
            Self::Task(o) => Some(&mut Arc::make_mut(o).meta),
            Self::Payload(o) => Some(&mut Arc::make_mut(o).meta),
            Self::Secrets(_)
            | Self::Counters(_)
            | Self::Cursor(_)
            | Self::Ending(_)
            | Self::Endpoint(_)
            | Self::Peer(_)
            | Self::Removed(_) => None,
        }
    }
}

macro_rules! object_from {
    ($pointer:ident: $($type:ident => $variant:ident),*) => {$(
        impl From<$type> for Object {
            fn from(o: $type) -> Self {
                Self::$variant($pointer::new(o))
            }
        }
    )*};
}
object_from!(Box: Cluster => Cluster, Secrets => Secrets);
object_from!(Arc: AddressCursor => Cursor, Node => Node, Network => Network, Service => Service,
    EndingService => Ending, Task => Task, Endpoint => Endpoint, StaticPeer => Peer,
    RemovedNode => Removed, Payload => Payload);

impl From<Counters> for Object {
    fn from(o: Counters) -> Self {
        Self::Counters(o)
    }
}

/// One step of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Creates or replaces.
    Put(Object),
    /// Removes; no error when it is gone already.
    Delete(ObjectId),
}

impl Change {
    /// What it changes.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Put(object) => object.id(),
            Self::Delete(id) => id.clone(),
        }
    }
}
