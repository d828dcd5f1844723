//! The task that owns the state machine and its sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use weft_gossip::{Blocked, Event, Forgery, ForgeryKind, Gossip, MAX_DATAGRAM, Members, NetdbView};
use weft_model::id::NodeId;
use weft_model::records::Table;
use weft_swarm::door::{Door, Quiet};

use super::answer::{LIMITS, answer};
use super::seal::{Channel, OVERHEAD, Sealer};
use super::stats::{Counters, add};
use super::stream::{Conversations, Incoming};

/// Readers of the view get changes in batches of this length.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// Batches of load reports alone: they come all the time, and each tells of a quarter of a second.
const LOADS_DEBOUNCE: Duration = Duration::from_millis(50);
/// Between two looks for ways that are blocked.
const LOOK: Duration = Duration::from_secs(1);
const DATAGRAMS_PER_ROUND: usize = 64;
const MAX_CALLS: usize = 32;
/// Messages of conversations that wait for the task.
const MAX_INCOMING: usize = 64;
/// The farewell goes out this often, as nobody answers it.
const FAREWELLS: usize = 3;
const FAREWELL_PERIOD: Duration = Duration::from_millis(30);

/// What the handle wants and the task has not yet done. One slot for each key, so it is bounded
/// by what the node has to say.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) writes: BTreeMap<(Table, String), Option<Bytes>>,
    pub(crate) seeds: BTreeSet<SocketAddr>,
    pub(crate) members: Option<Members>,
    pub(crate) leave: Option<oneshot::Sender<()>>,
}

/// Shared between the handle and its task.
/// No two of its locks are held at once.
#[derive(Debug)]
pub(crate) struct Shared {
    wishes: Mutex<Wishes>,
    pub(crate) wake: Notify,
    pub(crate) counters: Arc<Counters>,
    pub(crate) sealer: Arc<Sealer>,
    /// The last one of each kind, and when.
    lies: Mutex<BTreeMap<LieKey, Instant>>,
    /// Ways that datagrams do not pass, as of the last look.
    pub(crate) blocked: Mutex<Vec<Blocked>>,
    pub(crate) door: Arc<Door>,
}

/// Of what kind, about whom, from where.
type LieKey = (bool, NodeId, SocketAddr);

/// Lies that are told apart; more come from one hand.
const MAX_LIES: usize = 8;

impl Shared {
    pub(crate) fn new(sealer: Sealer) -> Self {
        Self {
            wishes: Mutex::default(),
            wake: Notify::new(),
            counters: Arc::default(),
            sealer: Arc::new(sealer),
            lies: Mutex::default(),
            blocked: Mutex::default(),
            door: Door::new("gossip", LIMITS),
        }
    }

    fn note_lie(&self, lie: &Forgery) {
        add(&self.counters.lies, 1);
        let own = lie.kind == ForgeryKind::Own;
        let key = (own, lie.about.clone(), lie.from);
        let mut lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        if lies.len() < MAX_LIES || lies.contains_key(&key) {
            lies.insert(key, Instant::now());
        }
    }

    /// Lies of the last `span`, older ones are forgotten.
    pub(crate) fn lies(&self, span: Duration) -> Vec<Forgery> {
        let mut lies = self.lies.lock().unwrap_or_else(PoisonError::into_inner);
        lies.retain(|_, at| at.elapsed() < span);
        let told = lies.keys().map(|(own, about, from)| Forgery {
            about: about.clone(),
            from: *from,
            kind: if *own {
                ForgeryKind::Own
            } else {
                ForgeryKind::Absurd
            },
        });
        told.collect()
    }

