//! Keys and values of the programs' tables, as `bpf/weft.bpf.c` lays them out: fields in the order of
//! the structures there, numbers in the machine's byte order, what goes on the wire in the network's.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use weft_wire::ecn::Dscp;
use weft_wire::rewrite::Side;
use weft_wire::{FiveTuple, Mac, Vni};

use crate::record::RecordId;

/// Within what a flow's addresses are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// It leaves the sandbox of this number, or `weft0` ([`MESH_NUMBER`]).
    Out(u16),
    /// It comes from another node, on this network.
    In(Vni),
}

/// What a packet is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Where its addresses mean something.
    pub scope: Scope,
    /// Addresses and ports of this direction, TCP or UDP.
    pub flow: FiveTuple,
}

/// Bits of a scope's number; the protocol is above them.
const SCOPE_BITS: u32 = 24;

/// Bytes of a [`FlowKey`].
pub(crate) const KEY: usize = 40;
/// Bytes of an [`OutEntry`].
pub(crate) const OUT: usize = 84;
/// Bytes of an [`InEntry`].
pub(crate) const IN: usize = 68;

/// Number of `weft0` among those of sandboxes: what leaves by it is of clients outside. `MESH` of
/// `bpf/weft.bpf.c`.
pub const MESH_NUMBER: u16 = 65_501;

/// The bits of a traffic class that are always those of the frame inside.
const ECN: u8 = 3;

/// Hardware addresses that a frame is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// Its destination.
    pub to: Mac,
    /// Its source.
    pub from: Mac,
}

/// Where a flow goes that leaves its sandbox, or `weft0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutEntry {
    /// Where its traffic is counted.
    pub record: RecordId,
    /// Number of the network whose epoch it holds by.
    pub network: u32,
    /// The network's epoch when it was made.
    pub epoch: u32,
    /// Number of the sandbox's second device, inside of it; nobody asks for it of a flow from `weft0`.
    pub second: u32,
    /// Largest IP packet that passes, in bytes; each segment of a super-frame counts alone.
    pub largest: u16,
    /// Where to.
    pub way: Way,
    /// What another address is given before it leaves.
    pub rewrite: Option<Rewrite>,
}

/// The end of a flow that gets another address, of the same family, and another port on the way; the
/// other end keeps its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// Which end.
    pub side: Side,
    /// Its address from then on.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Port that the other end gets, where that is another one.
    pub other_port: Option<u16>,
}

/// The two ways out of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Into another sandbox of this node, or into the host by `weft0`.
    Local {
        /// Number of the host's end of that sandbox's second device, or of `weft0`.
        device: u32,
        /// Number of that sandbox, or [`MESH_NUMBER`].
        other: u16,
        /// Of flows from and to `weft0`, whose receivers look at it: that of the sandbox's second
        /// device, or of `weft0`.
        hardware: Option<Hardware>,
    },
    /// To another node.
    Remote {
        /// Number of the underlay's device.
        device: u32,
        /// Who is next on the underlay: the node itself, or a router.
        next_hop: Ipv4Addr,
        /// Outer source.
        from: SocketAddrV4,
        /// Outer destination: the other VTEP.
        to: SocketAddrV4,
        /// The network.
        vni: Vni,
        /// Inner hardware address of the destination.
        dst_mac: Mac,
        /// Inner hardware address of the source.
        src_mac: Mac,
        /// Class of service.
        dscp: Dscp,
    },
}

/// Where a flow from another node goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InEntry {
    /// Where its traffic is counted: the record of the direction that leaves.
    pub record: RecordId,
    /// Number of the network whose epoch it holds by.
    pub network: u32,
    /// The network's epoch when it was made.
    pub epoch: u32,
    /// Number of the host's end of the sandbox's second device, or of `weft0`.
    pub device: u32,
    /// Number of the device that leads to that node: what comes by another one, a worker looks at.
    pub underlay: u32,
    /// VTEP that the flow comes from.
    pub from: Ipv4Addr,
    /// This node's VTEP.
    pub to: SocketAddrV4,
    /// It goes to `weft0`, with these addresses, once the device of the second port has taken it out
    /// of the tunnel. By the data path's port it goes to a worker.
    pub by_device: Option<Hardware>,
    /// What another address is given before it is delivered.
    pub rewrite: Option<Rewrite>,
}

