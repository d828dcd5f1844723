//! What is refused before it is looked at: words of strangers, and of members what nobody can say.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use foca::{Codec as _, State};
use prost::Message as _;
use weft_model::id::NodeId;

use super::{Event, FIRST_WORDS, Forgery, ForgeryKind, Gossip};
use crate::InputError;
use crate::identity::{CodecError, Identity, IdentityCodec, member_to_pb};
use crate::message::{OwnerDelta, OwnerDigest, Update};
use crate::register::{By, Doubt, MAX_SEQ};

impl Gossip {
    pub(super) fn forged(&mut self, about: &NodeId, from: SocketAddr, kind: ForgeryKind) {
        let event = Event::Forged(Forgery {
            about: about.clone(),
            from,
            kind,
        });
        // Who says it a thousand times in one message is told of once.
        if self.events.back() != Some(&event) {
            self.events.push_back(event);
        }
    }

    /// Whether what is said of a node is not to be believed, whoever says it.
    pub(super) fn doubts(&mut self, now: Duration, from: SocketAddr, id: &Identity) -> bool {
        self.doubts_by(now, from, id, By::Anybody)
    }

    fn doubts_by(&mut self, now: Duration, from: SocketAddr, id: &Identity, by: By) -> bool {
        let by = if id.node == self.identity().node {
            By::Itself
        } else {
            by
        };
        let verdict = match self.register.judge(now, id, by) {
            // It has said so itself before.
            Err(Doubt::Absurd) if id.incarnation <= self.known_incarnation(&id.node) => Ok(()),
            verdict => verdict,
        };
        if verdict == Err(Doubt::Absurd) {
            self.forged(&id.node, from, ForgeryKind::Absurd);
        }
        verdict.is_err()
    }

    fn known_incarnation(&self, node: &NodeId) -> u64 {
        self.membership.get(node).map_or(0, |m| m.id().incarnation)
    }

    /// A sender's name has to be that of the member at the address that it comes from.
    pub(super) fn speaks(
        &mut self,
        now: Duration,
        id: &Identity,
        from: SocketAddr,
        by: By,
    ) -> Result<(), InputError> {
        if self.doubts_by(now, from, id, by)
            || self.register.lives_at(&id.node, from.ip()) == Some(false)
        {
            return Err(InputError::Stranger { from });
        }
        Ok(())
    }

