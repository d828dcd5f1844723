//! The flow tables of two workers, fed with anything a client, a replica, another worker or a change
//! of tables can bring. Input: one byte for the capacity, then steps of a kind, three numbers and,
//! for frames, changes of single bytes.

#![no_main]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_mesh::{
    Admission, Balancer, Claims, Context, FlowConfig, FlowState, FlowTable, Forward, Install,
    Limits, Origin, Protocol, Replica, ReplicaLoad, Reverse, Service, Services, ServicesBuilder,
};
use weft_wire::frame::{self, TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, UDP};
use weft_wire::reply::{self, MAX_LEN};
use weft_wire::{
    Fragment, Frame, GsoKind, Instant, IpInfo, Mac, PortId, Vni, checksum, mac_for_ip, quoted,
    superframe,
};

const REPLICAS: usize = 3;
/// Inner MTU of the underlay, bytes.
const MTU: u16 = 1450;
/// Longest opening segment of which a table keeps a copy, bytes.
const LONGEST_SYN: usize = 14 + 60 + 60;

struct World {
    tables: [FlowTable; 2],
    services: Services,
    loads: [Arc<ReplicaLoad>; 2 * REPLICAS],
    now: Instant,
    epoch: u64,
    capacity: usize,
    installs: Vec<Install>,
    /// Last frame that reached a replica, and last one that reached a client.
    at_replica: Vec<u8>,
    at_client: Vec<u8>,
}

/// Numbers from the input; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }
}

fn vni() -> Vni {
    Vni::new(4096).expect("24 bits")
}

fn ip(ipv6: bool, last: u8) -> IpAddr {
    if ipv6 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)])
    } else {
        IpAddr::from([10, 0, 0, last])
    }
}

fn origin(client: u8) -> Origin {
    match client % 4 {
        0 => Origin::Mesh {
            vni: vni(),
            node_ip: ip(false, 200),
            node_mac: mac_for_ip(ip(false, 200)),
            keeps_client: client & 4 != 0,
        },
        n => Origin::Port {
            vni: vni(),
            port: PortId(n.into()),
        },
    }
}

impl World {
    fn new(capacity: usize) -> Self {
        let claims = Arc::new(Claims::new(7));
        let table = |worker| {
            FlowTable::new(FlowConfig {
                worker,
                capacity,
                syn_copies: 4,
                seed: 7,
                claims: Arc::clone(&claims),
                ..FlowConfig::default()
            })
        };
        let mut world = Self {
            tables: [table(0), table(1)],
            services: Services::default(),
            loads: Default::default(),
            now: Instant(1_000_000_000),
            epoch: 0,
            capacity,
            installs: Vec::new(),
            at_replica: Vec::new(),
            at_client: Vec::new(),
        };
        world.publish(0xff);
        world
    }

    /// New tables; a bit for each replica that is there, one that all of them drain.
    fn publish(&mut self, bits: u8) {
        let replicas = (0..2 * REPLICAS)
            .filter(|i| bits & (1 << i) != 0)
            .map(|i| {
                let at = ip(i >= REPLICAS, 11 + (i % REPLICAS) as u8);
                Replica {
                    key: i as u64,
                    vni: vni(),
                    ip: at,
                    mac: mac_for_ip(at),
                    local: i % 2 == 0,
                    draining: bits & 0xc0 == 0x80,
                    load: Arc::clone(&self.loads[i]),
                }
            })
            .collect();
        let mut builder = ServicesBuilder::new();
        let service = builder.service(Service {
            id: "id".into(),
            name: "name".into(),
            local_first: false,
            balancer: Balancer::default(),
            limits: Limits::default(),
            in_gap: bits & 0xc0 == 0x80,
            replicas,
        });
        builder
            .mtu(vni(), 1400)
            .vip(vni(), ip(false, 2), service)
            .vip(vni(), ip(true, 2), service)
            .publish(Protocol::Tcp, 80, service, 8080)
            .publish(Protocol::Udp, 80, service, 8080);
        self.services = builder.build();
        self.epoch += 1;
        self.admit();
    }

    /// Whoever waited for a replica is sent on, or refused.
    fn admit(&mut self) {
        let cx = context(self.now, self.epoch, &self.services);
        let installs = &mut self.installs;
        self.tables[0].admit(&cx, 64, |admission, frame| {
            assert!(parsed(frame).is_some());
            if let Admission::Forward {
                dst_mac, install, ..
            } = admission
            {
                assert_eq!(frame::dst_mac(frame), dst_mac);
                installs.extend(install);
            }
        });
    }

