//! Replies as bytes: encoding, truncation, errors.

use hickory_proto::op::{Edns, Header, Message, MessageType, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::{EDNS_PAYLOAD_BYTES, UDP_REPLY_MAX_BYTES};

/// How a query came, and how its reply goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams, truncated to what the client takes.
    Udp,
    /// Messages of up to 64 KiB, each behind its length in two bytes (RFC 1035 section 4.2.2);
    /// the caller does the framing.
    Tcp,
}

/// What a reply says, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// At least one record, or a reply of an upstream that says NOERROR.
    Answered,
    /// The name is known, a record of this type is not.
    NoData,
    /// No such name.
    NxDomain,
    /// Nobody could say (no upstream, or none that answered).
    ServFail,
    /// Too much work at once, a class or type that is not served, or an upstream's refusal.
    Refused,
    /// The query was not understood: FORMERR, NOTIMP or BADVERS.
    Malformed,
}

impl Outcome {
    pub(crate) fn of(code: ResponseCode) -> Self {
        match code {
            ResponseCode::NXDomain => Self::NxDomain,
            ResponseCode::ServFail => Self::ServFail,
            ResponseCode::Refused => Self::Refused,
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS => Self::Malformed,
            _ => Self::Answered,
        }
    }
}

/// A finished reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The message, without TCP's length prefix. At most 65 535 bytes.
    pub bytes: Vec<u8>,
    /// What it says.
    pub outcome: Outcome,
}

/// Largest reply that the sender of `query` takes, in bytes.
pub(crate) fn limit(query: &Message, transport: Transport) -> usize {
    match (transport, &query.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        // RFC 1035 section 4.2.1: 512 bytes without EDNS.
        (Transport::Udp, None) => 512,
        // RFC 6891 section 6.2.3: values lower than 512 are treated as 512.
        (Transport::Udp, Some(edns)) => {
            usize::from(edns.max_payload().clamp(512, UDP_REPLY_MAX_BYTES))
        }
    }
}

/// An empty reply to `query`: same id, question and RD, RA set, EDNS when the query has it.
pub(crate) fn start(query: &Message, code: ResponseCode) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.checking_disabled = query.metadata.checking_disabled;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.queries.clone_from(&query.queries);
    if let Some(asked) = &query.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_PAYLOAD_BYTES);
        // RFC 3225 section 3: the DO bit is copied.
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        reply.set_edns(edns);
    }
    reply
}

/// Encodes within `limit`. Records that do not fit are left out, additional ones first; TC is set
/// when an answer is missing (RFC 2181 section 9).
pub(crate) fn encode(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    // More cannot fit: a record has at least a pointer for its name and ten bytes.
    if message.answers.len() > limit / RECORD_MIN_BYTES {
        message.answers.truncate(limit / RECORD_MIN_BYTES);
        message.metadata.truncation = true;
    }
    let mut bytes = message.to_vec().ok()?;
    if bytes.len() > limit && !message.additionals.is_empty() {
        message.additionals.clear();
        bytes = message.to_vec().ok()?;
    }
    if bytes.len() <= limit {
        return Some(bytes);
    }
    message.metadata.truncation = true;
    message.authorities.clear();
    let answers = std::mem::take(&mut message.answers);
    // The most answers that fit, by bisection: `fits` do, `too_many` do not.
    let (mut fits, mut too_many) = (0, answers.len() + 1);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        message.answers = answers[..middle].to_vec();
        if message.to_vec().ok()?.len() <= limit {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    message.answers = answers;
    message.answers.truncate(fits);
    bytes = message.to_vec().ok()?;
    (bytes.len() <= limit).then_some(bytes)
}

/// A reply without records to a decoded query. It always fits: a name has at most 255 bytes.
pub(crate) fn error(query: &Message, code: ResponseCode, transport: Transport) -> Reply {
    let mut reply = start(query, code);
    // Only names of the cluster are denied here; an upstream's denial is passed on as it came.
    reply.metadata.authoritative = code == ResponseCode::NXDomain;
    let bytes = encode(reply, limit(query, transport)).unwrap_or_default();
    Reply {
        bytes,
        outcome: Outcome::of(code),
    }
}

/// A reply to bytes of which only the header was understood. RFC 1035 section 4.1.1.
pub(crate) fn header_error(header: &Header, code: ResponseCode) -> Reply {
    let mut reply = Message::response(header.metadata.id, header.metadata.op_code);
    reply.metadata.recursion_desired = header.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    Reply {
        bytes: reply.to_vec().unwrap_or_default(),
        outcome: Outcome::of(code),
    }
}

/// A REFUSED for a query that the caller has no room for; `None` when there is no id to reply
/// with. Costs no decoding beyond the header.
#[must_use]
pub fn refusal(query: &[u8]) -> Option<Reply> {
    let header = Header::read(&mut BinDecoder::new(query)).ok()?;
    (header.metadata.message_type == MessageType::Query)
        .then(|| header_error(&header, ResponseCode::Refused))
}

/// Puts the client's id on a message (its first two bytes).
pub(crate) fn set_id(bytes: &mut [u8], id: u16) {
    if let Some(field) = bytes.first_chunk_mut::<2>() {
        *field = id.to_be_bytes();
    }
}

const RECORD_MIN_BYTES: usize = 12;