    /// Changes the wishes and wakes the task.
    pub(crate) fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut self.lock());
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Wishes> {
        // Every change of the wishes is a single step, so they stay whole.
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Core {
    gossip: Gossip,
    udp: UdpSocket,
    shared: Arc<Shared>,
    view: watch::Sender<Arc<NetdbView>>,
    started: Instant,
    incoming: mpsc::Receiver<Incoming>,
    conversations: Conversations,
    calls: JoinSet<Option<SocketAddr>>,
    /// The view is to be published at this time.
    publish_at: Option<Duration>,
    published: Duration,
    /// When it was looked for ways that are blocked.
    looked: Duration,
    /// Errors of the socket.
    trouble: Quiet,
}

impl Core {
    pub(crate) fn new(
        gossip: impl FnOnce(Duration) -> Gossip,
        udp: UdpSocket,
        shared: Arc<Shared>,
        view: watch::Sender<Arc<NetdbView>>,
        source: IpAddr,
    ) -> (Self, Conversations) {
        let (core, incoming) = mpsc::channel(MAX_INCOMING);
        let conversations = Conversations {
            sealer: Arc::clone(&shared.sealer),
            counters: Arc::clone(&shared.counters),
            core,
            source,
        };
        let this = Self {
            gossip: gossip(Duration::ZERO),
            udp,
            shared,
            view,
            started: Instant::now(),
            incoming,
            conversations: conversations.clone(),
            calls: JoinSet::new(),
            publish_at: Some(Duration::ZERO),
            published: Duration::ZERO,
            looked: Duration::ZERO,
            trouble: Quiet::new("errors of the gossip socket"),
        };
        (this, conversations)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs until the handle is dropped or leaves.
    pub(crate) async fn run(mut self, listener: TcpListener) {
        let mut listening = JoinSet::new();
        let door = Arc::clone(&self.shared.door);
        listening.spawn(answer(listener, door, self.conversations.clone()));
        let mut buf = vec![0; MAX_DATAGRAM + OVERHEAD + 1];
        loop {
            self.drain().await;
            let due = [self.gossip.next_deadline(), self.publish_at]
                .into_iter()
                .flatten()
                .min();
            let wait = due.map(|at| at.saturating_sub(self.now()));
            tokio::select! {
                received = self.udp.recv_from(&mut buf) => match received {
                    Ok((len, from)) => {
                        self.datagram(from, &mut buf, len);
                        self.more_datagrams(&mut buf);
                    }
                    Err(error) => {
                        self.trouble.say(|| tracing::warn!(%error, "gossip socket"));
                        tokio::time::sleep(DEBOUNCE).await;
                    }
                },
                Some(incoming) = self.incoming.recv() => self.stream_message(incoming),
                Some(call) = self.calls.join_next() => {
                    if let Ok(Some(unreachable)) = call {
                        self.gossip.handle_stream_failure(self.now(), unreachable);
                    }
                }
                () = self.shared.wake.notified() => {
                    if self.wishes().await {
                        return;
                    }
                }
                () = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(1))) => {}
            }
            let now = self.now();
            if self.gossip.next_deadline().is_some_and(|at| at <= now) {
                self.gossip.handle_deadline(now);
            }
            if now.saturating_sub(self.looked) >= LOOK {
                self.looked = now;
                let blocked = self.gossip.blocked(now);
                let told = self.shared.blocked.lock();
                *told.unwrap_or_else(PoisonError::into_inner) = blocked;
            }
        }
    }

    fn datagram(&mut self, from: SocketAddr, buf: &mut [u8], len: usize) {
        let counters = &self.shared.counters;
        add(&counters.datagrams_in, 1);
        add(&counters.bytes_in, len as u64);
        let Some(sealed) = buf
            .get_mut(..len)
            .filter(|b| b.len() <= MAX_DATAGRAM + OVERHEAD)
        else {
            add(&counters.malformed, 1);
            return;
        };
        match self.shared.sealer.open(Channel::Datagram, sealed) {
            Ok(plain) => {
                let now = self.started.elapsed();
                if let Err(error) = self.gossip.handle_datagram(now, from, plain) {
                    counters.not_accepted(&error);
                    tracing::debug!(%from, %error, "gossip datagram dropped");
                }
            }
            Err(error) => {
                counters.not_opened(error);
                tracing::debug!(%from, %error, "gossip datagram dropped");
            }
        }
    }

    /// Empties the socket before timers are looked at: what waits there may be what they wait for.
    fn more_datagrams(&mut self, buf: &mut [u8]) {
        for _ in 0..DATAGRAMS_PER_ROUND {
            match self.udp.try_recv_from(buf) {
                Ok((len, from)) => self.datagram(from, buf, len),
                Err(_) => break,
            }
        }
    }

    fn stream_message(&mut self, incoming: Incoming) {
        let now = self.now();
        let answer = match self
            .gossip
            .handle_stream_message(now, incoming.peer, &incoming.bytes)
        {
            Ok(answer) => answer,
            Err(error) => {
                self.shared.counters.not_accepted(&error);
                tracing::debug!(%error, "gossip stream message dropped");
                None
            }
        };
        // The peer may have hung up meanwhile, which is its business.
        drop(incoming.reply.send(answer));
    }

    /// True when it is time to end.
    async fn wishes(&mut self) -> bool {
        let wishes = std::mem::take(&mut *self.shared.lock());
        let now = self.now();
        if let Some(members) = wishes.members {
            self.gossip.set_members(now, members);
            self.publish_soon(now);
        }
        for seed in wishes.seeds {
            self.gossip.join(now, seed);
        }
        for ((table, key), value) in wishes.writes {
            let changed = match value {
                Some(value) => self.gossip.put(now, table, &key, value),
                None => Ok(self.gossip.delete(now, table, &key)),
            };
            match changed {
                Ok(true) => {
                    let own = self.gossip.identity().node.clone();
                    self.publish_entry(now, &own, table, &key);
                }
                Ok(false) => {}
                Err(error) => tracing::error!(?table, key, %error, "not gossiped"),
            }
        }
        if let Some(done) = wishes.leave {
            self.leave().await;
            if done.send(()).is_err() {
                tracing::debug!("left, and nobody waited for it");
            }
            return true;
        }
        false
    }

    async fn leave(&mut self) {
        self.gossip.leave(self.now());
        let farewell: Vec<_> = std::iter::from_fn(|| self.gossip.poll_transmit()).collect();
        for round in 0..FAREWELLS {
            if round > 0 {
                tokio::time::sleep(FAREWELL_PERIOD).await;
            }
            for t in &farewell {
                self.send(t.to, &t.bytes).await;
            }
        }
        self.publish();
    }

    fn publish(&self) {
        let last = Arc::clone(&self.view.borrow());
        let view = self.gossip.view_after(&last);
        self.view.send_replace(Arc::new(view));
    }

    async fn send(&self, to: SocketAddr, plain: &[u8]) {
        let counters = &self.shared.counters;
        let sent = match self.shared.sealer.seal(Channel::Datagram, plain) {
            Ok(sealed) => self.udp.send_to(&sealed, to).await.ok(),
            Err(_) => None,
        };
        match sent {
            Some(len) => {
                add(&counters.datagrams_out, 1);
                add(&counters.bytes_out, len as u64);
            }
            None => add(&counters.send_errors, 1),
        }
    }

    fn publish_soon(&mut self, now: Duration) {
        self.publish_after(DEBOUNCE, now);
    }

    /// A view is to be published, and no earlier than `debounce` after the last one.
    fn publish_after(&mut self, debounce: Duration, now: Duration) {
        let at = (self.published + debounce).max(now);
        self.publish_at = Some(self.publish_at.map_or(at, |p| p.min(at)));
    }

    /// An entry has changed. Tasks that end wait for the word that nobody sends them anything new.
    fn publish_entry(&mut self, now: Duration, owner: &NodeId, table: Table, key: &str) {
        let waits = table == Table::Load
            && !self
                .gossip
                .load(owner, key)
                .is_some_and(|load| load.draining);
        self.publish_after(if waits { LOADS_DEBOUNCE } else { DEBOUNCE }, now);
    }

    async fn drain(&mut self) {
        while let Some(t) = self.gossip.poll_transmit() {
            self.send(t.to, &t.bytes).await;
        }
        while let Some(call) = self.gossip.poll_stream() {
            if self.calls.len() >= MAX_CALLS {
                add(&self.shared.counters.streams_failed, 1);
                self.gossip.handle_stream_failure(self.now(), call.to);
                continue;
            }
            let conversations = self.conversations.clone();
            self.calls.spawn(async move {
                let result = conversations.call(call.to, call.bytes).await;
                let counters = &conversations.counters;
                match result {
                    Ok(()) => {
                        add(&counters.streams, 1);
                        None
                    }
                    Err(error) => {
                        add(&counters.streams_failed, 1);
                        tracing::debug!(peer = %call.to, %error, "gossip stream failed");
                        Some(call.to)
                    }
                }
            });
        }
        let now = self.now();
        while let Some(event) = self.gossip.poll_event() {
            match event {
                // Packets are being lost: nobody should wait for company.
                Event::MemberDown(node) => {
                    tracing::warn!(%node, "node does not answer; its endpoints are withdrawn");
                    self.publish_at = Some(now);
                }
                Event::MemberLeft(node) => {
                    tracing::info!(%node, "node left");
                    self.publish_at = Some(now);
                }
                Event::MemberUp(node) => {
                    tracing::info!(%node, "node is up");
                    self.publish_soon(now);
                }
                Event::EntryChanged { owner, table, key } => {
                    self.publish_entry(now, &owner, table, &key);
                }
                Event::Forged(lie) => {
                    tracing::debug!(?lie, "gossip lies");
                    self.shared.note_lie(&lie);
                }
            }
        }
        if self.publish_at.is_some_and(|at| at <= now) {
            self.publish_at = None;
            self.published = now;
            self.publish();
        }
    }
}
