//! The state machine: membership, tables, and what travels between nodes.

mod belief;
mod members;
mod shown;
mod streams;
mod tables;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use foca::{State, Timer};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use weft_model::id::NodeId;
use weft_model::records::Table;

use super::entries::table_code;
use super::identity::Identity;
use super::membership::Membership;
use super::message::{Body, Datagram, Hello, StreamBody, StreamMessage, Update, Updates};
use super::netdb::{Netdb, PutError};
use super::paths::Paths;
use super::queue::{ChangeKey, Queue};
use super::register::{Members, Register};
use super::{Config, InputError, MAX_DATAGRAM, MAX_STREAM_MESSAGE};

/// A late caller is taken for one that was asleep: its timers are put off by what it missed.
const LAG_TOLERANCE: Duration = Duration::from_millis(100);
/// News wait this long for company in their first datagram.
const FIRST_FLUSH: Duration = Duration::from_millis(3);
const FRESH_FLUSH: Duration = Duration::from_millis(10);
const DATAGRAMS_PER_FLUSH: usize = 4;
/// For tags and lengths around a datagram's content.
const DATAGRAM_SLACK: usize = 16;
const DELTA_BUDGET: usize = 3 << 19;
const SYNC_AGAIN_ABOVE: usize = 1 << 20;
const SUSPECTS_PERIOD: Duration = Duration::from_millis(400);
const REAP_PERIOD: Duration = Duration::from_secs(5);
const SEED_PERIOD_ALONE: Duration = Duration::from_millis(500);
const SEED_PERIOD: Duration = Duration::from_secs(5);
const MAX_SEEDS: usize = 1024;
/// After coming back under a new identity, late news of its death are not heard for so long.
const DEAF_AFTER_REJOIN: Duration = Duration::from_millis(200);
const CHALLENGES: u32 = 7;
/// What others say of a member is checked after it had this long to prove the contrary.
const VERIFY_AFTER: Duration = Duration::from_millis(300);
/// With so many members, silence from all of them means that this node is the one cut off.
const CROWD: usize = 4;
/// But not for longer than this.
const ISOLATION_LIMIT: Duration = Duration::from_secs(5);
const ACCUSATIONS_PER_SYNC: usize = 32;
const FAREWELLS: usize = 64;
const RELAYED_FROM_SYNC: usize = 256;
/// Between two comparisons with owners of whom two others hold different things.
const ARBITER_PERIOD: Duration = Duration::from_millis(500);
/// A node hears within this time of a life that its clock has forgotten; who speaks of one later
/// has made it up.
const FIRST_WORDS: Duration = Duration::from_secs(10);

/// A datagram to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Receiver.
    pub to: SocketAddr,
    /// At most [`MAX_DATAGRAM`] bytes, not yet sealed.
    pub bytes: Bytes,
}

/// The first message of a conversation over a stream.
///
/// Feed each answer to [`Gossip::handle_stream_message`] and send what it returns, until it
/// returns `None`. If `to` cannot be reached, tell [`Gossip::handle_stream_failure`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRequest {
    /// Receiver.
    pub to: SocketAddr,
    /// At most [`MAX_STREAM_MESSAGE`] bytes, not yet sealed.
    pub bytes: Bytes,
}

/// Something that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A member appeared or returned; its entries count.
    MemberUp(NodeId),
    /// A member failed; its entries are hidden.
    MemberDown(NodeId),
    /// A member left; its entries are gone.
    MemberLeft(NodeId),
    /// An entry of another node changed, appeared or vanished.
    EntryChanged {
        /// Whose.
        owner: NodeId,
        /// In which table.
        table: Table,
        /// Under which key.
        key: String,
    },
    /// Somebody who holds the key of gossip says what is not so. Nothing came of it, or nothing
    /// that lasts.
    Forged(Forgery),
}

/// A claim that its subject cannot have made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgery {
    /// Of whom.
    pub about: NodeId,
    /// Where the message came from: who forged it, who passed it on, or somebody whose address was
    /// forged as well.
    pub from: SocketAddr,
    /// What was claimed.
    pub kind: ForgeryKind,
}

/// What kind of claim it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgeryKind {
    /// A number that no node can have reached: refused.
    Absurd,
    /// It speaks for this node, which did not: this node has outbid it.
    Own,
}

#[derive(Debug)]
enum Deadline {
    Foca(Timer<Identity>),
    /// Ask a suspect directly whether it lives, until it counts as dead.
    Challenge {
        suspect: Identity,
        swim_incarnation: u16,
        left: u32,
    },
    /// Suspect it, unless it has come under a new identity since.
    Verify(Identity),
    /// It has been up for long enough to be believed.
    Release(NodeId),
}

