//! Endpoints as this node knows them: what the orders say of each, with what its node says of it.

use std::net::IpAddr;
use std::sync::Arc;

use weft_dataplane::Port;
use weft_model::assignment::EndpointView;
use weft_model::id::{EndpointId, NetworkId, NodeId, ServiceId, TaskId};
use weft_model::objects::Mac;
use weft_model::records::EndpointRecord;

/// One endpoint that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownEndpoint {
    pub(crate) id: EndpointId,
    pub(crate) network: NetworkId,
    pub(crate) node: NodeId,
    pub(crate) name: String,
    /// IPv4 first; the IPv6 one only where the sandbox has it.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) mac: Mac,
    pub(crate) aliases: Vec<String>,
    pub(crate) service: Option<ServiceId>,
    pub(crate) task: Option<TaskId>,
    /// False while it starts or drains: known to the switch, not given to new connections or DNS.
    pub(crate) ready: bool,
    /// It is on its way out: not even a service that has names before it is ready gives it to DNS.
    pub(crate) draining: bool,
    /// Published TCP ports that its program accepts over IPv4 only.
    pub(crate) ipv4_only: Vec<u16>,
    /// The orders give it an IPv6 address that its sandbox does not have.
    without_ipv6: bool,
}

impl KnownEndpoint {
    pub(crate) fn new(view: EndpointView, said: &EndpointRecord) -> Self {
        let mut ips = view.ips;
        if said.without_ipv6 {
            ips.retain(IpAddr::is_ipv4);
        }
        Self {
            id: view.id,
            network: view.network,
            node: view.node,
            name: view.name,
            ips,
            mac: view.mac,
            aliases: view.aliases,
            service: view.service,
            task: view.task,
            ready: said.ready,
            draining: said.draining,
            ipv4_only: said.ipv4_only.clone(),
            without_ipv6: said.without_ipv6,
        }
    }

    /// Whether DNS gives it out: when it takes connections, or, where its service has names `early`, as
    /// soon as it is there.
    pub(crate) const fn is_told(&self, early: bool) -> bool {
        self.ready || (early && !self.draining)
    }

    /// Number of the replica that it is at one of its addresses: FNV-1a of endpoint id and address,
    /// stable for the life of the endpoint, the same in a restarted agent.
    pub(crate) fn replica_key(&self, ip: IpAddr) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        self.id.as_str().bytes().for_each(&mut add);
        match ip {
            IpAddr::V4(v4) => v4.octets().into_iter().for_each(add),
            IpAddr::V6(v6) => v6.octets().into_iter().for_each(add),
        }
        hash
    }

    /// What its node tells the others.
    pub(crate) fn said(&self) -> EndpointRecord {
        EndpointRecord {
            id: self.id.clone(),
            ready: self.ready,
            draining: self.draining,
            ipv4_only: self.ipv4_only.clone(),
            without_ipv6: self.without_ipv6,
        }
    }
}

/// One attachment of a sandbox on this node.
#[derive(Debug, Clone)]
pub(crate) struct LocalPort {
    /// The port in the data plane.
    pub(crate) port: Arc<Port>,
    /// What is known of it; `ready` says whether new connections may come.
    pub(crate) record: Arc<KnownEndpoint>,
}

impl LocalPort {
    /// Whether nothing has changed.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.port, &other.port) && self.record == other.record
    }
}

/// An endpoint that is there, and its port if that is on this node.
#[derive(Debug, Clone)]
pub(crate) struct PlacedEndpoint {
    pub(crate) record: Arc<KnownEndpoint>,
    pub(crate) port: Option<Arc<Port>>,
}

impl PlacedEndpoint {
    /// Whether nothing has changed.
    pub(super) fn is(&self, other: &Self) -> bool {
        let same_port = match (&self.port, &other.port) {
            (Some(port), Some(other)) => Arc::ptr_eq(port, other),
            (None, None) => true,
            _ => false,
        };
        same_port && self.record == other.record
    }
}

impl From<&LocalPort> for PlacedEndpoint {
    fn from(local: &LocalPort) -> Self {
        Self {
            record: Arc::clone(&local.record),
            port: Some(Arc::clone(&local.port)),
        }
    }
}
