//! `weft0`: the TAP in the host's namespace behind which the routing mesh lives.
//!
//! Published-port connections go to [`MESH_IP`]; the workers that read the TAP choose a replica.
//! The addresses are link-local (RFC 3927), so they are never routed off the node.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use weft_control::objects::Mac;
use weft_sys::netlink::Netlink;
use weft_sys::tap::{Tap, TapConfig};

use super::port::super_frame_len;
use super::{SandboxError, sysctl};

/// Name of the TAP.
pub const MESH_IFNAME: &str = "weft0";

/// The host's own address on [`MESH_IFNAME`], in a /30.
pub const MESH_HOST_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);

/// Where published ports are connected to; answered by the data plane.
pub const MESH_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 2);

/// Ethernet address of the host on [`MESH_IFNAME`].
pub const MESH_HOST_MAC: Mac = Mac([0x02, 0x42, 169, 254, 77, 1]);

/// Ethernet address that [`MESH_IP`] answers with.
pub const MESH_MAC: Mac = Mac([0x02, 0x42, 169, 254, 77, 2]);

/// Makes `weft0` in the calling thread's namespace, or takes up the one that an earlier agent left.
/// `mtu` is that of the ingress network, in bytes.
///
/// # Errors
/// [`SandboxError::Tap`] when another agent in this namespace has it; see [`SandboxError`].
pub fn open_mesh_tap(mtu: u32) -> Result<Tap, SandboxError> {
    let tap = Tap::open(&TapConfig {
        mac: Some(MESH_HOST_MAC.0),
        mtu: Some(mtu),
        up: false,
        ..TapConfig::new(MESH_IFNAME)
    })?;
    let mut netlink = Netlink::open()?;
    sysctl::set_if_there(&format!("net/ipv6/conf/{MESH_IFNAME}/disable_ipv6"), "1")?;
    sysctl::set(&format!("net/ipv4/conf/{MESH_IFNAME}/arp_announce"), "2")?;
    let net = Ipv4Net::new_assert(MESH_HOST_IP, 30);
    netlink.add_address(MESH_IFNAME, IpNet::V4(net))?;
    netlink.set_gso_max_size(MESH_IFNAME, super_frame_len(mtu))?;
    netlink.set_up(MESH_IFNAME, true)?;
    // Fixed, so that the first connection does not wait for an answer.
    netlink.set_neighbour(MESH_IFNAME, MESH_IP.into(), MESH_MAC.0)?;
    Ok(tap)
}

/// Removes `weft0`; when it is not there, that is success.
///
/// # Errors
/// [`SandboxError::Netlink`].
pub fn remove_mesh_tap() -> Result<(), SandboxError> {
    Ok(Netlink::open()?.delete_link(MESH_IFNAME)?)
}
