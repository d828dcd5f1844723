//! Messages of sandboxes and of the host's resolvers. The first byte chooses: a query for the zone
//! (low bit clear; the next bits are its circumstances), or a run of the forwarding machine (low
//! bit set), whose steps are each a command, a length and that many bytes.

#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType};
use libfuzzer_sys::fuzz_target;
use weft_dns::{
    Action, Answer, Ask, ClientView, EndpointNames, Forwarder, ForwarderConfig, Outcome,
    ResolutionMode, ServiceNames, ServicePort, Tenant, Token, Transmit, Transport, Zone,
    ZoneBuilder, answer,
};
use weft_wire::Instant;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    if choice & 1 == 0 {
        ask_zone(*choice, rest);
    } else {
        Machine::new(choice >> 1).run(rest);
    }
});

fn transport(bit: u8) -> Transport {
    if bit & 1 == 0 {
        Transport::Udp
    } else {
        Transport::Tcp
    }
}

fn ask_zone(choice: u8, query: &[u8]) {
    let ask = Ask {
        transport: transport(choice >> 1),
        outside: choice & 4 != 0,
        seed: choice.into(),
    };
    let client = ClientView {
        networks: vec!["n1".into(), "n2".into()],
        internal_only: choice & 8 != 0,
        stack: (choice & 16 != 0).then(|| "shop".into()),
    };
    match answer(zone(), &client, query, ask) {
        Answer::Reply(reply) => {
            let message = Message::from_vec(&reply.bytes).expect("own replies decode");
            assert_eq!(message.metadata.message_type, MessageType::Response);
            assert_eq!(reply.bytes[..2], query[..2]);
            assert!(ask.transport == Transport::Tcp || reply.bytes.len() <= 4096);
            assert_eq!(
                reply.outcome == Outcome::Answered,
                !message.answers.is_empty() || message.metadata.truncation
            );
        }
        Answer::Forward => assert!(!client.internal_only),
        Answer::Drop(_) => assert!(query.len() < 12 || query[2] & 0x80 != 0),
    }
}

fn zone() -> &'static Zone {
    static ZONE: OnceLock<Zone> = OnceLock::new();
    ZONE.get_or_init(|| {
        let ip = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let mut zone = ZoneBuilder::new();
        zone.network("n1", "front");
        zone.network("n2", "back.office");
        let web = ServiceNames {
            name: "shop_web".into(),
            stack: Some("shop".into()),
            aliases: vec!["web".into()],
            stack_aliases: vec!["inner".into()],
            vips: vec![ip("10.0.1.2"), ip("fd00:1::2")],
            tasks: (0..60)
                .map(|host| IpAddr::from([10, 0, 1, 10 + host]))
                .collect(),
            other_tasks: vec![ip("10.0.1.90"), ip("fd00:1::90")],
            ports: vec![ServicePort {
                name: Some("http".into()),
                port: 80,
                protocol: "tcp".into(),
            }],
            ..ServiceNames::default()
        };
        let db = ServiceNames {
            name: "db".into(),
            aliases: vec!["web".into()],
            mode: ResolutionMode::Dnsrr,
            tasks: vec![ip("10.0.2.21"), ip("fd00:2::22")],
            ..ServiceNames::default()
        };
        let task = EndpointNames {
            name: "shop_web.1.abc".into(),
            aliases: vec!["w1".into()],
            hostnames: vec!["host1".into()],
            ips: vec![ip("10.0.1.10"), ip("fd00:1::10")],
            ..EndpointNames::default()
        };
        zone.service("n1", &web).expect("good names");
        zone.service("n1", &db).expect("good names");
        zone.service("n2", &db).expect("good names");
        zone.endpoint("n1", &task).expect("good names");
        zone.build()
    })
}

/// The machine with its clock and what is still owed.
struct Machine {
    forwarder: Forwarder,
    now: Instant,
    sent: Vec<Transmit>,
    owed: BTreeMap<Token, ([u8; 2], Transport)>,
    next: u64,
}

impl Machine {
    fn new(upstreams: u8) -> Self {
        let mut config = ForwarderConfig {
            in_flight_max: 8,
            waiters_max: 16,
            ..ForwarderConfig::default()
        };
        config.cache.entries = 4;
        config.cache.bytes = 2048;
        Self {
            forwarder: Forwarder::new(&addresses(upstreams), config),
            now: Instant(1),
            sent: Vec::new(),
            owed: BTreeMap::new(),
            next: 0,
        }
    }

