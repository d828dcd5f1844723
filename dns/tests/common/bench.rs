//! The forwarding machine with upstreams that a test speaks for.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use weft_dns::{
    Action, Forwarder, ForwarderConfig, Outcome, Reply, ReplyError, Tenant, Token, Transmit,
    Transport,
};
use weft_wire::Instant;

use super::{ip, query};

pub(crate) const A: RecordType = RecordType::A;

pub(crate) fn first() -> SocketAddr {
    "192.0.2.1:53".parse().unwrap()
}

pub(crate) fn second() -> SocketAddr {
    "192.0.2.2:53".parse().unwrap()
}

/// A forwarder with its clock, and what it did so far.
pub(crate) struct Bench {
    pub(crate) forwarder: Forwarder,
    pub(crate) now: Instant,
    pub(crate) sent: Vec<Transmit>,
    pub(crate) replies: Vec<(Token, Reply)>,
    pub(crate) closed: usize,
}

impl Bench {
    pub(crate) fn new(upstreams: &[SocketAddr]) -> Self {
        Self::with(upstreams, ForwarderConfig::default())
    }

    pub(crate) fn with(upstreams: &[SocketAddr], config: ForwarderConfig) -> Self {
        Self {
            forwarder: Forwarder::new(upstreams, config),
            now: Instant(1_000_000_000),
            sent: Vec::new(),
            replies: Vec::new(),
            closed: 0,
        }
    }

    pub(crate) fn drain(&mut self) {
        while let Some(action) = self.forwarder.poll_action() {
            match action {
                Action::Send(transmit) => self.sent.push(transmit),
                Action::Reply { token, reply } => self.replies.push((token, reply)),
                Action::Close { .. } => self.closed += 1,
            }
        }
    }

    pub(crate) fn ask_over(&mut self, token: u64, message: &Message, transport: Transport) {
        self.ask_of(Tenant(0), token, message, transport);
    }

    pub(crate) fn ask_of(
        &mut self,
        tenant: Tenant,
        token: u64,
        message: &Message,
        transport: Transport,
    ) {
        let bytes = message.to_vec().unwrap();
        let seed = token.wrapping_mul(0x1234_5678_9abc_def1);
        self.forwarder
            .query(self.now, (Token(token), tenant), &bytes, transport, seed)
            .unwrap();
        self.drain();
    }

    pub(crate) fn ask(&mut self, token: u64, name: &str) {
        self.ask_over(token, &query(name, A), Transport::Udp);
    }

    /// The same from a sandbox.
    pub(crate) fn ask_from(&mut self, tenant: u64, token: u64, name: &str) {
        self.ask_of(Tenant(tenant), token, &query(name, A), Transport::Udp);
    }

    /// Tokens that were refused so far.
    pub(crate) fn refused(&self) -> Vec<u64> {
        let refused = self.replies.iter();
        refused
            .filter(|(_, reply)| reply.outcome == Outcome::Refused)
            .map(|(token, _)| token.0)
            .collect()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.forwarder.handle_deadline(self.now);
        self.drain();
    }

    pub(crate) fn reply_to(&mut self, sent: &Transmit, reply: &Message) -> Result<(), ReplyError> {
        let bytes = reply.to_vec().unwrap();
        let result = self
            .forwarder
            .handle_reply(self.now, sent.upstream, sent.transport, &bytes);
        self.drain();
        result
    }

    /// Answers try number `nth` with `code` and, when that is NOERROR, an address.
    pub(crate) fn answer(&mut self, nth: usize, code: ResponseCode) {
        let sent = self.sent[nth].clone();
        self.reply_to(&sent, &response(&sent, code, 60)).unwrap();
    }

    pub(crate) fn only_reply(&self) -> (Token, Message, Outcome) {
        assert_eq!(self.replies.len(), 1, "{:?}", self.replies);
        let (token, reply) = &self.replies[0];
        (
            *token,
            Message::from_vec(&reply.bytes).unwrap(),
            reply.outcome,
        )
    }
}

pub(crate) fn response(sent: &Transmit, code: ResponseCode, ttl: u32) -> Message {
    let mut message = Message::from_vec(&sent.bytes).unwrap();
    assert_eq!(message.metadata.id, sent.id);
    message.metadata.message_type = MessageType::Response;
    message.metadata.response_code = code;
    if code == ResponseCode::NoError {
        let name = message.queries[0].name().clone();
        let data = match ip("198.51.100.7") {
            std::net::IpAddr::V4(v4) => RData::A(v4.into()),
            std::net::IpAddr::V6(v6) => RData::AAAA(v6.into()),
        };
        message.add_answer(Record::from_rdata(name, ttl, data));
    }
    message
}

pub(crate) fn denial(sent: &Transmit, minimum: u32) -> Message {
    let mut message = response(sent, ResponseCode::NXDomain, 0);
    let zone = Name::from_ascii("org.").unwrap();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, minimum);
    message.add_authority(Record::from_rdata(zone, 3600, RData::SOA(soa)));
    message
}

pub(crate) const RACE: Duration = Duration::from_millis(400);
