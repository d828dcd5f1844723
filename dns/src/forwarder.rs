//! Outside names: a machine between clients and the host's resolvers.
//!
//! ```text
//!  query() ──► cache ──hit──────────────────────────────► Action::Reply
//!                │ miss: join the same question, or
//!                └──► first upstream, the next after 400 ms or a failure ──► Action::Send
//!  handle_reply() / handle_failure() / handle_deadline() ──► Action::Reply, ::Close, ::Send
//! ```
//!
//! Contract: call one `query` or `handle_*`, drain [`Forwarder::poll_action`] until it says
//! `None`, read [`Forwarder::next_deadline`], wait.
//!
//! Everything is bounded: questions in flight, clients that wait, tries, the cache.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Header, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use thiserror::Error;
use weft_wire::Instant;

use crate::QUERY_MAX_BYTES;
use crate::cache::{self, Cache, CacheLimits, Key};
use crate::exchange::{AfterFailure, Asked, Exchange, Try};
use crate::reply::{self, Outcome, Reply, Transport};
use crate::upstreams::Upstreams;

/// Names one waiting client; chosen by the caller, used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Times and bounds of a [`Forwarder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwarderConfig {
    /// Silence of an upstream after which the next one is asked too.
    pub race_after: Duration,
    /// Silence of all upstreams after which they are asked again (UDP only).
    pub resend_after: Duration,
    /// Time from the query to SERVFAIL; below the five seconds after which libc's resolver asks
    /// again.
    pub give_up_after: Duration,
    /// Different questions under way; more are answered with REFUSED.
    pub in_flight_max: usize,
    /// Clients that wait, over all questions; more are answered with REFUSED.
    pub waiters_max: usize,
    /// Bounds of the cache.
    pub cache: CacheLimits,
}

impl Default for ForwarderConfig {
    /// 400 ms, 1 s, 4 s; 1024 questions (as in Swarm), 4096 clients.
    fn default() -> Self {
        Self {
            race_after: Duration::from_millis(400),
            resend_after: Duration::from_secs(1),
            give_up_after: Duration::from_secs(4),
            in_flight_max: 1024,
            waiters_max: 4096,
            cache: CacheLimits::default(),
        }
    }
}

/// A message for an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// To whom.
    pub upstream: SocketAddr,
    /// How.
    pub transport: Transport,
    /// Id in the message. (upstream, transport, id) names the try.
    pub id: u16,
    /// The message, without TCP's length prefix.
    pub bytes: Vec<u8>,
}

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this from a socket of its own (so that every try has a fresh source port) and give
    /// what arrives on it to [`Forwarder::handle_reply`].
    Send(Transmit),
    /// Close the socket of a try: nothing more is expected from it.
    Close {
        /// To whom it went.
        upstream: SocketAddr,
        /// How.
        transport: Transport,
        /// Id in its message.
        id: u16,
    },
    /// Give this to the client. Comes exactly once for each token that [`Forwarder::query`]
    /// accepted.
    Reply {
        /// Which client.
        token: Token,
        /// What it gets.
        reply: Reply,
    },
}

/// The query has no usable header; there is nothing to reply with. No state was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a DNS query: shorter than a header, or a response; drop it")]
pub struct NotAQuery;

/// Why a message from an upstream was ignored. The try that it claims to answer, if any, goes on
/// waiting. All are the peer's (or a spoofer's) fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// Shorter than a header, or its question cannot be decoded.
    #[error("malformed message from an upstream; ignored")]
    Malformed,
    /// Not a response, or not to a query.
    #[error("message from an upstream is not a response; ignored")]
    NotAResponse,
    /// No try with this upstream and id; late or spoofed.
    #[error("response to nothing that was asked; ignored")]
    Unknown,
    /// The id fits, the question does not.
    #[error("response to another question than was asked; ignored")]
    OtherQuestion,
}

