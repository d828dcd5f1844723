//! Who can answer for a service.

use std::net::IpAddr;
use std::sync::Arc;

use weft_wire::{Mac, Vni};

use crate::load::ReplicaLoad;

/// One address that can answer for a service.
#[derive(Debug, Clone)]
pub struct Replica {
    /// Stable id of the endpoint, unique on its network for as long as the endpoint lives.
    pub key: u64,
    /// Network that it is reached on.
    pub vni: Vni,
    /// Its address there.
    pub ip: IpAddr,
    /// Its Ethernet address there.
    pub mac: Mac,
    /// Its sandbox is on this node.
    pub local: bool,
    /// Takes no new connections, keeps the open ones.
    pub draining: bool,
    /// Shared counters.
    pub load: Arc<ReplicaLoad>,
}
