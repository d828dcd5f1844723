//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use super::{Netlink, NetlinkError, accept};

impl Netlink {
    /// Adds an address with its prefix length. IPv6 addresses are usable at once (no duplicate
    /// address detection: addresses are allocated, not guessed).
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn add_address(&mut self, name: &str, address: IpNet) -> Result<(), NetlinkError> {
        let message = self.address_message(name, address)?;
        accept(
            libc::EEXIST,
            self.change(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL),
        )
        .map_err(NetlinkError::kernel(
            "add",
            format!("address {address} to {name}"),
        ))
    }

    /// Removes an address; one that is not there is success.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn delete_address(&mut self, name: &str, address: IpNet) -> Result<(), NetlinkError> {
        let message = self.address_message(name, address)?;
        accept(
            libc::EADDRNOTAVAIL,
            self.change(Message::DelAddress(message), 0),
        )
        .map_err(NetlinkError::kernel(
            "remove",
            format!("address {address} from {name}"),
        ))
    }

    /// Addresses of one interface, with host bits, IPv4 first.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn addresses(&mut self, name: &str) -> Result<Vec<IpNet>, NetlinkError> {
        let index = self.link_index(name)?;
        let mut found: Vec<IpNet> = self
            .all_addresses()?
            .into_iter()
            .filter(|a| a.0 == index)
            .map(|a| a.1)
            .collect();
        found.sort_by_key(|net| net.addr().is_ipv6());
        Ok(found)
    }

    /// Addresses of the whole namespace, each with the number of its interface.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn all_addresses(&mut self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        let answers = self
            .dump(Message::GetAddress(AddressMessage::default()))
            .map_err(NetlinkError::kernel("list", "addresses"))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                Message::NewAddress(message) => parse(&message),
                _ => None,
            })
            .collect())
    }

    fn address_message(
        &mut self,
        name: &str,
        address: IpNet,
    ) -> Result<AddressMessage, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = self.link_index(name)?;
        message.header.prefix_len = address.prefix_len();
        message.header.family = family(address.addr());
        message.header.scope = match address.addr() {
            IpAddr::V4(v4) if v4.is_loopback() => AddressScope::Host,
            IpAddr::V4(v4) if v4.is_link_local() => AddressScope::Link,
            _ => AddressScope::Universe,
        };
        if address.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message
            .attributes
            .push(AddressAttribute::Local(address.addr()));
        message
            .attributes
            .push(AddressAttribute::Address(address.addr()));
        Ok(message)
    }
}

pub(super) fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// On point-to-point links `Address` is the peer and `Local` the own one; elsewhere IPv6 has
/// `Address` only.
fn parse(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let own = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    let net = IpNet::new(own.or(any)?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}