    fn forward(&mut self, client: u8, bytes: &[u8]) {
        let Some((info, right)) = parsed(bytes) else {
            return;
        };
        let mut copy = bytes.to_vec();
        let origin = origin(client);
        let state = |tables: &[FlowTable; 2]| tables[0].state_of(vni(), info.five_tuple());
        let before = state(&self.tables);
        let cx = context(self.now, self.epoch, &self.services);
        match self.tables[0].forward(&cx, &origin, &mut copy, &info, false) {
            Forward::Rewritten {
                dst_mac, install, ..
            } => {
                assert_eq!(frame::dst_mac(&copy), dst_mac);
                let now = rewritten(&copy, &info, right);
                assert!(self.services.is_replica(vni(), now.dst) || is_lost(now.dst));
                self.installs.extend(install);
                if before == Some(FlowState::SynAnswered) && is_kept_syn(&origin, &info) {
                    // It is asked again: until it answers, it may refuse unseen.
                    assert_eq!(state(&self.tables), Some(FlowState::SynSent));
                }
                self.check_narrow(bytes, &info, &copy, &now);
                self.at_replica = copy;
            }
            Forward::AnswerEcho => assert!(info.is_echo_request()),
            Forward::Held => assert!(is_syn(&info)),
            Forward::Refuse(_) | Forward::Drop(_) => {}
        }
    }

    fn reverse(&mut self, worker: usize, bytes: &[u8]) {
        let Some((info, right)) = parsed(bytes) else {
            return;
        };
        self.divide(worker, bytes, &info);
        let mut copy = bytes.to_vec();
        let cx = context(self.now, self.epoch, &self.services);
        match self.tables[worker].reverse(&cx, vni(), &mut copy, &info, false) {
            Reverse::NotAFlow | Reverse::ToOwner { .. } => assert_eq!(copy, bytes),
            // No address, at most the client's port.
            Reverse::Return { .. } => {
                let now = rewritten(&copy, &info, right);
                assert_eq!((now.src, now.dst), (info.src, info.dst));
            }
            Reverse::Rewritten { .. } => {
                rewritten(&copy, &info, right);
                self.at_client = copy;
            }
            Reverse::Retry { install, .. } => {
                assert_eq!(worker, 0);
                self.at_replica = self.tables[0].retry_frame().to_vec();
                let Some((next, _)) = parsed(&self.at_replica) else {
                    panic!("a repeated SYN is no packet");
                };
                assert!(is_syn(&next));
                // Another one is asked, not the one that refused.
                assert!(self.services.is_replica(vni(), next.dst));
                assert_ne!(next.dst, info.src);
                self.installs.extend(install);
            }
            Reverse::Drop(_) => {}
        }
    }

    /// What a router said of its link counts for the flow whose packet it quotes, from then on.
    fn check_narrow(&self, error: &[u8], info: &IpInfo, at_replica: &[u8], now: &IpInfo) {
        let Some(said) = quoted::path_mtu(error, info) else {
            return;
        };
        let Some(quoted) = quoted::quoted(at_replica, now) else {
            return;
        };
        let sent = IpInfo {
            src: quoted.tuple.src,
            dst: quoted.tuple.dst,
            sport: quoted.tuple.sport,
            dport: quoted.tuple.dport,
            proto: quoted.tuple.proto,
            ..*now
        };
        let known = self.tables[0].path_mtu(vni(), &sent);
        assert!(known.is_some_and(|mtu| mtu <= said), "{known:?}, {said}");
    }

    /// Super-frames from another node are divided for the narrowest link that their flow has met,
    /// and no word of a router makes it narrower than a link may be.
    fn divide(&self, worker: usize, bytes: &[u8], info: &IpInfo) {
        let narrow = self.tables[worker].path_mtu(vni(), info);
        let least = if info.is_ipv4() { 552 } else { 1280 };
        assert!(narrow.is_none_or(|mtu| mtu >= least), "{narrow:?}");
        let mtu = usize::from(narrow.map_or(MTU, |mtu| mtu.min(MTU)));
        match superframe::fixup(&mut bytes.to_vec(), info, mtu) {
            Ok(vnet) if vnet.gso() != GsoKind::None => {
                let headers = info.payload - info.l3;
                assert_eq!(usize::from(vnet.gso_size) + headers, mtu);
            }
            Ok(_) => assert!(info.ip_len() <= mtu),
            Err(_) => {}
        }
    }

    fn arrived(&mut self, bytes: &[u8]) {
        let Some((info, right)) = parsed(bytes) else {
            return;
        };
        let mut copy = bytes.to_vec();
        let cx = context(self.now, self.epoch, &self.services);
        self.tables[1].arrived(&cx, vni(), &mut copy, &info, false);
        let now = rewritten(&copy, &info, right);
        assert_eq!((now.src, now.dst), (info.src, info.dst));
        self.at_replica = copy;
    }

    fn check(&self) {
        for table in &self.tables {
            assert!(table.len() <= self.capacity);
            assert!(table.active() <= table.len());
        }
        let own: u32 = self.loads.iter().map(|load| load.own()).sum();
        assert_eq!(own as usize, self.tables[0].active());
        assert_eq!(self.tables[1].active(), 0);
    }
}

