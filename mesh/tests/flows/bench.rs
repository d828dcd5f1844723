//! A worker's table with services around it, and frames made and checked by etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use weft_mesh::{
    Balancer, Context, FlowConfig, FlowTable, Forward, Limits, Origin, Protocol, Replica,
    ReplicaLoad, Reverse, Service, ServiceLoad, Services, ServicesBuilder,
};
use weft_wire::frame::{self, Frame};
use weft_wire::{FiveTuple, Instant, IpInfo, Mac, PortId, Vni};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

pub(crate) const CLIENT: Mac = Mac([2, 0x42, 10, 0, 0, 5]);
pub(crate) const VIP_MAC: Mac = Mac([2, 0x42, 10, 0, 0, 2]);
pub(crate) const NODE_MAC: Mac = Mac([2, 0x42, 10, 0, 0, 200]);

pub(crate) fn vni() -> Vni {
    Vni::new(4096).unwrap()
}

pub(crate) fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

pub(crate) fn v6(last: u16) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into()
}

pub(crate) fn client() -> IpAddr {
    v4(5)
}

pub(crate) fn vip() -> IpAddr {
    v4(2)
}

pub(crate) fn mesh_ip() -> IpAddr {
    Ipv4Addr::new(169, 254, 77, 2).into()
}

pub(crate) fn host_ip() -> IpAddr {
    Ipv4Addr::new(169, 254, 77, 1).into()
}

pub(crate) fn port() -> Origin {
    Origin::Port {
        vni: vni(),
        port: PortId(1),
    }
}

/// Another port than [`port`].
pub(crate) fn port_number(number: u32) -> Origin {
    Origin::Port {
        vni: vni(),
        port: PortId(number),
    }
}

pub(crate) fn mesh() -> Origin {
    Origin::Mesh {
        vni: vni(),
        node_ip: v4(200),
        node_mac: NODE_MAC,
        keeps_client: false,
    }
}

pub(crate) struct Bench {
    pub(crate) table: FlowTable,
    pub(crate) services: Services,
    pub(crate) loads: Vec<Arc<ReplicaLoad>>,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) now: Instant,
    pub(crate) epoch: u64,
    pub(crate) mtu: Option<u16>,
    pub(crate) limits: Limits,
    pub(crate) service: Arc<ServiceLoad>,
    pub(crate) in_gap: bool,
}

impl Bench {
    pub(crate) fn new(replicas: u8) -> Self {
        Self::with(
            replicas,
            FlowConfig {
                seed: 7,
                ..FlowConfig::default()
            },
        )
    }

    pub(crate) fn with(replicas: u8, config: FlowConfig) -> Self {
        let loads: Vec<_> = (0..replicas)
            .map(|_| Arc::<ReplicaLoad>::default())
            .collect();
        let replicas: Vec<_> = (0u8..)
            .zip(&loads)
            .map(|(i, load)| Replica {
                key: 100 + u64::from(i),
                vni: vni(),
                ip: v4(11 + i),
                mac: Mac([2, 0x42, 10, 0, 0, 11 + i]),
                local: false,
                draining: false,
                load: Arc::clone(load),
            })
            .collect();
        let mut bench = Self {
            table: FlowTable::new(config),
            services: Services::default(),
            loads,
            replicas,
            now: Instant(1_000_000_000_000),
            epoch: 0,
            mtu: None,
            limits: Limits::default(),
            service: Arc::default(),
            in_gap: false,
        };
        bench.publish();
        bench
    }