/// Writes fields one behind the other.
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (field, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        field.copy_from_slice(bytes);
        self.0 = rest;
    }

    fn number(&mut self, number: u32) {
        self.put(&number.to_ne_bytes());
    }

    fn ip(&mut self, ip: IpAddr) {
        let ip = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        self.put(&ip.octets());
    }

    /// `struct hardware`.
    fn hardware(&mut self, hardware: Option<Hardware>) {
        let [to, from] = hardware.map_or([[0; 6]; 2], |hardware| [hardware.to.0, hardware.from.0]);
        self.put(&to);
        self.put(&from);
    }

    /// `struct rewrite`; where there is none, it stays empty.
    fn rewrite(&mut self, rewrite: Option<Rewrite>) {
        let Some(rewrite) = rewrite else {
            return;
        };
        self.ip(rewrite.ip);
        self.put(&rewrite.port.to_be_bytes());
        self.put(&rewrite.other_port.unwrap_or(0).to_be_bytes());
        let side = match rewrite.side {
            Side::Source => 1,
            Side::Destination => 2,
        };
        self.put(&[side]);
    }
}

impl FlowKey {
    pub(crate) fn to_bytes(self) -> [u8; KEY] {
        let mut bytes = [0; KEY];
        let mut fields = Fields(&mut bytes);
        let number = match self.scope {
            Scope::Out(sandbox) => sandbox.into(),
            Scope::In(vni) => vni.get(),
        };
        fields.number(number | (u32::from(self.flow.proto) << SCOPE_BITS));
        fields.put(&self.flow.sport.to_be_bytes());
        fields.put(&self.flow.dport.to_be_bytes());
        fields.ip(self.flow.src);
        fields.ip(self.flow.dst);
        bytes
    }
}

impl OutEntry {
    pub(crate) fn to_bytes(self) -> [u8; OUT] {
        let mut bytes = [0; OUT];
        let mut fields = Fields(&mut bytes);
        for number in [self.record.0, self.network, self.epoch, self.second] {
            fields.number(number);
        }
        match self.way {
            Way::Local {
                device,
                other,
                hardware,
            } => {
                fields.number(device);
                fields.number(other.into());
                // No next hop, no addresses, ports nor network.
                fields.put(&[0; 20]);
                fields.hardware(hardware);
                fields.put(&self.largest.to_ne_bytes());
                fields.put(&[0; 2]);
            }
            Way::Remote {
                device,
                next_hop,
                from,
                to,
                vni,
                dst_mac,
                src_mac,
                dscp,
            } => {
                fields.number(device);
                fields.number(0);
                fields.put(&next_hop.octets());
                fields.put(&from.ip().octets());
                fields.put(&to.ip().octets());
                fields.put(&from.port().to_be_bytes());
                fields.put(&to.port().to_be_bytes());
                fields.put(&(vni.get() << 8).to_be_bytes());
                fields.hardware(Some(Hardware {
                    to: dst_mac,
                    from: src_mac,
                }));
                fields.put(&self.largest.to_ne_bytes());
                fields.put(&match dscp {
                    Dscp::Fixed(dscp) => [dscp << 2, ECN],
                    Dscp::Inherit => [0, u8::MAX],
                });
            }
        }
        fields.rewrite(self.rewrite);
        bytes
    }
}

impl InEntry {
    pub(crate) fn to_bytes(self) -> [u8; IN] {
        let mut bytes = [0; IN];
        let mut fields = Fields(&mut bytes);
        let (record, epoch) = (self.record.0, self.epoch);
        for number in [record, self.network, epoch, self.device, self.underlay] {
            fields.number(number);
        }
        fields.put(&self.from.octets());
        fields.put(&self.to.ip().octets());
        fields.put(&self.to.port().to_be_bytes());
        fields.put(&u16::from(self.by_device.is_some()).to_ne_bytes());
        fields.hardware(self.by_device);
        fields.rewrite(self.rewrite);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARDWARE: Hardware = Hardware {
        to: Mac([3; 6]),
        from: Mac([4; 6]),
    };

    fn vni() -> Vni {
        Vni::new(0x0001_0203).unwrap()
    }

    fn flow() -> FiveTuple {
        FiveTuple {
            src: "10.0.0.2".parse().unwrap(),
            dst: "fd00::3".parse().unwrap(),
            sport: 0x1234,
            dport: 80,
            proto: 6,
        }
    }

    #[test]
    fn keys_lie_as_the_programs_read_them() {
        let flow = flow();
        let key = FlowKey {
            scope: Scope::In(vni()),
            flow,
        };
        let bytes = key.to_bytes();
        assert_eq!(bytes[..4], 0x0601_0203_u32.to_ne_bytes());
        assert_eq!(bytes[4..8], [0x12, 0x34, 0, 80]);
        assert_eq!(
            bytes[8..24],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2]
        );
        assert_eq!(bytes[24..26], [0xfd, 0]);
        assert_eq!(bytes[39], 3);
        let datagrams = FlowKey {
            scope: Scope::Out(0x0203),
            flow: FiveTuple { proto: 17, ..flow },
        };
        let other = datagrams.to_bytes();
        assert_eq!(other[..4], 0x1100_0203_u32.to_ne_bytes());
        assert_eq!(other[4..], bytes[4..]);
    }

