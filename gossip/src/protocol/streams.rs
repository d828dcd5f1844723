//! Probes over streams, for nodes that datagrams do not reach: what memberlist calls its fallback.
//!
//! Only a suspect is asked so, at the moment at which it becomes one. Its answer voids the suspicion
//! in SWIM's own way, by a higher incarnation, so that all others hear of it as well.

use std::net::SocketAddr;
use std::time::Duration;

use foca::State;
use weft_model::id::NodeId;

use super::{Deadline, Event, Gossip, StreamRequest, encode_stream, identity};
use crate::InputError;
use crate::identity::{Identity, member_from_pb, member_to_pb};
use crate::message::{Answer, Probe, StreamBody};
use crate::paths::Blocked;
use crate::register::By;

/// Between two comparisons of tables while some node is reached by streams alone: its news, and
/// those for it, travel in no other way.
const STREAM_NEWS: Duration = Duration::from_secs(1);

impl Gossip {
    /// Asks a suspect by stream.
    pub(super) fn probe_by_stream(&mut self, now: Duration, suspect: &Identity) {
        let again = self.config.suspicion / 2;
        let asked = self.asked.get(&suspect.node);
        if asked.is_some_and(|at| now.saturating_sub(*at) < again) {
            return;
        }
        let Some(member) = self.membership.get(&suspect.node) else {
            return;
        };
        let (to, target) = (member.id().addr, member_to_pb(member));
        self.asked.insert(suspect.node.clone(), now);
        let bytes = encode_stream(StreamBody::Probe(Probe {
            from: Some(self.identity().into()),
            target: Some(target),
        }));
        self.streams.push_back(StreamRequest { to, bytes });
    }

    /// Whether a stream with the node went well since it became suspect.
    pub(super) fn streamed(&self, now: Duration, node: &NodeId) -> bool {
        let at = self.streamed.get(node);
        at.is_some_and(|at| now.saturating_sub(*at) <= self.config.suspicion)
    }

    pub(super) fn probed(
        &mut self,
        now: Duration,
        sender: SocketAddr,
        probe: Probe,
    ) -> Result<StreamBody, InputError> {
        let from = identity(probe.from)?;
        self.speaks(now, &from, sender, By::Itself)?;
        let target = probe
            .target
            .ok_or_else(|| InputError::Malformed("probe of nobody".to_owned()))
            .and_then(|m| member_from_pb(m).map_err(|e| InputError::Malformed(e.to_string())))?;
        let mut swim_incarnation = 0;
        if target.id() == self.identity() && target.state() == State::Suspect {
            // Foca goes above it.
            swim_incarnation = u32::from(target.incarnation().saturating_add(1));
            self.membership.apply(std::iter::once(target))?;
        }
        self.streamed.insert(from.node, now);
        Ok(StreamBody::Answer(Answer {
            from: Some(self.identity().into()),
            swim_incarnation,
        }))
    }

    pub(super) fn probe_answered(
        &mut self,
        now: Duration,
        sender: SocketAddr,
        answer: Answer,
    ) -> Result<(), InputError> {
        let from = identity(answer.from)?;
        self.speaks(now, &from, sender, By::Itself)?;
        let node = from.node.clone();
        if node == self.identity().node || self.asked.remove(&node).is_none() {
            // Nobody asked.
            return Ok(());
        }
        self.streamed.insert(node.clone(), now);
        let suspect = self
            .membership
            .get(&node)
            .is_some_and(|m| m.state() == State::Suspect);
        if suspect {
            self.paths.rescued(now, &node, from.addr);
            self.sync_at = self.sync_at.min(now + STREAM_NEWS);
        }
        let incarnation = u16::try_from(answer.swim_incarnation).unwrap_or(0);
        let alive = foca::Member::new(from, incarnation, State::Alive);
        self.membership.apply(std::iter::once(alive))
    }

    /// Ways that datagrams do not pass while streams do.
    pub fn blocked(&mut self, now: Duration) -> Vec<Blocked> {
        self.paths.blocked(now)
    }

    /// Whether a member that is back is believed; otherwise it stays hidden for a while.
    pub(super) fn believes(&mut self, now: Duration, node: &NodeId) -> bool {
        let hold = self.paths.returned(now, node);
        if hold.is_zero() {
            return true;
        }
        self.held.insert(node.clone(), now + hold);
        self.schedule(now + hold, Deadline::Release(node.clone()));
        false
    }

    /// The wait of a member is over, unless it began anew.
    pub(super) fn release(&mut self, now: Duration, node: NodeId) {
        if self.held.get(&node).is_some_and(|until| *until <= now) {
            self.held.remove(&node);
            let up = self.membership.get(&node);
            if up.is_some_and(|m| m.state() != State::Down) {
                self.events.push_back(Event::MemberUp(node));
            }
        }
    }
}
