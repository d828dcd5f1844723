//! Compares the bridge and what is on it with the kernel, and sets again what is missing. A link that
//! goes down takes routes and neighbours with it, and anybody who is root may take the rest.

use ipnet::{IpNet, Ipv4Net};
use weft_model::objects::Mac;
use weft_sys::netlink::{MAIN_TABLE, Netlink, NetlinkError, Route};

use super::{
    BRIDGE, GATEWAY_IFNAME, GatewayBridge, GwBridgeError, Sandbox, configure_inside, deaf, guard,
    port_name,
};

impl GatewayBridge {
    /// Looks at the bridge and at the ports that this agent put on it, in the calling thread's
    /// namespace. Returns what was missing, in words.
    ///
    /// # Errors
    /// [`GwBridgeError::Netlink`]: something could not be looked at or set again.
    pub(crate) fn keep(&self) -> Result<Vec<String>, GwBridgeError> {
        let mut lost = Vec::new();
        let members = self.members();
        let mut host = Netlink::open()?;
        if host.link(BRIDGE)?.is_none() {
            self.make_again(&mut host)?;
            lost.push(format!("the bridge {BRIDGE}"));
        }
        self.keep_bridge(&mut host, &mut lost)?;
        let index = host.link_index(BRIDGE)?;
        let links = host.links()?;
        let neighbours = host.fixed_neighbours()?;
        let entries = host.fixed_bridge_fdb()?;
        for (name, &ip) in members.iter() {
            // One that is gone is made again from the side of its sandbox.
            let Some(port) = links.iter().find(|link| link.name == *name) else {
                continue;
            };
            let mac = Mac::for_ip(ip.into()).0;
            let whole = port.master == Some(index)
                && port.up
                && port.locked
                && !port.arp
                && entries.contains(&(port.index, mac))
                && neighbours.contains(&(index, ip.into(), mac));
            if !whole {
                host.set_master(name, Some(BRIDGE))?;
                guard(&mut host, name, ip)?;
                host.set_up(name, true)?;
                lost.push(format!("the port of {ip} on {BRIDGE}"));
            }
        }
        Ok(lost)
    }

    /// Looks at the end of the bridge in one sandbox. Sandboxes that this agent did not put on the
    /// bridge are left alone, and so is an interface that is down: its owner may want that.
    ///
    /// # Errors
    /// As [`GatewayBridge::connect`].
    pub(crate) fn keep_inside(&self, sandbox: &Sandbox) -> Result<Vec<String>, GwBridgeError> {
        let port = port_name(sandbox)?;
        let members = self.members();
        let Some(&ip) = members.get(&port) else {
            return Ok(Vec::new());
        };
        if Netlink::open()?.link(&port)?.is_none() {
            drop(members);
            self.connect(sandbox)?;
            return Ok(vec![format!("{GATEWAY_IFNAME} of the sandbox of {ip}")]);
        }
        let mut inside = sandbox.netlink()?;
        let Some(link) = inside.link(GATEWAY_IFNAME)?.filter(|link| link.up) else {
            return Ok(Vec::new());
        };
        let net = Ipv4Net::new_assert(ip, self.subnet.prefix_len());
        let gateway = self.subnet.addr();
        let addresses = inside.all_addresses()?;
        let neighbours = inside.fixed_neighbours()?;
        let of_gateway = (link.index, gateway.into(), Mac::for_ip(gateway.into()).0);
        let mut lost = Vec::new();
        if !addresses.contains(&(link.index, IpNet::V4(net))) {
            lost.push(format!(
                "the address {ip} of {GATEWAY_IFNAME} in its sandbox"
            ));
        }
        if !neighbours.contains(&of_gateway) {
            lost.push(format!("the neighbour {gateway} in the sandbox of {ip}"));
        }
        // Another way out is somebody's choice.
        if !inside.routes()?.iter().any(is_way_out) {
            lost.push(format!("the default route in the sandbox of {ip}"));
        }
        if !lost.is_empty() {
            configure_inside(&mut inside, net, gateway)?;
        }
        Ok(lost)
    }

    /// A bridge that somebody deleted, under the number that it had: the data path refuses what
    /// comes by that.
    fn make_again(&self, host: &mut Netlink) -> Result<(), GwBridgeError> {
        if let Err(error) = host.add_bridge_numbered(BRIDGE, self.index) {
            tracing::warn!(%error, "{BRIDGE} has another number until weftd starts again");
            host.add_bridge(BRIDGE)?;
        }
        deaf(BRIDGE);
        Ok(host.set_mtu(BRIDGE, self.mtu)?)
    }

    fn keep_bridge(&self, host: &mut Netlink, lost: &mut Vec<String>) -> Result<(), GwBridgeError> {
        let Some(link) = host.link(BRIDGE)? else {
            return Ok(());
        };
        let made = lost.is_empty();
        let mut say = |what: &str| {
            if made {
                lost.push(format!("{what} of {BRIDGE}"));
            }
        };
        if link.arp {
            host.set_arp(BRIDGE, false)?;
            say("the deafness to ARP");
        }
        let mac = Mac::for_ip(self.subnet.addr().into()).0;
        if link.mac != Some(mac) {
            host.set_mac(BRIDGE, mac)?;
            say("the Ethernet address");
        }
        let address = IpNet::V4(self.subnet);
        if !host.all_addresses()?.contains(&(link.index, address)) {
            host.add_address(BRIDGE, address)?;
            say("the address");
        }
        if !link.up {
            host.set_up(BRIDGE, true)?;
            say("the state up");
        }
        Ok(())
    }
}

/// Whether a route leads everything out that no other one leads elsewhere.
pub(crate) fn is_way_out(route: &Route) -> bool {
    route.dest.addr().is_ipv4() && route.dest.prefix_len() == 0 && route.table == MAIN_TABLE
}

/// Whether the interface with the bridge's name in a sandbox is the one that leads there: its
/// Ethernet address follows from its IP address.
///
/// # Errors
/// [`NetlinkError::Kernel`].
pub(crate) fn made_interface(inside: &mut Netlink) -> Result<bool, NetlinkError> {
    let Some(link) = inside.link(GATEWAY_IFNAME)? else {
        return Ok(false);
    };
    let addresses = inside.all_addresses()?;
    let own = addresses.iter().filter(|(index, _)| *index == link.index);
    Ok(own
        .map(|(_, net)| Mac::for_ip(net.addr()).0)
        .any(|mac| link.mac == Some(mac)))
}
