//! The answer to a query, as a function of a zone.

use std::net::IpAddr;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{PTR, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::lookup::{self, Found, ServicePorts};
use crate::name;
use crate::reply::{self, Outcome, Reply, Transport};
use crate::zone::{ClientView, Zone};
use crate::{LOCAL_TTL_SECS, QUERY_MAX_BYTES};

/// Circumstances of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// How it came.
    pub transport: Transport,
    /// Whether [`Forwarder`](crate::Forwarder) has an upstream. Without one, names that only the
    /// cluster can hold are answered with NXDOMAIN instead of SERVFAIL.
    pub outside: bool,
    /// Shuffles the addresses; any number, best a different one for each query.
    pub seed: u64,
}

/// What to do with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Send this.
    Reply(Reply),
    /// Not a name of the cluster: hand the same bytes to [`Forwarder`](crate::Forwarder).
    Forward,
    /// Send nothing; count it.
    Drop(DropCause),
}

/// Why a message gets no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropCause {
    /// Shorter than a header: there is no id to reply with.
    TooShort,
    /// It is a response. Replying could make two servers talk for ever.
    NotAQuery,
}

/// Answers one message from a sandbox.
///
/// Never panics, whatever the bytes. Cost is linear in the size of the query and of the answer.
#[must_use]
pub fn answer(zone: &Zone, client: &ClientView, query: &[u8], ask: Ask) -> Answer {
    let Ok(header) = Header::read(&mut BinDecoder::new(query)) else {
        return Answer::Drop(DropCause::TooShort);
    };
    if header.metadata.message_type == MessageType::Response {
        return Answer::Drop(DropCause::NotAQuery);
    }
    if header.metadata.op_code != OpCode::Query {
        return Answer::Reply(reply::header_error(&header, ResponseCode::NotImp));
    }
    // Checked before the body: the decoder reserves room for as many questions as are announced.
    if header.counts.queries != 1 || query.len() > QUERY_MAX_BYTES {
        return Answer::Reply(reply::header_error(&header, ResponseCode::FormErr));
    }
    let Ok(message) = Message::from_vec(query) else {
        return Answer::Reply(reply::header_error(&header, ResponseCode::FormErr));
    };
    let Some(question) = message.queries.first() else {
        return Answer::Reply(reply::header_error(&header, ResponseCode::FormErr));
    };
    let error = |code| Answer::Reply(reply::error(&message, code, ask.transport));
    // RFC 6891 section 6.1.3
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return error(ResponseCode::BADVERS);
    }
    if question.query_class() != DNSClass::IN
        || matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR)
    {
        return error(ResponseCode::Refused);
    }
    let outside = ask.outside && !client.internal_only;
    match resolve(zone, client, question, outside) {
        Resolution::Records(mut records) => {
            shuffle(&mut records.answers, ask.seed);
            match records.encode(&message, ask.transport) {
                Some(reply) => Answer::Reply(reply),
                None => error(ResponseCode::ServFail),
            }
        }
        Resolution::Missing => error(ResponseCode::NXDomain),
        Resolution::Malformed => error(ResponseCode::ServFail),
        Resolution::Outside if client.internal_only => error(ResponseCode::ServFail),
        Resolution::Outside => Answer::Forward,
    }
}

enum Resolution {
    Records(Records),
    Missing,
    Outside,
    Malformed,
}

#[derive(Default)]
struct Records {
    answers: Vec<Record>,
    additionals: Vec<Record>,
}

impl Records {
    fn encode(self, query: &Message, transport: Transport) -> Option<Reply> {
        let outcome = if self.answers.is_empty() {
            Outcome::NoData
        } else {
            Outcome::Answered
        };
        let mut message = reply::start(query, ResponseCode::NoError);
        message.metadata.authoritative = true;
        message.answers = self.answers;
        message.additionals = self.additionals;
        let bytes = reply::encode(message, reply::limit(query, transport))?;
        Some(Reply { bytes, outcome })
    }
}

fn resolve(zone: &Zone, client: &ClientView, question: &Query, outside: bool) -> Resolution {
    let name = question.name();
    let kind = question.query_type();
    if kind == RecordType::PTR {
        match lookup::pointer(zone, client, name) {
            Ok(owner) => {
                return Resolution::Records(Records {
                    answers: vec![record(name, RData::PTR(PTR(owner)))],
                    ..Records::default()
                });
            }
            Err(Found::Malformed) => return Resolution::Malformed,
            // Not a reverse name that we know: it may still be a name that we know.
            Err(_) => {}
        }
    }
    let Some(spelling) = name::zone_spelling(name) else {
        return Resolution::Outside;
    };
    match lookup::service_targets(zone, client, &spelling) {
        Some(ServicePorts::Unknown) => return Resolution::Missing,
        Some(ServicePorts::At(targets)) if kind == RecordType::SRV => {
            return Resolution::Records(service_records(name, &targets));
        }
        Some(ServicePorts::At(_)) => return Resolution::Records(Records::default()),
        None => {}
    }
    match lookup::addresses(zone, client, &spelling, outside) {
        Found::Addresses(addresses) => Resolution::Records(Records {
            answers: address_records(name, &addresses, kind).collect(),
            ..Records::default()
        }),
        Found::Missing => Resolution::Missing,
        Found::Malformed => Resolution::Malformed,
        Found::Outside => Resolution::Outside,
    }
}

/// Records of the asked type. A known name without one is NODATA, never forwarded: a resolver
/// that hears NXDOMAIN for AAAA gives up on A too.
fn address_records<'a>(
    name: &'a Name,
    addresses: &'a [IpAddr],
    kind: RecordType,
) -> impl Iterator<Item = Record> + 'a {
    addresses.iter().filter_map(move |ip| {
        let data = match ip {
            IpAddr::V4(v4) if matches!(kind, RecordType::A | RecordType::ANY) => {
                RData::A((*v4).into())
            }
            IpAddr::V6(v6) if matches!(kind, RecordType::AAAA | RecordType::ANY) => {
                RData::AAAA((*v6).into())
            }
            _ => return None,
        };
        Some(record(name, data))
    })
}

fn service_records(name: &Name, targets: &[lookup::Target]) -> Records {
    let mut records = Records::default();
    for target in targets {
        let srv = SRV::new(0, 0, target.port, target.name.clone());
        records.answers.push(record(name, RData::SRV(srv)));
        records.additionals.extend(address_records(
            &target.name,
            &target.addresses,
            RecordType::ANY,
        ));
    }
    records
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), LOCAL_TTL_SECS, data)
}

/// Fisher-Yates over splitmix64: clients take the first address, so each must come first equally
/// often. Not a secret, so no strong generator.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let draw = mix(state);
        items.swap(last, (draw % (last as u64 + 1)) as usize);
    }
}

/// The finishing step of splitmix64.
pub(crate) const fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
