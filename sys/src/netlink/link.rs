//! Network interfaces.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::{Netlink, NetlinkError, accept};
use crate::netns::Netns;

/// A network interface as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Number, unique in its namespace.
    pub index: u32,
    /// Name, unique in its namespace.
    pub name: String,
    /// Ethernet address, when it has one.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Something is at the other end: a cable, or of a veth a device that is up.
    pub carrier: bool,
    /// Its frames are those of Ethernet (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// Number of the device that it is tied to: of a veth the other end, in that one's namespace; of a
    /// VLAN the one below.
    pub tied_to: Option<u32>,
    /// `bridge`, `veth`, `vxlan`, `tun`, …; `None` for hardware and `lo`.
    pub kind: Option<String>,
    /// Number of the bridge (or bond, or VRF) that it is a port of.
    pub master: Option<u32>,
    /// Free text that is kept with the interface.
    pub alias: Option<String>,
    /// It resolves addresses; see [`Netlink::set_arp`].
    pub arp: bool,
    /// A bridge port that is all that [`Netlink::lock_port`] makes it.
    pub locked: bool,
}

/// A pair of veth devices to be made.
#[derive(Debug)]
pub struct Veth<'a> {
    /// The end in this namespace.
    pub name: &'a str,
    /// The other end.
    pub peer: &'a str,
    /// Where the other end is born; this namespace when absent.
    pub peer_netns: Option<&'a Netns>,
    /// Ethernet address of the other end; random when absent.
    pub peer_mac: Option<[u8; 6]>,
    /// MTU of both ends in bytes; 1500 when absent.
    pub mtu: Option<u32>,
}

/// A VXLAN device of the kernel to be made: a peer in tests and benches.
#[derive(Debug)]
pub struct Vxlan<'a> {
    /// Interface name.
    pub name: &'a str,
    /// VXLAN network identifier.
    pub vni: u32,
    /// Outer source address.
    pub local: IpAddr,
    /// Outer destination port, and the port that it listens on.
    pub port: u16,
    /// Learn MAC addresses from received frames.
    pub learning: bool,
    /// Send outer UDP checksums (the default of `ip link`). Without them datagrams that have none
    /// are accepted over IPv6, too.
    pub udp_checksum: bool,
}

