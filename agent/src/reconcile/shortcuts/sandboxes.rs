//! Programs in front of the devices of sandboxes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use weft_dataplane::{Port, Shortcut};
use weft_fastpath::FlowCache;
use weft_sys::netlink::{Hook, Link, Netlink, NetlinkError};
use weft_sys::netns::Netns;
use weft_wire::Mac;

use super::plan::{Devices, HostEnd, Inode};
use crate::names::{GATEWAY_IFNAME, PORT_PREFIX};
use crate::sandbox::{SandboxError, sysctl};

/// What a veth is called by the kernel.
const VETH: &str = "veth";

/// Why no programs are in front of a port.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    /// Its sandbox, or a setting there.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// An interface.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Root of the sandbox has moved or replaced it.
    #[error("{GATEWAY_IFNAME} of the sandbox is not the one that leads to the host")]
    Foreign,
    /// Packets of IPv6 would be dropped there.
    #[error("IPv6 is off on {0} in the sandbox: set net.ipv6.conf.{0}.disable_ipv6=0 there")]
    WithoutIpv6(String),
}

/// The host's ends of second devices, by the sandbox that they lead to.
pub(super) fn host_ends(links: &[Link]) -> BTreeMap<Inode, HostEnd> {
    let ends = links.iter().filter_map(|link| {
        let inode = link.name.strip_prefix(PORT_PREFIX)?;
        let inode = inode.parse::<Inode>().ok()?;
        let end = HostEnd {
            name: link.name.clone(),
            index: link.index,
            second: link.tied_to?,
            mtu: link.mtu,
            carrier: link.up && link.carrier,
        };
        (link.kind.as_deref() == Some(VETH)).then_some((inode, end))
    });
    ends.collect()
}

/// Puts the programs in front of a port's devices, or in place of those that are there; from then on
/// its flows may take shortcuts. `host` is the host's namespace, `end` the name of the sandbox's
/// second device there.
pub(super) fn attach(
    cache: &FlowCache,
    port: &Port,
    (host, end): (&mut Netlink, &str),
    at: Devices,
) -> Result<(), AttachError> {
    let netns = port.tap.netns().map_err(SandboxError::Enter)?;
    let mut inside = Netlink::open_in(&netns)?;
    let links = inside.links()?.into_iter();
    let second = links
        .filter(|link| link.kind.as_deref() == Some(VETH) && link.tied_to == Some(at.host_end))
        .find(|link| link.index == at.second)
        .ok_or(AttachError::Foreign)?;
    admit(&netns, &second.name, port.ips.iter().any(IpAddr::is_ipv6))?;
    let first = port.tap.name_by_now().map_err(NetlinkError::Socket)?;
    cache.attach_sandbox(at.number, (&mut inside, first.as_str()), (host, end))?;
    // Packets from `weft0` are for it by its address, which its root may change: one with another
    // address is another shortcut, and its entries are made anew.
    let second_mac = Mac(second.mac.ok_or(AttachError::Foreign)?);
    port.shortcut.store(Some(Arc::new(Shortcut {
        number: at.number,
        second: at.second,
        second_mac,
        host_end: at.host_end,
    })));
    Ok(())
}

/// Takes the program away that is in front of a port's own device, whoever put it there: what leaves
/// goes to the worker. A sandbox that is gone is success.
pub(super) fn clear(port: &Port) -> Result<(), NetlinkError> {
    port.shortcut.store(None);
    let (Ok(netns), Ok(first)) = (port.tap.netns(), port.tap.name_by_now()) else {
        return Ok(());
    };
    Netlink::open_in(&netns)?.remove_program(&first, Hook::Egress)
}

/// Has the sandbox take packets for its overlay addresses from the second device.
fn admit(netns: &Netns, second: &str, ipv6: bool) -> Result<(), AttachError> {
    let admitted = netns.run_in(|| -> Result<(), AttachError> {
        let own = format!("net/ipv4/conf/{second}/rp_filter");
        let all = sysctl::get("net/ipv4/conf/all/rp_filter")?;
        // The larger one holds: 1 wants them from the device that leads back, 2 from any.
        if all.max(sysctl::get(&own)?) == "1" {
            sysctl::set(&own, "2")?;
        }
        let off = format!("net/ipv6/conf/{second}/disable_ipv6");
        if ipv6 && sysctl::get(&off)? != "0" {
            return Err(AttachError::WithoutIpv6(second.to_owned()));
        }
        Ok(())
    });
    admitted.map_err(SandboxError::Enter)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            ethernet: true,
            tied_to: Some(7),
            kind: Some(VETH.to_owned()),
            master: None,
            alias: None,
            arp: false,
            locked: true,
        }
    }

    #[test]
    fn host_ends_name_their_sandbox() {
        let down = Link {
            carrier: false,
            ..link(3, "wgw4026532282")
        };
        let other = Link {
            kind: Some("bridge".to_owned()),
            ..link(4, "wgw5")
        };
        let links = [
            link(2, "wgw4026532281"),
            down,
            other,
            link(5, "wgwx"),
            link(6, "eth0"),
        ];
        let ends = host_ends(&links);
        let inodes: Vec<Inode> = ends.keys().copied().collect();
        assert_eq!(inodes, [4_026_532_281, 4_026_532_282]);
        let end = &ends[&4_026_532_281];
        assert_eq!((end.index, end.second, end.mtu), (2, 7, 1500));
        assert!(end.carrier && !ends[&4_026_532_282].carrier);
    }

    #[test]
    fn a_strict_filter_becomes_a_loose_one_and_nothing_else_changes() {
        let netns = Netns::create_anonymous().expect("a namespace");
        let value = |name: &str| netns.run_in(|| sysctl::get(name)).expect("a thread");
        let set = |name: &str, value: &str| {
            let set = netns.run_in(|| sysctl::set(name, value)).expect("a thread");
            set.expect("a setting of a namespace of our own");
        };
        let (all, own) = ("net/ipv4/conf/all/rp_filter", "net/ipv4/conf/lo/rp_filter");
        for (before, expected) in [
            (("0", "0"), "0"),
            (("1", "0"), "2"),
            (("0", "1"), "2"),
            (("2", "1"), "1"),
            (("2", "0"), "0"),
        ] {
            set(all, before.0);
            set(own, before.1);
            admit(&netns, "lo", false).expect("it can be set");
            let after = value(own).expect("it is there");
            assert_eq!(after, expected, "{before:?}");
            assert_eq!(value(all).expect("it is there"), before.0);
        }
        let off = "net/ipv6/conf/lo/disable_ipv6";
        if value(off).is_ok() {
            set(off, "1");
            admit(&netns, "lo", false).expect("no port of IPv6");
            let error = admit(&netns, "lo", true).expect_err("it is off");
            assert!(error.to_string().contains("conf.lo.disable_ipv6=0"));
        }
    }
}