/// Gossip of one node; see the module's text for the order of calls.
#[derive(Debug)]
pub struct Gossip {
    config: Config,
    membership: Membership,
    netdb: Netdb,
    queue: Queue,
    rng: StdRng,
    timers: BTreeMap<(Duration, u64), Deadline>,
    next_timer: u64,
    flush_at: Option<Duration>,
    sync_at: Duration,
    quick_syncs: u32,
    reap_at: Duration,
    seeds: BTreeSet<SocketAddr>,
    seeds_at: Option<Duration>,
    suspects_at: Duration,
    /// Members that others suspect, and since when.
    suspects: BTreeMap<Identity, Duration>,
    was_down: BTreeSet<NodeId>,
    /// Members that come and go too often: up, and not believed before this.
    held: BTreeMap<NodeId, Duration>,
    /// Suspects that were asked by stream, and when.
    asked: BTreeMap<NodeId, Duration>,
    /// The last stream with each node that went well.
    streamed: BTreeMap<NodeId, Duration>,
    paths: Paths,
    deaf_until: Duration,
    last_heard: Duration,
    register: Register,
    started: Duration,
    /// No owner is asked who is right before this.
    arbiter_at: Duration,
    left: bool,
    transmits: VecDeque<Transmit>,
    streams: VecDeque<StreamRequest>,
    events: VecDeque<Event>,
}

impl Gossip {
    /// A node alone; [`Self::join`] brings it to others.
    #[must_use]
    pub fn new(config: Config, identity: Identity, seed: [u8; 32], now: Duration) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let register = Register::new(identity.incarnation, now);
        let mut foca_seed = [0; 32];
        rng.fill(&mut foca_seed);
        Self {
            config,
            netdb: Netdb::new(identity.node.clone(), identity.incarnation),
            membership: Membership::new(identity, config, foca_seed),
            queue: Queue::default(),
            rng,
            timers: BTreeMap::new(),
            next_timer: 0,
            flush_at: None,
            sync_at: now + config.sync_period,
            quick_syncs: 0,
            reap_at: now + REAP_PERIOD,
            seeds: BTreeSet::new(),
            seeds_at: None,
            suspects_at: now + SUSPECTS_PERIOD,
            suspects: BTreeMap::new(),
            was_down: BTreeSet::new(),
            held: BTreeMap::new(),
            asked: BTreeMap::new(),
            streamed: BTreeMap::new(),
            paths: Paths::default(),
            deaf_until: Duration::ZERO,
            last_heard: now,
            register,
            started: now,
            arbiter_at: now,
            left: false,
            transmits: VecDeque::new(),
            streams: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// This node's identity; its incarnation grows when others remember a later life.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        self.membership.identity()
    }

    /// Says who is a member and where: from now on nobody else is heard or heard of.
    pub fn set_members(&mut self, now: Duration, members: Members) {
        self.register.set(now, members);
        let register = &self.register;
        self.seeds.retain(|addr| register.is_place(*addr));
        self.drop_strangers(now);
        self.drain(now);
    }

    /// Greets `addr` until a member answers there, and again whenever none is there.
    pub fn join(&mut self, now: Duration, addr: SocketAddr) {
        if self.left || addr == self.identity().addr || self.seeds.len() >= MAX_SEEDS {
            return;
        }
        if self.seeds.insert(addr) {
            self.greet(addr);
            let next = now + SEED_PERIOD_ALONE;
            self.seeds_at = Some(self.seeds_at.map_or(next, |at| at.min(next)));
        }
    }

    /// Writes an entry of this node; `false` when it already had this value.
    ///
    /// # Errors
    /// When key or value are out of bounds, or this node has too many entries.
    pub fn put(
        &mut self,
        now: Duration,
        table: Table,
        key: &str,
        value: Bytes,
    ) -> Result<bool, PutError> {
        let changed = !self.left && self.netdb.put(table, key, value)?;
        if changed {
            self.tell(now, self.own_key(table, key));
        }
        Ok(changed)
    }

    /// Deletes an entry of this node; `false` when there was none.
    pub fn delete(&mut self, now: Duration, table: Table, key: &str) -> bool {
        let changed = !self.left && self.netdb.delete(now, table, key);
        if changed {
            self.tell(now, self.own_key(table, key));
        }
        changed
    }

    fn own_key(&self, table: Table, key: &str) -> ChangeKey {
        (
            self.identity().node.clone(),
            (table_code(table), key.to_owned()),
        )
    }