impl Netlink {
    /// All interfaces of the namespace, in the kernel's order.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let answers = self
            .dump(Message::GetLink(message))
            .map_err(NetlinkError::kernel("list", "interfaces"))?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                Message::NewLink(link) => parse(link),
                _ => None,
            })
            .collect())
    }

    /// One interface; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        match self.get(Message::GetLink(named(name))) {
            Ok(Some(Message::NewLink(link))) => Ok(parse(link)),
            Ok(_) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(source) => {
                Err(NetlinkError::kernel("look up", format!("interface {name}"))(source))
            }
        }
    }

    /// Number of an interface.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn link_index(&mut self, name: &str) -> Result<u32, NetlinkError> {
        let link = self.link(name)?;
        link.map(|l| l.index).ok_or_else(|| NetlinkError::NoLink {
            name: name.to_owned(),
        })
    }

    /// Makes a bridge without STP and without multicast snooping. True when it was not there.
    ///
    /// # Errors
    /// [`NetlinkError::OtherKind`], [`NetlinkError::Kernel`].
    pub fn add_bridge(&mut self, name: &str) -> Result<bool, NetlinkError> {
        self.add_bridge_numbered(name, 0)
    }

    /// As [`Netlink::add_bridge`], with a number of choice: for one that takes the place of another.
    /// 0 leaves the choice to the kernel.
    ///
    /// # Errors
    /// [`NetlinkError::OtherKind`], [`NetlinkError::Kernel`]; also when another interface has the
    /// number.
    pub fn add_bridge_numbered(&mut self, name: &str, index: u32) -> Result<bool, NetlinkError> {
        let data = InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)]);
        let mut message = named(name);
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(data),
        ]));
        self.add_link(name, "bridge", message)
    }

    /// Makes a pair of veth devices. True when it was not there; an existing pair is not changed.
    ///
    /// # Errors
    /// [`NetlinkError::OtherKind`], [`NetlinkError::Kernel`]; also when only the peer's name is
    /// taken.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<bool, NetlinkError> {
        let mut peer = named(veth.peer);
        if let Some(netns) = veth.peer_netns {
            peer.attributes
                .push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
        }
        if let Some(mac) = veth.peer_mac {
            peer.attributes.push(LinkAttribute::Address(mac.to_vec()));
        }
        let mut message = named(veth.name);
        if let Some(mtu) = veth.mtu {
            peer.attributes.push(LinkAttribute::Mtu(mtu));
            message.attributes.push(LinkAttribute::Mtu(mtu));
        }
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.add_link(veth.name, "veth", message)
    }

    /// Makes a VXLAN device. True when it was not there; an existing one is not changed.
    ///
    /// # Errors
    /// [`NetlinkError::OtherKind`], [`NetlinkError::Kernel`] (also when another device of the
    /// namespace has the same VNI and port).
    pub fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<bool, NetlinkError> {
        let data = vec![
            InfoVxlan::Id(vxlan.vni),
            match vxlan.local {
                IpAddr::V4(v4) => InfoVxlan::Local(v4),
                IpAddr::V6(v6) => InfoVxlan::Local6(v6),
            },
            InfoVxlan::Port(vxlan.port),
            InfoVxlan::Learning(vxlan.learning),
            InfoVxlan::UDPCsum(vxlan.udp_checksum),
            InfoVxlan::UDPZeroCsumTX(!vxlan.udp_checksum),
            InfoVxlan::UDPZeroCsumRX(!vxlan.udp_checksum),
        ];
        let mut message = named(vxlan.name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(data)),
        ]));
        self.add_link(vxlan.name, "vxlan", message)
    }

    /// Makes a VXLAN device of no network, which takes what comes to its port of any (`ip link add …
    /// type vxlan external`). It learns nothing, and sends what has its headers said beside alone. As
    /// long as it is up, the kernel merges what tunnels at this port hold. True when it was not there;
    /// an existing one is not changed.
    ///
    /// # Errors
    /// [`NetlinkError::OtherKind`], [`NetlinkError::Kernel`]. A port that somebody has is told by
    /// [`Netlink::set_up`].
    pub fn add_vxlan_external(&mut self, name: &str, port: u16) -> Result<bool, NetlinkError> {
        let data = vec![
            InfoVxlan::CollectMetadata(true),
            InfoVxlan::Port(port),
            InfoVxlan::Learning(false),
        ];
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(data)),
        ]));
        self.add_link(name, "vxlan", message)
    }

    fn add_link(
        &mut self,
        name: &str,
        wanted: &'static str,
        message: LinkMessage,
    ) -> Result<bool, NetlinkError> {
        let source = match self.change(Message::NewLink(message), NLM_F_CREATE | NLM_F_EXCL) {
            Ok(()) => return Ok(true),
            Err(source) => source,
        };
        if source.raw_os_error() == Some(libc::EEXIST)
            && let Some(link) = self.link(name)?
        {
            if link.kind.as_deref() == Some(wanted) {
                return Ok(false);
            }
            let found = link.kind.unwrap_or_else(|| "device".to_owned());
            return Err(NetlinkError::OtherKind {
                name: name.to_owned(),
                wanted,
                found,
            });
        }
        Err(NetlinkError::kernel("create", format!("{wanted} {name}"))(
            source,
        ))
    }

    /// Deletes an interface; one that is not there is success. Both ends of a veth pair go.
    ///
    /// # Errors
    /// [`NetlinkError::Kernel`].
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        accept(libc::ENODEV, self.change(Message::DelLink(named(name)), 0))
            .map_err(NetlinkError::kernel("delete", format!("interface {name}")))
    }

    /// Sets an interface up or down.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), NetlinkError> {
        let mut message = named(name);
        message.header.change_mask = LinkFlags::Up;
        if up {
            message.header.flags = LinkFlags::Up;
        }
        self.set(name, if up { "set up" } else { "set down" }, message)
    }

    /// Sets the MTU, in bytes.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), NetlinkError> {
        self.set_attribute(name, "set the MTU of", LinkAttribute::Mtu(mtu))
    }

    /// Sets the largest super-frame that the kernel makes for the interface, in bytes of IP packet
    /// and headers below it.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_gso_max_size(&mut self, name: &str, bytes: u32) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::GsoMaxSize(bytes);
        self.set_attribute(name, "set the super-frame size of", attribute)
    }

    /// Sets the Ethernet address.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_mac(&mut self, name: &str, mac: [u8; 6]) -> Result<(), NetlinkError> {
        self.set_attribute(
            name,
            "set the address of",
            LinkAttribute::Address(mac.to_vec()),
        )
    }

    /// Sets the length of the transmit queue, in packets.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_txqueuelen(&mut self, name: &str, packets: u32) -> Result<(), NetlinkError> {
        self.set_attribute(
            name,
            "set the queue length of",
            LinkAttribute::TxQueueLen(packets),
        )
    }

    /// Keeps free text of up to 255 bytes with the interface, for as long as it lives.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_alias(&mut self, name: &str, alias: &str) -> Result<(), NetlinkError> {
        self.set_attribute(
            name,
            "set the alias of",
            LinkAttribute::IfAlias(alias.to_owned()),
        )
    }

    /// Makes an interface a port of a bridge, or of nothing.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`] for either, [`NetlinkError::Kernel`].
    pub fn set_master(&mut self, name: &str, bridge: Option<&str>) -> Result<(), NetlinkError> {
        let index = match bridge {
            Some(bridge) => self.link_index(bridge)?,
            None => 0,
        };
        self.set_attribute(name, "set the bridge of", LinkAttribute::Controller(index))
    }

    /// Moves an interface into another namespace, keeping its name.
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_netns(&mut self, name: &str, netns: &Netns) -> Result<(), NetlinkError> {
        let attribute = LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd());
        self.set_attribute(name, "move", attribute)
    }

    /// Gives a bridge port to a stranger: it exchanges frames with the bridge itself only, nothing
    /// is learnt from it nor flooded to it, and it may only send from addresses that
    /// [`Netlink::set_bridge_fdb`] fixes to it (Linux 5.18).
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`] when it is no bridge port.
    pub fn lock_port(&mut self, name: &str) -> Result<(), NetlinkError> {
        let options = vec![
            InfoBridgePort::Isolated(true),
            InfoBridgePort::Locked(true),
            InfoBridgePort::Learning(false),
            InfoBridgePort::UnicastFlood(false),
            InfoBridgePort::MulticastFlood(false),
            InfoBridgePort::BroadcastFlood(false),
        ];
        let attribute = LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(options)),
        ]);
        self.set_attribute(name, "lock", attribute)
    }

    /// Switches address resolution on or off: without it no ARP is answered, sent or believed
    /// (`ip link set NAME arp on|off`).
    ///
    /// # Errors
    /// [`NetlinkError::NoLink`], [`NetlinkError::Kernel`].
    pub fn set_arp(&mut self, name: &str, on: bool) -> Result<(), NetlinkError> {
        let mut message = named(name);
        message.header.change_mask = LinkFlags::Noarp;
        if !on {
            message.header.flags = LinkFlags::Noarp;
        }
        self.set(name, "set address resolution of", message)
    }

    fn set_attribute(
        &mut self,
        name: &str,
        op: &'static str,
        attribute: LinkAttribute,
    ) -> Result<(), NetlinkError> {
        let mut message = named(name);
        message.attributes.push(attribute);
        self.set(name, op, message)
    }

    /// RTM_NEWLINK without CREATE changes an existing link and, unlike RTM_SETLINK, takes port data.
    fn set(
        &mut self,
        name: &str,
        op: &'static str,
        message: LinkMessage,
    ) -> Result<(), NetlinkError> {
        self.change(Message::NewLink(message), 0)
            .map_err(|source: io::Error| {
                if source.raw_os_error() == Some(libc::ENODEV) {
                    NetlinkError::NoLink {
                        name: name.to_owned(),
                    }
                } else {
                    NetlinkError::kernel(op, format!("interface {name}"))(source)
                }
            })
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn parse(message: LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        tied_to: None,
        kind: None,
        master: None,
        alias: None,
        arp: !message.header.flags.contains(LinkFlags::Noarp),
        locked: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Link(index) => link.tied_to = Some(index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::PortData(InfoPortData::BridgePort(options)) => {
                            link.locked = is_locked(&options);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn is_locked(options: &[InfoBridgePort]) -> bool {
    let (mut isolated, mut locked, mut open) = (false, false, false);
    for option in options {
        match option {
            InfoBridgePort::Isolated(on) => isolated = *on,
            InfoBridgePort::Locked(on) => locked = *on,
            InfoBridgePort::Learning(on)
            | InfoBridgePort::UnicastFlood(on)
            | InfoBridgePort::MulticastFlood(on)
            | InfoBridgePort::BroadcastFlood(on) => open |= *on,
            _ => {}
        }
    }
    isolated && locked && !open
}
