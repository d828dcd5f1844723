//! Table entries: changes on gossip, and whole tables compared over streams.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use foca::State;
use prost::Message as _;
use rand::RngExt as _;
use weft_model::id::NodeId;

use super::{
    ACCUSATIONS_PER_SYNC, ARBITER_PERIOD, DATAGRAM_SLACK, DATAGRAMS_PER_FLUSH, DELTA_BUDGET,
    Deadline, Event, FIRST_FLUSH, FRESH_FLUSH, Gossip, RELAYED_FROM_SYNC, StreamRequest,
    VERIFY_AFTER, encode_stream, identity,
};
use crate::entries::table_of;
use crate::identity::{Identity, member_from_pb, member_to_pb};
use crate::message::{StreamBody, SyncPush, SyncReply, SyncRequest, Update};
use crate::netdb::Applied;
use crate::queue::{ChangeKey, retransmit_limit};
use crate::register::By;
use crate::{InputError, MAX_DATAGRAM};

impl Gossip {
    pub(super) fn tell(&mut self, now: Duration, key: ChangeKey) {
        self.queue.push(key);
        let soon = now + FIRST_FLUSH;
        self.flush_at = Some(self.flush_at.map_or(soon, |at| at.min(soon)));
    }

    pub(super) fn learnt(&mut self, key: &ChangeKey) {
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

    pub(super) fn updates(
        &mut self,
        now: Duration,
        from: SocketAddr,
        updates: &[Update],
    ) -> Result<(), InputError> {
        for update in updates {
            if self.doubts_update(now, from, update) {
                continue;
            }
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
                Applied::OwnAhead(incarnation) => self.outbid(now, from, incarnation),
                Applied::Same | Applied::Older => {}
                Applied::Invalid => {
                    return Err(InputError::Refused("entry out of bounds".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Sends what is to be told, in a few datagrams, to a few random members.
    pub(super) fn flush(&mut self, now: Duration) {
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

    pub(super) fn mark_sent(&mut self, key: &ChangeKey, limit: u32, times: usize) {
        for _ in 0..times {
            self.queue.sent(key, limit);
        }
    }

    pub(super) fn members_pb(&self) -> Vec<crate::message::PbMember> {
        self.membership.members().map(member_to_pb).collect()
    }

    /// Starts a comparison with a random member.
    pub(super) fn sync(&mut self, now: Duration) {
        if let Some(to) = self.random_peers(1).first().copied() {
            self.compare_with(to);
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

    fn compare_with(&mut self, to: SocketAddr) {
        let bytes = encode_stream(StreamBody::Request(SyncRequest {
            from: Some(self.identity().into()),
            members: self.members_pb(),
            digest: self.netdb.digest(),
        }));
        self.streams.push_back(StreamRequest { to, bytes });
    }

    pub(super) fn sync_request(
        &mut self,
        now: Duration,
        sender: SocketAddr,
        request: SyncRequest,
    ) -> Result<StreamBody, InputError> {
        self.meet(now, sender, request.from, request.members)?;
        let digest = self.credible(now, sender, request.digest);
        if let Some(incarnation) = self.netdb.own_ahead(&digest) {
            self.outbid(now, sender, incarnation);
        }
        self.ask_arbiter(now, &digest);
        Ok(StreamBody::Reply(SyncReply {
            from: Some(self.identity().into()),
            members: self.members_pb(),
            deltas: self.netdb.deltas(&digest, false, DELTA_BUDGET),
            wanted: self.netdb.wanted(&digest),
        }))
    }

    /// Where this node and another differ on what a third one said, that one knows.
    fn ask_arbiter(&mut self, now: Duration, digest: &[crate::message::OwnerDigest]) {
        if now < self.arbiter_at {
            return;
        }
        let owner = self.netdb.disputed(digest);
        let member = owner.and_then(|owner| self.membership.get(&owner));
        if let Some(addr) = member
            .filter(|m| m.state() != State::Down)
            .map(|m| m.id().addr)
        {
            self.arbiter_at = now + ARBITER_PERIOD;
            self.compare_with(addr);
        }
    }

    pub(super) fn sync_reply(
        &mut self,
        now: Duration,
        sender: SocketAddr,
        reply: SyncReply,
    ) -> Result<Option<StreamBody>, InputError> {
        self.meet(now, sender, reply.from, reply.members)?;
        self.apply_deltas(now, sender, reply.deltas)?;
        let wanted = self.credible(now, sender, reply.wanted);
        let deltas = self.netdb.deltas(&wanted, true, DELTA_BUDGET);
        Ok((!deltas.is_empty()).then_some(StreamBody::Push(SyncPush {
            deltas,
            updates: Vec::new(),
        })))
    }

    /// Merges the member list of a peer.
    pub(super) fn meet(
        &mut self,
        now: Duration,
        sender: SocketAddr,
        from: Option<crate::message::PbIdentity>,
        members: Vec<crate::message::PbMember>,
    ) -> Result<(), InputError> {
        let from = identity(from)?;
        self.speaks(now, &from, sender, By::Itself)?;
        self.streamed.insert(from.node.clone(), now);
        let mut alive = vec![foca::Member::alive(from)];
        let mut accused = 0;
        // Most of the list is known: foca, which searches linearly, need not see that part.
        let known: BTreeMap<Identity, (State, u16)> = self
            .membership
            .members()
            .map(|m| (m.id().clone(), (m.state(), m.incarnation())))
            .collect();
        for pb in members {
            let member = member_from_pb(pb).map_err(|e| InputError::Malformed(e.to_string()))?;
            if self.doubts(now, sender, member.id()) {
                continue;
            }
            let me = self.identity();
            if member.id().node == me.node {
                if member.id() == me {
                    if member.state() != State::Alive {
                        self.membership.apply(std::iter::once(member))?;
                    }
                } else if member.id().incarnation > me.incarnation {
                    let above = member.id().incarnation;
                    self.outbid(now, sender, above);
                }
                continue;
            }
            if member.state() == State::Down {
                // Not believed: a merge after a partition would kill everyone. The accused can
                // come back under a new identity, which both sides accept.
                let known_alive = known
                    .get(member.id())
                    .is_some_and(|(state, _)| *state != State::Down);
                if known_alive && accused < ACCUSATIONS_PER_SYNC {
                    accused += 1;
                    self.accuse(&member);
                    let id = member.id().clone();
                    self.schedule(now + VERIFY_AFTER, Deadline::Verify(id));
                }
                continue;
            }
            if known
                .get(member.id())
                .is_some_and(|(state, at)| *state == State::Down || *at >= member.incarnation())
            {
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

    pub(super) fn apply_deltas(
        &mut self,
        now: Duration,
        from: SocketAddr,
        deltas: Vec<crate::message::OwnerDelta>,
    ) -> Result<(), InputError> {
        let mut news = Vec::new();
        let mut result = Ok(());
        for delta in deltas {
            if self.doubts_delta(now, from, &delta) {
                continue;
            }
            let by_owner = self.is_of(&delta.owner, from);
            match self.netdb.apply_delta(now, delta, by_owner, &mut news) {
                Applied::OwnAhead(incarnation) => self.outbid(now, from, incarnation),
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