    #[test]
    fn what_leaves_lies_as_the_programs_read_it() {
        let flow = flow();
        let out = OutEntry {
            record: RecordId(7),
            network: 8,
            epoch: 9,
            second: 10,
            largest: 1450,
            way: Way::Remote {
                device: 11,
                next_hop: Ipv4Addr::new(192, 0, 2, 1),
                from: "192.0.2.2:50000".parse().unwrap(),
                to: "192.0.2.3:4789".parse().unwrap(),
                vni: vni(),
                dst_mac: Mac([1; 6]),
                src_mac: Mac([2; 6]),
                dscp: Dscp::Fixed(10),
            },
            rewrite: Some(Rewrite {
                side: Side::Destination,
                ip: flow.src,
                port: 8080,
                other_port: None,
            }),
        };
        let bytes = out.to_bytes();
        for (at, number) in [(0, 7_u32), (4, 8), (8, 9), (12, 10), (16, 11)] {
            assert_eq!(bytes[at..at + 4], number.to_ne_bytes());
        }
        assert_eq!(bytes[20..24], [0; 4]);
        let bytes = &bytes[4..];
        assert_eq!(bytes[20..32], [192, 0, 2, 1, 192, 0, 2, 2, 192, 0, 2, 3]);
        assert_eq!(bytes[32..36], [0xc3, 0x50, 0x12, 0xb5]);
        assert_eq!(bytes[36..40], [1, 2, 3, 0]);
        assert_eq!(bytes[40..52], [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
        assert_eq!(bytes[52..54], 1450_u16.to_ne_bytes());
        assert_eq!(bytes[54..56], [0x28, 3]);
        let replica = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 2];
        assert_eq!(bytes[56..72], replica);
        assert_eq!(bytes[72..], [0x1f, 0x90, 0, 0, 2, 0, 0, 0]);

        let local = OutEntry {
            way: Way::Local {
                device: 12,
                other: 13,
                hardware: None,
            },
            rewrite: None,
            ..out
        };
        let bytes = local.to_bytes();
        assert_eq!(bytes[16..20], 12_u32.to_ne_bytes());
        assert_eq!(bytes[20..24], 13_u32.to_ne_bytes());
        assert_eq!(bytes[24..56], [0; 32]);
        assert_eq!(bytes[56..58], 1450_u16.to_ne_bytes());
        assert_eq!(bytes[58..], [0; 26]);

        let to_mesh = OutEntry {
            way: Way::Local {
                device: 12,
                other: MESH_NUMBER,
                hardware: Some(HARDWARE),
            },
            ..local
        };
        let bytes = to_mesh.to_bytes();
        assert_eq!(bytes[20..24], 65_501_u32.to_ne_bytes());
        assert_eq!(bytes[24..44], [0; 20]);
        assert_eq!(bytes[44..56], [3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]);
        assert_eq!(bytes[56..58], 1450_u16.to_ne_bytes());
    }

    #[test]
    fn what_arrives_lies_as_the_programs_read_it() {
        let flow = flow();
        let inward = InEntry {
            record: RecordId(7),
            network: 8,
            epoch: 9,
            device: 10,
            underlay: 11,
            from: Ipv4Addr::new(192, 0, 2, 3),
            to: "192.0.2.2:4789".parse().unwrap(),
            by_device: None,
            rewrite: Some(Rewrite {
                side: Side::Source,
                ip: flow.dst,
                port: 80,
                other_port: Some(0x5678),
            }),
        };
        let bytes = inward.to_bytes();
        assert_eq!(bytes[12..16], 10_u32.to_ne_bytes());
        assert_eq!(bytes[16..20], 11_u32.to_ne_bytes());
        let bytes = &bytes[20..];
        assert_eq!(bytes[..12], [192, 0, 2, 3, 192, 0, 2, 2, 0x12, 0xb5, 0, 0]);
        assert_eq!(bytes[12..24], [0; 12]);
        assert_eq!((bytes[24], bytes[39]), (0xfd, 3));
        assert_eq!(bytes[40..], [0, 80, 0x56, 0x78, 1, 0, 0, 0]);
        let by_device = InEntry {
            by_device: Some(HARDWARE),
            ..inward
        };
        let bytes = by_device.to_bytes();
        assert_eq!(bytes[30..32], 1_u16.to_ne_bytes());
        assert_eq!(bytes[32..44], [3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]);
        assert_eq!(bytes[44], 0xfd);
    }

    #[test]
    fn weft0_has_the_number_that_the_programs_know() {
        let source = include_str!("../bpf/weft.bpf.c");
        let line = format!("#define MESH {MESH_NUMBER}\n");
        assert!(source.contains(&line), "{line}");
        assert!(!crate::selftest::SELF_TEST_NUMBERS.contains(&MESH_NUMBER));
    }
}
