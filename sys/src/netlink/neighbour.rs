//! Fixed neighbours, and forwarding entries of bridges and of the kernel's own VXLAN devices (peers
//! in tests).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::address::family;
use super::{Netlink, NetlinkError, accept};

impl Netlink {
    /// Fixes the Ethernet address of a neighbour, replacing what was known
    /// (`ip neigh replace IP lladdr MAC dev DEV nud permanent`).
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_neighbour(
        &mut self,
        dev: &str,
        ip: IpAddr,
        mac: [u8; 6],
    ) -> Result<(), NetlinkError> {
        let mut message = self.permanent(dev, mac)?;
        message.header.family = family(ip);
        message
            .attributes
            .push(NeighbourAttribute::Destination(ip.into()));
        self.change(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(NetlinkError::kernel(
                "set",
                format!("neighbour {ip} of {dev}"),
            ))
    }

    /// Forgets a neighbour; one that is not known is success.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn delete_neighbour(&mut self, dev: &str, ip: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = self.link_index(dev)?;
        message.header.family = family(ip);
        message
            .attributes
            .push(NeighbourAttribute::Destination(ip.into()));
        let gone = self.change(Message::DelNeighbour(message), 0);
        accept(libc::ENOENT, gone).map_err(NetlinkError::kernel(
            "delete",
            format!("neighbour {ip} of {dev}"),
        ))
    }

    /// Fixes an Ethernet address to a bridge port (`bridge fdb replace MAC dev PORT master static`).
    /// It goes with the port.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`] when it is no bridge port.
    pub fn set_bridge_fdb(&mut self, port: &str, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let mut message = self.permanent(port, mac)?;
        message.header.family = AddressFamily::Bridge;
        message.header.flags = NeighbourFlags::Controller;
        // "Permanent" is an address of the bridge's own.
        message.header.state = NeighbourState::Noarp;
        self.change(Message::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(NetlinkError::kernel(
                "set",
                format!("forwarding entry of {port}"),
            ))
    }

    /// Adds a destination for frames to `mac` on a VXLAN device
    /// (`bridge fdb append MAC dev DEV dst VTEP`); the all-zero MAC is where unknown destinations
    /// and broadcasts go, possibly several.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn append_fdb(
        &mut self,
        dev: &str,
        mac: [u8; 6],
        vtep: IpAddr,
    ) -> Result<(), NetlinkError> {
        let mut message = self.permanent(dev, mac)?;
        message.header.family = AddressFamily::Bridge;
        message.header.flags = NeighbourFlags::Own;
        message
            .attributes
            .push(NeighbourAttribute::Destination(vtep.into()));
        // The kernel allows several destinations for the all-zero MAC only.
        let many = if mac == [0; 6] {
            NLM_F_APPEND
        } else {
            NLM_F_REPLACE
        };
        self.change(Message::NewNeighbour(message), NLM_F_CREATE | many)
            .map_err(NetlinkError::kernel(
                "add",
                format!("forwarding entry to {vtep} on {dev}"),
            ))
    }

    fn permanent(&mut self, dev: &str, mac: [u8; 6]) -> Result<NeighbourMessage, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = self.link_index(dev)?;
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        Ok(message)
    }
}
