//! What a worker does with a frame between two system calls, with the real tables.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_mesh::{
    Balancer, Context, FlowConfig, FlowTable, Forward, Limits, Origin, Replica, ReplicaLoad,
    Reverse, Service, Services, ServicesBuilder, Target,
};
use weft_vxlan::{Destination, Egress, Ingress, NetworkEntry, PortSource, Switch, SwitchBuilder};
use weft_wire::frame::parse;
use weft_wire::gro::{Coalescer, Offer};
use weft_wire::gso::{self, Segment};
use weft_wire::{DropReason, Frame, GsoKind, Instant, IpInfo, VnetHdr, checksum, vnet};

use crate::world::{Place, SERVICES, World, replica_key, v4, v6, vip, vni};

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Sent(Place),
    Refused(DropReason),
    Dropped(DropReason),
}

pub(crate) struct Fast {
    switch: Switch,
    services: Services,
    flows: FlowTable,
    loads: HashMap<u64, Arc<ReplicaLoad>>,
    epoch: u64,
}

impl Fast {
    pub(crate) fn new(world: &World, seed: u64) -> Self {
        let mut fast = Self {
            switch: Switch::default(),
            services: Services::default(),
            flows: FlowTable::new(FlowConfig {
                seed,
                ..FlowConfig::default()
            }),
            loads: HashMap::new(),
            epoch: 0,
        };
        fast.publish(world);
        fast
    }

    pub(crate) fn publish(&mut self, world: &World) {
        let mut switch = SwitchBuilder::new();
        switch.network(NetworkEntry {
            vni: vni(),
            mtu: 1450,
            gateways: vec![v4(1), v6(1)],
        });
        for e in &world.endpoints {
            match e.place {
                Some(Place::Port(port)) => switch.local(vni(), e.mac, &e.ips, port),
                Some(Place::Vtep(vtep)) => switch.remote(vni(), e.mac, &e.ips, vtep),
                None => &mut switch,
            };
        }
        let mut services = ServicesBuilder::new();
        for service in 0..SERVICES {
            let mut replicas = Vec::new();
            for (index, e) in world.replicas(service) {
                for ip in e.ips {
                    let key = replica_key(index, e.life, ip.is_ipv6());
                    replicas.push(Replica {
                        key,
                        vni: vni(),
                        ip,
                        mac: e.mac,
                        local: false,
                        draining: e.draining,
                        load: Arc::clone(self.loads.entry(key).or_default()),
                    });
                }
            }
            let index = services.service(Service {
                id: "id".into(),
                name: "name".into(),
                local_first: false,
                balancer: Balancer::default(),
                limits: Limits::default(),
                in_gap: false,
                replicas,
            });
            for ipv6 in [false, true] {
                let ip = vip(service, ipv6);
                switch.virtual_ip(vni(), ip);
                services.vip(vni(), ip, index);
            }
        }
        self.switch = switch.build();
        self.services = services.build();
        self.epoch += 1;
    }

    /// Flows in the table, and those that count as load.
    pub(crate) fn flows(&self) -> (usize, usize) {
        (self.flows.len(), self.flows.active())
    }

    /// A frame that the endpoint `from` of this node sent.
    pub(crate) fn egress(
        &mut self,
        world: &World,
        from: usize,
        frame: &mut [u8],
        partial: bool,
    ) -> Outcome {
        let endpoint = &world.endpoints[from];
        let port = endpoint.port().unwrap();
        let parsed = parse(frame).unwrap();
        let source = PortSource {
            port,
            mac: endpoint.mac,
            ips: &endpoint.ips,
        };
        let Frame::Ip(info) = parsed else {
            panic!("IP only")
        };
        match self.switch.egress(vni(), source, frame, &parsed) {
            Egress::Local(to) => self.reverse(Place::Port(to), frame, &info, partial),
            Egress::Remote(vtep) => Outcome::Sent(Place::Vtep(vtep)),
            Egress::Virtual => {
                let cx = context(&self.services, self.epoch);
                match self.flows.reverse(&cx, vni(), frame, &info, partial) {
                    Reverse::NotAFlow => {}
                    verdict => return settled(verdict, Place::Port(port)),
                }
                let origin = Origin::Port { vni: vni(), port };
                match self.flows.forward(&cx, &origin, frame, &info, partial) {
                    Forward::Rewritten { dst_mac, .. } => {
                        match self.switch.lookup(vni(), dst_mac) {
                            Some(Destination::Local(to)) => Outcome::Sent(Place::Port(to)),
                            Some(Destination::Remote(vtep)) => Outcome::Sent(Place::Vtep(vtep)),
                            None => Outcome::Dropped(DropReason::NoReplica),
                        }
                    }
                    Forward::Refuse(refusal) => Outcome::Refused(refusal.reason()),
                    Forward::Drop(reason) => Outcome::Dropped(reason),
                    Forward::AnswerEcho => panic!("no pings here"),
                    Forward::Held => panic!("no service is in a gap here"),
                }
            }
            Egress::Routed => panic!("no way out here"),
            Egress::Answer(_) => panic!("nobody asked"),
            Egress::Drop(reason) => Outcome::Dropped(reason),
        }
    }

