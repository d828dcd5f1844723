//! What calls of a table need to know, and what it says of a client's frame.

use std::sync::Arc;

use weft_wire::Instant;
use weft_wire::frame::TCP;

use crate::flow::Origin;
use crate::key::Key;
use crate::load::PortLoad;
use crate::services::{Protocol, Published, Service, Services};

/// What a call needs to know of the world.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The time.
    pub now: Instant,
    /// Number of the snapshot that `services` belongs to.
    pub epoch: u64,
    /// The services.
    pub services: &'a Services,
}

/// Where a connection is counted besides its replica: at its published port, unless a listener of the
/// agent counted it already.
pub(crate) fn port_load<'a>(
    cx: &Context<'a>,
    origin: &Origin,
    key: &Key,
) -> Option<&'a Arc<PortLoad>> {
    match origin {
        Origin::Mesh {
            keeps_client: true, ..
        } => Some(published(cx, origin, key)?.load),
        _ => None,
    }
}

/// The published port that a connection came by.
pub(crate) fn published<'a>(cx: &Context<'a>, origin: &Origin, key: &Key) -> Option<Published<'a>> {
    match origin {
        Origin::Mesh { .. } => cx.services.published(protocol_of(key), key.tuple.dport),
        Origin::Port { .. } => None,
    }
}

const fn protocol_of(key: &Key) -> Protocol {
    if key.tuple.proto == TCP {
        Protocol::Tcp
    } else {
        Protocol::Udp
    }
}

/// The service that a client means, and the port to give to its replica.
pub(crate) fn service_of<'a>(
    cx: &Context<'a>,
    origin: &Origin,
    key: &Key,
) -> Option<(&'a Service, u16)> {
    match origin {
        Origin::Port { vni, .. } => Some((cx.services.vip(*vni, key.tuple.dst)?, key.tuple.dport)),
        Origin::Mesh { .. } => {
            let published = published(cx, origin, key)?;
            Some((published.service, published.target_port))
        }
    }
}