    /// A new snapshot with the replicas as they now are: a VIP, and published ports 8000 and 8001.
    pub(crate) fn publish(&mut self) {
        let mut builder = ServicesBuilder::new();
        let web = builder.service(Service {
            id: "web-id".into(),
            name: "web".into(),
            local_first: false,
            balancer: Balancer {
                load: Arc::clone(&self.service),
                ..Balancer::default()
            },
            limits: self.limits,
            in_gap: self.in_gap,
            replicas: self.replicas.clone(),
        });
        builder
            .vip(vni(), vip(), web)
            .vip(vni(), v4(3), web)
            .vip(vni(), v6(2), web)
            .publish(Protocol::Tcp, 8000, web, 80)
            .publish(Protocol::Tcp, 8001, web, 80)
            .publish(Protocol::Udp, 8000, web, 53);
        if let Some(mtu) = self.mtu {
            builder.mtu(vni(), mtu);
        }
        self.services = builder.build();
        self.epoch += 1;
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    pub(crate) fn forward(&mut self, origin: &Origin, frame: &mut [u8]) -> Forward {
        let info = info(frame);
        let cx = Context {
            now: self.now,
            epoch: self.epoch,
            services: &self.services,
        };
        self.table.forward(&cx, origin, frame, &info, false)
    }

    pub(crate) fn reverse(&mut self, frame: &mut [u8]) -> Reverse {
        let info = info(frame);
        let cx = Context {
            now: self.now,
            epoch: self.epoch,
            services: &self.services,
        };
        self.table.reverse(&cx, vni(), frame, &info, false)
    }

    /// Sends a client's frame on; the frame as the replica gets it, checked.
    pub(crate) fn forwarded(&mut self, origin: &Origin, mut frame: Vec<u8>) -> Vec<u8> {
        let verdict = self.forward(origin, &mut frame);
        let Forward::Rewritten {
            vni: net, dst_mac, ..
        } = verdict
        else {
            panic!("not forwarded: {verdict:?}");
        };
        assert_eq!(net, vni());
        assert_eq!(frame::dst_mac(&frame), dst_mac);
        check(&frame);
        frame
    }

    /// Sends a replica's frame back; the frame as the client gets it, checked.
    pub(crate) fn returned(&mut self, origin: &Origin, mut frame: Vec<u8>) -> Vec<u8> {
        let verdict = self.reverse(&mut frame);
        let Reverse::Rewritten { to } = verdict else {
            panic!("not sent back: {verdict:?}");
        };
        assert_eq!(to, origin.target());
        check(&frame);
        frame
    }

    /// Opens a connection from port `sport` of the client to the VIP; the tuple as the replica
    /// sees it.
    pub(crate) fn open(&mut self, sport: u16) -> FiveTuple {
        let seen = self.half_open(sport);
        self.returned(&port(), answer(seen, SYN | ACK, 500, 101, b""));
        self.forwarded(&port(), to_vip(sport, ACK, 101, 501, b""));
        seen
    }

    pub(crate) fn half_open(&mut self, sport: u16) -> FiveTuple {
        let sent = self.forwarded(&port(), to_vip(sport, SYN, 100, 0, b""));
        info(&sent).five_tuple()
    }

    pub(crate) fn own(&self) -> Vec<u32> {
        self.loads.iter().map(|load| load.own()).collect()
    }

    /// Which replica has an address.
    pub(crate) fn replica_at(&self, ip: IpAddr) -> usize {
        self.replicas.iter().position(|r| r.ip == ip).unwrap()
    }
}

pub(crate) fn info(frame: &[u8]) -> IpInfo {
    match frame::parse(frame) {
        Ok(Frame::Ip(info)) => info,
        other => panic!("not an IP packet: {other:?}"),
    }
}

/// A TCP segment from the client to the VIP.
pub(crate) fn to_vip(sport: u16, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    tcp(
        (CLIENT, VIP_MAC),
        tuple(client(), sport, vip(), 80, 6),
        (flags, seq, ack),
        payload,
    )
}

/// A TCP segment from the host to a published port.
pub(crate) fn to_mesh(sport: u16, dport: u16, flags: u8, seq: u32) -> Vec<u8> {
    tcp(
        (CLIENT, VIP_MAC),
        tuple(host_ip(), sport, mesh_ip(), dport, 6),
        (flags, seq, 1),
        b"",
    )
}

/// A TCP segment from a replica, in answer to what it saw.
pub(crate) fn answer(seen: FiveTuple, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
    tcp(
        (Mac([9; 6]), Mac([8; 6])),
        seen.reversed(),
        (flags, seq, ack),
        payload,
    )
}

pub(crate) fn tuple(src: IpAddr, sport: u16, dst: IpAddr, dport: u16, proto: u8) -> FiveTuple {
    FiveTuple {
        src,
        dst,
        sport,
        dport,
        proto,
    }
}

pub(crate) fn tcp(
    (src_mac, dst_mac): (Mac, Mac),
    t: FiveTuple,
    (flags, seq, ack): (u8, u32, u32),
    payload: &[u8],
) -> Vec<u8> {
    let eth = PacketBuilder::ethernet2(src_mac.0, dst_mac.0);
    let ip = match (t.src, t.dst) {
        (IpAddr::V4(a), IpAddr::V4(b)) => eth.ipv4(a.octets(), b.octets(), 64),
        (IpAddr::V6(a), IpAddr::V6(b)) => eth.ipv6(a.octets(), b.octets(), 64),
        _ => panic!("mixed families"),
    };
    let mut tcp = ip.tcp(t.sport, t.dport, seq, 64_000);
    if flags & SYN != 0 {
        tcp = tcp.syn();
    }
    if flags & ACK != 0 {
        tcp = tcp.ack(ack);
    }
    if flags & FIN != 0 {
        tcp = tcp.fin();
    }
    if flags & RST != 0 {
        tcp = tcp.rst();
    }
    let mut out = Vec::new();
    tcp.write(&mut out, payload).unwrap();
    out
}

pub(crate) fn udp(macs: (Mac, Mac), t: FiveTuple, payload: &[u8]) -> Vec<u8> {
    let eth = PacketBuilder::ethernet2(macs.0.0, macs.1.0);
    let ip = match (t.src, t.dst) {
        (IpAddr::V4(a), IpAddr::V4(b)) => eth.ipv4(a.octets(), b.octets(), 64),
        (IpAddr::V6(a), IpAddr::V6(b)) => eth.ipv6(a.octets(), b.octets(), 64),
        _ => panic!("mixed families"),
    };
    let mut out = Vec::new();
    ip.udp(t.sport, t.dport).write(&mut out, payload).unwrap();
    out
}

/// Checks every checksum of a frame with another implementation.
pub(crate) fn check(frame: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    match (packet.net.unwrap(), packet.transport.unwrap()) {
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let sum = tcp
                .to_header()
                .calc_checksum_ipv4(&header, tcp.payload())
                .unwrap();
            assert_eq!(sum, tcp.checksum());
        }
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let sum = udp
                .to_header()
                .calc_checksum_ipv4(&header, udp.payload())
                .unwrap();
            assert_eq!(sum, udp.checksum());
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let header = ip.header().to_header();
            let sum = tcp
                .to_header()
                .calc_checksum_ipv6(&header, tcp.payload())
                .unwrap();
            assert_eq!(sum, tcp.checksum());
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            let sum = udp
                .to_header()
                .calc_checksum_ipv6(&header, udp.payload())
                .unwrap();
            assert_eq!(sum, udp.checksum());
        }
        other => panic!("unexpected packet: {other:?}"),
    }
}