    /// Says goodbye: drain [`Self::poll_transmit`] once more and stop.
    pub fn leave(&mut self, now: Duration) {
        if self.left {
            return;
        }
        let key = self.netdb.leave();
        if let Some(update) = self.netdb.update(&key) {
            let peers = self.random_peers(FAREWELLS);
            self.send_updates(&peers, vec![update]);
        }
        if self.membership.leave().is_ok() {
            self.drain(now);
        }
        self.left = true;
    }

    /// Takes a datagram, opened and verified.
    ///
    /// # Errors
    /// When it is malformed, refused, or no member's; nothing else happens then.
    pub fn handle_datagram(
        &mut self,
        now: Duration,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), InputError> {
        if !self.register.is_place(from) {
            return Err(InputError::Stranger { from });
        }
        if bytes.len() > MAX_DATAGRAM {
            return Err(InputError::TooLong {
                got: bytes.len(),
                limit: MAX_DATAGRAM,
            });
        }
        if self.left {
            return Ok(());
        }
        let body = Datagram::decode(bytes)?.body;
        self.last_heard = now;
        self.paths.heard(now, from);
        let result = match body {
            Some(Body::Swim(packet)) => self.swim(now, from, &packet),
            Some(Body::Updates(u)) => self.updates(now, from, &u.updates),
            Some(Body::Hello(hello)) => self.hello(now, from, &hello),
            Some(Body::Accuse(accuse)) => self.accused(now, from, accuse),
            // A kind that a later version sends.
            None => Ok(()),
        };
        self.drain(now);
        result
    }

