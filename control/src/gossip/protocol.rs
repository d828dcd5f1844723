//! The state machine: membership, tables, and what travels between nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foca::{OwnedNotification, State, Timer};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::identity::{Identity, IdentityCodec, member_from_pb, member_to_pb};
use super::membership::{Membership, Note};
use super::message::{
    Accuse, Body, Datagram, Hello, StreamBody, StreamMessage, SyncPush, SyncReply, SyncRequest,
    Update, Updates,
};
use super::netdb::{Applied, Netdb, PutError, table_of};
use super::queue::{ChangeKey, Queue, retransmit_limit};
use super::view::{Member, MemberState, NetdbView};
use super::{Config, InputError, MAX_DATAGRAM, MAX_STREAM_MESSAGE};
use crate::id::NodeId;
use crate::records::Table;

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
    deaf_until: Duration,
    last_heard: Duration,
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
            deaf_until: Duration::ZERO,
            last_heard: now,
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
            (super::netdb::table_code(table), key.to_owned()),
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

    /// Takes a datagram, opened and verified. `_from` only serves the caller's logs.
    ///
    /// # Errors
    /// When it is malformed or refused; nothing else happens then.
    pub fn handle_datagram(
        &mut self,
        now: Duration,
        _from: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), InputError> {
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
        let result = match body {
            Some(Body::Swim(packet)) => self.swim(now, &packet),
            Some(Body::Updates(u)) => self.updates(now, &u.updates),
            Some(Body::Hello(hello)) => self.hello(&hello),
            Some(Body::Accuse(accuse)) => self.accused(now, accuse),
            // A kind that a later version sends.
            None => Ok(()),
        };
        self.drain(now);
        result
    }

    /// Takes a message from a stream, opened and verified, and returns the answer, if any.
    ///
    /// # Errors
    /// When it is malformed or refused.
    pub fn handle_stream_message(
        &mut self,
        now: Duration,
        bytes: &[u8],
    ) -> Result<Option<Bytes>, InputError> {
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
            Some(StreamBody::Request(r)) => Some(self.sync_request(now, r)?),
            Some(StreamBody::Reply(r)) => {
                if bytes.len() > SYNC_AGAIN_ABOVE {
                    self.sync_at = now;
                }
                self.sync_reply(now, r)?
            }
            Some(StreamBody::Push(p)) => {
                self.apply_deltas(now, p.deltas)?;
                self.updates(now, &p.updates)?;
                None
            }
            None => None,
        };
        self.drain(now);
        Ok(reply.map(encode_stream))
    }

    /// A [`StreamRequest`] did not reach its receiver: another one is tried soon.
    pub fn handle_stream_failure(&mut self, now: Duration, _to: SocketAddr) {
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

    /// Members and visible entries now.
    #[must_use]
    pub fn view(&self) -> NetdbView {
        let me = self.identity();
        let mut view = NetdbView::default();
        view.members.insert(
            me.node.clone(),
            Member {
                addr: me.addr,
                state: if self.left {
                    MemberState::Left
                } else {
                    MemberState::Alive
                },
            },
        );
        for member in self.membership.members() {
            let id = member.id();
            let state = match member.state() {
                _ if self.has_left(id) => MemberState::Left,
                State::Alive => MemberState::Alive,
                State::Suspect => MemberState::Suspect,
                State::Down => MemberState::Down,
            };
            view.members.insert(
                id.node.clone(),
                Member {
                    addr: id.addr,
                    state,
                },
            );
        }
        for (id, owner) in self.netdb.owners() {
            if view.members.get(id).is_some_and(|m| m.state.is_active()) {
                view.owners.insert(id.clone(), Arc::clone(&owner.entries));
            }
        }
        view
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

    fn drain(&mut self, now: Duration) {
        loop {
            let notes = self.membership.take_notes();
            let timers = self.membership.take_timers();
            let sends = self.membership.take_sends();
            if notes.is_empty() && timers.is_empty() && sends.is_empty() {
                break;
            }
            for (to, packet) in sends {
                self.send(to.addr, Body::Swim(packet.into()));
            }
            for (after, timer) in timers {
                if let Timer::ChangeSuspectToDown {
                    member_id,
                    incarnation,
                    ..
                } = &timer
                {
                    // Decided here, where the suspect is heard first.
                    self.challenge(now, member_id.clone(), *incarnation, CHALLENGES);
                    continue;
                }
                self.schedule(now + after, Deadline::Foca(timer));
            }
            for note in notes {
                self.note(now, note);
            }
        }
    }

    fn note(&mut self, now: Duration, note: Note) {
        match note {
            OwnedNotification::MemberUp(id) => self.member_up(now, &id),
            OwnedNotification::MemberDown(id) => self.member_down(id),
            OwnedNotification::Rename(_, id) => {
                self.void_earlier_life(&id);
            }
            // Taken for dead: come back under a new identity.
            OwnedNotification::Defunct if !self.left && !self.netdb_left() => {
                let me = self.identity().clone();
                match me.renewal.checked_add(1) {
                    Some(renewal) => self.revive(now, Identity { renewal, ..me }),
                    None => self.rebase(now, me.incarnation),
                }
            }
            OwnedNotification::Defunct
            | OwnedNotification::Rejoin(_)
            | OwnedNotification::Active
            | OwnedNotification::Idle => {}
        }
    }

    fn revive(&mut self, now: Duration, identity: Identity) {
        self.timers
            .retain(|_, what| !matches!(what, Deadline::Foca(_)));
        self.deaf_until = now + DEAF_AFTER_REJOIN;
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        // Fails only where a packet is too small for one identity, which it is not.
        drop(self.membership.revive(identity, seed));
    }

    fn netdb_left(&self) -> bool {
        self.netdb
            .owners()
            .get(&self.identity().node)
            .is_some_and(|o| o.left)
    }

    fn void_earlier_life(&mut self, id: &Identity) {
        if self.netdb.observe_incarnation(&id.node, id.incarnation) {
            // One event stands for all entries that went.
            self.events.push_back(Event::EntryChanged {
                owner: id.node.clone(),
                table: Table::Node,
                key: id.node.0.clone(),
            });
        }
    }

    fn resize(&mut self) {
        let alive = self.active().len();
        let known = self.membership.members().count();
        // Only limits change, which foca always accepts.
        drop(self.membership.resize(alive, known));
    }

    fn member_up(&mut self, now: Duration, id: &Identity) {
        self.void_earlier_life(id);
        self.resize();
        let returned = self.was_down.remove(&id.node);
        let members = self.active().len();
        if members == 1 {
            // The first one: everything it knows is new.
            self.sync_at = now;
            self.quick_syncs = 3;
        } else if returned {
            self.quick_syncs = 5;
        } else if members <= 64 {
            self.quick_syncs = self.quick_syncs.max(2);
        }
        if self.quick_syncs > 0 {
            let soon = now + Duration::from_millis(self.rng.random_range(20..600));
            self.sync_at = self.sync_at.min(soon);
        }
        if !self.queue.is_empty() && self.flush_at.is_none() {
            self.flush_at = Some(now + FIRST_FLUSH);
        }
        self.events.push_back(Event::MemberUp(id.node.clone()));
    }

    fn member_down(&mut self, id: Identity) {
        self.resize();
        let event = if self.has_left(&id) {
            Event::MemberLeft(id.node.clone())
        } else {
            Event::MemberDown(id.node.clone())
        };
        self.events.push_back(event);
        self.was_down.insert(id.node);
        // The sooner all know, the fewer packets go to a dead node. Fails only when alone.
        drop(self.membership.gossip());
    }

    /// Somebody failed to reach `node` (a connection timed out): it is asked directly at once, and
    /// counts as down if it does not answer within [`Config::suspicion`].
    pub fn report_unreachable(&mut self, now: Duration, node: &NodeId) {
        if let Some(id) = self.membership.get(node).map(|m| m.id().clone()) {
            self.verify(now, &id);
            self.drain(now);
        }
    }

    fn verify(&mut self, now: Duration, id: &Identity) {
        let Some(member) = self.membership.get(&id.node) else {
            return;
        };
        if member.id() != id || member.state() != State::Alive {
            return;
        }
        let incarnation = member.incarnation();
        let suspect = foca::Member::new(id.clone(), incarnation, State::Suspect);
        // Known and alive, so foca takes it.
        drop(self.membership.apply(std::iter::once(suspect)));
        self.challenge(now, id.clone(), incarnation, CHALLENGES);
    }

    /// Who raised a suspicion also ends it, but its verdict may not arrive here.
    fn check_suspects(&mut self, now: Duration) {
        let current: Vec<(Identity, u16)> = self
            .membership
            .members()
            .filter(|m| m.state() == State::Suspect)
            .map(|m| (m.id().clone(), m.incarnation()))
            .collect();
        let mut before = std::mem::take(&mut self.suspects);
        for (id, incarnation) in current {
            let since = before.remove(&id).unwrap_or(now);
            if now.saturating_sub(since) > self.config.suspicion {
                self.challenge(now, id, incarnation, 2);
            } else {
                self.suspects.insert(id, since);
            }
        }
    }

    /// Silence from everybody: the fault is on this side.
    fn isolated(&self, now: Duration) -> bool {
        let silence = now.saturating_sub(self.last_heard);
        silence > self.config.suspicion / 2
            && silence < ISOLATION_LIMIT
            && self.active().len() >= CROWD
    }

    /// Tells a suspect to its face, so that loss of a few datagrams does not condemn it; and
    /// takes it for dead when it did not object.
    fn challenge(&mut self, now: Duration, suspect: Identity, swim_incarnation: u16, left: u32) {
        let still = self.membership.get(&suspect.node).is_some_and(|m| {
            *m.id() == suspect && m.state() == State::Suspect && m.incarnation() == swim_incarnation
        });
        if !still {
            return;
        }
        let condemned = left == 0 && !self.isolated(now);
        let state = if condemned {
            State::Down
        } else {
            State::Suspect
        };
        let target = foca::Member::new(suspect.clone(), swim_incarnation, state);
        self.accuse(&target);
        if condemned {
            // Known and suspect, so foca takes it.
            drop(self.membership.apply(std::iter::once(target)));
            return;
        }
        let next = now + self.config.suspicion / CHALLENGES;
        self.schedule(
            next,
            Deadline::Challenge {
                suspect,
                swim_incarnation,
                left: left.saturating_sub(1),
            },
        );
    }

    fn accuse(&mut self, target: &foca::Member<Identity>) {
        let body = Body::Accuse(Accuse {
            from: Some(self.identity().into()),
            target: Some(member_to_pb(target)),
        });
        self.send(target.id().addr, body);
    }

    fn swim(&mut self, now: Duration, packet: &[u8]) -> Result<(), InputError> {
        if now < self.deaf_until {
            use foca::Codec as _;
            let header = IdentityCodec
                .decode_header(packet)
                .map_err(|e| InputError::Malformed(e.to_string()))?;
            if header.message == foca::Message::TurnUndead {
                return Ok(());
            }
        }
        self.membership.handle_packet(packet)
    }

    fn hello(&mut self, hello: &Hello) -> Result<(), InputError> {
        let from = identity(hello.from.clone())?;
        if from.node == self.identity().node {
            return Ok(());
        }
        if let Some(known) = self.membership.get(&from.node)
            && known.id().incarnation > from.incarnation
        {
            // Its clock went backwards: let it know what it has to outbid.
            let body = Body::Accuse(Accuse {
                from: Some(self.identity().into()),
                target: Some(member_to_pb(known)),
            });
            self.send(from.addr, body);
            return Ok(());
        }
        self.membership
            .apply(std::iter::once(foca::Member::alive(from.clone())))?;
        self.membership.announce(from)
    }

    fn accused(&mut self, now: Duration, accuse: Accuse) -> Result<(), InputError> {
        let from = identity(accuse.from)?;
        let target = accuse
            .target
            .ok_or_else(|| InputError::Malformed("accusation of nobody".to_owned()))
            .and_then(|m| member_from_pb(m).map_err(|e| InputError::Malformed(e.to_string())))?;
        let me = self.identity();
        if target.id().node != me.node || from.node == me.node {
            return Ok(());
        }
        if target.id() == me {
            if target.state() == State::Alive {
                return Ok(());
            }
            self.membership.apply(std::iter::once(target))?;
        } else if (target.id().incarnation, target.id().renewal) > (me.incarnation, me.renewal) {
            let above = target.id().incarnation;
            self.rebase(now, above);
        } else {
            return Ok(());
        }
        self.membership.announce(from)
    }

    /// Others remember a life of this node that it does not: go above it.
    fn rebase(&mut self, now: Duration, above: u64) {
        let Some(incarnation) = above.max(self.identity().incarnation).checked_add(1) else {
            return;
        };
        for key in self.netdb.rebase(incarnation) {
            self.tell(now, key);
        }
        let identity = Identity {
            incarnation,
            renewal: 0,
            ..self.identity().clone()
        };
        self.revive(now, identity);
    }

    fn tell(&mut self, now: Duration, key: ChangeKey) {
        self.queue.push(key);
        let soon = now + FIRST_FLUSH;
        self.flush_at = Some(self.flush_at.map_or(soon, |at| at.min(soon)));
    }

    fn learnt(&mut self, key: &ChangeKey) {
        if let Some(table) = table_of(key.1.0) {
            self.events.push_back(Event::EntryChanged {
                owner: key.0.clone(),
                table,
                key: key.1.1.clone(),
            });
        } else if key.1.0 == 0 {
            self.events.push_back(Event::MemberLeft(key.0.clone()));
        }
    }

    fn updates(&mut self, now: Duration, updates: &[Update]) -> Result<(), InputError> {
        for update in updates {
            match self.netdb.apply(now, update) {
                Applied::Newer => {
                    let key = (
                        NodeId::from(update.owner.as_str()),
                        if update.left {
                            (0, String::new())
                        } else {
                            (update.table, update.key.clone())
                        },
                    );
                    self.learnt(&key);
                    self.tell(now, key);
                }
                Applied::OwnAhead(incarnation) => self.rebase(now, incarnation),
                Applied::Same | Applied::Older => {}
                Applied::Invalid => {
                    return Err(InputError::Refused("entry out of bounds".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Sends what is to be told, in a few datagrams, to a few random members.
    fn flush(&mut self, now: Duration) {
        let peers = self.random_peers(self.config.fanout);
        if peers.is_empty() {
            // Kept until somebody is there.
            self.flush_at = None;
            return;
        }
        let limit = retransmit_limit(self.membership.members().count());
        let room = MAX_DATAGRAM - DATAGRAM_SLACK;
        let mut batch = Vec::new();
        let mut batch_len = 0;
        let mut full = 0;
        let mut big = Vec::new();
        for key in self.queue.in_order() {
            let Some(update) = self.netdb.update(&key) else {
                self.queue.remove(&key);
                continue;
            };
            let len = update.encoded_len() + 4;
            if len > room {
                if big.len() < DATAGRAMS_PER_FLUSH {
                    big.push(update);
                    self.mark_sent(&key, limit, peers.len());
                }
                continue;
            }
            if batch_len + len > room {
                self.send_updates(&peers, std::mem::take(&mut batch));
                batch_len = 0;
                full += 1;
                if full == DATAGRAMS_PER_FLUSH {
                    break;
                }
            }
            batch_len += len;
            batch.push(update);
            self.mark_sent(&key, limit, peers.len());
        }
        if !batch.is_empty() {
            self.send_updates(&peers, batch);
        }
        if !big.is_empty() {
            let bytes = encode_stream(StreamBody::Push(SyncPush {
                deltas: Vec::new(),
                updates: big,
            }));
            for to in &peers {
                self.streams.push_back(StreamRequest {
                    to: *to,
                    bytes: bytes.clone(),
                });
            }
        }
        self.flush_at = if self.queue.is_empty() {
            None
        } else if self.queue.has_fresh() {
            Some(now + FRESH_FLUSH)
        } else {
            Some(now + self.config.gossip_period)
        };
    }

    fn mark_sent(&mut self, key: &ChangeKey, limit: u32, times: usize) {
        for _ in 0..times {
            self.queue.sent(key, limit);
        }
    }

    fn members_pb(&self) -> Vec<super::message::PbMember> {
        self.membership.members().map(member_to_pb).collect()
    }

    /// Starts a comparison with a random member.
    fn sync(&mut self, now: Duration) {
        if let Some(to) = self.random_peers(1).first().copied() {
            let bytes = encode_stream(StreamBody::Request(SyncRequest {
                from: Some(self.identity().into()),
                members: self.members_pb(),
                digest: self.netdb.digest(),
            }));
            self.streams.push_back(StreamRequest { to, bytes });
        }
        let period = if self.quick_syncs > 0 {
            self.quick_syncs -= 1;
            Duration::from_millis(600)
        } else {
            let size = self.membership.members().count().max(1);
            self.config
                .sync_period
                .saturating_mul(size.ilog2().saturating_sub(4).max(1))
        };
        self.sync_at = now + period.mul_f64(self.rng.random_range(0.75..1.25));
    }

    fn sync_request(
        &mut self,
        now: Duration,
        request: SyncRequest,
    ) -> Result<StreamBody, InputError> {
        self.meet(now, request.from, request.members)?;
        if let Some(incarnation) = self.netdb.own_ahead(&request.digest) {
            self.rebase(now, incarnation);
        }
        Ok(StreamBody::Reply(SyncReply {
            from: Some(self.identity().into()),
            members: self.members_pb(),
            deltas: self.netdb.deltas(&request.digest, false, DELTA_BUDGET),
            wanted: self.netdb.wanted(&request.digest),
        }))
    }

    fn sync_reply(
        &mut self,
        now: Duration,
        reply: SyncReply,
    ) -> Result<Option<StreamBody>, InputError> {
        self.meet(now, reply.from, reply.members)?;
        self.apply_deltas(now, reply.deltas)?;
        let deltas = self.netdb.deltas(&reply.wanted, true, DELTA_BUDGET);
        Ok((!deltas.is_empty()).then_some(StreamBody::Push(SyncPush {
            deltas,
            updates: Vec::new(),
        })))
    }

    /// Merges the member list of a peer.
    fn meet(
        &mut self,
        now: Duration,
        from: Option<super::message::PbIdentity>,
        members: Vec<super::message::PbMember>,
    ) -> Result<(), InputError> {
        let from = identity(from)?;
        let mut alive = vec![foca::Member::alive(from)];
        let mut accused = 0;
        for pb in members {
            let member = member_from_pb(pb).map_err(|e| InputError::Malformed(e.to_string()))?;
            let me = self.identity();
            if member.id().node == me.node {
                if member.id() == me {
                    if member.state() != State::Alive {
                        self.membership.apply(std::iter::once(member))?;
                    }
                } else if member.id().incarnation > me.incarnation {
                    let above = member.id().incarnation;
                    self.rebase(now, above);
                }
                continue;
            }
            if member.state() == State::Down {
                // Not believed: a merge after a partition would kill everyone. The accused can
                // come back under a new identity, which both sides accept.
                let known_alive = self
                    .membership
                    .get(&member.id().node)
                    .is_some_and(|m| m.id() == member.id() && m.state() != State::Down);
                if known_alive && accused < ACCUSATIONS_PER_SYNC {
                    accused += 1;
                    self.accuse(&member);
                    let id = member.id().clone();
                    self.schedule(now + VERIFY_AFTER, Deadline::Verify(id));
                }
                continue;
            }
            alive.push(foca::Member::new(
                member.id().clone(),
                member.incarnation(),
                State::Alive,
            ));
        }
        let me = self.identity().node.clone();
        self.membership
            .apply(alive.into_iter().filter(|m| m.id().node != me))
    }

    fn apply_deltas(
        &mut self,
        now: Duration,
        deltas: Vec<super::message::OwnerDelta>,
    ) -> Result<(), InputError> {
        let mut news = Vec::new();
        let mut result = Ok(());
        for delta in deltas {
            match self.netdb.apply_delta(now, delta, &mut news) {
                Applied::OwnAhead(incarnation) => self.rebase(now, incarnation),
                Applied::Invalid => {
                    result = Err(InputError::Refused("entry out of bounds".to_owned()));
                    break;
                }
                Applied::Newer | Applied::Same | Applied::Older => {}
            }
        }
        let relay = news.len() <= RELAYED_FROM_SYNC;
        for key in news {
            self.learnt(&key);
            if relay {
                self.tell(now, key);
            }
        }
        result
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
