//! `weft0`: the TAP in the host's namespace behind which the routing mesh lives.
//!
//! Published-port connections go to [`MESH_IP`]; the workers that read the TAP choose a replica.
//! The IPv4 addresses are link-local (RFC 3927), so they are never routed off the node. Those of
//! IPv6 cannot be, as no packet from elsewhere is forwarded to a link-local one: they are of a
//! unique local prefix (RFC 4193) that no network gets, and end with the IPv4 addresses, so that
//! both have one Ethernet address.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_model::objects::Mac;
use weft_sys::netlink::{Netlink, NetlinkError};
use weft_sys::tap::{Tap, TapConfig};

use super::error::SandboxError;
use super::sysctl;
use crate::names::{MESH_HOST_IP, MESH_HOST_IP6, MESH_IFNAME, MESH_IP, MESH_IP6};

/// Ethernet address of the host on [`MESH_IFNAME`].
const MESH_HOST_MAC: Mac = Mac([0x02, 0x42, 169, 254, 77, 1]);

/// Ethernet address that [`MESH_IP`] and [`MESH_IP6`] answer with.
const MESH_MAC: Mac = Mac([0x02, 0x42, 169, 254, 77, 2]);

/// Largest super-frame on [`MESH_IFNAME`], in bytes: the kernel's own limit. What clients outside send is
/// as long as that, and where a device takes less, the kernel cuts all of it into single segments. Ports
/// of sandboxes have a limit of their own, as it makes their senders' frames fit one datagram.
const SUPER_FRAME_LEN: u32 = 65_536;

/// Makes `weft0` in the calling thread's namespace, or takes up the one that an earlier agent left.
/// `mtu` is that of the ingress network, in bytes.
///
/// # Errors
/// [`SandboxError::Tap`] when another agent in this namespace has it; see [`SandboxError`].
pub(crate) fn open_mesh_tap(mtu: u32) -> Result<Tap, SandboxError> {
    let mut netlink = Netlink::open()?;
    let found = netlink.link(MESH_IFNAME)?.is_some();
    let tap = Tap::open(&TapConfig {
        mac: Some(MESH_HOST_MAC.0),
        mtu: Some(mtu),
        up: false,
        ..TapConfig::new(MESH_IFNAME)
    })?;
    if !found {
        // Until it is given an address. One that is there may be in use.
        remove_mesh_ipv6()?;
    }
    sysctl::set(&format!("net/ipv4/conf/{MESH_IFNAME}/arp_announce"), "2")?;
    let net = Ipv4Net::new_assert(MESH_HOST_IP, 30);
    netlink.add_address(MESH_IFNAME, IpNet::V4(net))?;
    netlink.set_gso_max_size(MESH_IFNAME, SUPER_FRAME_LEN)?;
    netlink.set_up(MESH_IFNAME, true)?;
    // Fixed, so that the first connection does not wait for an answer.
    netlink.set_neighbour(MESH_IFNAME, MESH_IP.into(), MESH_MAC.0)?;
    Ok(tap)
}

/// Gives `weft0` its IPv6 address, where the host has that family.
///
/// # Errors
/// Why it has not, in words; `weft0` serves IPv4 all the same.
pub(crate) fn add_mesh_ipv6() -> Result<(), String> {
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
    match off.as_deref().map(str::trim) {
        Ok("0") => {}
        Ok(_) => return Err("IPv6 is off on this host (net.ipv6.conf.all.disable_ipv6)".to_owned()),
        Err(_) => return Err("the kernel of this host has no IPv6".to_owned()),
    }
    configure_ipv6().map_err(|e| e.to_string())
}

/// Takes IPv6 off `weft0`.
///
/// # Errors
/// [`SandboxError::Sysctl`].
pub(crate) fn remove_mesh_ipv6() -> Result<(), SandboxError> {
    sysctl::set_if_there(&format!("net/ipv6/conf/{MESH_IFNAME}/disable_ipv6"), "1")
}

fn configure_ipv6() -> Result<(), SandboxError> {
    sysctl::fixed_addresses(MESH_IFNAME)?;
    sysctl::set(&format!("net/ipv6/conf/{MESH_IFNAME}/disable_ipv6"), "0")?;
    let mut netlink = Netlink::open()?;
    let net = Ipv6Net::new_assert(MESH_HOST_IP6, 126);
    netlink.add_address(MESH_IFNAME, IpNet::V6(net))?;
    netlink.set_neighbour(MESH_IFNAME, MESH_IP6.into(), MESH_MAC.0)?;
    Ok(())
}

/// Compares `weft0` with what [`open_mesh_tap`] and, with `ipv6`, [`add_mesh_ipv6`] made of it, and
/// sets again what is missing. Returns that, in words.
///
/// # Errors
/// [`SandboxError::Netlink`]; also when `weft0` itself is gone, which only a restart mends.
pub(crate) fn keep_mesh_tap(ipv6: bool) -> Result<Vec<String>, SandboxError> {
    let mut netlink = Netlink::open()?;
    let link = netlink.link(MESH_IFNAME)?;
    let link = link.ok_or_else(|| NetlinkError::NoLink {
        name: MESH_IFNAME.to_owned(),
    })?;
    let mut lost = Vec::new();
    // Before its neighbours, which go with it.
    if link.mac != Some(MESH_HOST_MAC.0) {
        netlink.set_mac(MESH_IFNAME, MESH_HOST_MAC.0)?;
        lost.push(format!("the Ethernet address of {MESH_IFNAME}"));
    }
    if !link.up {
        netlink.set_up(MESH_IFNAME, true)?;
        lost.push(format!("the state up of {MESH_IFNAME}"));
    }
    let v4 = IpNet::V4(Ipv4Net::new_assert(MESH_HOST_IP, 30));
    let v6 = IpNet::V6(Ipv6Net::new_assert(MESH_HOST_IP6, 126));
    let wanted = [(v4, MESH_IP.into()), (v6, MESH_IP6.into())];
    for (address, behind) in wanted.into_iter().take(if ipv6 { 2 } else { 1 }) {
        if !netlink.all_addresses()?.contains(&(link.index, address)) {
            if address.addr().is_ipv6() {
                configure_ipv6()?;
            }
            netlink.add_address(MESH_IFNAME, address)?;
            lost.push(format!("the address {} of {MESH_IFNAME}", address.addr()));
        }
        let neighbour = (link.index, behind, MESH_MAC.0);
        if !netlink.fixed_neighbours()?.contains(&neighbour) {
            netlink.set_neighbour(MESH_IFNAME, behind, MESH_MAC.0)?;
            lost.push(format!("the neighbour {behind} of {MESH_IFNAME}"));
        }
    }
    Ok(lost)
}

/// Removes `weft0`; when it is not there, that is success.
///
/// # Errors
/// [`SandboxError::Netlink`].
pub(crate) fn remove_mesh_tap() -> Result<(), SandboxError> {
    Ok(Netlink::open()?.delete_link(MESH_IFNAME)?)
}
