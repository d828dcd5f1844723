//! Cables: the bridge of the switch, a veth pair to each machine, addresses and routes.

use std::net::IpAddr;

use anyhow::Context;
use ipnet::IpNet;
use weft_sys::netlink::{MAIN_TABLE, Netlink, Route, Veth};
use weft_sys::netns::Netns;

use crate::bed::{Bed, End};
use crate::config::{LabConfig, OUTSIDE};

/// Name of the bridge.
const BRIDGE: &str = "underlay";

/// Name of the interface of every machine.
const UPLINK: &str = "eth0";

/// Name of the interface of a namespace that is plugged in by itself.
const SECOND_UPLINK: &str = "underlay0";

/// Makes the bridge.
pub(crate) fn make_switch(switch: &Netns, mtu: u32) -> anyhow::Result<()> {
    let mut links = Netlink::open_in(switch)?;
    links.set_up("lo", true)?;
    links.add_bridge(BRIDGE)?;
    links.set_mtu(BRIDGE, mtu)?;
    links.set_up(BRIDGE, true)?;
    Ok(())
}

/// MTU of the bridge.
pub(crate) fn switch_mtu(switch: &Netns) -> anyhow::Result<u32> {
    let bridge = Netlink::open_in(switch)?.link(BRIDGE)?;
    Ok(bridge.context("the switch has no bridge")?.mtu)
}

/// Lays one more cable, to a namespace that has an `eth0` of another kind already.
pub(crate) fn plug_in_more(
    switch: &Netns,
    machine: &Netns,
    name: &str,
    addr: IpNet,
    (mtu, bed): (u32, Bed),
) -> anyhow::Result<()> {
    let mut bridge = Netlink::open_in(switch)?;
    bridge
        .add_veth(&Veth {
            name,
            peer: SECOND_UPLINK,
            peer_netns: Some(machine),
            peer_mac: None,
            mtu: Some(mtu),
        })
        .with_context(|| format!("cannot make the cable of {name}"))?;
    bridge.set_master(name, Some(BRIDGE))?;
    bridge.set_up(name, true)?;
    let mut inside = Netlink::open_in(machine)?;
    inside.set_up("lo", true)?;
    inside.add_address(SECOND_UPLINK, addr)?;
    inside.set_up(SECOND_UPLINK, true)?;
    bed.make(switch, name, End::Switch)?;
    bed.make(machine, SECOND_UPLINK, End::Machine)
}

/// Takes the cable of a machine that is off out of the switch. The kernel does so itself, and takes
/// its time.
pub(crate) fn unplug(switch: &Netns, name: &str) -> anyhow::Result<()> {
    Netlink::open_in(switch)?
        .delete_link(name)
        .with_context(|| format!("cannot take the old cable of {name} away"))
}

/// Plugs a machine in: a cable to the bridge, an address, and a way out.
pub(crate) fn plug_in(
    switch: &Netns,
    machine: &Netns,
    name: &str,
    addr: IpAddr,
    config: &LabConfig,
) -> anyhow::Result<()> {
    let mut bridge = Netlink::open_in(switch)?;
    bridge
        .add_veth(&Veth {
            name,
            peer: UPLINK,
            peer_netns: Some(machine),
            peer_mac: None,
            mtu: Some(config.mtu),
        })
        .with_context(|| format!("cannot make the cable of {name}"))?;
    bridge.set_master(name, Some(BRIDGE))?;
    bridge.set_up(name, true)?;

    let mut inside = Netlink::open_in(machine)?;
    inside.set_up("lo", true)?;
    let prefix = config.underlay.prefix_len();
    inside.add_address(UPLINK, IpNet::new(addr, prefix)?)?;
    inside.set_up(UPLINK, true)?;
    if name == OUTSIDE {
        inside.add_address("lo", IpNet::from(config.far_addr()))?;
    } else {
        inside.set_route(&Route {
            dest: match addr {
                IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
                IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
            },
            gateway: Some(config.outside_addr()),
            dev: Some(UPLINK.to_owned()),
            table: MAIN_TABLE,
            onlink: false,
        })?;
    }
    config.bed.make(switch, name, End::Switch)?;
    config.bed.make(machine, UPLINK, End::Machine)
}