/// An IP packet, and whether its checksum is right.
fn parsed(bytes: &[u8]) -> Option<(IpInfo, bool)> {
    match frame::parse(bytes) {
        Ok(Frame::Ip(info)) => Some((info, checksum::verify_transport(bytes, &info))),
        _ => None,
    }
}

fn context(now: Instant, epoch: u64, services: &Services) -> Context<'_> {
    Context {
        now,
        epoch,
        services,
    }
}

fn is_syn(info: &IpInfo) -> bool {
    info.proto == TCP && info.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
}

/// A sandbox's opening segment of which the table keeps a copy.
fn is_kept_syn(origin: &Origin, info: &IpInfo) -> bool {
    matches!(origin, Origin::Port { .. })
        && is_syn(info)
        && info.fragment == Fragment::None
        && info.len <= LONGEST_SYN
}

fn is_lost(ip: IpAddr) -> bool {
    // What is over is still sent to a replica that is gone, so that the last segments arrive.
    matches!(ip, IpAddr::V4(ip) if ip.octets()[3] < 14)
        || matches!(ip, IpAddr::V6(ip) if ip.segments()[7] < 14)
}

/// What must hold for a frame after a rewrite.
fn rewritten(bytes: &[u8], before: &IpInfo, right: bool) -> IpInfo {
    let Ok(Frame::Ip(now)) = frame::parse(bytes) else {
        panic!("a rewritten frame is no frame");
    };
    assert_eq!(
        (now.len, now.l4, now.proto),
        (before.len, before.l4, before.proto)
    );
    if right {
        assert!(checksum::verify_transport(bytes, &now));
    }
    now
}

/// A frame of the kind that `numbers` say, with right checksums.
fn build(src: IpAddr, dst: IpAddr, ports: (u16, u16), udp: bool, flags: u8, len: usize) -> Vec<u8> {
    let (l3, l4) = (14, if src.is_ipv4() { 34 } else { 54 });
    let header = if udp { 8 } else { 24 };
    let total = l4 + header + len;
    let mut out = vec![0x42; total];
    out[..6].copy_from_slice(&mac_for_ip(dst).0);
    out[6..12].copy_from_slice(&mac_for_ip(src).0);
    let ip_len = (total - l3) as u16;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out[12..14].copy_from_slice(&[8, 0]);
            let proto = if udp { UDP } else { TCP };
            out[l3..l3 + 12].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, proto, 0, 0]);
            out[l3 + 2..l3 + 4].copy_from_slice(&ip_len.to_be_bytes());
            out[l3 + 12..l3 + 16].copy_from_slice(&src.octets());
            out[l3 + 16..l3 + 20].copy_from_slice(&dst.octets());
            let sum = !checksum::sum(&out[l3..l4]);
            out[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            out[12..14].copy_from_slice(&[0x86, 0xdd]);
            let proto = if udp { UDP } else { TCP };
            out[l3..l3 + 8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, proto, 64]);
            out[l3 + 4..l3 + 6].copy_from_slice(&(ip_len - 40).to_be_bytes());
            out[l3 + 8..l3 + 24].copy_from_slice(&src.octets());
            out[l3 + 24..l3 + 40].copy_from_slice(&dst.octets());
        }
        _ => unreachable!("one family"),
    }
    out[l4..l4 + 2].copy_from_slice(&ports.0.to_be_bytes());
    out[l4 + 2..l4 + 4].copy_from_slice(&ports.1.to_be_bytes());
    let offset = if udp {
        out[l4 + 4..l4 + 6].copy_from_slice(&((header + len) as u16).to_be_bytes());
        6
    } else {
        out[l4 + 4..l4 + 16].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 9, 0x60, flags, 0xff, 0]);
        // The acknowledgement of what is sent below, and the MSS option.
        out[l4 + 11] = 10;
        out[l4 + 18..l4 + 24].copy_from_slice(&[0, 0, 2, 4, 5, 0xb4]);
        16
    };
    let proto = if udp { UDP } else { TCP };
    let pseudo = checksum::pseudo_header(src, dst, proto, total - l4);
    out[l4 + offset..l4 + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
    checksum::complete(&mut out, l4, offset).expect("the field is inside");
    out
}

/// Changes single bytes, so that the fuzzer reaches what `build` never makes.
fn mutate(frame: &mut [u8], input: &mut Input<'_>, changes: u8) {
    for _ in 0..changes % 8 {
        let at = usize::from(input.byte());
        let value = input.byte();
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
    }
}

