//! Who is there: what SWIM notices, and what this node makes of it.

use std::net::SocketAddr;
use std::time::Duration;

use foca::{OwnedNotification, State, Timer};
use rand::RngExt as _;
use weft_model::id::NodeId;
use weft_model::records::Table;

use super::{
    CHALLENGES, CROWD, DEAF_AFTER_REJOIN, Deadline, Event, FIRST_FLUSH, Gossip, ISOLATION_LIMIT,
    identity,
};
use crate::InputError;
use crate::identity::{Identity, IdentityCodec, member_from_pb, member_to_pb};
use crate::membership::Note;
use crate::message::{Accuse, Body, Hello};
use crate::register::By;

impl Gossip {
    pub(super) fn drain(&mut self, now: Duration) {
        loop {
            let notes = self.membership.take_notes();
            let timers = self.membership.take_timers();
            let sends = self.membership.take_sends();
            if notes.is_empty() && timers.is_empty() && sends.is_empty() {
                break;
            }
            for (to, packet) in sends {
                if !self.register.is_place(to.addr) {
                    continue;
                }
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
                    self.probe_by_stream(now, member_id);
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

    pub(super) fn note(&mut self, now: Duration, note: Note) {
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

    pub(super) fn revive(&mut self, now: Duration, identity: Identity) {
        self.timers
            .retain(|_, what| !matches!(what, Deadline::Foca(_)));
        self.deaf_until = now + DEAF_AFTER_REJOIN;
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        // Fails only where a packet is too small for one identity, which it is not.
        drop(self.membership.revive(identity, seed));
    }

    pub(super) fn netdb_left(&self) -> bool {
        self.netdb
            .owners()
            .get(&self.identity().node)
            .is_some_and(|o| o.left)
    }

    pub(super) fn void_earlier_life(&mut self, id: &Identity) {
        if self.netdb.observe_incarnation(&id.node, id.incarnation) {
            // One event stands for all entries that went.
            self.events.push_back(Event::EntryChanged {
                owner: id.node.clone(),
                table: Table::Node,
                key: id.node.0.clone(),
            });
        }
    }

    pub(super) fn resize(&mut self) {
        let alive = self.membership.active();
        let known = self.membership.members().count();
        // Only limits change, which foca always accepts.
        drop(self.membership.resize(alive, known));
    }

    pub(super) fn member_up(&mut self, now: Duration, id: &Identity) {
        self.void_earlier_life(id);
        self.resize();
        let returned = self.was_down.remove(&id.node);
        let believed = if returned {
            self.believes(now, &id.node)
        } else {
            !self.held.contains_key(&id.node)
        };
        let members = self.membership.active();
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
        if believed {
            self.events.push_back(Event::MemberUp(id.node.clone()));
        }
    }

    pub(super) fn member_down(&mut self, id: Identity) {
        self.resize();
        let event = if self.has_left(&id) {
            Event::MemberLeft(id.node.clone())
        } else {
            Event::MemberDown(id.node.clone())
        };
        self.asked.remove(&id.node);
        // Who was not believed is hidden already.
        if self.held.remove(&id.node).is_none() || matches!(event, Event::MemberLeft(_)) {
            self.events.push_back(event);
        }
        self.was_down.insert(id.node);
        // The sooner all know, the fewer packets go to a dead node. Fails only when alone.
        drop(self.membership.gossip());
    }

    /// Somebody failed to reach `node` (a connection timed out): it is asked directly at once, and
    /// counts as down if it does not answer within `Config::suspicion`.
    pub fn report_unreachable(&mut self, now: Duration, node: &NodeId) {
        if let Some(id) = self.membership.get(node).map(|m| m.id().clone()) {
            self.verify(now, &id);
            self.drain(now);
        }
    }

    pub(super) fn verify(&mut self, now: Duration, id: &Identity) {
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
        self.probe_by_stream(now, id);
        self.challenge(now, id.clone(), incarnation, CHALLENGES);
    }

    /// Who raised a suspicion also ends it, but its verdict may not arrive here.
    pub(super) fn check_suspects(&mut self, now: Duration) {
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
                self.probe_by_stream(now, &id);
                self.challenge(now, id, incarnation, 2);
            } else {
                self.suspects.insert(id, since);
            }
        }
    }

    /// Silence from everybody: the fault is on this side.
    pub(super) fn isolated(&self, now: Duration) -> bool {
        let silence = now.saturating_sub(self.last_heard);
        silence > self.config.suspicion / 2
            && silence < ISOLATION_LIMIT
            && self.membership.active() >= CROWD
    }

    /// Tells a suspect to its face, so that loss of a few datagrams does not condemn it; and
    /// takes it for dead when it did not object.
    pub(super) fn challenge(
        &mut self,
        now: Duration,
        suspect: Identity,
        swim_incarnation: u16,
        left: u32,
    ) {
        let still = self.membership.get(&suspect.node).is_some_and(|m| {
            *m.id() == suspect && m.state() == State::Suspect && m.incarnation() == swim_incarnation
        });
        if !still {
            return;
        }
        let streamed = self.streamed(now, &suspect.node);
        let condemned = left == 0 && !streamed && !self.isolated(now);
        if left == 0 && streamed {
            // An earlier version does not answer probes: what else it said will do.
            self.probe_by_stream(now, &suspect);
        }
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

    pub(super) fn accuse(&mut self, target: &foca::Member<Identity>) {
        let body = Body::Accuse(Accuse {
            from: Some(self.identity().into()),
            target: Some(member_to_pb(target)),
        });
        self.send(target.id().addr, body);
    }

    pub(super) fn swim(
        &mut self,
        now: Duration,
        from: SocketAddr,
        packet: &[u8],
    ) -> Result<(), InputError> {
        let packet = &*self.sift(now, from, packet)?;
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

    pub(super) fn hello(
        &mut self,
        now: Duration,
        sender: SocketAddr,
        hello: &Hello,
    ) -> Result<(), InputError> {
        let from = identity(hello.from.clone())?;
        // The address of a datagram is easily forged.
        self.speaks(now, &from, sender, By::Anybody)?;
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

    pub(super) fn accused(
        &mut self,
        now: Duration,
        sender: SocketAddr,
        accuse: Accuse,
    ) -> Result<(), InputError> {
        let from = identity(accuse.from)?;
        // The address of a datagram is easily forged.
        self.speaks(now, &from, sender, By::Anybody)?;
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
            if self.doubts(now, sender, target.id()) {
                return Ok(());
            }
            self.outbid(now, sender, above);
        } else {
            return Ok(());
        }
        self.membership.announce(from)
    }

    /// Others remember a life of this node that it does not: go above it.
    pub(super) fn rebase(&mut self, now: Duration, above: u64) {
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
}
