//! A virtual address with replicas behind it, a flow table, and a client's frames.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use etherparse::PacketBuilder;
use weft_mesh::{
    Balancer, Context, FlowConfig, FlowTable, Forward, Limits, Origin, Replica, ReplicaLoad,
    Service, Services, ServicesBuilder,
};
use weft_wire::{Instant, IpInfo, PortId, mac_for_ip};

use crate::frames::{address, info};
use crate::network::NET;

/// Where the client's frames come from.
pub const ORIGIN: Origin = Origin::Port {
    vni: NET,
    port: PortId(1),
};

/// The virtual address of service `n`.
#[must_use]
pub fn vip(n: u32) -> Ipv4Addr {
    address(0x0010_0000 + n)
}

/// So many services with one virtual address and `replicas` replicas each.
#[must_use]
pub fn services(count: u32, replicas: u32) -> Services {
    let mut builder = ServicesBuilder::new();
    for n in 0..count {
        let replica = |r: u32| {
            let ip = IpAddr::V4(address(0x0020_0000 + n * replicas + r));
            Replica {
                key: u64::from(n * replicas + r),
                vni: NET,
                ip,
                mac: mac_for_ip(ip),
                local: false,
                draining: false,
                load: Arc::<ReplicaLoad>::default(),
            }
        };
        let service = builder.service(Service {
            id: format!("id{n}").into(),
            name: format!("service{n}").into(),
            local_first: false,
            balancer: Balancer::default(),
            limits: Limits::default(),
            in_gap: false,
            replicas: (0..replicas).map(replica).collect(),
        });
        builder.vip(NET, IpAddr::V4(vip(n)), service);
    }
    builder.build()
}

/// A flow table and the services that it forwards to.
#[derive(Debug)]
pub struct Mesh {
    /// The table.
    pub table: FlowTable,
    /// The services.
    pub services: Services,
    /// The time, which only the caller moves.
    pub now: Instant,
}

impl Mesh {
    /// An empty table.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self {
            table: FlowTable::new(FlowConfig {
                seed: 7,
                ..FlowConfig::default()
            }),
            services,
            now: Instant(1_000_000_000_000),
        }
    }

    /// Forwards a frame of a client; true when it goes to a replica.
    pub fn forward(&mut self, frame: &mut [u8], info: &IpInfo) -> bool {
        let cx = Context {
            now: self.now,
            epoch: 1,
            services: &self.services,
        };
        let forward = self.table.forward(&cx, &ORIGIN, frame, info, false);
        matches!(forward, Forward::Rewritten { .. })
    }

    /// Opens `count` datagram flows to the first virtual address.
    ///
    /// # Panics
    /// The table takes fewer.
    pub fn open(&mut self, count: u32) {
        for flow in 0..count {
            let (mut frame, at) = datagram(flow);
            assert!(self.forward(&mut frame, &at), "flow {flow} is not taken");
        }
    }
}

/// The first datagram of flow `n` to the first virtual address: each has ports of its own.
///
/// # Panics
/// Never: a vector takes every byte.
#[must_use]
pub fn datagram(n: u32) -> (Vec<u8>, IpInfo) {
    let [a, b, c, d] = n.to_be_bytes();
    let ports = (u16::from_be_bytes([c, d]), 1 + u16::from_be_bytes([a, b]));
    let (src, dst) = (address(1), vip(0));
    let mac = |ip| mac_for_ip(IpAddr::V4(ip)).0;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac(src), mac(dst))
        .ipv4(src.octets(), dst.octets(), 64)
        .udp(ports.0, ports.1)
        .write(&mut frame, b"hello")
        .expect("a vector takes every byte, and the payload fits in a packet");
    let at = info(&frame);
    (frame, at)
}