/// Forwards questions to upstreams. One for each node: the cache is shared by its sandboxes.
#[derive(Debug)]
pub struct Forwarder {
    config: ForwarderConfig,
    upstreams: Upstreams,
    cache: Cache,
    exchanges: BTreeMap<u64, Exchange>,
    by_key: BTreeMap<Key, u64>,
    by_try: BTreeMap<(SocketAddr, Transport, u16), u64>,
    deadlines: BTreeSet<(Instant, u64)>,
    waiting: usize,
    next_exchange: u64,
    actions: VecDeque<Action>,
}

impl Forwarder {
    /// A machine that asks `upstreams` in this order; at most three of them count.
    #[must_use]
    pub fn new(upstreams: &[SocketAddr], config: ForwarderConfig) -> Self {
        Self {
            config,
            upstreams: Upstreams::new(upstreams),
            cache: Cache::new(config.cache),
            exchanges: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_try: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            waiting: 0,
            next_exchange: 0,
            actions: VecDeque::new(),
        }
    }

    /// Replaces the upstreams and forgets the cache. Questions under way end with the upstreams
    /// that they began with.
    pub fn set_upstreams(&mut self, upstreams: &[SocketAddr]) {
        self.upstreams = Upstreams::new(upstreams);
        self.cache.clear();
    }

    /// Upstreams in configured order.
    pub fn upstreams(&self) -> impl Iterator<Item = SocketAddr> {
        self.upstreams.addresses()
    }

    /// Whether there is anybody to ask; see [`Ask::outside`](crate::Ask::outside).
    #[must_use]
    pub fn has_upstream(&self) -> bool {
        !self.upstreams.is_empty()
    }

