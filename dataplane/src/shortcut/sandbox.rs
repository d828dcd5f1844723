//! What a shortcut has to know of the devices on the way.

use std::net::Ipv4Addr;

use weft_fastpath::MESH_NUMBER;
use weft_wire::Mac;

/// The devices of a sandbox in front of which programs stand
/// ([`FlowCache::attach_sandbox`](weft_fastpath::FlowCache::attach_sandbox)), or `weft0`
/// ([`FlowCache::attach_mesh`](weft_fastpath::FlowCache::attach_mesh)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortcut {
    /// Number of the sandbox, which the programs tell it by.
    pub number: u16,
    /// Number of its second device, inside of it.
    pub second: u32,
    /// Ethernet address of that device.
    pub second_mac: Mac,
    /// Number of the host's end of that device.
    pub host_end: u32,
}

impl Shortcut {
    /// That of `weft0`, which has this number on the host and this Ethernet address there: one device,
    /// without a sandbox.
    #[must_use]
    pub const fn of_mesh(device: u32, mac: Mac) -> Self {
        Self {
            number: MESH_NUMBER,
            second: device,
            second_mac: mac,
            host_end: device,
        }
    }
}

/// The way to a VTEP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderlayRoute {
    /// Number of the device, which has a program in front of it
    /// ([`FlowCache::attach_underlay`](weft_fastpath::FlowCache::attach_underlay)).
    pub device: u32,
    /// Who is next: the VTEP itself, or a router.
    pub next_hop: Ipv4Addr,
    /// The VTEP's second port, at which its kernel merges what arrives; that of the data path where it
    /// has none ([`SecondPort`](weft_fastpath::SecondPort)).
    pub second_port: Option<u16>,
}
