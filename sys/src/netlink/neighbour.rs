//! Fixed neighbours, and forwarding entries of bridges and of the kernel's own VXLAN devices (peers
//! in tests).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
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

    /// Neighbours that were fixed by [`Netlink::set_neighbour`], with the numbers of their
    /// interfaces.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn fixed_neighbours(&mut self) -> Result<Vec<(u32, IpAddr, [u8; 6])>, NetlinkError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            for message in self.neighbours(family, "neighbours")? {
                if message.header.state != NeighbourState::Permanent {
                    continue;
                }
                let ip = message.attributes.iter().find_map(|a| match a {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                        Some(IpAddr::V4(*ip))
                    }
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                        Some(IpAddr::V6(*ip))
                    }
                    _ => None,
                });
                if let (Some(ip), Some(mac)) = (ip, link_address(&message)) {
                    found.push((message.header.ifindex, ip, mac));
                }
            }
        }
        Ok(found)
    }

    /// Addresses that [`Netlink::set_bridge_fdb`] fixed to ports of bridges, with the numbers of the
    /// ports.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn fixed_bridge_fdb(&mut self) -> Result<Vec<(u32, [u8; 6])>, NetlinkError> {
        let entries = self.neighbours(AddressFamily::Bridge, "forwarding entries")?;
        let fixed = entries
            .into_iter()
            .filter(|message| message.header.state == NeighbourState::Noarp);
        Ok(fixed
            .filter_map(|message| Some((message.header.ifindex, link_address(&message)?)))
            .collect())
    }

    fn neighbours(
        &mut self,
        family: AddressFamily,
        what: &str,
    ) -> Result<Vec<NeighbourMessage>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        let answers = self
            .dump(Message::GetNeighbour(message))
            .map_err(NetlinkError::kernel("list", what))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                Message::NewNeighbour(message) => Some(message),
                _ => None,
            })
            .collect())
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

fn link_address(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })
}
