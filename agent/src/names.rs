//! Names and addresses of what weft has on a host and in sandboxes. All who make it, keep it or write
//! rules about it use them, and none of these needs to know another one for that.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// The TAP in the host's namespace behind which the routing mesh lives.
pub(crate) const MESH_IFNAME: &str = "weft0";

/// The host's own address on [`MESH_IFNAME`], in a /30.
pub(crate) const MESH_HOST_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 1);

/// Where published ports are connected to; answered by the data plane.
pub(crate) const MESH_IP: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 2);

/// The host's own IPv6 address on [`MESH_IFNAME`], in a /126.
pub(crate) const MESH_HOST_IP6: Ipv6Addr =
    Ipv6Addr::new(0xfd57, 0x4546, 0x5400, 0, 0, 0, 0xa9fe, 0x4d01);

/// Where published ports are connected to over IPv6; answered by the data plane.
pub(crate) const MESH_IP6: Ipv6Addr =
    Ipv6Addr::new(0xfd57, 0x4546, 0x5400, 0, 0, 0, 0xa9fe, 0x4d02);

/// The device at which the kernel merges what flows of the fast path bring.
pub(crate) const MERGING: &str = "weftgro0";

/// The UDP port of [`MERGING`], on every node.
pub(crate) const MERGING_PORT: u16 = 4790;

/// The gateway bridge.
pub(crate) const BRIDGE: &str = "weft_gwbridge";

/// What names of its ports begin with.
pub(crate) const PORT_PREFIX: &str = "wgw";

/// The table of nftables, family `inet`.
pub(crate) const TABLE: &str = "weft";

/// The table that keeps open connections alive while the other one is missing.
pub(crate) const HOLD: &str = "weft_hold";

/// Where the host keeps its resolvers.
pub(crate) const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where the resolver of every sandbox is asked.
pub(crate) const DNS_ADDR: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);

/// Name of the gateway bridge's interface inside a sandbox; never used for an overlay network.
pub(crate) const GATEWAY_IFNAME: &str = "eth1";
