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
//! Everything is bounded: questions in flight, clients that wait, tries, the cache. What is full is
//! shared: who asks gets a place of the one that holds the most, unless that is himself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use hickory_proto::op::{Header, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use thiserror::Error;
use weft_wire::Instant;

use crate::QUERY_MAX_BYTES;
use crate::cache::{self, Cache, Key};
use crate::exchange::{AfterFailure, Asked, Exchange, Token, Try, Waiter};
use crate::forwarder_config::ForwarderConfig;
use crate::reply::{self, Outcome, Reply, Transport};
use crate::shares::{Ledger, Tenant};
use crate::upstreams::Upstreams;

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
    /// Clients by arrival, each with the question that it waits for.
    waiting: Ledger,
    /// Questions by who accounts for them.
    paid: Ledger,
    next_waiter: u64,
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
            waiting: Ledger::default(),
            paid: Ledger::default(),
            next_waiter: 0,
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

    /// Takes a query of a client in sandbox `tenant`. `seed` decides the ids of the messages to upstreams and must be
    /// unpredictable to others: a fresh one from a cryptographic generator for each query.
    ///
    /// # Errors
    /// [`NotAQuery`]: there will be no reply for `token`.
    pub fn query(
        &mut self,
        now: Instant,
        (token, tenant): (Token, Tenant),
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
        if self.upstreams.is_empty() {
            self.reply(
                token,
                reply::error(&query, ResponseCode::ServFail, transport),
            );
        } else if !self.make_room(tenant, &key) {
            self.reply(
                token,
                reply::error(&query, ResponseCode::Refused, transport),
            );
        } else {
            let same = self.by_key.get(&key).copied();
            let asked = Asked {
                tenant,
                key,
                transport,
                query,
                bytes: bytes.to_vec(),
                seed,
            };
            let number = same.unwrap_or_else(|| self.open_exchange(now, asked));
            self.join(number, token, tenant, id);
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
        self.paid.insert(exchange.payer, number, number);
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
            let payer = exchange.payer;
            self.cache.put(now, payer, &exchange.key, bytes, limit);
        }
        for waiter in exchange.waiters {
            let mut bytes = fitting.clone();
            reply::set_id(&mut bytes, waiter.id);
            self.reply(waiter.token, Reply { bytes, outcome });
        }
    }

    fn give_up(&mut self, number: u64) {
        let Some(exchange) = self.close(number) else {
            return;
        };
        self.tell(
            &exchange.query,
            ResponseCode::ServFail,
            exchange.transport,
            &exchange.waiters,
        );
    }

    /// Takes an exchange out of every index and closes its tries.
    fn close(&mut self, number: u64) -> Option<Exchange> {
        let exchange = self.exchanges.remove(&number)?;
        self.by_key.remove(&exchange.key);
        self.deadlines.remove(&(exchange.deadline(), number));
        self.paid.remove(exchange.payer, number);
        for waiter in &exchange.waiters {
            self.waiting.remove(waiter.tenant, waiter.number);
        }
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

    /// Whether `tenant` may wait for the question `key`; others may have had to give way.
    fn make_room(&mut self, tenant: Tenant, key: &Key) -> bool {
        while self.waiting.len() >= self.config.waiters_max {
            let Some((_, oldest, number)) = self.waiting.gives_way(tenant) else {
                return false;
            };
            self.refuse(number, |waiter| waiter.number == oldest);
        }
        // Asked again each time: the question may be among those that give way.
        while !self.by_key.contains_key(key) && self.exchanges.len() >= self.config.in_flight_max {
            let Some((greediest, oldest, _)) = self.paid.gives_way(tenant) else {
                return false;
            };
            self.refuse(oldest, |waiter| waiter.tenant == greediest);
        }
        true
    }

    fn join(&mut self, number: u64, token: Token, tenant: Tenant, id: u16) {
        let Some(exchange) = self.exchanges.get_mut(&number) else {
            return;
        };
        let waiter = Waiter {
            token,
            tenant,
            id,
            number: self.next_waiter,
        };
        self.next_waiter += 1;
        exchange.waiters.push(waiter);
        self.waiting.insert(tenant, waiter.number, number);
    }

    /// Answers those of a question's waiters that have to go with REFUSED. The question stays with
    /// the others, on the account of one of them, and ends when there are none.
    fn refuse(&mut self, number: u64, goes: impl Fn(&Waiter) -> bool) {
        let Some(exchange) = self.exchanges.get_mut(&number) else {
            return;
        };
        let (refused, stay): (Vec<_>, Vec<_>) =
            exchange.waiters.iter().copied().partition(|w| goes(w));
        let (query, transport) = (exchange.query.clone(), exchange.transport);
        match stay.first() {
            None => {
                self.close(number);
            }
            Some(first) => {
                let payer = exchange.payer;
                if stay.iter().all(|waiter| waiter.tenant != payer) {
                    exchange.payer = first.tenant;
                    self.paid.remove(payer, number);
                    self.paid.insert(first.tenant, number, number);
                }
                exchange.waiters = stay;
                for waiter in &refused {
                    self.waiting.remove(waiter.tenant, waiter.number);
                }
            }
        }
        self.tell(&query, ResponseCode::Refused, transport, &refused);
    }

    /// Answers waiters with an error, each under its own id.
    fn tell(
        &mut self,
        query: &Message,
        code: ResponseCode,
        transport: Transport,
        waiters: &[Waiter],
    ) {
        let error = reply::error(query, code, transport);
        for waiter in waiters {
            let mut reply = error.clone();
            reply::set_id(&mut reply.bytes, waiter.id);
            self.reply(waiter.token, reply);
        }
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
