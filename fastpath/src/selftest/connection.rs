//! The entries of one connection.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use weft_wire::ecn::Dscp;
use weft_wire::frame::TCP;
use weft_wire::rewrite::Side;
use weft_wire::{FiveTuple, Mac, Vni, vxlan};

use super::SelfTestError;
use crate::cache::FlowCache;
use crate::entry::{FlowKey, InEntry, OutEntry, Rewrite, Scope, Way};
use crate::installer::Installer;
use crate::record::{FLOWS, NETWORKS, Record, RecordId};

/// Largest packet of the connection: what VXLAN leaves of an underlay's 1500 bytes.
pub(super) const LARGEST: u16 = 1450;
/// The last one: networks of the agent are counted from the first one on.
pub(super) const NETWORK: u32 = NETWORKS - 1;
/// The last ones, as well.
pub(super) const RECORDS: [RecordId; 2] = [RecordId(FLOWS - 2), RecordId(FLOWS - 1)];

const VNI: Vni = Vni::new(Vni::MAX).expect("the largest one is one");
const SOURCE_PORT: u16 = 50_000;

/// Where the other sandbox of a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partner {
    /// On another node: packets go through a tunnel.
    OtherNode,
    /// On the same node.
    SameNode,
}

impl fmt::Display for Partner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherNode => "another node",
            Self::SameNode => "the same node",
        })
    }
}

/// What entries have to name of a sandbox and its node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Of the sandbox.
    pub(super) number: u16,
    /// The node's address on the underlay.
    pub(super) vtep: Ipv4Addr,
    /// Number of the underlay's device, on the node.
    pub(super) underlay: u32,
    /// Number of the sandbox's second device, inside of it.
    pub(super) second: u32,
    /// Number of its other end, on the node.
    pub(super) host_end: u32,
}

/// Entries of both flows of a connection. They, what was counted of them, and their epoch go with this
/// value.
#[derive(Debug)]
pub struct Connection<'a> {
    cache: &'a FlowCache,
    installer: Installer,
    out: [FlowKey; 2],
    inward: [FlowKey; 2],
    epoch: u32,
}

impl<'a> Connection<'a> {
    /// Enters the flows between two addresses, each that of the sandbox at the same place; on the way
    /// the second one is another, `seen`.
    pub(super) fn new(
        cache: &'a FlowCache,
        places: [Place; 2],
        (ends, seen): ([SocketAddr; 2], SocketAddr),
        partner: Partner,
    ) -> Result<Self, SelfTestError> {
        let [near, far] = ends;
        let flows = [flow(near, far), flow(far, near)];
        let wire = [flow(near, seen), flow(seen, near)];
        let out = |i: usize| FlowKey {
            scope: Scope::Out(places[i].number),
            flow: flows[i],
        };
        let inward = |i: usize| FlowKey {
            scope: Scope::In(VNI),
            flow: wire[i].reversed(),
        };
        let mut connection = Self {
            cache,
            installer: cache.installer()?,
            out: [out(0), out(1)],
            inward: [inward(0), inward(1)],
            epoch: cache.epochs.get(NETWORK).wrapping_add(1),
        };
        connection.clear();
        for (here, there) in [(0, 1), (1, 0)] {
            connection.put(here, [places[here], places[there]], partner)?;
        }
        Ok(connection)
    }

    /// From now on the entries hold.
    pub fn turn_valid(&self) {
        self.cache.epochs.set(NETWORK, self.epoch);
    }

    /// From now on they do not any more.
    pub fn turn_stale(&self) {
        self.cache.epochs.set(NETWORK, self.epoch.wrapping_add(1));
    }

    /// What was carried for each of the two sandboxes.
    #[must_use]
    pub fn records(&self) -> [Record; 2] {
        RECORDS.map(|id| self.cache.records.read(id))
    }

    fn put(
        &mut self,
        index: usize,
        [here, there]: [Place; 2],
        partner: Partner,
    ) -> Result<(), SelfTestError> {
        let (record, epoch) = (RECORDS[index], self.epoch);
        let (sent, answers) = (self.out[index].flow, self.inward[index].flow);
        let way = match partner {
            Partner::SameNode => Way::Local {
                device: there.host_end,
                other: there.number,
                hardware: None,
            },
            Partner::OtherNode => Way::Remote {
                device: here.underlay,
                next_hop: there.vtep,
                from: SocketAddrV4::new(here.vtep, SOURCE_PORT),
                to: SocketAddrV4::new(there.vtep, vxlan::PORT),
                vni: VNI,
                dst_mac: Mac([2, 0, 0, 0, 0, 1]),
                src_mac: Mac([2, 0, 0, 0, 0, 2]),
                dscp: Dscp::default(),
            },
        };
        let out = OutEntry {
            record,
            network: NETWORK,
            epoch,
            second: here.second,
            largest: LARGEST,
            way,
            rewrite: difference(sent, answers.reversed()),
        };
        self.installer.put_out(self.out[index], out)?;
        if partner == Partner::OtherNode {
            let inward = InEntry {
                record,
                network: NETWORK,
                epoch,
                device: here.host_end,
                underlay: here.underlay,
                from: there.vtep,
                to: SocketAddrV4::new(here.vtep, vxlan::PORT),
                by_device: None,
                rewrite: difference(answers, sent.reversed()),
            };
            self.installer.put_in(self.inward[index], inward)?;
        }
        Ok(())
    }

    fn clear(&self) {
        for id in RECORDS {
            self.cache.records.clear(id);
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // Entries that the kernel would not delete are stale all the same.
        self.turn_stale();
        for key in self.out {
            self.installer.remove_out(key);
        }
        for key in self.inward {
            self.installer.remove_in(key);
        }
        self.clear();
    }
}

/// The end that is another one in `to`.
fn difference(from: FiveTuple, to: FiveTuple) -> Option<Rewrite> {
    let source = (to.src, to.sport) != (from.src, from.sport);
    let destination = (to.dst, to.dport) != (from.dst, from.dport);
    let (side, ip, port) = match (source, destination) {
        (true, _) => (Side::Source, to.src, to.sport),
        (_, true) => (Side::Destination, to.dst, to.dport),
        _ => return None,
    };
    Some(Rewrite {
        side,
        ip,
        port,
        other_port: None,
    })
}

fn flow(from: SocketAddr, to: SocketAddr) -> FiveTuple {
    FiveTuple {
        src: from.ip(),
        dst: to.ip(),
        sport: from.port(),
        dport: to.port(),
        proto: TCP,
    }
}