    fn run(mut self, mut steps: &[u8]) {
        while let [command, length, rest @ ..] = steps {
            let (bytes, rest) = rest.split_at(rest.len().min((*length).into()));
            self.step(*command, bytes);
            self.drain();
            steps = rest;
        }
        while let Some(due) = self.forwarder.next_deadline() {
            self.now = self.now.max(due);
            self.forwarder.handle_deadline(self.now);
            self.drain();
        }
        assert!(self.owed.is_empty(), "{} without a reply", self.owed.len());
        assert_eq!(self.forwarder.in_flight(), 0);
    }

    fn step(&mut self, command: u8, bytes: &[u8]) {
        match command & 7 {
            0 | 1 => self.query(command >> 6, bytes, transport(command)),
            2 => self.query(
                command >> 6,
                b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x03org\0\0\x01\0\x01",
                transport(command >> 3),
            ),
            3 => self.reply(command >> 3, bytes.to_vec()),
            4 => {
                // The question itself, with the bytes for header flags, counts and records.
                if let Some(sent) = self.pick(command >> 3) {
                    let mut reply = sent.bytes;
                    let header = bytes.len().min(10);
                    if reply.len() >= 12 {
                        reply[2..2 + header].copy_from_slice(&bytes[..header]);
                    }
                    reply.extend_from_slice(&bytes[header..]);
                    self.reply(command >> 3, reply);
                }
            }
            5 => {
                if let Some(sent) = self.pick(command >> 3) {
                    self.forwarder
                        .handle_failure(self.now, sent.upstream, sent.transport, sent.id);
                }
            }
            6 => {
                let pause = bytes.first().copied().unwrap_or(1);
                self.now = self.now.after(Duration::from_millis(50) * pause.into());
                self.forwarder.handle_deadline(self.now);
            }
            _ => self.forwarder.set_upstreams(&addresses(command >> 3)),
        }
    }

    fn pick(&self, which: u8) -> Option<Transmit> {
        self.sent.iter().rev().nth(which.into()).cloned()
    }

    fn query(&mut self, tenant: u8, bytes: &[u8], transport: Transport) {
        let token = Token(self.next);
        self.next += 1;
        let seed = self.next.wrapping_mul(0x0123_4567_89ab_cdef);
        if self
            .forwarder
            .query(
                self.now,
                (token, Tenant(tenant.into())),
                bytes,
                transport,
                seed,
            )
            .is_ok()
        {
            self.owed.insert(token, ([bytes[0], bytes[1]], transport));
        }
    }

    fn reply(&mut self, which: u8, mut bytes: Vec<u8>) {
        let Some(sent) = self.pick(which) else { return };
        if let Some(id) = bytes.first_chunk_mut::<2>() {
            *id = sent.id.to_be_bytes();
        }
        if let Some(flags) = bytes.get_mut(2) {
            *flags |= 0x80;
        }
        let before = self.forwarder.in_flight();
        let taken = self
            .forwarder
            .handle_reply(self.now, sent.upstream, sent.transport, &bytes);
        assert!(taken.is_ok() || self.forwarder.in_flight() == before);
    }

    fn drain(&mut self) {
        while let Some(action) = self.forwarder.poll_action() {
            match action {
                Action::Send(transmit) => self.sent.push(transmit),
                Action::Close { .. } => {}
                Action::Reply { token, reply } => {
                    let (id, transport) = self.owed_to(token);
                    assert!(reply.bytes.len() >= 12);
                    assert_eq!(reply.bytes[..2], id);
                    assert!(transport == Transport::Tcp || reply.bytes.len() <= 4096);
                }
            }
        }
        assert!(self.forwarder.in_flight() <= 8);
        assert!(self.forwarder.cached() <= 4);
        assert!(self.owed.len() <= 16);
    }

    fn owed_to(&mut self, token: Token) -> ([u8; 2], Transport) {
        self.owed.remove(&token).expect("one reply for each query")
    }
}

fn addresses(count: u8) -> Vec<SocketAddr> {
    (1..=count % 4)
        .map(|host| SocketAddr::from(([192, 0, 2, host], 53)))
        .collect()
}