    /// Questions under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.exchanges.len()
    }

    /// Replies kept.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// Takes a client's query. `seed` decides the ids of the messages to upstreams and must be
    /// unpredictable to others: a fresh one from a cryptographic generator for each query.
    ///
    /// # Errors
    /// [`NotAQuery`]: there will be no reply for `token`.
    pub fn query(
        &mut self,
        now: Instant,
        token: Token,
        bytes: &[u8],
        transport: Transport,
        seed: u64,
    ) -> Result<(), NotAQuery> {
        let header = Header::read(&mut BinDecoder::new(bytes)).map_err(|_| NotAQuery)?;
        if header.metadata.message_type == MessageType::Response {
            return Err(NotAQuery);
        }
        let id = header.metadata.id;
        let query = Some(bytes)
            .filter(|bytes| header.counts.queries == 1 && bytes.len() <= QUERY_MAX_BYTES)
            .and_then(|bytes| Message::from_vec(bytes).ok());
        let Some(query) = query else {
            self.reply(token, reply::header_error(&header, ResponseCode::FormErr));
            return Ok(());
        };
        let key = key(transport, bytes);
        if let Some(kept) = self.cache.get(now, &key, id) {
            self.reply(token, kept);
            return Ok(());
        }
        let same = self.by_key.get(&key).copied();
        let full = self.waiting >= self.config.waiters_max
            || (same.is_none() && self.exchanges.len() >= self.config.in_flight_max);
        if self.upstreams.is_empty() {
            self.reply(
                token,
                reply::error(&query, ResponseCode::ServFail, transport),
            );
        } else if full {
            self.reply(
                token,
                reply::error(&query, ResponseCode::Refused, transport),
            );
        } else {
            let asked = Asked {
                key,
                transport,
                query,
                bytes: bytes.to_vec(),
                seed,
            };
            let number = same.unwrap_or_else(|| self.open_exchange(now, asked));
            if let Some(exchange) = self.exchanges.get_mut(&number) {
                exchange.waiters.push((token, id));
                self.waiting += 1;
            }
        }
        Ok(())
    }

    /// Takes a message that arrived on the socket of a try.
    ///
    /// # Errors
    /// [`ReplyError`]: the message was ignored and nothing changed; count it.
    pub fn handle_reply(
        &mut self,
        now: Instant,
        upstream: SocketAddr,
        transport: Transport,
        bytes: &[u8],
    ) -> Result<(), ReplyError> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| ReplyError::Malformed)?;
        if header.metadata.message_type != MessageType::Response
            || header.metadata.op_code != OpCode::Query
        {
            return Err(ReplyError::NotAResponse);
        }
        let attempt = (upstream, transport, header.metadata.id);
        let number = *self.by_try.get(&attempt).ok_or(ReplyError::Unknown)?;
        let exchange = self.exchanges.get(&number).ok_or(ReplyError::Unknown)?;
        let code = header.metadata.response_code;
        match header.counts.queries {
            1 => {
                let asked = exchange.query.queries.first();
                let queries =
                    Message::read_queries(&mut decoder, 1).map_err(|_| ReplyError::Malformed)?;
                // The name compares without regard to case (RFC 4343).
                if queries.first() != asked {
                    return Err(ReplyError::OtherQuestion);
                }
            }
            // Some servers leave the question out of errors.
            0 if code != ResponseCode::NoError && code != ResponseCode::NXDomain => {}
            _ => return Err(ReplyError::OtherQuestion),
        }
        self.upstreams.answered(upstream);
        if matches!(code, ResponseCode::ServFail | ResponseCode::Refused) {
            self.fail(now, number, upstream);
        } else {
            self.deliver(now, number, upstream, bytes);
        }
        Ok(())
    }

    /// A try could not be made or broke: socket error, ICMP unreachable, connection closed. Goes
    /// on with the next upstream; a try that is not known any more is ignored.
    pub fn handle_failure(
        &mut self,
        now: Instant,
        upstream: SocketAddr,
        transport: Transport,
        id: u16,
    ) {
        if let Some(number) = self.by_try.get(&(upstream, transport, id)).copied() {
            self.upstreams.silent(now, upstream);
            self.fail(now, number, upstream);
        }
    }

    /// Does what is due at `now`. Harmless when called early.
    pub fn handle_deadline(&mut self, now: Instant) {
        // Every exchange that is touched gets a later deadline or goes, so this ends.
        while let Some((due, number)) = self.deadlines.first().copied() {
            if due > now {
                break;
            }
            self.deadlines.remove(&(due, number));
            let Some(exchange) = self.exchanges.get(&number) else {
                continue;
            };
            if exchange.give_up <= now {
                let silent: Vec<SocketAddr> = exchange.open.iter().map(|t| t.upstream).collect();
                for upstream in silent {
                    self.upstreams.silent(now, upstream);
                }
                self.give_up(number);
            } else {
                self.start_try(now, number);
            }
        }
    }

    /// When [`Forwarder::handle_deadline`] is to be called. Changed by `query` and `handle_*`.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The next thing to do; `None` when all is done. Changed by `query` and `handle_*`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn open_exchange(&mut self, now: Instant, asked: Asked) -> u64 {
        let number = self.next_exchange;
        self.next_exchange += 1;
        let exchange = Exchange::new(
            asked,
            &self.upstreams.order(now),
            now.after(self.config.give_up_after),
        );
        self.by_key.insert(Key::clone(&exchange.key), number);
        self.deadlines.insert((exchange.deadline(), number));
        self.exchanges.insert(number, exchange);
        self.start_try(now, number);
        number
    }

    fn start_try(&mut self, now: Instant, number: u64) {
        let Some(exchange) = self.exchanges.get_mut(&number) else {
            return;
        };
        self.deadlines.remove(&(exchange.deadline(), number));
        let turn = exchange.take_turn(now, &self.config);
        self.deadlines.insert((exchange.deadline(), number));
        let Some(upstream) = turn else { return };
        let transport = exchange.transport;
        // At most `in_flight_max` ids are taken, so a few draws find a free one.
        let free = (0..16)
            .map(|nth| exchange.candidate_id(nth))
            .find(|id| !self.by_try.contains_key(&(upstream, transport, *id)));
        let Some(id) = free else { return };
        exchange.open.push(Try {
            upstream,
            id,
            sent: now,
        });
        let mut bytes = exchange.bytes.clone();
        reply::set_id(&mut bytes, id);
        self.by_try.insert((upstream, transport, id), number);
        self.actions.push_back(Action::Send(Transmit {
            upstream,
            transport,
            id,
            bytes,
        }));
    }

    /// An upstream cannot answer this question.
    fn fail(&mut self, now: Instant, number: u64, upstream: SocketAddr) {
        let Some(exchange) = self.exchanges.get_mut(&number) else {
            return;
        };
        self.deadlines.remove(&(exchange.deadline(), number));
        for attempt in &exchange.open {
            if attempt.upstream == upstream {
                let transport = exchange.transport;
                self.by_try.remove(&(upstream, transport, attempt.id));
                self.actions.push_back(Action::Close {
                    upstream,
                    transport,
                    id: attempt.id,
                });
            }
        }
        let then = exchange.failed(upstream);
        self.deadlines.insert((exchange.deadline(), number));
        match then {
            AfterFailure::AskNext => self.start_try(now, number),
            AfterFailure::Wait => {}
            AfterFailure::GiveUp => self.give_up(number),
        }
    }

    /// Passes an upstream's reply on to everybody who waits for it, as it came but for the id.
    fn deliver(&mut self, now: Instant, number: u64, winner: SocketAddr, bytes: &[u8]) {
        let Some(exchange) = self.close(number) else {
            return;
        };
        for attempt in &exchange.open {
            let outrun = now.since(attempt.sent) >= self.config.race_after;
            if outrun && attempt.upstream != winner {
                self.upstreams.silent(now, attempt.upstream);
            }
        }
        let limit = reply::limit(&exchange.query, exchange.transport);
        let decoded = Message::from_vec(bytes).ok();
        let outcome = decoded.as_ref().map_or(Outcome::Answered, cache::outcome);
        let mut fitting = bytes.to_vec();
        if fitting.len() > limit {
            // Some servers send more than was asked for (moby issue 44575). The client retries
            // over TCP for what is cut off.
            let cut = decoded.and_then(|message| reply::encode(message, limit));
            fitting = cut.unwrap_or_else(|| {
                let error = ResponseCode::ServFail;
                reply::error(&exchange.query, error, exchange.transport).bytes
            });
        } else {
            self.cache.put(now, &exchange.key, bytes, limit);
        }
        for (token, id) in exchange.waiters {
            let mut bytes = fitting.clone();
            reply::set_id(&mut bytes, id);
            self.reply(token, Reply { bytes, outcome });
        }
    }

    fn give_up(&mut self, number: u64) {
        let Some(exchange) = self.close(number) else {
            return;
        };
        let failure = reply::error(&exchange.query, ResponseCode::ServFail, exchange.transport);
        for (token, id) in exchange.waiters {
            let mut reply = failure.clone();
            reply::set_id(&mut reply.bytes, id);
            self.reply(token, reply);
        }
    }

    /// Takes an exchange out of every index and closes its tries.
    fn close(&mut self, number: u64) -> Option<Exchange> {
        let exchange = self.exchanges.remove(&number)?;
        self.by_key.remove(&exchange.key);
        self.deadlines.remove(&(exchange.deadline(), number));
        self.waiting -= exchange.waiters.len();
        for attempt in &exchange.open {
            let (upstream, transport, id) = (attempt.upstream, exchange.transport, attempt.id);
            self.by_try.remove(&(upstream, transport, id));
            self.actions.push_back(Action::Close {
                upstream,
                transport,
                id,
            });
        }
        Some(exchange)
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        self.actions.push_back(Action::Reply { token, reply });
    }
}

fn key(transport: Transport, query: &[u8]) -> Key {
    let body = query.get(2..).unwrap_or_default();
    std::iter::once(transport as u8)
        .chain(body.iter().copied())
        .collect()
}