    /// A frame from another node, as the coalescer hands it out.
    pub(crate) fn ingress(
        &mut self,
        by: SocketAddr,
        frame: &mut [u8],
        info: &IpInfo,
        partial: bool,
    ) -> Outcome {
        match self
            .switch
            .ingress(vni(), by.ip(), frame, &Frame::Ip(*info))
        {
            Ingress::Local(to) => self.reverse(Place::Port(to), frame, info, partial),
            Ingress::Virtual => Outcome::Dropped(DropReason::NoService),
            Ingress::Answer(_) => panic!("nobody asked"),
            Ingress::Drop(reason) => Outcome::Dropped(reason),
        }
    }

    fn reverse(&mut self, to: Place, frame: &mut [u8], info: &IpInfo, partial: bool) -> Outcome {
        let cx = context(&self.services, self.epoch);
        settled(self.flows.reverse(&cx, vni(), frame, info, partial), to)
    }
}

fn settled(verdict: Reverse, to: Place) -> Outcome {
    match verdict {
        Reverse::NotAFlow => Outcome::Sent(to),
        Reverse::Rewritten {
            to: Target::Port(port),
        } => Outcome::Sent(Place::Port(port)),
        Reverse::Drop(reason) => Outcome::Dropped(reason),
        other => panic!("not here: {other:?}"),
    }
}

fn context(services: &Services, epoch: u64) -> Context<'_> {
    Context {
        now: Instant(1_000_000_000),
        epoch,
        services,
    }
}

/// Makes a frame what a kernel hands over for splitting.
pub(crate) fn make_super(frame: &mut [u8], size: usize) -> VnetHdr {
    let info = info(frame);
    let offset = info.checksum_offset().unwrap();
    let pseudo = checksum::pseudo_header(info.src, info.dst, info.proto, info.len - info.l4);
    frame[info.l4 + offset..info.l4 + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
    VnetHdr {
        flags: vnet::F_NEEDS_CSUM,
        gso_type: match (info.proto, info.is_ipv4()) {
            (weft_wire::frame::TCP, true) => vnet::GSO_TCPV4,
            (weft_wire::frame::TCP, false) => vnet::GSO_TCPV6,
            _ => vnet::GSO_UDP_L4,
        },
        gso_size: u16::try_from(size).unwrap(),
        csum_start: u16::try_from(info.l4).unwrap(),
        csum_offset: u16::try_from(offset).unwrap(),
        ..VnetHdr::NONE
    }
}

/// The frames that leave the machine, or that the kernel of a sandbox makes of a super-frame.
pub(crate) fn split(frame: &[u8], vnet: &VnetHdr) -> Vec<Vec<u8>> {
    let mut whole = frame.to_vec();
    if vnet.gso() == GsoKind::None {
        gso::finish_single(&mut whole, vnet, Some(&info(frame))).unwrap();
        return vec![whole];
    }
    let mut arena = vec![0; gso::arena_len(0)];
    let mut out = vec![Segment::default(); gso::MAX_SEGMENTS];
    let info = info(frame);
    let split = gso::split(frame, vnet, &info, &[], &mut arena, &mut out).unwrap();
    out[..split.count]
        .iter()
        .map(|segment| {
            let header = segment.header.start as usize..segment.header.end as usize;
            let payload = segment.payload.start as usize..segment.payload.end as usize;
            [&arena[header], &frame[payload]].concat()
        })
        .collect()
}

/// Merges frames as they come in, in runs that also end where `breaks` says; `deliver` gets each
/// run's parts with what is known of it.
pub(crate) fn merge(
    frames: &[Vec<u8>],
    breaks: &[bool],
    mut deliver: impl FnMut(Vec<u8>, IpInfo, VnetHdr),
) {
    let mut coalescer = Coalescer::default();
    let mut arena: Vec<u8> = Vec::new();
    let ranges: Vec<_> = frames
        .iter()
        .map(|frame| {
            let start = arena.len();
            arena.extend(frame);
            start..arena.len()
        })
        .collect();
    let mut started = None;
    let mut close = |coalescer: &mut Coalescer, arena: &mut Vec<u8>, info: Option<IpInfo>| {
        let Some(run) = coalescer.take(arena) else {
            return;
        };
        let (vnet, head, tails) = (run.vnet, run.head.clone(), run.tails.to_vec());
        let mut whole = arena[head].to_vec();
        for tail in tails {
            whole.extend(&arena[tail]);
        }
        deliver(whole, info.unwrap(), vnet);
    };
    for (i, range) in ranges.into_iter().enumerate() {
        let at = info(&arena[range.clone()]);
        if breaks.get(i).copied().unwrap_or(false) {
            close(&mut coalescer, &mut arena, started.take());
        }
        if coalescer.offer(&arena, range.clone(), &at, 1, true) == Offer::Refused {
            close(&mut coalescer, &mut arena, started.take());
            assert_eq!(coalescer.offer(&arena, range, &at, 1, true), Offer::Started);
        }
        started.get_or_insert(at);
    }
    close(&mut coalescer, &mut arena, started.take());
}

pub(crate) fn info(frame: &[u8]) -> IpInfo {
    match parse(frame) {
        Ok(Frame::Ip(info)) => info,
        other => panic!("not an IP packet: {other:?}"),
    }
}