    /// Takes a message from a stream with `from`, opened and verified, and returns the answer, if
    /// any. Of the address the port does not count.
    ///
    /// # Errors
    /// When it is malformed, refused, or no member's.
    pub fn handle_stream_message(
        &mut self,
        now: Duration,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Result<Option<Bytes>, InputError> {
        if !self.register.is_home(from.ip()) {
            return Err(InputError::Stranger { from });
        }
        if bytes.len() > MAX_STREAM_MESSAGE {
            return Err(InputError::TooLong {
                got: bytes.len(),
                limit: MAX_STREAM_MESSAGE,
            });
        }
        if self.left {
            return Ok(None);
        }
        let reply = match StreamMessage::decode(bytes)?.body {
            Some(StreamBody::Request(r)) => Some(self.sync_request(now, from, r)?),
            Some(StreamBody::Reply(r)) => {
                if bytes.len() > SYNC_AGAIN_ABOVE {
                    self.sync_at = now;
                }
                self.sync_reply(now, from, r)?
            }
            Some(StreamBody::Push(p)) => {
                self.apply_deltas(now, from, p.deltas)?;
                self.updates(now, from, &p.updates)?;
                None
            }
            Some(StreamBody::Probe(p)) => Some(self.probed(now, from, p)?),
            Some(StreamBody::Answer(a)) => {
                self.probe_answered(now, from, a)?;
                None
            }
            None => None,
        };
        self.drain(now);
        Ok(reply.map(encode_stream))
    }

    /// A [`StreamRequest`] did not reach its receiver: another one is tried soon.
    pub fn handle_stream_failure(&mut self, now: Duration, to: SocketAddr) {
        let suspects = self.membership.members();
        let mut suspects = suspects.filter(|m| m.state() != State::Alive);
        if suspects.any(|m| m.id().addr == to && self.asked.contains_key(&m.id().node)) {
            // A probe that found nobody; nothing was to be compared.
            return;
        }
        let soon = now + Duration::from_millis(self.rng.random_range(100..400));
        self.sync_at = self.sync_at.min(soon);
    }

    /// Does what is due at `now`.
    pub fn handle_deadline(&mut self, now: Duration) {
        if self.left {
            return;
        }
        self.forgive_lag(now);
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now {
                break;
            }
            match entry.remove() {
                // Foca complains of timers that came late; it recovers by itself.
                Deadline::Foca(timer) => drop(self.membership.handle_timer(timer)),
                Deadline::Challenge {
                    suspect,
                    swim_incarnation,
                    left,
                } => self.challenge(now, suspect, swim_incarnation, left),
                Deadline::Verify(id) => self.verify(now, &id),
                Deadline::Release(node) => self.release(now, node),
            }
            self.drain(now);
        }
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush(now);
        }
        if self.sync_at <= now {
            self.sync(now);
        }
        if self.seeds_at.is_some_and(|at| at <= now) {
            self.greet_seeds(now);
        }
        if self.suspects_at <= now {
            self.suspects_at = now + SUSPECTS_PERIOD;
            self.check_suspects(now);
        }
        if self.reap_at <= now {
            self.reap_at = now + REAP_PERIOD;
            let active = self.active();
            self.netdb.reap(
                now,
                self.config.tombstone_life,
                self.config.failed_life,
                |id| active.contains(id),
            );
        }
        self.drain(now);
    }

    /// When to call [`Self::handle_deadline`] next. Any `handle_*`, `put`, `delete` or `join`
    /// may change it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.left {
            return None;
        }
        let timer = self.timers.first_key_value().map(|(k, _)| k.0);
        [
            timer,
            self.flush_at,
            Some(self.sync_at),
            self.seeds_at,
            Some(self.reap_at),
            Some(self.suspects_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// Next conversation to start.
    pub fn poll_stream(&mut self) -> Option<StreamRequest> {
        self.streams.pop_front()
    }

    /// Next change.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// One endpoint entry as [`Self::view`] shows it, without making a view.
    #[cfg(test)]
    pub(super) fn visible(&self, owner: &NodeId, key: &str) -> Option<&Bytes> {
        let member = self.membership.get(owner)?;
        if member.state() == State::Down || self.held.contains_key(owner) {
            return None;
        }
        let entries = &self.netdb.owners().get(owner)?.entries;
        entries
            .get(&(table_code(Table::Endpoint), key.to_owned()))
            .filter(|e| e.deleted.is_none())
            .map(|e| &e.value)
    }

    fn has_left(&self, id: &Identity) -> bool {
        self.netdb
            .owners()
            .get(&id.node)
            .is_some_and(|o| o.left && o.incarnation >= id.incarnation)
    }

    fn active(&self) -> BTreeSet<NodeId> {
        self.membership
            .states()
            .into_iter()
            .filter(|(_, s)| *s != State::Down)
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn active_addrs(&self) -> Vec<SocketAddr> {
        self.membership
            .members()
            .filter(|m| m.state() != State::Down)
            .map(|m| m.id().addr)
            .collect()
    }

    fn random_peers(&mut self, wanted: usize) -> Vec<SocketAddr> {
        let mut all = self.active_addrs();
        let wanted = wanted.min(all.len());
        for i in 0..wanted {
            let j = self.rng.random_range(i..all.len());
            all.swap(i, j);
        }
        all.truncate(wanted);
        all
    }

    fn send(&mut self, to: SocketAddr, body: Body) {
        let bytes = Datagram { body: Some(body) }.encode_to_vec();
        debug_assert!(bytes.len() <= MAX_DATAGRAM, "{} bytes", bytes.len());
        self.transmits.push_back(Transmit {
            to,
            bytes: bytes.into(),
        });
    }

    fn send_updates(&mut self, peers: &[SocketAddr], updates: Vec<Update>) {
        let body = Body::Updates(Updates { updates });
        for to in peers {
            self.send(*to, body.clone());
        }
    }

    fn greet(&mut self, to: SocketAddr) {
        let from = Some(self.identity().into());
        self.send(to, Body::Hello(Hello { from }));
    }

    fn greet_seeds(&mut self, now: Duration) {
        let present: BTreeSet<SocketAddr> = self.active_addrs().into_iter().collect();
        let missing: Vec<SocketAddr> = self.seeds.difference(&present).copied().collect();
        for to in missing {
            self.greet(to);
        }
        let period = if present.is_empty() {
            SEED_PERIOD_ALONE
        } else {
            SEED_PERIOD
        };
        self.seeds_at = Some(now + period);
    }

    fn schedule(&mut self, at: Duration, what: Deadline) {
        self.next_timer += 1;
        self.timers.insert((at, self.next_timer), what);
    }

    /// A process that did not run could not hear its peers: it must not condemn them for it.
    fn forgive_lag(&mut self, now: Duration) {
        let Some(((first, _), _)) = self.timers.first_key_value() else {
            return;
        };
        let lag = now.saturating_sub(*first);
        if lag > LAG_TOLERANCE {
            self.timers = std::mem::take(&mut self.timers)
                .into_iter()
                .map(|((at, order), what)| ((at + lag, order), what))
                .collect();
        }
    }
}

fn identity(pb: Option<super::message::PbIdentity>) -> Result<Identity, InputError> {
    pb.ok_or_else(|| InputError::Malformed("message without sender".to_owned()))?
        .try_into()
        .map_err(|e: super::identity::CodecError| InputError::Malformed(e.to_string()))
}

fn encode_stream(body: StreamBody) -> Bytes {
    StreamMessage { body: Some(body) }.encode_to_vec().into()
}