    /// Of a SWIM packet what is to be believed; the whole, as a rule.
    pub(super) fn sift<'a>(
        &mut self,
        now: Duration,
        from: SocketAddr,
        packet: &'a [u8],
    ) -> Result<Cow<'a, [u8]>, InputError> {
        let malformed = |e: CodecError| InputError::Malformed(e.to_string());
        let mut rest = packet;
        let header = IdentityCodec.decode_header(&mut rest).map_err(malformed)?;
        self.speaks(now, &header.src, from, By::Anybody)?;
        if matches!(header.message, foca::Message::Ack(_)) {
            self.paths.answered(&header.src.node);
        }
        if let Some(third) = third_party(&header.message)
            && self.doubts(now, from, third)
        {
            // It would be asked to answer, or be answered.
            return Err(InputError::Stranger { from });
        }
        if rest.len() < 2 || header.message == foca::Message::Broadcast {
            return Ok(Cow::Borrowed(packet));
        }
        let (head, _) = packet.split_at(packet.len() - rest.len());
        let count = rest.get_u16();
        let mut kept = Vec::new();
        for _ in 0..count {
            let member = IdentityCodec.decode_member(&mut rest).map_err(malformed)?;
            if !self.doubts(now, from, member.id()) {
                kept.push(member);
            }
        }
        if kept.len() == usize::from(count) {
            return Ok(Cow::Borrowed(packet));
        }
        let mut sifted = head.to_vec();
        if let Some(kept_count) = u16::try_from(kept.len()).ok().filter(|n| *n > 0) {
            sifted.put_u16(kept_count);
            for member in &kept {
                sifted.extend(member_to_pb(member).encode_length_delimited_to_vec());
            }
        }
        Ok(Cow::Owned(sifted))
    }

    /// Whether an entry, or a whole owner, is not to be believed.
    pub(super) fn doubts_update(
        &mut self,
        now: Duration,
        from: SocketAddr,
        update: &Update,
    ) -> bool {
        self.doubts_numbers(now, from, &update.owner, update.incarnation, update.seq)
    }

    pub(super) fn doubts_delta(
        &mut self,
        now: Duration,
        from: SocketAddr,
        delta: &OwnerDelta,
    ) -> bool {
        let entries = delta.entries.iter().map(|e| e.seq);
        let highest = entries.chain([delta.from, delta.to]).max().unwrap_or(0);
        self.doubts_numbers(now, from, &delta.owner, delta.incarnation, highest)
    }

    /// The lines of a digest that can be.
    pub(super) fn credible(
        &mut self,
        now: Duration,
        from: SocketAddr,
        mut digest: Vec<OwnerDigest>,
    ) -> Vec<OwnerDigest> {
        digest.retain(|d| {
            let highest = d.highest.max(d.complete);
            !self.doubts_numbers(now, from, &d.owner, d.incarnation, highest)
        });
        digest
    }

    fn doubts_numbers(
        &mut self,
        now: Duration,
        from: SocketAddr,
        owner: &str,
        incarnation: u64,
        seq: u64,
    ) -> bool {
        let owner = NodeId::from(owner);
        if owner != self.identity().node && !self.register.is_member(&owner) {
            return true;
        }
        let by = if owner == self.identity().node {
            By::Itself
        } else {
            By::Anybody
        };
        let absurd = seq > MAX_SEQ
            || (self.register.is_absurd(now, incarnation, by)
                && incarnation > self.known_incarnation(&owner));
        if absurd {
            self.forged(&owner, from, ForgeryKind::Absurd);
        }
        absurd
    }

    /// Whether a stream with `from` is one with the owner.
    pub(super) fn is_of(&self, owner: &str, from: SocketAddr) -> bool {
        let owner = NodeId::from(owner);
        self.register
            .lives_at(&owner, from.ip())
            .unwrap_or_else(|| {
                let member = self.membership.get(&owner);
                member.is_some_and(|m| m.id().addr.ip() == from.ip())
            })
    }

    /// Others were told something in this node's name that it did not say: go above it.
    pub(super) fn outbid(&mut self, now: Duration, from: SocketAddr, claimed: u64) {
        let me = self.identity().clone();
        // A life of this node that it has forgotten, as its clock went back, is heard of at once.
        // Entries of this very life are nobody else's.
        let late = now.saturating_sub(self.started) > FIRST_WORDS;
        if late || claimed == me.incarnation {
            self.forged(&me.node, from, ForgeryKind::Own);
        }
        self.rebase(now, claimed);
    }

    /// Nodes that are no members any more are gone, with all that they said.
    pub(super) fn drop_strangers(&mut self, now: Duration) {
        let strangers: Vec<NodeId> = self
            .netdb
            .owners()
            .keys()
            .chain(self.membership.members().map(|m| &m.id().node))
            .filter(|node| !self.register.is_member(node) && **node != self.identity().node)
            .cloned()
            .collect();
        for node in strangers {
            // Seen as one that left while it is taken off the list.
            let known = self.membership.get(&node).cloned();
            if let Some(member) = known.filter(|m| m.state() != State::Down) {
                self.netdb.expel(&node, member.id().incarnation);
                let gone =
                    foca::Member::new(member.id().clone(), member.incarnation(), State::Down);
                // Known and active, so foca takes it.
                drop(self.membership.apply(std::iter::once(gone)));
                for note in self.membership.take_notes() {
                    self.note(now, note);
                }
            }
            self.netdb.forget(&node);
            self.was_down.remove(&node);
            self.held.remove(&node);
            self.asked.remove(&node);
            self.streamed.remove(&node);
            self.paths.forget(&node);
        }
    }
}

const fn third_party(message: &foca::Message<Identity>) -> Option<&Identity> {
    use foca::Message as M;
    match message {
        M::PingReq { target, .. } | M::IndirectAck { target, .. } => Some(target),
        M::IndirectPing { origin, .. } | M::ForwardedAck { origin, .. } => Some(origin),
        M::Ping(_)
        | M::Ack(_)
        | M::Announce
        | M::Feed
        | M::Gossip
        | M::Broadcast
        | M::TurnUndead => None,
    }
}