/// What a router or an end says about a frame.
fn error_about(bytes: &[u8], kind: u8) -> Option<Vec<u8>> {
    let Ok(Frame::Ip(info)) = frame::parse(bytes) else {
        return None;
    };
    let by = if kind & 1 == 0 {
        info.dst
    } else {
        ip(!info.is_ipv4(), 1)
    };
    let mtu = match kind >> 2 {
        0 => 1280,
        n => u16::from(n) * 64,
    };
    let mut out = [0; MAX_LEN];
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let len = if kind & 2 == 0 {
        reply::icmp_unreachable(bytes, &info, mac, by, &mut out)
    } else {
        reply::packet_too_big(bytes, &info, mac, by, mtu, &mut out)
    };
    out.get(..len).filter(|out| !out.is_empty()).map(Vec::from)
}

fn step(world: &mut World, input: &mut Input<'_>) {
    let (kind, a, b, changes) = (input.byte(), input.byte(), input.byte(), input.byte());
    match kind % 11 {
        0 | 1 => {
            let ipv6 = a & 0x80 != 0 && a % 4 != 0;
            let (src, dst) = if a % 4 == 0 {
                (
                    IpAddr::from([169, 254, 77, 1]),
                    IpAddr::from([169, 254, 77, 2]),
                )
            } else {
                (ip(ipv6, 20 + a % 4), ip(ipv6, 2))
            };
            let udp = kind % 11 == 1;
            let ports = (u16::from(b % 16) + 1, 80);
            let mut frame = build(
                src,
                dst,
                ports,
                udp,
                changes >> 3,
                usize::from(a >> 2 & 15) * 8,
            );
            mutate(&mut frame, input, changes);
            world.forward(a, &frame);
        }
        2 => {
            // The last frame of a client is answered.
            let bytes = world.at_replica.clone();
            let Ok(Frame::Ip(info)) = frame::parse(&bytes) else {
                return;
            };
            if !matches!(info.proto, TCP | UDP) {
                return;
            }
            // Some are larger than any link carries.
            let unit = if b & 0x40 == 0 { 8 } else { 64 };
            let mut frame = build(
                info.dst,
                info.src,
                (info.dport, info.sport),
                info.proto == UDP,
                a,
                usize::from(b % 64) * unit,
            );
            mutate(&mut frame, input, changes);
            world.reverse(usize::from(b >> 7), &frame);
        }
        3 => {
            if let Some(mut error) = error_about(&world.at_replica.clone(), a) {
                mutate(&mut error, input, changes);
                world.reverse(usize::from(b & 1), &error);
            }
        }
        4 => {
            if let Some(mut error) = error_about(&world.at_client.clone(), a) {
                mutate(&mut error, input, changes);
                world.forward(b, &error);
            }
        }
        5 => {
            world.now = world
                .now
                .after(Duration::from_millis(u64::from(a) << (b % 16)));
            for table in &mut world.tables {
                table.expire(world.now, 64);
            }
        }
        6 => world.publish(a),
        7 => {
            let cx = context(world.now, world.epoch, &world.services);
            for table in &mut world.tables {
                table.sweep(&cx, usize::from(a) + 1, |reset| {
                    assert!(frame::parse(reset.frame).is_ok());
                });
            }
        }
        8 => {
            // Letters between the two workers.
            for install in world.installs.drain(..) {
                world.tables[1].install(world.now, install);
            }
            while let Some(removal) = world.tables[0].poll_removal() {
                world.tables[1].uninstall(removal);
            }
        }
        9 => {
            // The same client, by way of another node.
            let client = IpAddr::from([169, 254, 77, 1]);
            let replica = ip(false, 11 + a % 4);
            let port = (u16::from(b % 16) + 1) ^ u16::from(b >> 7) << 15;
            let len = usize::from(a >> 2 & 15) * 8;
            let udp = b & 0x40 != 0;
            let mut frame = build(client, replica, (port, 8080), udp, changes >> 3, len);
            frame[6..12].copy_from_slice(&mac_for_ip(ip(false, 201 + a % 2)).0);
            mutate(&mut frame, input, changes);
            world.arrived(&frame);
        }
        _ => {
            world.tables[0].close_port(PortId(u32::from(a % 4)), |reset| {
                assert!(frame::parse(reset.frame).is_ok());
            });
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let mut world = World::new(2 + usize::from(input.byte() % 30));
    while !input.0.is_empty() {
        step(&mut world, &mut input);
        world.check();
    }
    // Whoever goes takes his load along.
    for port in 0..4 {
        world.tables[0].close_port(PortId(port), |_| ());
    }
    world.publish(0);
    let cx = context(world.now, world.epoch, &world.services);
    while !world.tables[0].sweep(&cx, 64, |_| ()) {}
    for _ in 0..4 {
        world.now = world.now.after(Duration::from_secs(4000));
        world.tables[0].expire(world.now, 1000);
    }
    assert!(world.tables[0].is_empty());
    assert!(world.loads.iter().all(|load| load.own() == 0));
});
